"""The problems on partial differential equations: derivatives, readings, refusals."""

import jax.random as jr
import numpy as np
import pytest

import inojax as ij
from inojax.problems import (
    fisher_kpp,
    heat,
    nonlinear_ode,
    particles,
    scalar_poisson,
    variable_poisson,
)
from tests.refuses import refuses

# Coarse where the number of nodes costs something.
PROBLEMS = {
    "scalar_poisson": scalar_poisson,
    "nonlinear_ode": nonlinear_ode,
    "fisher_kpp": fisher_kpp,
    "particles": particles,
    "variable_poisson": lambda: variable_poisson(nodes=11),
    "heat": lambda: heat(nodes=11),
}
TABLE = pytest.mark.parametrize("build", PROBLEMS.values(), ids=PROBLEMS)
KEY = jr.key(8)


def beside(problem):
    """A point near the middle of the prior, but not at it."""
    unit = np.linspace(0.4, 0.6, problem.parameters.size)[None]
    return np.asarray(problem.parameters.from_unit(unit), np.float64)


@TABLE
def test_derivatives_are_finite_differences(build):
    problem = build()
    theta = beside(problem)
    solution, tangents = problem.model.sensitivities(theta)
    assert (np.asarray(solution.status) == 0).all()
    # The method of lines solves to 1e-8.
    step = 1e-4 * np.maximum(np.abs(theta[0]), 0.1)
    shifts = np.diag(step)
    up, down = (problem.model.solve_ensemble(theta + s * shifts).states for s in (1.0, -1.0))
    slopes = (np.asarray(up) - np.asarray(down)) / (2.0 * step[:, None, None])
    expected = np.moveaxis(slopes, 0, -1)
    np.testing.assert_allclose(tangents[0], expected, atol=2e-4 * np.abs(expected).max())


@TABLE
def test_readings_are_those_of_the_solution(build, tmp_path):
    problem = build()
    theta = beside(problem)[0]
    observation = problem.simulate(theta, key=KEY)
    states = np.asarray(problem.model.solve(theta, observation.times).states)
    away = np.asarray(problem.noise.whiten(observation.values, states, theta))
    # As many standard normal numbers as there are readings, five standard errors.
    assert abs(np.square(away).mean() - 1.0) < 5.0 * (2.0 / away.size) ** 0.5
    observation.to_csv(tmp_path / "readings.csv")
    back = ij.Observation.from_csv(tmp_path / "readings.csv", problem=problem)
    np.testing.assert_allclose(back.values, observation.values, rtol=1e-6)
    np.testing.assert_allclose(back.times, observation.times, rtol=1e-6)


@pytest.mark.parametrize(
    ("build", "settings", "message"),
    [
        (scalar_poisson, {"readings": 0}, "`readings` must be a whole number, at least 3"),
        (fisher_kpp, {"readings": 1}, "`readings` must be a whole number, at least 2; got 1"),
        (variable_poisson, {"readings": 1}, "`readings` must be a whole number, at least 3"),
        (variable_poisson, {"penalty": 0.0}, "`penalty` must be positive"),
        (heat, {"nodes": 2}, "`nodes` .*must"),
        (particles, {"snapshots": 0}, "`snapshots` must be a whole number, at least 1"),
        (particles, {"cells": 2.0}, "`cells` must be a whole number"),
        (variable_poisson, {"nodes": 20.5}, "`nodes` must be a whole number"),
        (scalar_poisson, {"noise": -1.0}, "`noise` must be a finite number, zero or more"),
        (nonlinear_ode, {"noise": np.nan}, "`noise` must be a finite number, zero or more"),
        (fisher_kpp, {"noise": np.inf}, "`noise` must be a finite number, zero or more"),
        (heat, {"noise": -1.0}, "`noise` must be positive"),
    ],
)
def test_bad_arguments_are_refused(build, settings, message):
    with refuses(ValueError, message):
        build(**settings)
