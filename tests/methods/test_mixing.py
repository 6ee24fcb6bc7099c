"""Diagnostics of chains whose quality is known."""

import numpy as np
import pytest
from scipy import stats

from inojax.methods.exact._diagnostics import mixing

CHAINS, DRAWS = 4, 1000


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def one(draws):
    """The diagnostics of a single case with one parameter."""
    found, mixed = mixing(draws[None, :, :, None])
    return found.r_hat.item(), found.effective_samples.item(), found.tail_samples.item(), mixed[0]


def test_independent_draws_are_worth_their_number(rng):
    r_hat, bulk, tail, mixed = one(rng.normal(size=(CHAINS, DRAWS)))
    assert r_hat < 1.005
    # Estimated from autocorrelations of 4,000 draws: 5 to 10 %.
    np.testing.assert_allclose([bulk, tail], CHAINS * DRAWS, rtol=0.2)
    assert mixed


def test_draws_that_follow_each_other_are_worth_less(rng):
    # Autoregression of correlation c: the mean of n draws is worth n (1 - c) / (1 + c).
    correlation = 0.8
    steps = np.sqrt(1.0 - correlation**2) * rng.normal(size=(CHAINS, 4 * DRAWS))
    chains = np.empty_like(steps)
    chains[:, 0] = rng.normal(size=CHAINS)
    for now in range(1, steps.shape[1]):
        chains[:, now] = correlation * chains[:, now - 1] + steps[:, now]
    _, bulk, _, _ = one(chains)
    expected = chains.size * (1.0 - correlation) / (1.0 + correlation)
    np.testing.assert_allclose(bulk, expected, rtol=0.15)


def test_chains_of_different_spread_have_not_mixed(rng):
    # The same mean: plain moments find nothing.
    chains = rng.normal(size=(CHAINS, DRAWS)) * np.array([1.0, 1.0, 1.0, 3.0])[:, None]
    r_hat, _, _, mixed = one(chains)
    assert r_hat > 1.05
    assert not mixed


def test_a_chain_apart_is_seen_where_there_is_no_variance(rng):
    # Cauchy draws have no moments; shifted by ten quartiles, ranks still tell.
    chains = rng.standard_cauchy(size=(CHAINS, DRAWS))
    assert one(chains)[0] < 1.01
    chains[0] += 10.0
    assert one(chains)[0] > 1.2


def test_ranks_do_not_depend_on_the_scale_of_a_parameter(rng):
    chains = rng.normal(size=(CHAINS, DRAWS))
    np.testing.assert_allclose(one(chains)[:3], one(np.exp(5.0 * chains))[:3], rtol=0.02)


def test_chains_that_avoid_a_tail_are_worth_less_there(rng):
    # Each chain sits in the upper tail for long: the middle is sampled well, the tail is not.
    chains = rng.normal(size=(CHAINS, DRAWS))
    low = stats.norm.ppf(0.95)
    chains = np.where(chains > low, -chains, chains)
    for row in range(CHAINS):
        begin = 200 * row
        chains[row, begin : begin + 50] = low + rng.exponential(size=50)
    _, bulk, tail, _ = one(chains)
    assert tail < 0.5 * bulk


def test_chains_that_stand_still_have_not_mixed():
    r_hat, _, _, mixed = one(np.tile(np.arange(CHAINS, dtype=float)[:, None], (1, DRAWS)))
    assert not r_hat < 1.01
    assert not mixed


def test_numbers_are_those_of_arviz(rng):
    from arviz_stats.base import array_stats

    chains = np.cumsum(rng.normal(size=(3, CHAINS, DRAWS, 2)), axis=2)
    chains = 0.05 * chains + rng.normal(size=chains.shape)
    found, _ = mixing(chains)
    for case in range(len(chains)):
        axes = {"chain_axis": 0, "draw_axis": 1}
        r_hat = array_stats.rhat(chains[case], method="rank", **axes)
        np.testing.assert_allclose(found.r_hat[case], r_hat, rtol=1e-12)
        bulk = array_stats.ess(chains[case], method="bulk", **axes)
        tail = array_stats.ess(chains[case], method="tail", prob=(0.05, 0.95), **axes)
        # Sums of autocorrelations are cut off by a slightly different rule.
        np.testing.assert_allclose(found.effective_samples[case], bulk, rtol=0.03)
        np.testing.assert_allclose(found.tail_samples[case], tail, rtol=0.03)
