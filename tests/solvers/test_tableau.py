"""Rodas5P's numbers against the theory, in the form of Hairer & Wanner II, section IV.7."""

import numpy as np
import pytest

from inojax.solvers import _rodas5p_tableau as tableau

# The coefficients are printed with 16 digits and the sums below cancel terms of size 100.
ROUNDING = 1e-10

EYE = np.eye(tableau.STAGES)
GAMMA = np.linalg.inv(EYE / tableau.GAMMA - tableau.C)  # the matrix (γ_ij)
ALPHA = tableau.A @ GAMMA  # the matrix (α_ij)
BETA = ALPHA + GAMMA
B = tableau.B @ GAMMA
ONE = np.ones(tableau.STAGES)


def test_transformation_is_consistent():
    np.testing.assert_allclose(np.diag(GAMMA), tableau.GAMMA, rtol=1e-14)  # rounding
    np.testing.assert_allclose(GAMMA @ ONE, tableau.D, atol=ROUNDING)
    np.testing.assert_allclose(ALPHA @ ONE, tableau.NODES, atol=ROUNDING)


def conditions(b):
    """Order conditions of Rosenbrock methods up to order 4 (H&W II, table IV.7.1), with orders."""
    a1, b1 = ALPHA @ ONE, BETA @ ONE
    yield 1, b @ ONE, 1
    yield 2, b @ b1, 1 / 2
    yield 3, b @ a1**2, 1 / 3
    yield 3, b @ BETA @ b1, 1 / 6
    yield 4, b @ a1**3, 1 / 4
    yield 4, b @ (a1 * (ALPHA @ b1)), 1 / 8
    yield 4, b @ BETA @ a1**2, 1 / 12
    yield 4, b @ BETA @ BETA @ b1, 1 / 24


def conditions_of_order_5(b):
    """The nine trees with five vertices, with α where a vertex branches and β where not."""
    a1, b1 = ALPHA @ ONE, BETA @ ONE
    yield b @ a1**4, 1 / 5
    yield b @ (a1**2 * (ALPHA @ b1)), 1 / 10
    yield b @ (ALPHA @ b1) ** 2, 1 / 20
    yield b @ (a1 * (ALPHA @ a1**2)), 1 / 15
    yield b @ (a1 * (ALPHA @ BETA @ b1)), 1 / 30
    yield b @ BETA @ a1**3, 1 / 20
    yield b @ BETA @ (a1 * (ALPHA @ b1)), 1 / 40
    yield b @ BETA @ BETA @ a1**2, 1 / 60
    yield b @ BETA @ BETA @ BETA @ b1, 1 / 120


@pytest.mark.parametrize(("order", "value", "expected"), list(conditions(B)))
def test_order_conditions(order, value, expected):
    assert abs(value - expected) < ROUNDING, order


@pytest.mark.parametrize(("value", "expected"), list(conditions_of_order_5(B)))
def test_order_conditions_of_order_5(value, expected):
    assert abs(value - expected) < ROUNDING


def test_embedded_method_has_order_4_and_not_5():
    embedded = (tableau.B - np.eye(tableau.STAGES)[-1]) @ GAMMA
    for order, value, expected in conditions(embedded):
        assert abs(value - expected) < ROUNDING, order
    defects = [abs(value - expected) for value, expected in conditions_of_order_5(embedded)]
    assert max(defects) > 1e-6  # else the error estimate would be blind


@pytest.mark.parametrize("theta", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_dense_output_satisfies_its_order_conditions(theta):
    k1, k2, k3 = tableau.DENSE
    weights = theta * (tableau.B + (1 - theta) * (k1 + theta * (k2 + theta * k3))) @ GAMMA
    for order, value, expected in conditions(weights):
        assert abs(value - expected * theta**order) < ROUNDING, order


def test_l_stable():
    """R(z) = 1 + z bᵀ (I - z B)⁻¹ 1 vanishes at infinity and is at most 1 on the axis."""

    def stability(z):
        return 1 + z * B @ np.linalg.solve(EYE - z * BETA, ONE.astype(complex))

    assert abs(1 - B @ np.linalg.solve(BETA, ONE)) < ROUNDING
    on_axis = [abs(stability(1j * w)) for w in np.logspace(-3, 6, 400)]
    assert max(on_axis) <= 1 + 1e-9  # rounding
    # The exponential to order 5: the defect of order 6 at z = 0.01 is about 1e-12 or less.
    assert abs(stability(0.01) - np.exp(0.01)) < 1e-12
