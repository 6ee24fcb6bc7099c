"""Estimates on disk: one safetensors file, with what is no array as JSON in its head."""

import dataclasses
import json
import os
import pathlib
from typing import Any

import equinox as eqx
import numpy as np

_FORMAT = 2
_HEAD = "inojax estimate"


def write_module(module: eqx.Module, path: str | os.PathLike[str]) -> None:
    """Write a module of arrays, texts, numbers and further modules to a file, in one move.

    Args:
        module: What to write.
        path: Where to; the file is replaced if it is there.

    Raises:
        OSError: If it cannot be written.
    """
    from safetensors.numpy import save_file

    arrays, rest = _taken_apart(module)
    head = {"format": _FORMAT, "content": rest}
    target = pathlib.Path(path)
    partial = target.with_name(target.name + ".part")
    save_file(arrays, partial, metadata={_HEAD: json.dumps(head)})
    os.replace(partial, target)


def read_module(
    kind: type[eqx.Module], parts: dict[str, type[eqx.Module]], path: str | os.PathLike[str]
) -> Any:
    """Read back what `write_module` has written.

    Args:
        kind: Class of the module.
        parts: Class of each module inside, by the name of its field.
        path: Where it is.

    Returns:
        The module, with NumPy arrays of the same bits.

    Raises:
        FileNotFoundError: If there is no file.
        ValueError: If it is of another kind or another version, or damaged.
    """
    from safetensors import SafetensorError, safe_open

    target = pathlib.Path(path)
    if not target.is_file():
        raise FileNotFoundError(f"`path` {target} is no file. Write one with `estimate.save`.")
    try:
        with safe_open(target, framework="numpy") as file:
            text = (file.metadata() or {}).get(_HEAD)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"`path` {target} is damaged, or no estimate: {error}") from error
    if text is None:
        raise ValueError(f"`path` {target} holds arrays, but no estimate.")
    head = json.loads(text)
    if head["format"] != _FORMAT:
        raise ValueError(
            f"`path` {target} is written in format {head['format']}; this version of inojax reads "
            f"format {_FORMAT}. Read it with the version that wrote it."
        )
    return _put_together(kind, parts, arrays, head["content"], "")


def _taken_apart(module: eqx.Module, prefix: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays by their names, and everything else."""
    arrays, rest = {}, {}
    for field in dataclasses.fields(module):
        value, name = getattr(module, field.name), f"{prefix}{field.name}"
        if isinstance(value, eqx.Module):
            inside, rest[field.name] = _taken_apart(value, f"{name}.")
            arrays |= inside
        elif hasattr(value, "dtype"):
            # safetensors writes memory as it lies.
            arrays[name] = np.asarray(value, order="C")
        else:
            rest[field.name] = value
    return arrays, rest


def _put_together(
    kind: type[eqx.Module],
    parts: dict[str, type[eqx.Module]],
    arrays: dict[str, Any],
    rest: dict[str, Any],
    prefix: str,
) -> Any:
    values = {}
    for field in dataclasses.fields(kind):
        name, value = f"{prefix}{field.name}", rest.get(field.name)
        if name in arrays:
            values[field.name] = arrays[name]
        elif isinstance(value, dict):
            inside = parts[field.name]
            values[field.name] = _put_together(inside, parts, arrays, value, f"{name}.")
        elif field.name in rest:
            values[field.name] = _tuples(value)
    return kind(**values)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
