"""How an estimate ended, as data."""

import enum


class EstimateStatus(enum.IntEnum):
    """Whether an estimate explains its readings; stored as an integer in `Estimate.status`.

    Example:
        >>> ij.EstimateStatus.NOT_CONVERGED.message.startswith("The steps ended")
        True
    """

    OK = 0
    POOR_FIT = 1
    SOLVER_FAILED = 2
    NOT_CHECKED = 3
    NOT_MIXED = 4
    NOT_CONVERGED = 5
    IMPOSSIBLE_READINGS = 6

    @property
    def message(self) -> str:
        """One sentence that says what it means and what to do about it."""
        return _MESSAGES[self]


_MESSAGES = {
    EstimateStatus.OK: "The model, solved again at the estimate, agrees with the readings.",
    EstimateStatus.POOR_FIT: (
        "The model, solved again at the estimate, misses the readings by more than their noise: "
        "refine the estimate, or check the noise level, the units and the model."
    ),
    EstimateStatus.SOLVER_FAILED: (
        "The model could not be solved at the estimate, or what is read of it is not finite there: "
        "treat these values as unreliable."
    ),
    EstimateStatus.NOT_CHECKED: "The model has not been solved again at the estimate.",
    EstimateStatus.NOT_MIXED: (
        "The chains of the sampler do not agree or are too short: treat the spread as a guess, and "
        "give `Posterior` more `warmup` and `draws`, or `SequentialMonteCarlo` more `particles`."
    ),
    EstimateStatus.NOT_CONVERGED: (
        "The steps ended at a point that is no optimum, so that nothing is known of its "
        "uncertainty: raise `max_steps`. If that changes nothing, the misfit has a kink or a jump "
        "there: use `SequentialMonteCarlo`, which takes no derivatives."
    ),
    EstimateStatus.IMPOSSIBLE_READINGS: (
        "The model could be solved, but these readings are impossible under the noise at any "
        "parameters tried: check zeros, signs and units of the readings, and whether the noise "
        "model allows them where the model is zero or negative."
    ),
}
