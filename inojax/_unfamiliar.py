"""In what an observation is unlike those that a network was trained on."""

import enum


class Unfamiliar(enum.IntFlag):
    """What a network has not met in training, although it has an answer."""

    NOTHING = 0
    MORE_ROWS = 1
    BETWEEN_TIMES = 2
    FEWER_READINGS = 4

    @property
    def sentences(self) -> tuple[str, ...]:
        """What that means and what to do about it, a sentence for each."""
        return tuple(_SENTENCES[one] for one in Unfamiliar if one in self)


_SENTENCES = {
    Unfamiliar.MORE_ROWS: (
        "The observation has more rows than the network was trained on: they were dealt into "
        "groups, whose answers were multiplied as if the network's own errors were independent. "
        "Train with more `RandomTimes`, or refine the estimate on the real solver."
    ),
    Unfamiliar.BETWEEN_TIMES: (
        "A reading was taken between output times of the model, or before the first of them, where "
        "the network was not trained: it interpolates. Add its time to the model's `times` and "
        "train again, or refine the estimate on the real solver."
    ),
    Unfamiliar.FEWER_READINGS: (
        "Other readings are missing than is usual in training, or more of them, such as a whole "
        "channel or a stretch of time. Train with `Sensors(missing=...)` or a larger `mask_rate`, "
        "or refine the estimate on the real solver."
    ),
}
