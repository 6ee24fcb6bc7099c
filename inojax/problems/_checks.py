"""Checks of the arguments that problems share."""

import numbers


def check_noise(noise: float) -> None:
    """Raise a ValueError unless a standard deviation is finite and zero or more."""
    if not 0.0 <= noise < float("inf"):
        raise ValueError(f"`noise` must be a finite number, zero or more; got {noise!r}.")


def check_count(name: str, value: int, *, least: int = 1, most: int | None = None) -> None:
    """Raise a ValueError unless a number of things is whole, from `least` to `most`."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        span = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"`{name}` must be a whole number, {span}; got {value!r}.")
