"""How the solve of one trajectory ended."""

import enum


class SolveStatus(enum.IntEnum):
    """How the solve of one trajectory ended; stored as an integer in arrays of statuses.

    `SolveStatus(int(solution.status[i])).message` is a sentence for the reader.

    Example:
        >>> ij.solvers.SolveStatus.SUCCESS.value
        0
    """

    SUCCESS = 0
    MAX_STEPS_REACHED = 1
    STEP_SIZE_TOO_SMALL = 2
    NON_FINITE = 3

    @property
    def message(self) -> str:
        """One sentence that says what happened and what to do about it."""
        return _MESSAGES[self]


_MESSAGES = {
    SolveStatus.SUCCESS: "The solve reached the last output time within its tolerances.",
    SolveStatus.MAX_STEPS_REACHED: (
        "The solve used up its steps before the last output time: raise `max_steps`, loosen "
        "`rtol` and `atol`, or shorten the time horizon."
    ),
    SolveStatus.STEP_SIZE_TOO_SMALL: (
        "The step size fell to the rounding error of time, as at a finite-time blow-up or a "
        "discontinuity: check the parameter values and the vector field, or end earlier."
    ),
    SolveStatus.NON_FINITE: (
        "The vector field or its Jacobian returned NaN or infinity however small the step: "
        "check the initial state, the parameter values and the domain of the vector field."
    ),
}
