"""Inverters on disk: weights as safetensors, everything else as JSON; never pickle."""

import json
import os
import pathlib
from itertools import zip_longest
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._inverse_problem import InverseProblem
from .._x64 import in_x32
from ..data._compare import compare
from ..data._manifest import describe_measurement, describe_problem
from ..data._second_look import Trajectories, probed, remember, settle
from ..train import TrainLog
from ._checks import describe_settings
from ._inverter import AbstractInverter
from ._method import AbstractMethod
from ._settings import SettingsError, from_json, own_class, to_json

_WEIGHTS, _MANIFEST = "weights.safetensors", "manifest.json"
_FORMAT = 5
_KEYS = {"format", "inverter", "problem", "arrays", "rtol"}
# Names of a few solutions of the problem among the arrays; those of an inverter begin with a dot.
_SOLVED = ("solved thetas", "solved states", "solved status")


def save(inverter: AbstractInverter, folder: str | os.PathLike[str]) -> None:
    """Write an inverter to a folder.

    Weights go to `weights.safetensors`; `manifest.json` says which method, with all settings, and
    which problem they belong to, for `inojax.load`. Of a part of the method that is your own code,
    such as a network of your own, only its text is kept: then `load` needs the method, too. Beside
    the weights there are a few solutions of the problem, for a second look where it is written in
    another way. The manifest is written last, so a folder that has one is complete.

    Args:
        inverter: What to save.
        folder: Where to; created if needed.

    Raises:
        OSError: If it cannot be written.

    Example:
        >>> problem = ij.problems.robertson()
        >>> ij.save(ij.methods.LeastSquares(starts=4).fit(problem), "inverter")
        >>> ij.load("inverter", problem).method.starts
        4
    """
    from safetensors.numpy import save_file

    path = pathlib.Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    # Without its manifest the folder counts as empty while weights are replaced.
    (path / _MANIFEST).unlink(missing_ok=True)
    # safetensors writes the memory as it lies, so a transposed view would come back scrambled.
    arrays = {name: np.asarray(x, order="C") for name, x in _named_arrays(inverter).items()}
    described = describe_problem(inverter.problem)
    solved = probed(inverter.problem, described)
    arrays |= {name: np.asarray(x, order="C") for name, x in zip(_SOLVED, solved, strict=False)}
    partial = path / (_WEIGHTS + ".part")
    save_file(arrays, partial)
    os.replace(partial, path / _WEIGHTS)
    manifest = {
        "format": _FORMAT,
        "inverter": _described(inverter),
        "problem": described | describe_measurement(inverter.problem),
        "rtol": solved.rtol,
        "arrays": {name: [str(a.dtype), list(a.shape)] for name, a in sorted(arrays.items())},
    }
    partial = path / (_MANIFEST + ".part")
    partial.write_text(json.dumps(manifest, indent=1))
    os.replace(partial, path / _MANIFEST)


@in_x32
def load(
    folder: str | os.PathLike[str],
    problem: InverseProblem,
    *,
    method: AbstractMethod[Any] | None = None,
    accept: bool = False,
) -> Any:
    """Read an inverter back, whatever made it, with the wrappers that were around it.

    Args:
        folder: Where `save` put it.
        problem: The problem it was made for.
        method: The method that made it; needed only where your own code is part of the method. If
            it is given, its settings must be the stored ones.
        accept: Whether to accept a problem whose functions are written in another way, if a few
            trajectories and readings are the same.

    Returns:
        The inverter, with the same bits in every array.

    Raises:
        FileNotFoundError: If there is no inverter in the folder.
        ValueError: If it was made for another problem, by another method or with other settings, if
            it is damaged, or if `method` is needed.

    Warns:
        UserWarning: If trajectories alone say that the problem is the same.

    Example:
        >>> problem = ij.problems.robertson()
        >>> ij.save(ij.methods.LeastSquares(starts=4).fit(problem), "inverter")
        >>> ij.load("inverter", problem).method.starts
        4
    """
    path = pathlib.Path(folder)
    manifest = _read_manifest(path)
    arrays = _read_weights(path, manifest["arrays"])
    thetas, states, status = (arrays[name] for name in _SOLVED)
    solved = Trajectories(thetas, states, status, manifest["rtol"])
    described = describe_problem(problem)
    settle(
        compare(manifest["problem"], described | describe_measurement(problem)),
        lambda: solved,
        problem,
        accept=accept,
        beginning=f"`problem` is not the one that the inverter in {path} was made for",
        remedy="Load it with that problem, or make another one.",
    )
    blank = _blank(manifest["inverter"], problem, method, path)
    found = _filled(blank, arrays, path)
    found._check_loaded()
    remember(described, solved)
    return found


def _described(inverter: AbstractInverter) -> dict[str, Any]:
    """What kind of inverter it is, and what is inside of it."""
    described: dict[str, Any] = {"kind": type(inverter).__name__}
    if inverter._wraps:
        assert inverter._inner is not None
        return described | {"inner": _described(inverter._inner)}
    described["settings"] = "" if inverter.method is None else describe_settings(inverter.method)
    try:
        described["method"] = None if inverter.method is None else to_json(inverter.method)
    except SettingsError as error:
        described["method"], described["own code"] = None, str(error)
    described |= inverter._parts()
    if inverter._inner is not None:
        described["inner"] = _described(inverter._inner)
    return described


def _blank(
    described: dict[str, Any],
    problem: InverseProblem,
    method: AbstractMethod[Any] | None,
    path: pathlib.Path,
) -> AbstractInverter:
    """An inverter like the stored one, with arrays that are yet to be filled in."""
    inner = None
    if "inner" in described:
        inner = _blank(described["inner"], problem, method, path)
    kind = own_class(described["kind"], AbstractInverter)
    if kind is not None and "settings" not in described:
        return kind._around(inner)
    if kind is not None and not described["settings"]:
        return kind._from_parts(problem, described)
    if method is not None:
        _check_settings(described["settings"], describe_settings(method), path)
    if described["method"] is not None:
        method = from_json(described["method"])
    if method is None:
        code = f" ({described['own code']})" if described.get("own code") else ""
        raise ValueError(
            f"The inverter in {path} was made by a method that holds code of your own{code}, which "
            "is not stored. Give that method, `load(folder, problem, method=...)`."
        )
    blank = method._blank(problem)
    if type(blank).__name__ != described["kind"]:
        raise ValueError(
            f"`folder` {path} holds a {described['kind']}, which `method` does not make: that "
            f"makes a {type(blank).__name__}."
        )
    if inner is None:
        return blank
    return eqx.tree_at(lambda i: i.first, blank, inner, is_leaf=lambda x: x is None)


def _check_settings(stored: str, wanted: str, path: pathlib.Path) -> None:
    pairs = zip_longest(stored.splitlines(), wanted.splitlines(), fillvalue="nothing")
    for old, new in pairs:
        if old != new:
            raise ValueError(
                f"The inverter in {path} was made with other settings of its method: it has "
                f"`{old.strip()}` where `method` has `{new.strip()}`. Leave `method` out, or give "
                "that with the same settings."
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
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise ValueError(
            f"`folder` {path} is damaged or of another program: {_MANIFEST} lacks an entry; it "
            f"needs {', '.join(sorted(_KEYS))}."
        )
    if manifest["format"] != _FORMAT:
        raise ValueError(
            f"`folder` {path} is written in format {manifest['format']}; this version of inojax "
            f"reads format {_FORMAT}, which says more of the problem. Load it with the version "
            "that wrote it, or train again."
        )
    if not manifest.keys() >= _KEYS or not manifest["arrays"].keys() >= set(_SOLVED):
        raise ValueError(
            f"`folder` {path} is damaged or of another program: {_MANIFEST} lacks an entry; it "
            f"needs {', '.join(sorted(_KEYS))}."
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


def _filled(
    like: AbstractInverter, stored: dict[str, np.ndarray], path: pathlib.Path
) -> AbstractInverter:
    names = _named_arrays(like)
    missing = sorted(set(names) - set(stored))
    if missing:
        raise ValueError(
            f"`folder` {path} holds an inverter without {missing[0]!r}, which one for this problem "
            "has: it was made for another problem, or by another method."
        )
    order = iter(names)

    def fill(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array | np.ndarray):
            return leaf
        value = stored[next(order)]
        return jnp.asarray(value) if isinstance(leaf, jax.Array) else value

    return jax.tree.map(fill, like, is_leaf=_is_given)
