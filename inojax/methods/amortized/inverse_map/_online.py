"""New simulations inside the training loop."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ...._inverse_problem import InverseProblem
from ...._parameters import Design
from ....models._ode import ODEModel
from ....solvers import SolveStatus
from ....solvers._explicit import solve_explicit

# Step number, unit coordinates and trajectories of the simulations that batches are drawn from.
Pool = tuple[Int[Array, ""], Float[Array, "n parameter"], Float[Array, "n time state"]]
Simulator = Callable[[Pool, Key[Array, ""]], Pool]

_CHECKED, _MOST_SUBSTEPS = 64, 64
# Root mean square error of readings, as a share of their standard deviation over the prior.
_TOLERANCE = 2e-3
# In so large a share of the sample; spikes that nearly fail to come are hard for any solver.
_ENOUGH = 0.95
_CONSTANT = 1e-6


def online_simulator(problem: InverseProblem, count: int) -> Simulator:
    """A function that replaces the oldest simulations of a pool by new ones.

    They are solved in single precision by explicit steps, as short as agreement with the real
    solver demands on a sample of the prior.

    Args:
        problem: The inverse problem.
        count: New simulations in each call.

    Returns:
        The function; pure.

    Raises:
        TypeError: If the model is not an `ODEModel`.
        ValueError: If the model needs shorter steps than pay, or the real solver fails often.
    """
    if not isinstance(problem.model, ODEModel):
        raise TypeError(
            "`online` simulations need an `ODEModel`, which explicit steps can solve; got "
            f"{type(problem.model).__name__}. Use `online=0`."
        )
    substeps = _substeps(problem)

    def simulate(pool: Pool, key: Key[Array, ""]) -> Pool:
        number, z, states = pool
        fresh = jr.uniform(key, (count, z.shape[1]))
        new = _solve(problem, fresh, substeps=substeps)
        # Where explicit steps fail, what was there stays.
        row = (number * count + jnp.arange(count)) % z.shape[0]
        good = jnp.all(jnp.isfinite(new), axis=(1, 2))
        z = z.at[row].set(jnp.where(good[:, None], fresh, z[row]))
        states = states.at[row].set(jnp.where(good[:, None, None], new, states[row]))
        return number + 1, z, states

    return simulate


def _solve(problem: InverseProblem, z: Array, *, substeps: int) -> Float[Array, "batch time state"]:
    thetas, model = jnp.asarray(problem.parameters.from_unit(z)), problem.model
    assert isinstance(model, ODEModel)
    start = model.initial_time
    return solve_explicit(
        lambda t, y, theta: model.slope(start + t, y, theta),
        jax.vmap(model.start)(thetas),
        thetas,
        # From the start on, since steps far from zero would vanish in single precision.
        problem.model.times - start,
        initial_time=0.0,
        substeps=substeps,
    )


def _substeps(problem: InverseProblem) -> int:
    """How many explicit steps between output times agree with the real solver."""
    thetas = problem.parameters.design(_CHECKED, kind=Design.SOBOL, key=jr.key(0))
    solution = problem.model.solve_ensemble(thetas)
    solved = np.asarray(solution.status) == SolveStatus.SUCCESS
    if np.mean(solved) < _ENOUGH:
        raise ValueError(
            f"`online` simulations cannot be checked: the solver of {problem.name!r} fails for "
            f"{np.sum(~solved)} of {_CHECKED} draws of the prior. Raise the model's `max_steps`, "
            "or narrow the prior."
        )
    exact = np.asarray(solution.states)[solved]
    unit = np.asarray(problem.parameters.to_unit(thetas), np.float32)[solved]
    peak = np.abs(exact).max(axis=(0, 1))
    # A state that is constant but for rounding is compared in units of its size.
    scale = np.maximum(exact.std(axis=(0, 1)), _CONSTANT * peak)
    scale = np.where(scale > 0.0, scale, 1.0)
    substeps = 1
    while substeps <= _MOST_SUBSTEPS:
        with jax.enable_x64(False):
            solve = jax.jit(partial(_solve, problem, substeps=substeps))
            rough = np.asarray(solve(jnp.asarray(unit)))
        with np.errstate(over="ignore", invalid="ignore"):  # steps that are too long explode
            error = np.sqrt(np.mean(np.square((rough - exact) / scale[None, None]), axis=(1, 2)))
        if np.mean(error < _TOLERANCE) >= _ENOUGH:
            return substeps
        substeps *= 2
    raise ValueError(
        f"`online` simulations take explicit steps, and the model of {problem.name!r} needs more "
        f"than {_MOST_SUBSTEPS} between two output times: it is stiff. Use `online=0` and a larger "
        "data set."
    )
