"""What cannot be read: predictions below zero, and readings to which the noise leaves no chance."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ._observation import Observation
from .solvers._ensemble import automatic_atol

# A solver's error in one step may be this many times its tolerance, and errors add up.
_ERRORS = 10.0
# So many rounding errors of the largest state are none of another one.
_ROUNDINGS = 100.0


def relative_error(model: Any) -> Any:
    """Error of a solution as a share of its size, or 0 where the model states none.

    Args:
        model: The forward model.

    Returns:
        A number.
    """
    return _ERRORS * getattr(model, "rtol", 0.0)


def absolute_errors(model: Any, states: Float[Array | np.ndarray, "*batch time state"]) -> Any:
    """Error of each state however small it is.

    Args:
        model: The forward model.
        states: Its states, for shape and precision.

    Returns:
        Numbers with as many axes as the states, one along the last for each state.
    """
    atol = getattr(model, "atol", None)
    xp: Any = jnp if isinstance(states, jax.Array) else np
    if atol is None:
        # Tolerances follow each state's size; and rounding errors of one are those of another.
        sizes = xp.where(xp.isfinite(states), xp.abs(states), 0.0)
        own = xp.max(sizes, axis=-2, keepdims=True)
        errors = automatic_atol(relative_error(model), own)
        eps = np.finfo(np.float64).eps
        return errors + _ROUNDINGS * eps * xp.max(sizes, axis=(-2, -1), keepdims=True)
    errors = _ERRORS * xp.broadcast_to(xp.asarray(atol, states.dtype), states.shape[-1:])
    return xp.reshape(errors, (1,) * (states.ndim - 1) + errors.shape)


def check_readable(
    problem: Any, observation: Observation, clean: Float[Any, "reading channel"]
) -> None:
    """Refuse a simulation where the noise has no reading for what the model predicts.

    Args:
        problem: The inverse problem.
        observation: The simulated readings.
        clean: What the model predicts for each.

    Raises:
        ValueError: Naming the first reading that cannot be taken, and the remedy.
    """
    noise, mask = type(problem.noise).__name__, np.asarray(observation.mask)
    if not mask.any():
        raise ValueError(
            "`theta`: the model predicts zero, or less than its solver knows, at all times that "
            f"are read, where `{noise}` noise has no reading. Read it at other times, lower `atol` "
            "of the model, or use noise that allows it, such as `Gaussian`."
        )
    for row, column in np.argwhere(mask & (np.asarray(clean) < 0.0)):
        raise ValueError(
            f"`theta`: the model predicts {clean[row, column]:.6g} for channel "
            f"{observation.channels[column]!r} at {problem.model.coordinate} "
            f"{observation.times[row]:.6g}, but `{noise}` noise has no readings of what is "
            "negative. Mend the model, or use noise that allows it, such as `Gaussian`."
        )


def name_impossible(
    problem: Any,
    observation: Observation,
    clean: Float[np.ndarray, "reading channel"],
    wrong: Bool[np.ndarray, "reading channel"],
) -> str:
    """Say of readings whose density is zero which one is to blame.

    Args:
        problem: The inverse problem.
        observation: The readings.
        clean: What the model predicts for each.
        wrong: Which have a density of zero by themselves.

    Returns:
        Sentences.
    """
    noise = f"under the `{type(problem.noise).__name__}` noise of problem {problem.name!r}"
    if not wrong.any():
        return f"These readings are impossible together {noise}."
    row, column = np.argwhere(wrong)[0]
    several = f", the first of {wrong.sum()}" if wrong.sum() > 1 else ""
    return (
        f"These readings are impossible {noise}: row {row}, channel "
        f"{observation.channels[column]!r} at {problem.model.coordinate} "
        f"{float(observation.times[row]):.6g} is {float(observation.values[row, column]):.6g}, but "
        f"the model predicts {clean[row, column]:.6g}{several}. If it predicts that whatever its "
        "parameters, leave the reading empty (NaN), or use noise or a model that allows it."
    )
