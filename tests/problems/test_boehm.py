"""STAT5 dimers: the shipped data, and the published objective and simulation."""

import numpy as np
import pytest

from inojax.problems import boehm, boehm_data

# The collection's parameters, of which the six rates and three noise levels are estimated.
NOMINAL = {
    "Epo_degradation": 0.026982514033029,
    "k_exp_hetero": 1.00067973851508e-5,
    "k_exp_homo": 0.006170228086381,
    "k_imp_hetero": 0.0163679184468,
    "k_imp_homo": 97749.3794024716,
    "k_phos": 15766.5070195731,
    "sd_pSTAT5A_rel": 3.85261197844677,
    "sd_pSTAT5B_rel": 6.59147818673419,
    "sd_rSTAT5A_rel": 3.15271275648527,
}
# Evaluated at these parameters by independent code (SciPy) that agrees with the collection.
NEGATIVE_LOG_LIKELIHOOD, CHI2 = 138.22199774, 47.976544

# The collection's own simulation at these parameters.
SIMULATED = np.array([
    (0.000000, 0.000000, 21.289283),
    (75.154967, 40.165462, 34.829420),
    (85.216382, 54.503298, 39.009026),
    (90.669473, 66.287912, 42.233060),
    (92.142284, 70.942999, 43.500551),
    (92.501852, 72.958997, 44.094416),
    (91.962893, 73.597440, 44.453546),
    (90.625263, 72.082996, 44.301989),
    (88.785831, 69.435840, 43.885164),
    (86.522897, 66.072084, 43.298989),
    (80.801928, 58.045997, 41.805448),
    (73.577294, 49.222528, 40.083550),
    (65.105525, 40.454097, 38.323457),
    (46.462304, 25.290698, 35.246885),
    (29.514494, 14.658404, 33.184158),
    (17.145351, 8.093219, 32.066869),
])  # fmt: skip


@pytest.fixture(scope="module")
def problem():
    return boehm()


@pytest.fixture(scope="module")
def theta(problem):
    return problem.parameters.from_dict(NOMINAL)


def test_data():
    observation = boehm_data()
    assert observation.channels == ("pSTAT5A_rel", "pSTAT5B_rel", "rSTAT5A_rel")
    assert observation.mask.shape == (16, 3)
    assert observation.mask.all()
    assert observation.problem == "boehm"
    # The first and last rows of the published table.
    np.testing.assert_array_equal(observation.times[[0, 1, 15]], [0.0, 2.5, 240.0])
    np.testing.assert_array_equal(
        observation.values[[0, 15]],
        [
            [7.90107299873911, 4.59653334288927, 14.7231682180584],
            [15.4301823994994, 10.961845166698, 32.2110771608676],
        ],
    )


def test_simulation_is_the_published_one(problem, theta):
    predicted = problem.predict(theta, boehm_data())
    # Its digits are correct to 2e-6, by comparison with tighter tolerances.
    np.testing.assert_allclose(predicted, SIMULATED, atol=3e-6)


def test_objective_is_the_published_one(problem, theta):
    observation = boehm_data()
    actual = -problem.log_likelihood(theta, observation)
    np.testing.assert_allclose(actual, NEGATIVE_LOG_LIKELIHOOD, atol=1e-5)
    chi2 = np.sum(problem.whitened_residual(theta, observation) ** 2)
    np.testing.assert_allclose(chi2, CHI2, atol=1e-5)


def test_stat5_is_conserved(problem, theta):
    states = problem.model.solve(theta).states
    a, b, ab, aa, bb, naa, nab, nbb = states.T
    for single, pair, nuclear in ((a, aa, naa), (b, bb, nbb)):
        total = 1.4 * (single + 2.0 * pair + ab) + 0.45 * (2.0 * nuclear + nab)
        # A linear invariant, which the solver keeps up to rounding times the stiffness.
        np.testing.assert_allclose(total, total[0], rtol=1e-9)


def test_priors_span_ten_decades_in_either_direction(problem):
    ends = problem.parameters.from_unit(np.array([[0.0] * 9, [0.5] * 9, [1.0] * 9]))
    np.testing.assert_allclose(ends, np.repeat([[1e-5], [1.0], [1e5]], 9, axis=1), rtol=1e-9)
