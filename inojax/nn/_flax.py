"""Networks written with Flax, as networks of this library."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Key


class FlaxNetwork(eqx.Module):
    """A Flax module, Linen or NNX, as an Equinox module.

    It is trained, saved, compiled and vectorized like any other network here. The Flax module
    meets a batch of one, so that it may flatten all axes but the first. Only its parameters are
    trained: what else it keeps, such as running averages of a batch normalization, stays as it
    was, and dropout is off.

    Attributes:
        parameters: Trained arrays.
        constants: What else the module keeps, as NumPy arrays.
        structure: The module without its arrays.

    Example:
        >>> from flax import linen
        >>> network = ij.nn.FlaxNetwork(linen.Dense(2), (3,), key=jr.key(0))
        >>> network(jnp.zeros(3)).shape
        (2,)
    """

    parameters: Any
    constants: Any
    structure: Any = eqx.field(static=True)

    def __init__(self, module: Any, shape: tuple[int, ...], *, key: Key[Array, ""]) -> None:
        """Take the module apart, a Linen module after drawing its weights.

        Args:
            module: A `flax.linen.Module`, or a `flax.nnx.Module` that has its weights.
            shape: Shape of its inputs, without the batch axis.
            key: Source of the weights of a Linen module.

        Raises:
            TypeError: If it is neither.
            ValueError: If it cannot be evaluated without random numbers, such as dropout that is
                on, or for inputs of that shape.
        """
        from flax import linen, nnx

        if isinstance(module, linen.Module):
            with _in_our_words(shape):
                variables = dict(module.init(key, jnp.zeros((1, *shape), jnp.float32)))
            self.parameters = variables.pop("params", {})
            self.constants = jax.tree.map(np.asarray, variables)
            self.structure = module
        elif isinstance(module, nnx.Module):
            # A copy: the caller may go on training.
            module = nnx.merge(*nnx.split(module))
            module.eval()
            with _in_our_words(shape):
                _require_still(module, shape)
            structure, parameters, rest = nnx.split(module, nnx.Param, ...)
            self.parameters = nnx.to_pure_dict(parameters)
            self.constants = jax.tree.map(_frozen, nnx.to_pure_dict(rest))
            self.structure = _NNX(structure, parameters, rest)
        else:
            raise TypeError(
                "`module` must be a `flax.linen.Module` or a `flax.nnx.Module`; got "
                f"{type(module).__name__}."
            )
        self._evaluate_shapes(shape)

    def _evaluate_shapes(self, shape: tuple[int, ...]) -> None:
        """Fail now rather than at the first training step."""

        def evaluated(x: Array) -> Array:  # a function, since a module of arrays has no hash
            return self(x)

        with jax.ensure_compile_time_eval(), _in_our_words(shape):
            jax.eval_shape(evaluated, jnp.zeros(shape, jnp.float32))

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*output"]:
        """Evaluate the module.

        Args:
            x: Inputs, without a batch axis.

        Returns:
            Its outputs for them.
        """
        if isinstance(self.structure, _NNX):
            return self.structure(self.parameters, self.constants, x[None])[0]
        variables = {"params": self.parameters, **self.constants}
        return cast(Array, self.structure.apply(variables, x[None]))[0]


@contextlib.contextmanager
def _in_our_words(shape: tuple[int, ...]) -> Iterator[None]:
    """Errors of Flax with what to do about them."""
    from flax import errors

    try:
        yield
    except (errors.InvalidRngError, errors.ModifyScopeVariableError) as error:
        raise ValueError(
            "`module` needs random numbers or changes what it keeps when it is evaluated. Give it "
            "`deterministic=True` for dropout and `use_running_average=True` for normalization, "
            "which NNX sets by itself unless a call does, or leave these out. Flax says: "
            f"{error}"
        ) from error
    except (TypeError, ValueError, errors.FlaxError) as error:
        raise ValueError(
            f"`module` cannot be evaluated for inputs of `shape` {shape}, a batch axis added in "
            "front, and no other argument: settings such as `deterministic=True` belong to its "
            f"constructor. Flax says: {error}"
        ) from error


def _require_still(module: Any, shape: tuple[int, ...]) -> None:
    """Raise if an NNX module changes what it keeps when it is called, such as its random keys.

    Flax raises nothing, and each call would draw the same numbers anew.
    """
    from flax import errors, nnx

    copy = nnx.merge(*nnx.split(module))
    before = jax.tree.map(_frozen, nnx.to_pure_dict(nnx.state(copy)))
    # Not constant: an average over a batch of constants might change nothing.
    copy(jnp.linspace(1.0, 2.0, math.prod(shape)).reshape(1, *shape))
    after = jax.tree.map(_frozen, nnx.to_pure_dict(nnx.state(copy)))
    if not jax.tree.all(jax.tree.map(np.array_equal, before, after)):
        raise errors.ModifyScopeVariableError(
            "state", "keys or averages", "it changed in a call in evaluation mode"
        )


class _NNX:
    """The structure of an NNX module, and how its arrays are put back."""

    def __init__(self, structure: Any, parameters: Any, rest: Any) -> None:
        from flax import nnx

        self._structure = structure
        # Shapes only: arrays must not be part of what is compiled for.
        self._states = nnx.eval_shape(lambda: (parameters, rest))
        self._generators = [_generator(leaf) for leaf in jax.tree.leaves(rest)]

    def __call__(self, parameters: Any, constants: Any, x: Array) -> Array:
        from flax import nnx

        template, rest = self._states
        state = jax.tree.unflatten(jax.tree.structure(template), jax.tree.leaves(parameters))
        pairs = zip(jax.tree.leaves(constants), self._generators, strict=True)
        leaves = [_thawed(leaf, generator) for leaf, generator in pairs]
        others = jax.tree.unflatten(jax.tree.structure(rest), leaves)
        return nnx.merge(self._structure, state, others)(x)

    def __hash__(self) -> int:
        return hash(self._structure)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _NNX) and self._structure == other._structure


def _generator(leaf: Any) -> Any:
    """What a random key is for, None for other arrays."""
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jr.key_impl(leaf) if is_key else None


def _frozen(leaf: Any) -> np.ndarray:
    return np.asarray(leaf if _generator(leaf) is None else jr.key_data(leaf))


def _thawed(leaf: Any, generator: Any) -> Any:
    array = jnp.asarray(leaf)
    return array if generator is None else jr.wrap_key_data(array, impl=generator)
