"""The rivals of the solver benchmark: the same equations in NumPy, for SciPy and SUNDIALS.

Knows nothing of JAX, so that worker processes start quickly. Right-hand sides and Jacobians are
written for speed in NumPy: small matrix products, no loop over reactions.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Vector = np.ndarray


class Equation(NamedTuple):
    """An initial value problem: dy/dt = f(t, y, k) and df/dy."""

    field: Callable[[float, Vector, Vector], Vector]
    jacobian: Callable[[float, Vector, Vector], np.ndarray]


class Task(NamedTuple):
    """One trajectory to solve.

    Attributes:
        equation: Name of the equation.
        method: `LSODA`, `BDF`, `Radau` or `CVODE`.
        k: Parameters.
        start: Initial state at `span[0]`.
        span: Start and end.
        times: Output times.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
    """

    equation: str
    method: str
    k: Vector
    start: Vector
    span: tuple[float, float]
    times: Vector
    rtol: float
    atol: float | Vector


def _mass_action(species: int, reactions: list[tuple[tuple[int, ...], dict[int, int]]]) -> Equation:
    """Rates k y_a or k y_a y_b; `reactions` holds reactants and net changes of each."""
    # A species of concentration one stands for the second reactant where there is none.
    first = np.array([reactants[0] for reactants, _ in reactions])
    second = np.array([(*reactants, species)[1] for reactants, _ in reactions])
    change = np.zeros((species, len(reactions)))
    for number, (_, net) in enumerate(reactions):
        for which, amount in net.items():
            change[which, number] = amount
    number = np.arange(len(reactions))

    def field(t: float, y: Vector, k: Vector) -> Vector:
        full = np.append(y, 1.0)
        return change @ (k * full[first] * full[second])

    def jacobian(t: float, y: Vector, k: Vector) -> np.ndarray:
        full = np.append(y, 1.0)
        rates = np.zeros((len(reactions), species + 1))
        rates[number, first] = k * full[second]
        rates[number, second] += k * full[first]
        return change @ rates[:, :species]

    return Equation(field, jacobian)


# Species and net changes as in the catalog's `pollu`, counted from zero.
_POLLU = _mass_action(
    20,
    [
        ((0,), {0: -1, 1: 1, 2: 1}),
        ((1, 3), {1: -1, 3: -1, 0: 1}),
        ((4, 1), {4: -1, 1: -1, 0: 1, 5: 1}),
        ((6,), {6: -1, 4: 2, 7: 1}),
        ((6,), {6: -1, 7: 1}),
        ((6, 5), {6: -1, 5: -1, 4: 1, 7: 1}),
        ((8,), {8: -1, 9: 1, 4: 1, 7: 1}),
        ((8, 5), {8: -1, 5: -1, 10: 1}),
        ((10, 1), {10: -1, 1: -1, 0: 1, 9: 1, 11: 1}),
        ((10, 0), {10: -1, 0: -1, 12: 1}),
        ((12,), {12: -1, 10: 1, 0: 1}),
        ((9, 1), {9: -1, 1: -1, 13: 1, 0: 1}),
        ((13,), {13: -1, 6: 1, 4: 1}),
        ((0, 5), {0: -1, 5: -1, 14: 1}),
        ((2,), {2: -1, 3: 1}),
        ((3,), {3: -1, 15: 1}),
        ((3,), {3: -1, 2: 1}),
        ((15,), {15: -1, 5: 2}),
        ((15,), {15: -1, 2: 1}),
        ((16, 5), {16: -1, 5: -1, 17: 1, 4: 1}),
        ((18,), {18: -1, 1: 1}),
        ((18,), {18: -1, 0: 1, 2: 1}),
        ((0, 3), {0: -1, 3: -1, 18: 1}),
        ((18, 0), {18: -1, 0: -1, 19: 1}),
        ((19,), {19: -1, 18: 1, 0: 1}),
    ],
)
_ROBERTSON = _mass_action(
    3,
    [
        ((0,), {0: -1, 1: 1}),
        ((1, 1), {1: -1, 2: 1}),
        ((1, 2), {1: -1, 0: 1}),
    ],
)


def _fitzhugh_nagumo(t: float, y: Vector, k: Vector) -> Vector:
    u, v = y
    return np.array([3.0 * (u - u**3 / 3.0 + v - 0.4), -(u - k[0] + k[1] * v) / 3.0])


def _fitzhugh_nagumo_jacobian(t: float, y: Vector, k: Vector) -> np.ndarray:
    return np.array([[3.0 * (1.0 - y[0] ** 2), 3.0], [-1.0 / 3.0, -k[1] / 3.0]])


def _grn(t: float, x: Vector, k: Vector) -> Vector:
    square = x * x
    active = square / (1.0 + square)
    return 1.0 + k[:20] * active + np.roll(k[20:] * active, 1) - x


_GENE = np.arange(20)


def _grn_jacobian(t: float, x: Vector, k: Vector) -> np.ndarray:
    slope = 2.0 * x / (1.0 + x * x) ** 2
    jacobian = np.zeros((20, 20))
    jacobian[_GENE, _GENE] = k[:20] * slope - 1.0
    jacobian[(_GENE + 1) % 20, _GENE] += k[20:] * slope
    return jacobian


EQUATIONS = {
    "pollu": _POLLU,
    "robertson": _ROBERTSON,
    "fitzhugh_nagumo": Equation(_fitzhugh_nagumo, _fitzhugh_nagumo_jacobian),
    "grn": Equation(_grn, _grn_jacobian),
}


def solve(task: Task) -> np.ndarray:
    """Solve one trajectory; NaN where the solver gave up.

    Args:
        task: What to solve.

    Returns:
        States at the output times.
    """
    equation = EQUATIONS[task.equation]
    solver = _cvode if task.method == "CVODE" else _scipy
    return solver(equation, task)


def _scipy(equation: Equation, task: Task) -> np.ndarray:
    from scipy.integrate import solve_ivp

    solution = solve_ivp(
        equation.field, task.span, task.start, method=task.method, t_eval=task.times,
        args=(task.k,), jac=equation.jacobian, rtol=task.rtol, atol=task.atol,
    )  # fmt: skip
    states = np.full((len(task.times), len(task.start)), np.nan)
    found = np.reshape(solution.y, (len(task.start), -1))  # an empty list after an early failure
    states[: found.shape[1]] = found.T
    return states


def _cvode(equation: Equation, task: Task) -> np.ndarray:
    from sksundae.cvode import CVODE  # pyright: ignore[reportMissingImports] - optional

    def field(t: float, y: Vector, slope: Vector) -> None:
        slope[:] = equation.field(t, y, task.k)

    def jacobian(t: float, y: Vector, slope: Vector, matrix: np.ndarray) -> None:
        matrix[:] = equation.jacobian(t, y, task.k)

    solver = CVODE(
        field, jacfn=jacobian, rtol=task.rtol, atol=task.atol, method="BDF", max_num_steps=100_000
    )
    begins = task.times[0] > task.span[0]
    grid = np.append(task.span[0], task.times) if begins else task.times
    states = np.full((len(grid), len(task.start)), np.nan)
    found = np.asarray(solver.solve(grid, task.start).y)
    states[: len(found)] = found
    return states[1:] if begins else states
