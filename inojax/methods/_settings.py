"""Hyperparameters as JSON and back: numbers, choices and our own classes, never other code."""

import dataclasses
import enum
import math
import sys
from typing import Any

import equinox as eqx

# Where classes are looked for: what a file names can only be ours.
_PACKAGE = f"{__name__.split('.')[0]}."


class SettingsError(Exception):
    """A hyperparameter that cannot be written as JSON."""


def to_json(value: Any) -> Any:
    """Hyperparameters as values that JSON has.

    Args:
        value: A method, or a part of one.

    Returns:
        The same made of dictionaries, lists, texts and numbers.

    Raises:
        SettingsError: If it is, or holds, something that is neither a number, text or choice nor of
            a class of this package.
    """
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"number": repr(value)}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [to_json(each) for each in value]}
    kind = type(value)
    if own_class(kind.__name__, kind) is not kind:
        raise SettingsError(f"{kind.__module__}.{kind.__qualname__}")
    if isinstance(value, enum.Enum):
        return {"choice": kind.__name__, "name": value.name}
    names = [field.name for field in dataclasses.fields(value) if field.init]
    return {"class": kind.__name__, **{name: to_json(getattr(value, name)) for name in names}}


def from_json(value: Any) -> Any:
    """Hyperparameters that `to_json` wrote.

    Args:
        value: What it returned.

    Returns:
        The hyperparameters.

    Raises:
        ValueError: If it names a class that is not there, or values that its class refuses.
    """
    if not isinstance(value, dict):
        return value
    if "number" in value:
        return float(value["number"])
    if "tuple" in value:
        return tuple(from_json(each) for each in value["tuple"])
    if "list" in value:
        return [from_json(each) for each in value["list"]]
    name = value.get("class", value.get("choice"))
    kind = own_class(name, enum.Enum if "choice" in value else eqx.Module)
    if kind is None:
        raise ValueError(
            f"The stored method has a {name!r}, which this version of inojax does not know. Load "
            "it with the version that wrote it."
        )
    if "choice" in value:
        return kind[value["name"]]
    try:
        return kind(**{name: from_json(each) for name, each in value.items() if name != "class"})
    except TypeError as error:
        raise ValueError(
            f"The stored method has settings of `{name}` that this version of inojax does not know "
            f"({error}). Load it with the version that wrote it."
        ) from error


def own_class(name: Any, base: type) -> Any:
    """A class of this package by its name; None if there is none of that kind.

    Args:
        name: Its name.
        base: What it must be derived from.
    """
    for where, module in sorted(sys.modules.items()):
        if where.startswith(_PACKAGE):
            found = vars(module).get(str(name))
            if isinstance(found, type) and found.__module__ == where and issubclass(found, base):
                return found
    return None
