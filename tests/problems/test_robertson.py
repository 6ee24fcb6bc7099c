"""Robertson's reaction against its published solution."""

import numpy as np

from inojax.problems import robertson
from inojax.problems._robertson import RATES


def test_published_solution_at_1e11():
    model = robertson().model.replace(
        times=np.array([1e11]), rtol=1e-9, atol=1e-10 * np.array([2e-8, 8e-14, 1.0])
    )
    states = np.asarray(model.solve(np.array(RATES)).states)[-1]
    # Test Set for IVP Solvers; the bound that this problem is held to.
    expected = [0.2083340149701255e-7, 0.8333360770334713e-13, 0.9999999791665050]
    np.testing.assert_allclose(states, expected, rtol=1e-5)


def test_mass_is_conserved(key):
    problem = robertson()
    states = problem.model.solve_ensemble(problem.parameters.design(64, key=key)).states
    # A Rosenbrock method keeps linear invariants to rounding.
    np.testing.assert_allclose(states.sum(axis=-1), 1.0, atol=1e-10)


def test_prior_spans_four_decades_around_nominal():
    parameters = robertson().parameters
    for z, factor in ((0.0, 1e-2), (0.5, 1.0), (1.0, 1e2)):
        # Logarithms and their inverse cost a few rounding errors of numbers up to 22.
        np.testing.assert_allclose(
            parameters.from_unit(np.full(3, z)), factor * np.array(RATES), rtol=1e-13
        )
