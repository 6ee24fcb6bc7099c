"""Inverters on disk: weights as safetensors, everything else as JSON; never pickle."""

import json
import os
import pathlib
from itertools import zip_longest
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._inverse_problem import InverseProblem
from ..data import describe_problem, differences
from ._base import AbstractInverter

_WEIGHTS, _MANIFEST = "weights.safetensors", "manifest.json"
_FORMAT = 1
_Inverter = TypeVar("_Inverter", bound=AbstractInverter)


def save(inverter: AbstractInverter, folder: str | os.PathLike[str]) -> None:
    """Write an inverter to a folder.

    Weights go to `weights.safetensors`; `manifest.json` says which method and which problem
    they belong to. The manifest is written last, so a folder that has one is complete.

    Args:
        inverter: What to save.
        folder: Where to; created if needed.

    Raises:
        OSError: If it cannot be written.
    """
    from safetensors.numpy import save_file

    path = pathlib.Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.asarray(leaf) for name, leaf in _named_arrays(inverter).items()}
    partial = path / (_WEIGHTS + ".part")
    save_file(arrays, partial)
    os.replace(partial, path / _WEIGHTS)
    manifest = {
        "format": _FORMAT,
        "inverter": type(inverter).__name__,
        "structure": _structure(inverter),
        "problem": describe_problem(inverter.problem),
        "channels": list(inverter.problem.channels),
        "arrays": {name: [str(a.dtype), list(a.shape)] for name, a in sorted(arrays.items())},
    }
    partial = path / (_MANIFEST + ".part")
    partial.write_text(json.dumps(manifest, indent=1))
    os.replace(partial, path / _MANIFEST)


def load(like: _Inverter, folder: str | os.PathLike[str], problem: InverseProblem) -> _Inverter:
    """Read an inverter back.

    Args:
        like: An untrained inverter of the same method and settings, from `method.build`.
        folder: Where `save` put it.
        problem: The problem it was trained for.

    Returns:
        The inverter, with the same bits in every array.

    Raises:
        FileNotFoundError: If there is no inverter in the folder.
        ValueError: If it is of another method, of other settings, or of another problem.
    """
    from safetensors.numpy import load_file

    path = pathlib.Path(folder)
    manifest = _read_manifest(path)
    if manifest["inverter"] != type(like).__name__:
        raise ValueError(
            f"`folder` {path} holds a {manifest['inverter']}, not a {type(like).__name__}. "
            "Load it with the method that made it."
        )
    changed = differences(manifest["problem"], describe_problem(problem))
    if manifest["channels"] != list(problem.channels):
        changed.append(f"channels (stored {manifest['channels']})")
    if changed:
        raise ValueError(
            f"`problem` is not the one that the inverter in {path} was trained for; it differs "
            f"in: {'; '.join(changed)}."
        )
    _check_structure(manifest["structure"], _structure(like), path)
    return _filled(like, load_file(path / _WEIGHTS), problem)


def _check_structure(stored: str, wanted: str, path: pathlib.Path) -> None:
    pairs = zip_longest(stored.splitlines(), wanted.splitlines(), fillvalue="nothing")
    for old, new in pairs:
        if old != new:
            raise ValueError(
                f"The inverter in {path} was made with other settings of its method: it has "
                f"`{old.strip()}` where this one has `{new.strip()}`. Load it with the same "
                "settings."
            )


def _read_manifest(path: pathlib.Path) -> dict[str, Any]:
    file = path / _MANIFEST
    if not file.exists():
        raise FileNotFoundError(
            f"`folder` {path} holds no inverter: there is no {_MANIFEST}. Write one with `save`."
        )
    try:
        return json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"`folder` {path} is damaged: {_MANIFEST} is not JSON.") from error


def _named_arrays(inverter: AbstractInverter) -> dict[str, Any]:
    bare = eqx.tree_at(lambda i: i.problem, inverter, None)
    leaves = jax.tree_util.tree_flatten_with_path(eqx.filter(bare, eqx.is_array_like))[0]
    return {
        jax.tree_util.keystr(path): leaf
        for path, leaf in leaves
        if isinstance(leaf, jax.Array | np.ndarray)
    }


def _structure(inverter: AbstractInverter) -> str:
    """Classes, fields and static settings, without the problem and without array contents."""
    bare = eqx.tree_at(lambda i: i.problem, inverter, None)
    named = jax.tree.map(lambda x: "array" if eqx.is_array_like(x) else x, bare)
    return eqx.tree_pformat(named)


def _filled(like: _Inverter, stored: dict[str, np.ndarray], problem: InverseProblem) -> _Inverter:
    names = iter(_named_arrays(like))

    def fill(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array | np.ndarray):
            return leaf
        value = stored[next(names)]
        return jnp.asarray(value) if isinstance(leaf, jax.Array) else value

    bare = eqx.tree_at(lambda i: i.problem, like, None)
    filled = jax.tree.map(fill, bare)
    return eqx.tree_at(lambda i: i.problem, filled, problem, is_leaf=lambda x: x is None)
