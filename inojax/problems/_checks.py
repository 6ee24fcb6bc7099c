"""Checks of the arguments that problems share."""

import numbers


def check_noise(noise: float) -> None:
    """Raise a ValueError unless a standard deviation is finite and zero or more."""
    if not 0.0 <= noise < float("inf"):
        raise ValueError(f"`noise` must be a finite number, zero or more; got {noise!r}.")


def check_readings(readings: int, *, least: int = 1, most: int | None = None) -> None:
    """Raise a ValueError unless a number of readings is whole, from `least` to `most`."""
    whole = isinstance(readings, numbers.Integral) and not isinstance(readings, bool)
    if not whole or readings < least or (most is not None and readings > most):
        span = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"`readings` must be a whole number, {span}; got {readings!r}.")
