"""Lynx and hare: the shipped data, the oracle of the fit, and the conserved quantity."""

import numpy as np
import scipy.stats as st

from inojax.problems import lotka_volterra, lynx_hare

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
