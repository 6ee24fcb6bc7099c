"""Checks and descriptions of hyperparameters."""

import enum
import re
from typing import Any

import equinox as eqx
import wadler_lindig


def check_counts(settings: eqx.Module, *names: str) -> None:
    """Refuse hyperparameters below one.

    Args:
        settings: Holder of the hyperparameters.
        names: Which to check.

    Raises:
        ValueError: Naming the first that is below one.
    """
    for name in names:
        if getattr(settings, name) < 1:
            raise ValueError(f"`{name}` must be at least 1; got {getattr(settings, name)}.")


def check_positive(settings: eqx.Module, *names: str) -> None:
    """Refuse hyperparameters that are not above zero, NaN included.

    Args:
        settings: Holder of the hyperparameters.
        names: Which to check.

    Raises:
        ValueError: Naming the first that is not.
    """
    for name in names:
        if not getattr(settings, name) > 0.0:
            raise ValueError(f"`{name}` must be positive; got {getattr(settings, name)!r}.")


def check_shares(settings: eqx.Module, *names: str) -> None:
    """Refuse hyperparameters outside of [0, 1].

    Args:
        settings: Holder of the hyperparameters.
        names: Which to check.

    Raises:
        ValueError: Naming the first that lies outside.
    """
    for name in names:
        if not 0.0 <= getattr(settings, name) <= 1.0:
            raise ValueError(f"`{name}` must lie in [0, 1]; got {getattr(settings, name)}.")


def check_choices(settings: eqx.Module, **kinds: type[enum.Enum]) -> None:
    """Refuse what is not a member of an enumeration, such as its name as text.

    Args:
        settings: Holder of the hyperparameters.
        kinds: The enumeration of each.

    Raises:
        TypeError: Naming the first that is none, and what may be chosen.
    """
    for name, kind in kinds.items():
        if not isinstance(getattr(settings, name), kind):
            members = ", ".join(str(member) for member in kind)
            raise TypeError(f"`{name}` must be one of {members}; got {getattr(settings, name)!r}.")


def check_parts(settings: eqx.Module, **kinds: type) -> None:
    """Refuse hyperparameters of another type than a base class, such as a name as text.

    Args:
        settings: Holder of the hyperparameters.
        kinds: The base class of each.

    Raises:
        TypeError: Naming the first that is of another type, and what there is.
    """
    for name, kind in kinds.items():
        found = getattr(settings, name)
        if not isinstance(found, kind):
            choices = ", ".join(f"{one.__name__}()" for one in kind.__subclasses__())
            raise TypeError(f"`{name}` must be one of {choices}; got {found!r}.")


def describe_settings(settings: Any) -> str:
    """Hyperparameters, defaults included, as text that is the same in every process."""
    text = wadler_lindig.pformat(settings, short_arrays=False, hide_defaults=False)
    return re.sub(r" at 0x[0-9a-f]+", "", text)
