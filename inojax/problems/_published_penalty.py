"""The priors that stand for a published penalty, and for one on the total variation."""

from ..models import TotalVariation
from ._checks import check_count

# Of functions of order one on the unit interval.
_ROUNDING = 0.1


def roughness(noise: float, readings: int, penalty: float) -> float:
    """Roughness of a field whose prior is a penalty beside a mean square.

    Mean square of readings minus predictions plus w ∫ f'² is, times readings / (2 noise²), the
    negative log posterior.

    Args:
        noise: Standard deviation of each reading.
        readings: Number of readings.
        penalty: Weight w.

    Returns:
        √(noise² / (readings w)).

    Raises:
        ValueError: If an argument is out of range.
    """
    _check(noise, readings, penalty=penalty)
    return noise / (readings * penalty) ** 0.5


def total_variation(noise: float, readings: int, variation: float) -> TotalVariation:
    """The same for a penalty w ∫ |f'| beside a mean square.

    Args:
        noise: Standard deviation of each reading.
        readings: Number of readings.
        variation: Weight w.

    Returns:
        The factor of the prior, whose jump is 2 noise² / (readings w); slopes below 0.1 are
        rounded off.

    Raises:
        ValueError: If an argument is out of range.
    """
    _check(noise, readings, variation=variation)
    return TotalVariation(2.0 * noise**2 / (readings * variation), _ROUNDING)


def _check(noise: float, readings: int, **weight: float) -> None:
    check_count("readings", readings, least=3)  # two at the ends
    for name, value in {"noise": noise, **weight}.items():
        if not 0.0 < value < float("inf"):
            raise ValueError(f"`{name}` must be positive; got {value!r}.")
