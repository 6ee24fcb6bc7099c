"""Lynx and hare: the shipped data, the oracle of the fit, and the conserved quantity."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats as st

from inojax.problems import lotka_volterra, lotka_volterra_log_normal, lynx_hare

# Least squares in counts, computed independently with SciPy (DOP853 and trust region).
BEST = {
    "alpha": 0.48120,
    "beta": 0.024832,
    "gamma": 0.92602,
    "delta": 0.027533,
    "hare0": 34.9143,
    "lynx0": 3.8619,
}
SUM_OF_SQUARES = 594.7446

# With log-normal noise of two unknown levels, computed independently in the same way. The second
# is the maximum of the posterior density with respect to the physical values.
MOST_LIKELY = np.array([0.54001, 0.027156, 0.79660, 0.023702, 34.599, 5.8437, 0.2184, 0.2201])
MOST_PROBABLE = np.array([0.5417, 0.02725, 0.7969, 0.02384, 34.14, 5.845, 0.2160, 0.2178])
OBJECTIVE = -42.74056  # Σ log σ + z²/2 at the first


def test_data():
    observation = lynx_hare()
    np.testing.assert_array_equal(observation.times, np.arange(21.0))
    assert observation.channels == ("hare", "lynx")
    assert observation.mask.all()
    # 1900, 1903 and 1920 in the published table, and its column sums.
    np.testing.assert_array_equal(
        observation.values[[0, 3, 20]], [[30, 4], [77.4, 35.2], [24.7, 8.6]]
    )
    np.testing.assert_allclose(observation.values.sum(axis=0), [715.7, 423.5], rtol=1e-12)


def test_least_squares_fit_of_the_data():
    problem, observation = lotka_volterra(noise=1.0), lynx_hare()
    theta = problem.parameters.from_dict(BEST)
    residual = problem.whitened_residual(theta, observation)
    # The oracle prints five digits of the parameters, which moves the minimum by 1.4e-6.
    np.testing.assert_allclose(np.sum(residual**2), SUM_OF_SQUARES, rtol=1e-5)


def test_orbits_are_closed():
    """V = δ h - γ log h + β l - α log l is constant along solutions."""
    problem = lotka_volterra()
    theta = problem.parameters.from_dict(BEST)
    alpha, beta, gamma, delta = theta[:4]
    hare, lynx = np.asarray(problem.model.solve(theta).states).T
    energy = delta * hare - gamma * np.log(hare) + beta * lynx - alpha * np.log(lynx)
    # Twenty years of steps at a relative tolerance of 1e-6.
    np.testing.assert_allclose(energy, energy[0], rtol=1e-5)


def test_priors_are_those_of_the_case_study():
    parameters = lotka_volterra().parameters
    z = np.linspace(0.05, 0.95, 7)
    theta = parameters.from_unit(np.repeat(z[:, None], 6, axis=1))
    rates = st.truncnorm(-2.0, np.inf, loc=1.0, scale=0.5).ppf(z)
    encounters = st.truncnorm(-1.0, np.inf, loc=0.05, scale=0.05).ppf(z)
    pelts = st.lognorm(1.0, scale=10.0).ppf(z)
    expected = [rates, encounters, rates, encounters, pelts, pelts]
    # Rounding of the inverse normal CDF.
    np.testing.assert_allclose(theta, np.stack(expected, axis=1), rtol=1e-12)


# --- Log-normal noise of unknown levels ------------------------------------------------------


@pytest.fixture(scope="module")
def log_normal():
    problem = lotka_volterra_log_normal()
    return dataclasses.replace(problem, model=problem.model.replace(rtol=1e-9, max_steps=100_000))


def test_the_unknown_levels_have_the_priors_of_the_case_study():
    parameters = lotka_volterra_log_normal().parameters
    assert parameters.names == (*BEST, "sigma_hare", "sigma_lynx")
    z = np.repeat(np.linspace(0.05, 0.95, 7)[:, None], 8, axis=1)
    theta = parameters.from_unit(z)
    np.testing.assert_array_equal(theta[:, :6], lotka_volterra().parameters.from_unit(z[:, :6]))
    for level in theta[:, 6:].T:
        # Rounding of the inverse normal CDF.
        np.testing.assert_allclose(
            level, st.lognorm(1.0, scale=np.exp(-1.0)).ppf(z[:, 0]), rtol=1e-12
        )


def test_likelihood_of_the_data(log_normal):
    observation = lynx_hare()
    constant = np.log(observation.values).sum() + 21.0 * np.log(2.0 * np.pi)
    actual = -log_normal.log_likelihood(MOST_LIKELY, observation) - constant
    # Seven digits given; four digits of the levels move the minimum by 1e-6.
    np.testing.assert_allclose(actual, OBJECTIVE, atol=1e-5)


@pytest.mark.parametrize("what", ["log_likelihood", "log_posterior"])
def test_the_densities_have_their_maxima_where_they_should(what, log_normal):
    """Found by SciPy in logarithms of the parameters, from 20 % away."""
    expected = MOST_LIKELY if what == "log_likelihood" else MOST_PROBABLE
    observation = lynx_hare()

    def objective(x):
        return -getattr(log_normal, what)(jnp.exp(x), observation)

    with jax.enable_x64(True):
        compiled = jax.jit(jax.value_and_grad(objective))
        start = np.log(expected) + 0.2 * np.cos(np.arange(8))
        found = scipy.optimize.minimize(
            lambda x: tuple(np.asarray(v) for v in compiled(x)), start, jac=True, method="BFGS"
        )
    # Half a unit of the last digit that the oracle prints.
    digits = [5, 6, 5, 6, 3, 4, 4, 4] if what == "log_likelihood" else [4, 5, 4, 5, 2, 3, 4, 4]
    assert (np.abs(np.exp(found.x) - expected) < 0.51 * 10.0 ** -np.array(digits)).all()
