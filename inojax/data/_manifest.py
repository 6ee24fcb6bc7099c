"""What a dataset was made from, written so that two runs can be compared.

A manifest is a JSON object. It identifies a problem by what it computes, not by how its
source is spelled: the vector field, the initial state and the priors are evaluated at fixed
places, and the values are kept. Comparing values with a tolerance, rather than hashes of
them, survives a refactoring that reorders a sum and a compiler that rounds its last bit
another way. Noise and sensors are absent on purpose: trajectories do not depend on them.
"""

import hashlib
import math
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Key

from .._inverse_problem import InverseProblem
from .._parameters import Design
from .._x64 import in_x64
from ..models import ODEModel, PDEModel
from ..solvers import Rodas5P

FORMAT = "inojax dataset"
VERSION = 2

_PROBES = 3
_QUANTILES = (0.02, 0.25, 0.5, 0.75, 0.98)
# Far above what reordering float64 arithmetic changes, far below any change of a constant.
_RELATIVE = 1e-9
# A component that is a small difference of large terms carries their rounding error.
_CANCELLATION = 1e-14

Manifest = dict[str, Any]


def manifest_of(
    problem: InverseProblem,
    thetas: Float[np.ndarray, "n parameter"],
    *,
    chunk_size: int,
    design: Design,
    key: Key[Array, ""],
) -> Manifest:
    """Describe a simulation run completely, without the simulations.

    Args:
        problem: What is simulated.
        thetas: The design, physical units.
        chunk_size: Simulations that are stored together.
        design: How the parameters are spread.
        key: What the design was drawn from; only a digest of it is kept.

    Returns:
        A JSON object that is the same for the same call, on any day.
    """
    return {
        "format": FORMAT,
        "version": VERSION,
        "n": len(thetas),
        "chunk_size": chunk_size,
        "design": design.name,
        "key": key_digest(key),
        "thetas": array_digest(thetas),
        "solver": _describe_solver(problem.model),
        **describe_problem(problem),
    }


def _describe_solver(model: ODEModel | PDEModel) -> Manifest:
    if isinstance(model, PDEModel):
        return {"name": str(model.solver), "retry": str(model.tightened().solver)}
    tightened = model.tightened()
    return {
        "name": Rodas5P.__name__,
        "rtol": model.rtol,
        "atol": _listed(model.atol),
        "max_steps": model.max_steps,
        # How a failed solve is tried once more decides stored content, too.
        "retry": {
            "rtol": tightened.rtol / model.rtol,
            "max_steps": tightened.max_steps / model.max_steps,
        },
    }


def describe_problem(problem: InverseProblem) -> Manifest:
    """Describe what a problem computes, apart from noise, sensors and solver settings.

    Args:
        problem: The inverse problem.

    Returns:
        A JSON object; compare two with `differences`.
    """
    return {
        "problem": problem.name,
        "parameters": list(problem.parameters.names),
        "units": list(problem.parameters.units),
        "states": list(problem.model.states),
        "times": _listed(problem.model.times),
        **_probe(problem),
    }


def key_digest(key: Key[Array, ""]) -> str:
    """A short digest of a PRNG key."""
    digest = hashlib.sha256(str(jr.key_impl(key)).encode())
    digest.update(np.asarray(jr.key_data(key)).astype("<u4").tobytes())
    return digest.hexdigest()[:16]


def array_digest(values: np.ndarray) -> str:
    """SHA-256 of an array's float64 content."""
    return hashlib.sha256(np.ascontiguousarray(values, "<f8").tobytes()).hexdigest()


def differences(stored: Manifest, wanted: Manifest) -> list[str]:
    """Name what differs between two manifests, in words, most telling first.

    Args:
        stored: The manifest found.
        wanted: The manifest of the call at hand.

    Returns:
        One phrase for each difference; empty where the runs are the same.
    """
    return [
        phrase
        for name, label in _LABELS.items()
        if (phrase := _difference(label, stored.get(name), wanted.get(name)))
    ]


# Not `thetas`: they follow from the rest. Where they alone differ, the sampler has another
# version, and the stored design is the one to finish.
_LABELS = {
    "version": "format version",
    "problem": "problem name",
    "n": "`n`",
    "chunk_size": "`chunk_size` (after balancing)",
    "design": "`design`",
    "key": "`key`",
    "parameters": "parameter names",
    "units": "parameter units",
    "priors": "priors",
    "states": "state names",
    "times": "output times",
    "initial_time": "initial time",
    "initial_state": "initial state",
    "vector_field": "vector field",
    "coupling": "total variation of unknown functions",
    "solver": "solver settings",
}


def _difference(label: str, stored: Any, wanted: Any) -> str:
    if _same(stored, wanted):
        return ""
    if isinstance(stored, dict) and isinstance(wanted, dict):
        names = [name for name in wanted if not _same(stored.get(name), wanted[name])]
        changes = (f"{name} {stored.get(name)} instead of {wanted[name]}" for name in names)
        return f"{label} ({', '.join(changes)})"
    short = all(len(repr(value)) <= 60 for value in (stored, wanted))
    return f"{label} ({stored!r} instead of {wanted!r})" if short else label


def _same(stored: Any, wanted: Any) -> bool:
    """Equality, with room for rounding between floats; rows of numbers share their scale."""
    if isinstance(wanted, dict) and isinstance(stored, dict):
        return stored.keys() == wanted.keys() and all(_same(stored[k], wanted[k]) for k in wanted)
    if isinstance(wanted, list) and isinstance(stored, list):
        if len(stored) != len(wanted):
            return False
        if not all(isinstance(value, float) for value in [*stored, *wanted]):
            return all(map(_same, stored, wanted))
        scale = max((abs(value) for value in wanted if math.isfinite(value)), default=0.0)
        return all(_close(a, b, scale) for a, b in zip(stored, wanted, strict=True))
    if isinstance(wanted, float) and isinstance(stored, float):
        return _close(stored, wanted, 0.0)
    return stored == wanted


def _close(stored: float, wanted: float, scale: float) -> bool:
    return math.isclose(stored, wanted, rel_tol=_RELATIVE, abs_tol=_CANCELLATION * scale)


def _listed(values: Any) -> Any:
    """Nested lists of floats; what is not finite becomes a word, which strict JSON allows."""
    array = np.asarray(values, np.float64)
    if array.ndim:
        return [_listed(value) for value in array]
    return float(array) if np.isfinite(array) else str(float(array))


@in_x64
def _probe(problem: InverseProblem) -> Manifest:
    """Values of the problem's functions at fixed pseudo-random places."""
    model, space = problem.model, problem.parameters
    # NumPy promises that the legacy generator's stream never changes.
    random = np.random.RandomState(20260101)
    unit = 0.1 + 0.8 * random.random_sample((_PROBES, space.size))
    shift = random.random_sample((_PROBES, len(model.states)))
    fraction = random.random_sample(_PROBES)
    thetas = space.from_unit(jnp.asarray(unit))
    probes = thetas, jnp.asarray(shift), jnp.asarray(fraction)
    evaluate = _evaluate_pde if isinstance(model, PDEModel) else _evaluate
    starts, slopes = evaluate(model, *probes)  # pyright: ignore[reportArgumentType]
    quantiles = jnp.broadcast_to(jnp.asarray(_QUANTILES)[:, None], (len(_QUANTILES), space.size))
    probed = {
        "priors": _listed(np.asarray(space.from_unit(quantiles)).T),
        "initial_time": model.initial_time,
        "initial_state": _listed(starts),
        "vector_field": _listed(slopes),
    }
    couplings = [problem.coupling(theta) for theta in jnp.asarray(thetas)]
    if problem.coupled:
        probed["coupling"] = _listed(np.array([c.value for c in couplings if c is not None]))
    return probed


def _evaluate(
    model: ODEModel,
    thetas: Float[Array, "probe parameter"],
    shift: Float[Array, "probe state"],
    fraction: Float[Array, " probe"],
) -> tuple[Float[Array, "probe state"], Float[Array, "probe state"]]:
    horizon = model.horizon - model.initial_time

    def one(theta: Array, shift: Array, fraction: Array) -> tuple[Array, Array]:
        start = model.start(theta)
        # States that begin at zero must move too, or the terms they drive would go unseen.
        scale = jnp.where(jnp.any(start != 0.0), jnp.max(jnp.abs(start)), 1.0)
        state = start + shift * (0.1 * jnp.abs(start) + 1e-3 * scale)
        time = model.initial_time + fraction * horizon
        return start, model.slope(time, state, theta)

    return jax.jit(jax.vmap(one))(thetas, shift, fraction)


def _evaluate_pde(
    model: PDEModel,
    thetas: Float[Array, "probe parameter"],
    shift: Float[Array, "probe state"],
    fraction: Float[Array, " probe"],
) -> tuple[Float[Array, "probe state"], Float[Array, "probe equation"]]:
    """What the ansatz and the residual make of a wave, inside the domain."""
    formula = model.formula
    low, high = jnp.asarray(model.domain).T

    def one(theta: Array, shift: Array, fraction: Array) -> tuple[Array, Array]:
        phases = jnp.arange(1.0, len(low) + 1.0)
        x = low + (high - low) * jnp.mod(fraction * phases, 1.0)

        def u(point: Array) -> Array:
            wave = jnp.sin(phases @ point) * (1.0 + shift)
            return formula.state(wave, point, theta)

        return u(x), formula.residual_of(u, x, theta)

    return jax.jit(jax.vmap(one))(thetas, shift, fraction)
