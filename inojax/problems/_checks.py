"""Checks of the arguments that problems share."""


def check_noise(noise: float) -> None:
    """Raise a ValueError unless a standard deviation is finite and zero or more."""
    if not 0.0 <= noise < float("inf"):
        raise ValueError(f"`noise` must be a finite number, zero or more; got {noise!r}.")
