"""What a dataset was made from, written so that two runs can be compared.

A manifest is a JSON object. It identifies the functions of a problem by their traced programs
with all constants, in a canonical form that survives most of what a refactoring does, and beside
them by their values at fixed places. Where only the spelling seems to differ the trajectories
decide, see `_second_look`. Noise and sensors are apart, since trajectories do not depend on them.
"""

import dataclasses
import functools
import hashlib
import types
import weakref
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Key

from .._inverse_problem import InverseProblem
from .._parameters import Design
from .._x64 import in_x64
from ..models import Field
from ..models._ode import ODEModel
from ..models._pde import PDEModel
from ..models._pde_solver import AbstractDirectSolver
from ..noise import NoDensityError
from ..solvers import Rodas5P
from ._parts import (
    Part,
    array_digest,
    described,
    is_known_prior,
    is_plain,
    listed,
    part_of,
    prior_text,
)

FORMAT = "inojax dataset"
VERSION = 3

_PROBES = 8
_ROWS = 3  # readings of an observation at which noise is evaluated

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


# Attributes of an `ODEModel` that have entries of their own, or are labels of figures.
_ELSEWHERE = {
    "vector_field", "initial_state", "times", "states", "initial_time", "breakpoints", "time_unit",
    "state_unit", "_binding",
}  # fmt: skip


def _describe_solver(model: ODEModel | PDEModel) -> Manifest:
    if isinstance(model, PDEModel):
        return {"name": described(model.solver), "retry": described(model.tightened().solver)}
    tightened = model.tightened()
    names = [f.name for f in dataclasses.fields(model) if f.name not in _ELSEWHERE]
    return {
        "name": Rodas5P.__name__,
        **{name: described(getattr(model, name)) for name in names},
        # How a failed solve is tried once more decides stored content, too.
        "retry": {
            "rtol": tightened.rtol / model.rtol,
            "max_steps": tightened.max_steps / model.max_steps,
        },
    }


@in_x64
def describe_problem(problem: InverseProblem) -> Manifest:
    """Describe what a problem computes, apart from noise, sensors and solver settings.

    Args:
        problem: The inverse problem.

    Returns:
        A JSON object; compare two with `differences`.

    Raises:
        RuntimeError: If a function of the problem is another than when it was first used.
    """
    model, space = problem.model, problem.parameters
    probes = _Probes(problem)
    parts = _parts_of_pde if isinstance(model, PDEModel) else _parts_of_ode
    found = {
        "jax": jax.__version__,
        "problem": problem.name,
        "parameters": list(space.names),
        "units": list(space.units),
        "priors": {one.name: prior_text(one.prior) for one in space.parameters},
        "states": list(model.states),
        "times": listed(model.times),
        "initial_time": model.initial_time,
        **parts(model, probes),  # pyright: ignore[reportArgumentType]
    }
    if not all(is_known_prior(parameter.prior) for parameter in space.parameters):
        found["prior_maps"] = part_of(
            lambda z: (space.from_unit(z), space.log_densities(space.from_unit(z))), probes.unit
        )
    if problem.coupled:
        assert isinstance(model, PDEModel)
        found["coupling"] = [described(field.total_variation) for field in model.fields]
    return found


@in_x64
def describe_measurement(problem: InverseProblem) -> Manifest:
    """Describe how a problem's solutions become readings: sensors and noise.

    Args:
        problem: The inverse problem.

    Returns:
        A JSON object; compare two with `differences`.
    """
    model, sensors = problem.model, problem.sensors
    probes, count = _Probes(problem), len(problem.channels)
    keys = np.arange(2 * _PROBES, dtype=np.uint32).reshape(_PROBES, 2)
    grid = np.broadcast_to(np.asarray(model.times), (_PROBES, len(model.times)))

    def draw(times: Array, key: Array) -> tuple[Array, Array]:
        return sensors.draw(times, count, key=jr.wrap_key_data(key, impl="threefry2x32"))

    found = {
        "channels": list(problem.channels),
        "missing": float(sensors.missing),
        "schedule": described(sensors.times),
        "noise": described(problem.noise),
        "fixed": {name: repr(value) for name, value in problem.parameters.binding.values.items()},
    }
    # What is not ours may compute anything.
    if not is_plain(sensors.times):
        found["draws"] = part_of(draw, grid, keys)
    if not is_plain(problem.noise):
        found["noise"] = _part_of_noise(problem, probes, keys)
    if sensors.observable is not None:
        found["observable"] = part_of(
            lambda y, theta: sensors.observed(
                y,
                problem.parameters.complete(theta),
                state_names=model.states,
                parameter_names=problem.parameters.all_names,
            ),
            probes.states,
            probes.thetas,
        )
        shapes = (model.states, problem.parameters.binding, problem.channels)
        _check_unchanged("observable", sensors.observable, found["observable"], shapes)
    if isinstance(model, PDEModel):
        found["collocation"] = described(model.collocation)
    return found


def _part_of_noise(problem: InverseProblem, probes: "_Probes", keys: np.ndarray) -> Part:
    noise, shape = problem.noise, (_PROBES, _ROWS, len(problem.channels))
    random = np.random.RandomState(20260102)
    clean, times = 1.0 + random.random_sample(shape), np.sort(random.random_sample(shape[:2]))
    readings = np.ceil(clean) if noise.counts else clean + 0.1 * random.random_sample(shape)

    def evaluate(readings: Array, clean: Array, times: Array, theta: Array, key: Array) -> Any:
        key = jr.wrap_key_data(key, impl="threefry2x32")
        sample = noise.sample(clean, theta, times=times, key=key)
        mask = jnp.ones(clean.shape, bool)
        try:
            return sample, noise.log_prob(readings, clean, theta, mask, times=times)
        except NoDensityError:
            return (sample,)

    return part_of(evaluate, readings, clean, times, probes.thetas, keys)


def key_digest(key: Key[Array, ""]) -> str:
    """A short digest of a PRNG key."""
    digest = hashlib.sha256(str(jr.key_impl(key)).encode())
    digest.update(np.asarray(jr.key_data(key)).astype("<u4").tobytes())
    return digest.hexdigest()[:16]


class _Probes:
    """Fixed places, a row for each, at which functions of a problem are evaluated."""

    def __init__(self, problem: InverseProblem) -> None:
        model, space = problem.model, problem.parameters
        # NumPy promises that the legacy generator's stream never changes.
        random = np.random.RandomState(20260101)
        self.unit = 0.1 + 0.8 * random.random_sample((_PROBES, space.size))
        self.shift = random.random_sample((_PROBES, len(model.states)))
        self.fraction = (np.arange(_PROBES) + random.random_sample(_PROBES)) / _PROBES
        self.thetas = np.asarray(space.from_unit(self.unit), np.float64)
        self.times = model.initial_time + self.fraction * (model.horizon - model.initial_time)
        # Around the start, so that a logarithm of states has a value.
        start = np.ones((_PROBES, len(model.states)))
        if isinstance(model, ODEModel):
            run = jax.jit(lambda theta: model.start(theta))  # noqa: PLW0108
            start = np.stack([np.asarray(run(theta)) for theta in self.thetas])
        # States that begin at zero must move too, or the terms they drive would go unseen.
        scale = np.max(np.abs(start), axis=1, keepdims=True)
        scale = np.where(scale > 0.0, scale, 1.0)
        self.states = start + self.shift * (0.1 * np.abs(start) + 1e-3 * scale)


def _parts_of_ode(model: ODEModel, probes: _Probes) -> Manifest:
    slope = _program_of_vector_field(model, probes)
    # Fixed parameters are numbers in the program; another problem may have others.
    seen = (model.states, probes.thetas.shape[1], model._binding)
    _check_unchanged("vector_field", model.vector_field, slope, seen)
    start = part_of(model.start, probes.thetas)
    _check_unchanged("initial_state", model.initial_state, start, seen)
    found = {"initial_state": start, "vector_field": slope}
    if model.breaks is not None:
        found["breakpoints"] = part_of(model.breaks, probes.thetas)
        _check_unchanged("breakpoints", model.breakpoints, found["breakpoints"], seen)
    return found


def _program_of_vector_field(model: ODEModel, probes: _Probes) -> Part:
    return part_of(model.slope, probes.times, probes.states, probes.thetas)


def _parts_of_pde(model: PDEModel, probes: _Probes) -> Manifest:
    """What residual, ansatz and conditions at interfaces make of a wave, inside the domain."""
    low, high = np.asarray(model.domain).T
    phases = np.arange(1.0, len(low) + 1.0)
    places = low + (high - low) * np.mod(probes.fraction[:, None] * phases, 1.0)
    scalars = probes.thetas[:, : probes.thetas.shape[1] - model.coefficients]
    # The unknown functions are straight lines here; what else they are is described below.
    lines = 1.0 + probes.unit[:, :1, None] * np.ones((len(model.fields), 2))
    axes = [model.coordinates.index(field.coordinate) for field in model.fields]

    def known(lines: Array) -> tuple[Any, ...]:
        return tuple(
            lambda y, line=line, axis=axis: line[0] + line[1] * y[axis]
            for line, axis in zip(lines, axes, strict=True)
        )

    def wave(shift: Array, theta: Array, lines: Array) -> Any:
        def u(point: Array) -> Array:
            raw = jnp.sin(phases @ point) * (1.0 + shift)
            return model.state(raw, point, theta, known(lines))

        return u

    def ansatz(raw: Array, x: Array, theta: Array, lines: Array) -> Array:
        return model.state(raw, x, theta, known(lines))

    def residual(x: Array, shift: Array, theta: Array, lines: Array) -> Array:
        return model.residual_of(wave(shift, theta, lines), x, theta, known(lines))

    def jumps(shift: Array, theta: Array, lines: Array) -> list[Array]:
        below, above = (wave(factor * shift, theta, lines) for factor in (1.0, 2.0))
        functions = known(lines)
        return [model.jump_of(i, below, above, theta, functions) for i in model.interfaces]

    found = {
        "coordinates": list(model.coordinates),
        "domain": listed(model.domain),
        "places": listed(model.readings),
        "ansatz": part_of(ansatz, probes.shift, places, scalars, lines),
        "residual": part_of(residual, places, probes.shift, scalars, lines),
        "fields": [_describe_field(field) for field in model.fields],
    }
    for number, (field, axis) in enumerate(zip(model.fields, axes, strict=True), start=1):
        found[f"transform{number}"] = part_of(field.transform, probes.shift[:, 0], places[:, axis])
    if isinstance(model.solver, AbstractDirectSolver) and not is_plain(model.solver):
        solver, points = model.solver, model.readings
        found["solution"] = part_of(
            lambda theta: solver.values(model, theta, jnp.asarray(points)), probes.thetas
        )
    if model.interfaces:
        found["interfaces"] = listed([interface.at for interface in model.interfaces])
        found["jumps"] = part_of(jumps, probes.shift, scalars, lines)
    return found


def _describe_field(field: Field) -> Manifest:
    return {
        "name": field.name,
        "coordinate": field.coordinate,
        "nodes": listed(field.nodes),
        "ends": listed(field.ends),
        "roughness": field.roughness,
    }


# What each function computed when it was first met: JAX keeps what it compiled then.
_first: "weakref.WeakKeyDictionary[Any, dict[Any, str]]" = weakref.WeakKeyDictionary()


def _check_unchanged(argument: str, function: Any, part: Part, seen: tuple[Any, ...]) -> None:
    """Refuse a function that reads values that changed since it was first used."""
    if not isinstance(function, types.FunctionType | functools.partial):
        return
    known = _first.setdefault(function, {}).setdefault((argument, *seen), part["program"])
    if known != part["program"]:
        raise RuntimeError(
            f"`{argument}` computes something else than when it was first used: an array or a "
            "variable that it reads has changed since. JAX goes on with what it compiled then. "
            "Define the function again, after the change."
        )
