"""When more starts are taken, on landscapes that need no solver."""

import numpy as np
import pytest
import scipy.stats

from inojax.methods.exact._levenberg_marquardt import Local, Minimum
from inojax.methods.exact._rounds import Ended, Limits, all_rounds

READINGS = 40
GOOD = scipy.stats.chi2.isf(0.5, READINGS)


def landscape(optima, chi2, seen=None):
    """Descends to the nearest of some optima of one parameter; NaN where nothing is wanted."""

    def descend(guesses):
        if seen is not None:
            seen.append(guesses)
        nearest = np.abs(guesses - np.asarray(optima)).argmin(axis=2)
        value = np.asarray(chi2)[nearest] / 2.0
        value = np.where(np.isnan(guesses[..., 0]), np.nan, value)
        local = Local(value, np.zeros_like(guesses), np.full((*guesses.shape, 1), 1e8))
        there = np.ones(value.shape, bool)
        x = np.asarray(optima)[nearest][..., None]
        minimum = Minimum(x, local, there, np.full(value.shape, 9), np.zeros(value.shape))
        return Ended(minimum, 2.0 * value)

    return descend


def searched(descend, first, most=128, noise_known=True):
    batch = len(first)
    limits = Limits(most, np.full(batch, READINGS), noise_known)
    seeds = np.arange(2 * batch, dtype=np.uint32).reshape(batch, 2)
    return all_rounds(descend(np.asarray(first, float)), descend, limits, seeds)


def starts(*values):
    return np.asarray(values, float)[None, :, None]


def test_a_good_fit_needs_no_more():
    seen = []
    descend = landscape([0.2, 0.8], [GOOD, 10.0 * GOOD], seen)
    rounds = searched(descend, starts(0.1, 0.9, 0.7))
    assert len(seen) == 1
    assert not rounds.more.any()


def test_a_poor_fit_is_left_only_where_a_better_one_is():
    """One hundredth of the prior leads to it."""
    seen = []
    optima = np.concatenate([np.linspace(0.0, 0.99, 60), [0.999]])
    chi2 = np.concatenate([np.linspace(20.0, 30.0, 60) * GOOD, [GOOD]])
    descend = landscape(optima, chi2, seen)
    rounds = searched(descend, starts(*np.linspace(0.1, 0.9, 8)))
    assert rounds.more.all()
    np.testing.assert_allclose(rounds.minimum.x[0, 0, 0], 0.999)
    # It stops at once, and the optima that are kept are the best of all, each once.
    assert rounds.search.starts == 8 * len(seen) <= 128
    values = rounds.minimum.local.value[0]
    assert (np.diff(values) > 0.0).all()
    np.testing.assert_allclose(rounds.starts[0, 0], 1.0 / rounds.search.starts)
    assert rounds.search.best == 1


def test_a_poor_model_is_left_when_no_other_optimum_is_to_be_expected():
    descend = landscape([0.3, 0.7], [9.0 * GOOD, 10.0 * GOOD])
    rounds = searched(descend, starts(*np.linspace(0.1, 0.9, 4)))
    # w (w + 1) / (n (n - 1)) < 0.05 for two optima from 12 starts on.
    assert rounds.search.starts == 12
    assert rounds.search.optima == 2
    np.testing.assert_allclose(rounds.starts[0, :2].sum(), 1.0)
    np.testing.assert_array_equal(np.isfinite(rounds.minimum.local.value[0]), [1, 1, 0, 0])
    single = searched(landscape([0.5], [9.0 * GOOD]), starts(*np.linspace(0.1, 0.9, 8)))
    assert not single.more.any()


@pytest.mark.parametrize(("most", "taken"), [(4, 4), (9, 8), (30, 28)])
def test_there_is_a_limit(most, taken):
    optima = np.linspace(0.0, 1.0, 400)
    descend = landscape(optima, 50.0 * GOOD + np.arange(400.0))
    rounds = searched(descend, starts(0.1, 0.4, 0.6, 0.9), most)
    assert rounds.more.all() == (taken > 4)
    if taken > 4:
        assert rounds.search.starts == taken


def test_only_observations_that_need_more_are_descended_again():
    seen = []
    both = landscape([0.25, 0.75], [GOOD, 10.0 * GOOD], seen)
    first = np.stack([[[0.1], [0.2]], [[0.8], [0.9]], [[0.1], [0.9]]])
    rounds = searched(both, first)
    np.testing.assert_array_equal(rounds.more, [False, True, False])
    assert all(np.isnan(guesses[[0, 2]]).all() for guesses in seen[1:])
    assert all(np.isfinite(guesses[1]).all() for guesses in seen[1:])
    np.testing.assert_allclose(rounds.minimum.x[:, 0, 0], 0.25)


def test_with_an_unknown_noise_level_it_goes_on_until_the_best_is_found_twice():
    optima = np.linspace(0.0, 1.0, 12)
    descend = landscape(optima, GOOD + np.arange(12.0))
    rounds = searched(descend, starts(0.2, 0.6), noise_known=False)
    assert rounds.search.best >= 2
    assert rounds.search.starts < 128
    again = searched(descend, starts(0.01, 0.02), noise_known=False)
    assert not again.more.any()
    # One start is meant to be one.
    assert not searched(descend, starts(0.4), noise_known=False).more.any()


def test_where_steps_are_used_up_more_starts_are_no_remedy():
    whole = landscape([0.2, 0.8], [9.0 * GOOD, 10.0 * GOOD])

    def descend(guesses):
        ended = whole(guesses)
        lowest = ended.minimum.x[..., 0] < 0.5
        minimum = ended.minimum._replace(converged=~lowest, left=np.where(lowest, 3.0, 0.0))
        return ended._replace(minimum=minimum)

    assert not searched(descend, starts(0.1, 0.9)).more.any()


def test_starts_that_fail_are_replaced():
    """The model can be solved for a fifth of the prior."""
    whole = landscape([0.9], [GOOD])

    def descend(guesses):
        ended = whole(guesses)
        value = np.where(guesses[..., 0] > 0.8, ended.minimum.local.value, np.nan)
        minimum = ended.minimum._replace(
            local=ended.minimum.local._replace(value=value), left=np.where(value > 0, 0.0, np.inf)
        )
        return Ended(minimum._replace(converged=np.isfinite(value)), 2.0 * value)

    rounds = searched(descend, starts(0.1, 0.2))
    assert rounds.search.arrived >= 1
    np.testing.assert_allclose(rounds.minimum.x[0, 0, 0], 0.9)
    nowhere = searched(lambda g: descend(0.5 * g), starts(0.1, 0.2), most=8)
    assert nowhere.search.arrived == 0
    assert nowhere.search.starts == 8
