"""The training loop: steps inside `lax.scan`, the host between chunks."""

import hashlib
import os
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Int, Key
from tqdm import tqdm

from .._x64 import in_x32
from ._checkpoint import Checkpoint
from ._sharding import automatic, replicate


@runtime_checkable
class Loss(Protocol):
    """What a method trains on; it draws its own batch from the data.

    The carry is what it keeps between steps, a PyTree of arrays that no gradient flows into.
    """

    def __call__(
        self, model: Any, carry: Any, data: Any, /, *, key: Key[Array, ""]
    ) -> tuple[Float[Array, ""], Any]:
        """Return the loss and the next carry."""
        ...


class TrainLog(eqx.Module):
    """What happened during training.

    Attributes:
        steps: Optimizer steps done at the end of each chunk.
        loss: Mean training loss of each chunk.
        held_out: Held-out loss after each chunk; NaN where none was asked for.
        seconds: Time spent in steps and evaluations, without compilation, this run only.
        compile_seconds: Time spent compiling.

    Example:
        >>> problem = ij.problems.robertson()
        >>> inverter = ij.methods.Regression(steps=10).fit(
        ...     problem, ij.simulate(problem, 64, key=jr.key(0), progress=False), key=jr.key(1),
        ...     progress=False
        ... )
        >>> (log,) = inverter.logs
        >>> int(log.steps[-1])
        10
    """

    steps: Int[np.ndarray, " chunk"]
    loss: Float[np.ndarray, " chunk"]
    held_out: Float[np.ndarray, " chunk"]
    seconds: Float[np.ndarray, ""]
    compile_seconds: Float[np.ndarray, ""]


class Trained(NamedTuple):
    """A trained model, what its loss carried along, and the log.

    Attributes:
        model: The model with the smallest held-out loss, or the last one if none was asked for.
        carry: The carry after the last step.
        log: Losses and times.
    """

    model: Any
    carry: Any
    log: TrainLog


class _State(NamedTuple):
    model: Any
    optimizer: Any
    carry: Any
    best: Any
    best_loss: Array
    step: Array
    history: Float[Array, "chunk two"]


class Trainer(eqx.Module):
    """Runs an Optax optimizer over a loss, in compiled chunks.

    Use it for any Equinox model. The randomness of step `n` depends on the key and `n` alone,
    so a run that was stopped and resumed ends with the same bits as one that was not.

    Attributes:
        optimizer: Any Optax gradient transformation.
        steps: Number of optimizer steps.
        chunk: Steps per compiled call; between calls the host shows progress, evaluates and
            saves.
        checkpoint: Folder to save states in and resume from; None to keep nothing.
        save_every: Seconds between saved states, at least.
        label: What the progress bar calls the run.
        progress: Whether to show a progress bar.
        mesh: Devices to spread batches over, see `shard_batch`.
        identity: What else the result depends on (data, settings), as text or digest; a
            checkpoint of another identity is refused.

    Example:
        >>> import optax
        >>> trainer = ij.train.Trainer(optax.adam(1e-2), 50, 10, progress=False)
        >>> trainer.steps
        50
    """

    optimizer: optax.GradientTransformation
    steps: int
    chunk: int = 100
    checkpoint: str | os.PathLike[str] | None = None
    save_every: float = 20.0
    label: str = "training"
    progress: bool = True
    mesh: jax.sharding.Mesh | None = eqx.field(default=None, converter=automatic)
    identity: str = ""

    def __check_init__(self) -> None:
        """Refuse runs of no steps."""
        if self.steps < 1 or self.chunk < 1:
            raise ValueError(
                f"`steps` and `chunk` must be at least 1; got {self.steps} and {self.chunk}."
            )

    @in_x32
    def fit(
        self,
        model: Any,
        loss: Loss,
        data: Any,
        *,
        carry: Any = None,
        held_out: Callable[[Any, Any], Array] | None = None,
        key: Key[Array, ""],
    ) -> Trained:
        """Train.

        Args:
            model: An Equinox module; its floating-point JAX arrays are trained, its NumPy
                arrays stay as they are.
            loss: `loss(model, carry, data, key=key) -> (scalar, carry)`; it draws its own batch.
            data: A PyTree of arrays, handed to `loss` and `held_out`.
            carry: What `loss` keeps between steps, a PyTree of arrays; no gradient flows into it.
            held_out: `held_out(model, data) -> scalar`, evaluated after each chunk.
            key: Source of randomness of the whole run.

        Returns:
            The best model, the last carry, and the log.

        Raises:
            RuntimeError: If the loss stops being finite.
            ValueError: If the checkpoint folder belongs to another run.
        """
        if self.mesh is not None:
            with jax.set_mesh(self.mesh):
                return self._fit(model, loss, data, carry, held_out, key)
        return self._fit(model, loss, data, carry, held_out, key)

    def _fit(
        self, model: Any, loss: Loss, data: Any, carry: Any, held_out: Any, key: Key[Array, ""]
    ) -> Trained:
        arrays, static = eqx.partition(model, _is_trainable)
        lengths = _chunk_lengths(self.steps, self.chunk)
        state = _start(arrays, self.optimizer, carry, len(lengths))
        store = self._open(state, key)
        restored = None if store is None else store.restore(state)
        state = replicate(jax.tree.map(jnp.asarray, restored or state), self.mesh)
        data, data_static = eqx.partition(data, _is_array)
        data = replicate(jax.tree.map(jnp.asarray, data), self.mesh)
        advance = _compiler(loss, held_out, (static, data_static), self.optimizer)
        state, seconds, compile_seconds = self._run(advance, state, data, key, lengths, store)
        final = state.best if held_out is not None else state.model
        history = np.asarray(state.history)
        log = TrainLog(
            np.cumsum(lengths),
            history[:, 0],
            np.where(np.isneginf(history[:, 1]), np.nan, history[:, 1]),
            np.asarray(seconds),
            np.asarray(compile_seconds),
        )
        return Trained(eqx.combine(final, static), state.carry, log)

    def _open(self, state: _State, key: Key[Array, ""]) -> Checkpoint | None:
        if self.checkpoint is None:
            return None
        shapes = [(str(x.dtype), list(x.shape)) for x in jax.tree.leaves(state)]
        manifest = {
            "label": self.label,
            "steps": self.steps,
            "chunk": self.chunk,
            "key": np.asarray(jr.key_data(key)).tolist(),
            "identity": self.identity,
            "arrays": hashlib.sha256(repr(shapes).encode()).hexdigest(),
        }
        return Checkpoint(self.checkpoint, manifest)

    def _run(
        self,
        advance: Any,
        state: _State,
        data: Any,
        key: Key[Array, ""],
        lengths: list[int],
        store: Checkpoint | None,
    ) -> tuple[_State, float, float]:
        ends = np.cumsum(lengths)
        first = int(np.searchsorted(ends, int(state.step), side="right"))
        compiled: dict[int, Any] = {}
        compile_seconds, saved, begin = 0.0, time.monotonic(), time.monotonic()
        bar = tqdm(
            total=self.steps, initial=int(state.step), desc=self.label, disable=not self.progress,
            file=sys.stderr, unit="step",
        )  # fmt: skip
        with bar:
            for number in range(first, len(lengths)):
                length = lengths[number]
                if length not in compiled:
                    start = time.monotonic()
                    compiled[length] = advance.lower(state, data, key, number, length).compile()
                    compile_seconds += time.monotonic() - start
                try:
                    following = compiled[length](state, data, key, number)
                    losses = np.asarray(following.history[number])
                except KeyboardInterrupt:
                    _save(store, state)
                    raise
                _check_finite(losses, int(ends[number]), self.label)
                state = following
                bar.update(length)
                bar.set_postfix(_postfix(losses))
                if number + 1 == len(lengths) or time.monotonic() - saved > self.save_every:
                    _save(store, state)
                    saved = time.monotonic()
        return state, time.monotonic() - begin - compile_seconds, compile_seconds


def _start(arrays: Any, optimizer: optax.GradientTransformation, carry: Any, n: int) -> _State:
    return _State(
        arrays,
        optimizer.init(arrays),
        carry,
        arrays,
        jnp.asarray(jnp.inf, jnp.float32),
        jnp.asarray(0, jnp.int32),
        jnp.full((n, 2), jnp.nan, jnp.float32),
    )


def _compiler(
    loss: Loss, held_out: Any, static: tuple[Any, Any], optimizer: optax.GradientTransformation
) -> Any:
    model_static, data_static = static

    def objective(arrays: Any, carry: Any, data: Any, key: Array) -> tuple[Array, Any]:
        model = eqx.combine(arrays, model_static)
        return loss(model, carry, eqx.combine(data, data_static), key=key)

    def step(
        scanned: tuple[Any, Any, Any], key: Array, data: Any
    ) -> tuple[tuple[Any, Any, Any], Array]:
        arrays, optimizer_state, carry = scanned
        (value, carry), gradient = jax.value_and_grad(objective, has_aux=True)(
            arrays, carry, data, key
        )
        updates, optimizer_state = optimizer.update(gradient, optimizer_state, arrays)
        return (optax.apply_updates(arrays, updates), optimizer_state, carry), value

    def advance(state: _State, data: Any, key: Array, number: Array, length: int) -> _State:
        keys = jax.vmap(lambda n: jr.fold_in(key, n))(state.step + jnp.arange(length))
        (arrays, optimizer_state, carry), losses = lax.scan(
            lambda scanned, k: step(scanned, k, data),
            (state.model, state.optimizer, state.carry),
            keys,
        )
        if held_out is None:
            outside = jnp.asarray(-jnp.inf, jnp.float32)
        else:
            whole = eqx.combine(data, data_static)
            outside = held_out(eqx.combine(arrays, model_static), whole)
        outside = jnp.asarray(outside, jnp.float32)
        better = outside < state.best_loss
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), arrays, state.best)
        row = jnp.stack([jnp.mean(losses), outside]).astype(jnp.float32)
        return _State(
            arrays,
            optimizer_state,
            carry,
            best,
            jnp.where(better, outside, state.best_loss),
            state.step + length,
            state.history.at[number].set(row),
        )

    return jax.jit(advance, static_argnums=4)


def _is_trainable(leaf: Any) -> bool:
    # Equinox counts NumPy arrays too; here they are what a model keeps fixed.
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.inexact)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray)


def _chunk_lengths(steps: int, chunk: int) -> list[int]:
    whole, rest = divmod(steps, chunk)
    return [chunk] * whole + [rest] * (rest > 0)


def _save(store: Checkpoint | None, state: _State) -> None:
    if store is not None:
        store.save(int(state.step), state)


def _check_finite(losses: np.ndarray, step: int, label: str) -> None:
    # A run without held-out loss carries minus infinity in its place.
    if not np.isfinite(losses[0]) or np.isnan(losses[1]):
        which = "loss" if not np.isfinite(losses[0]) else "held-out loss"
        raise RuntimeError(
            f"The {which} of {label!r} is no longer finite after {step} steps. Lower the "
            "`learning_rate`, or check the data for extreme values."
        )


def _postfix(losses: np.ndarray) -> dict[str, str]:
    shown = {"loss": f"{losses[0]:.3g}"}
    return shown if np.isinf(losses[1]) else shown | {"held out": f"{losses[1]:.3g}"}
