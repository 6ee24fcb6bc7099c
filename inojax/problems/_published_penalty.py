"""The prior that stands for a published penalty."""


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
    if readings < 3:
        raise ValueError(f"`readings` must be at least 3, two at the ends; got {readings}.")
    for name, value in (("noise", noise), ("penalty", penalty)):
        if not 0.0 < value < float("inf"):
            raise ValueError(f"`{name}` must be positive; got {value!r}.")
    return noise / (readings * penalty) ** 0.5
