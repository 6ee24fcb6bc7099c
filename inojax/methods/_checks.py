"""Checks of hyperparameters."""

import equinox as eqx


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
