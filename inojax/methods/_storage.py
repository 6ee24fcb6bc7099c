"""Inverters on disk: weights as safetensors, everything else as JSON; never pickle."""

import json
import os
import pathlib
from itertools import zip_longest
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from .._inverse_problem import InverseProblem
from ..data import describe_problem, differences
from ..train import TrainLog
from ._base import AbstractInverter
from ._training_data import describe_measurement

_WEIGHTS, _MANIFEST = "weights.safetensors", "manifest.json"
_FORMAT = 3
_KEYS = {"format", "inverter", "settings", "problem", "measurement", "channels", "arrays"}
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
    # Without its manifest the folder counts as empty while weights are replaced.
    (path / _MANIFEST).unlink(missing_ok=True)
    # safetensors writes the memory as it lies, so a transposed view would come back scrambled.
    arrays = {name: np.asarray(x, order="C") for name, x in _named_arrays(inverter).items()}
    partial = path / (_WEIGHTS + ".part")
    save_file(arrays, partial)
    os.replace(partial, path / _WEIGHTS)
    manifest = {
        "format": _FORMAT,
        "inverter": type(inverter).__name__,
        "settings": inverter.settings,
        "problem": describe_problem(inverter.problem),
        "measurement": describe_measurement(inverter.problem),
        "channels": list(inverter.problem.channels),
        "arrays": {name: [str(a.dtype), list(a.shape)] for name, a in sorted(arrays.items())},
    }
    partial = path / (_MANIFEST + ".part")
    partial.write_text(json.dumps(manifest, indent=1))
    os.replace(partial, path / _MANIFEST)


def load(like: _Inverter, folder: str | os.PathLike[str], problem: InverseProblem) -> _Inverter:
    """Read an inverter back.

    Args:
        like: An untrained inverter of the same method and settings, for `problem`.
        folder: Where `save` put it.
        problem: The problem it was trained for.

    Returns:
        The inverter, with the same bits in every array.

    Raises:
        FileNotFoundError: If there is no inverter in the folder.
        ValueError: If it is of another method, of other settings, of another problem, or
            damaged.
    """
    path = pathlib.Path(folder)
    manifest = _read_manifest(path)
    if manifest["inverter"] != type(like).__name__:
        raise ValueError(
            f"`folder` {path} holds a {manifest['inverter']}, not a {type(like).__name__}. "
            "Load it with the method that made it, a corrected one with `load_conformal`, "
            "a vetted one with `load_vetted`."
        )
    changed = differences(manifest["problem"], describe_problem(problem))
    if manifest["channels"] != list(problem.channels):
        changed.append(f"channels (stored {manifest['channels']})")
    if manifest["measurement"] != describe_measurement(problem):
        changed.append("sensors or noise")
    if changed:
        raise ValueError(
            f"`problem` is not the one that the inverter in {path} was trained for; it differs "
            f"in: {'; '.join(changed)}."
        )
    _check_settings(manifest["settings"], like.settings, path)
    found = _filled(like, _read_weights(path, manifest["arrays"]))
    found._check_loaded()
    return found


def stored_names(folder: str | os.PathLike[str]) -> frozenset[str]:
    """Names of the arrays of a stored inverter."""
    return frozenset(_read_manifest(pathlib.Path(folder))["arrays"])


def _check_settings(stored: str, wanted: str, path: pathlib.Path) -> None:
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
        manifest = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"`folder` {path} is damaged: {_MANIFEST} is not JSON.") from error
    if not isinstance(manifest, dict) or not manifest.keys() >= _KEYS:
        raise ValueError(
            f"`folder` {path} is damaged or of another program: {_MANIFEST} lacks an entry; it "
            f"needs {', '.join(sorted(_KEYS))}."
        )
    if manifest["format"] != _FORMAT:
        raise ValueError(
            f"`folder` {path} is written in format {manifest['format']}; this version of inojax "
            f"reads format {_FORMAT}. Load it with the version that wrote it."
        )
    return manifest


def _read_weights(path: pathlib.Path, described: dict[str, Any]) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(path / _WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"`folder` {path} is damaged: {_WEIGHTS} cannot be read.") from error
    if {name: [str(a.dtype), list(a.shape)] for name, a in arrays.items()} != described:
        raise ValueError(
            f"`folder` {path} is damaged: {_WEIGHTS} does not hold what {_MANIFEST} lists."
        )
    return arrays


def _named_arrays(inverter: AbstractInverter) -> dict[str, Any]:
    leaves = jax.tree_util.tree_flatten_with_path(inverter, is_leaf=_is_given)[0]
    return {
        jax.tree_util.keystr(path): leaf
        for path, leaf in leaves
        if isinstance(leaf, jax.Array | np.ndarray)
    }


def _is_given(node: Any) -> bool:
    """Whether a part of an inverter is given anew on loading or belongs to its training."""
    return isinstance(node, InverseProblem | TrainLog)


def _filled(like: _Inverter, stored: dict[str, np.ndarray]) -> _Inverter:
    names = iter(_named_arrays(like))

    def fill(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array | np.ndarray):
            return leaf
        value = stored[next(names)]
        return jnp.asarray(value) if isinstance(leaf, jax.Array) else value

    return jax.tree.map(fill, like, is_leaf=_is_given)
