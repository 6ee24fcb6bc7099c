"""The verdict on an estimate: whether it can be trusted, with the numbers and reasons behind it."""

import enum
import math
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.special import ndtri

from ._estimate_status import EstimateStatus
from ._multi_start import MultiStart
from ._unfamiliar import Unfamiliar

# A correct model misses its readings so badly in one case of a thousand.
P_VALUE = 1e-3
# Held-out simulations raise an alarm in one case of fifty.
RARE = 0.02
# 90 % intervals that hold the truth in fewer cases than this are called too narrow.
_LEAST_COVERAGE = 0.86
# The same for a single parameter.
_LEAST_SINGLE = 0.82
_LEVEL = 0.9
# Fewer samples cannot have one at either end of a 90 % interval.
_FEWEST_DRAWS = 19


class Verdict(enum.StrEnum):
    """What to make of an estimate.

    Example:
        >>> [str(verdict) for verdict in ij.Verdict]
        ['trust', 'check', 'do not trust']
    """

    TRUST = "trust"
    CHECK = "check"
    DO_NOT_TRUST = "do not trust"


_ORDER = tuple(Verdict)
# Nothing else is worth saying about these.
_HOPELESS = (
    EstimateStatus.SOLVER_FAILED,
    EstimateStatus.NOT_CONVERGED,
    EstimateStatus.IMPOSSIBLE_READINGS,
)


class Calibration(eqx.Module):
    """An estimate beside those of simulations that its inverter has not seen.

    P-values are shares of held-out simulations that look at least as bad, so that a correct model
    gives one below 0.02 in one case of fifty.

    Attributes:
        misfit_p_value: That of the estimate's own misfit.
        misspecification_p_value: That of the misfit plus penalty which a fit on the real solver
            leaves: low where no parameters explain the readings as well as simulations of this
            problem are explained.
        unexplained: Chi-squared per reading that this fit leaves.
        surrogate_gap: Root mean square distance between surrogate and solver at the estimate, over
            the readings, in standard deviations of the noise; NaN without a surrogate.
        surrogate_p_value: That of this distance; NaN without a surrogate.
        coverage: Share of held-out simulations whose truth lay in the 90 % interval of each
            parameter.
        cases: Number of held-out simulations.

    Example:
        >>> unlike = ij.Calibration(
        ...     misfit_p_value=np.array(0.4), misspecification_p_value=np.array(0.004),
        ...     unexplained=np.array(1.8), surrogate_gap=np.array(np.nan),
        ...     surrogate_p_value=np.array(np.nan), coverage=np.array([0.9, 0.91]), cases=500,
        ... )
        >>> bool(unlike.misspecified)
        True
    """

    misfit_p_value: Float[Array | np.ndarray, "*batch"]
    misspecification_p_value: Float[Array | np.ndarray, "*batch"]
    unexplained: Float[Array | np.ndarray, "*batch"]
    surrogate_gap: Float[Array | np.ndarray, "*batch"]
    surrogate_p_value: Float[Array | np.ndarray, "*batch"]
    coverage: Float[Array | np.ndarray, "*batch parameter"]
    cases: int = eqx.field(static=True)

    @property
    def misspecified(self) -> Bool[np.ndarray, "*batch"]:
        """Whether the readings do not look like simulations of the problem."""
        return np.asarray(np.asarray(self.misspecification_p_value) < RARE)


class TrustTicket(eqx.Module):
    """How far an estimate can be trusted; `print(ticket)` says why.

    Every estimate of a concrete observation carries one. What an inverter's own record adds,
    whether the readings look like its simulations and whether its intervals hold, comes from
    `methods.calibrate`.

    Attributes:
        status: The `EstimateStatus`.
        chi2_per_reading: Mean squared whitened residual of the model solved again at the estimate.
        p_value: Chance that an estimate of a correct model misses its readings by more. Fitted
            parameters miss them by less than true ones: how much less, the samples say, which show
            how many directions the readings settle. Without samples it is that of true parameters,
            which errs on the side of trust.
        best_p_value: The same for that of the estimate's samples that fits best; NaN where that was
            not looked for. The mean of a posterior may lie between modes and fit none.
        modes: Optima of weight above 0.05, where the method looks for several; else 1.
        tempering_exponent: Power to which the solver's likelihood counts in the samples, where they
            are weighed draws of a linearized model (`Diagnostics.tempering_exponent`); else NaN.
        exact: Whether the estimate was inferred with the real solver.
        corrected: Whether its intervals were corrected on held-out simulations, by
            `methods.conformal`.
        noise_known: Whether the noise level is known rather than estimated, too.
        calibration: The estimate beside held-out simulations, from `methods.calibrate`.
        closer_p_value: Chance that it comes closer to them, 1 - `p_value`; NaN where there are no
            more readings than parameters, or where these are counts. A tiny one means that the
            level of the noise is too high.
        spare_readings: How many more readings there are than parameters.
        solver_draws: Independent draws that the samples are worth which the solver has weighed
            (`Diagnostics.solver_draws`); else NaN.
        search: How many starts ended where, from methods that search for optima.
        unfamiliar: In what the observation is unlike those of training, as `Unfamiliar`.
        degrees_of_freedom: How many independent residuals a correct model leaves: readings, less
            the directions of the parameters that they settle.

    Example:
        >>> problem = ij.problems.lotka_volterra()
        >>> least_squares = ij.methods.LeastSquares(starts=2, draws=64, candidates=0)
        >>> inverter = least_squares.fit(problem)
        >>> estimate = inverter(ij.problems.lynx_hare(), key=jr.key(0))

        >>> estimate.ticket.verdict, estimate.ticket.exact
        (<Verdict.CHECK: 'check'>, True)
    """

    status: Int[Array | np.ndarray, "*batch"]
    chi2_per_reading: Float[Array | np.ndarray, "*batch"]
    p_value: Float[Array | np.ndarray, "*batch"]
    best_p_value: Float[Array | np.ndarray, "*batch"]
    modes: Int[Array | np.ndarray, "*batch"]
    tempering_exponent: Float[Array | np.ndarray, "*batch"]
    exact: bool = eqx.field(static=True)
    corrected: bool = eqx.field(static=True)
    noise_known: bool = eqx.field(static=True)
    calibration: Calibration | None = None
    closer_p_value: Float[Array | np.ndarray, "*batch"] | None = None
    spare_readings: Int[Array | np.ndarray, "*batch"] | None = None
    solver_draws: Float[Array | np.ndarray, "*batch"] | None = None
    search: MultiStart | None = None
    unfamiliar: Int[Array | np.ndarray, "*batch"] | None = None
    degrees_of_freedom: Float[Array | np.ndarray, "*batch"] | None = None

    @property
    def verdict(self) -> Verdict:
        """The worst of all findings.

        Raises:
            ValueError: If this is a batch of tickets.
        """
        return max((verdict for verdict, _ in self._findings()), key=_ORDER.index)

    @property
    def reasons(self) -> tuple[str, ...]:
        """What the verdict rests on, the worst first."""
        findings = sorted(self._findings(), key=lambda f: -_ORDER.index(f[0]))
        return tuple(sentence for _, sentence in findings)

    def as_dict(self) -> dict[str, Any]:
        """Verdict, reasons and numbers as plain Python values, ready for `json.dump`."""
        numbers: dict[str, Any] = {
            "status": EstimateStatus(int(self.status)).name,
            "chi2_per_reading": _known(self.chi2_per_reading),
            "p_value": _known(self.p_value),
            "best_p_value": _known(self.best_p_value),
            "modes": int(self.modes),
            "tempering_exponent": _known(self.tempering_exponent),
            "exact": self.exact,
            "corrected": self.corrected,
            "noise_known": self.noise_known,
        }
        for name in ("closer_p_value", "spare_readings", "solver_draws"):
            if getattr(self, name) is not None:
                numbers[name] = _known(getattr(self, name))
        if self.search is not None:
            numbers["search"] = self.search.as_dict()
        if self.calibration is not None:
            names = (
                "misfit_p_value", "misspecification_p_value", "unexplained",
                "surrogate_gap", "surrogate_p_value",
            )  # fmt: skip
            numbers["calibration"] = {
                name: _known(getattr(self.calibration, name)) for name in names
            }
            numbers["calibration"]["coverage_90"] = np.asarray(self.calibration.coverage).tolist()
            numbers["calibration"]["cases"] = self.calibration.cases
        return {"verdict": str(self.verdict), "reasons": list(self.reasons), **numbers}

    def __str__(self) -> str:
        """The verdict and its reasons."""
        findings = sorted(self._findings(), key=lambda f: -_ORDER.index(f[0]))
        marks = {Verdict.TRUST: "+", Verdict.CHECK: "?", Verdict.DO_NOT_TRUST: "!"}
        lines = [f"{marks[verdict]} {sentence}" for verdict, sentence in findings]
        return "\n".join([f"Verdict: {self.verdict}", *lines])

    def _findings(self) -> list[tuple[Verdict, str]]:
        if np.ndim(self.status) != 0:
            raise ValueError(
                "A verdict belongs to a single estimate; this is a batch of shape "
                f"{np.shape(self.status)}. Take one with `jax.tree.map(lambda x: x[0], ticket)`."
            )
        status = EstimateStatus(int(self.status))
        if status in _HOPELESS:
            return [(Verdict.DO_NOT_TRUST, status.message)]
        findings = [self._fit()]
        if self.calibration is not None:
            findings += _calibrated(self.calibration, self.corrected)
        elif status is not EstimateStatus.NOT_MIXED:
            findings += self._intervals()
        if status is EstimateStatus.NOT_MIXED:
            findings.append((Verdict.CHECK, status.message))
        if int(self.modes) > 1:
            findings.append((Verdict.CHECK, self._several()))
        if self.unfamiliar is not None:
            sentences = Unfamiliar(int(self.unfamiliar)).sentences
            findings += [(Verdict.CHECK, sentence) for sentence in sentences]
        if not self.noise_known:
            findings.append((Verdict.TRUST, _ESTIMATED_NOISE))
        return findings

    def _fit(self) -> tuple[Verdict, str]:
        """What the misfit of the estimate itself says."""
        p_value, chi2 = float(self.p_value), float(self.chi2_per_reading)
        if math.isnan(p_value):
            return Verdict.CHECK, EstimateStatus.NOT_CHECKED.message
        measured = f"chi-squared per reading {chi2:.3g}, p-value {p_value:.2g}"
        if p_value >= P_VALUE:
            return self._good_fit(measured)
        missed = f"The estimate misses the readings by more than their noise: {measured}."
        if self.calibration is not None:
            return self._usual_misfit(self.calibration, missed)
        if self.exact:
            return self._exact_misfit(missed)
        return Verdict.CHECK, f"{missed} Refine it on the real solver."

    def _good_fit(self, measured: str) -> tuple[Verdict, str]:
        if self.closer_p_value is not None and float(self.closer_p_value) < P_VALUE:
            return Verdict.CHECK, f"{_TOO_CLOSE}: {measured}. {_LOWER_NOISE}"
        explained = f"The estimate explains the readings: {measured}."
        if self.spare_readings is None or int(self.spare_readings) > 0:
            return Verdict.TRUST, explained
        # Held-out simulations test the intervals all the same.
        verdict = Verdict.CHECK if self.calibration is None else Verdict.TRUST
        return verdict, f"{explained} {_NO_TEST}"

    def _intervals(self) -> list[tuple[Verdict, str]]:
        """What is known of the intervals where held-out simulations say nothing."""
        power = float(self.tempering_exponent)
        draws = math.nan if self.solver_draws is None else float(self.solver_draws)
        if self.corrected:
            return [(Verdict.TRUST, "The intervals were corrected on held-out simulations.")]
        if not self.exact:
            return [(Verdict.CHECK, _UNTESTED)]
        if power < 1.0:
            return [(Verdict.CHECK, f"{_weighed(power)} {_WEIGH_BETTER}")]
        if draws < _FEWEST_DRAWS:
            few = f"Only {draws:.0f} draws that the solver finds likely are behind the intervals"
            return [(Verdict.CHECK, f"{few}: give more `draws` or `candidates`.")]
        if float(self.p_value) < P_VALUE:
            return []  # they are those of a model that does not fit
        if self.search is None:
            return [(Verdict.TRUST, "The intervals come from the real solver.")]
        return [(Verdict.TRUST, f"The intervals come from the real solver. {self.search}.")]

    def _exact_misfit(self, missed: str) -> tuple[Verdict, str]:
        if float(self.best_p_value) >= P_VALUE:
            return Verdict.CHECK, f"{missed} {_BETWEEN}"
        if int(self.status) == EstimateStatus.NOT_MIXED:
            return Verdict.DO_NOT_TRUST, missed
        if self.search is None:
            samples = "" if math.isnan(float(self.best_p_value)) else f" {_SO_DO_SAMPLES}"
            return Verdict.DO_NOT_TRUST, f"{missed}{samples} {_LIKELY_WRONG}"
        if bool(self.search.settled):
            return Verdict.DO_NOT_TRUST, f"{missed} {self.search}. {_LIKELY_WRONG}"
        return Verdict.DO_NOT_TRUST, f"{missed} {self.search}: {_MORE_STARTS}"

    def _several(self) -> str:
        count = int(self.modes)
        if float(self.p_value) < P_VALUE:
            return f"{count} different optima weigh more than 5 %: see `optima`."
        return f"{count} different modes of the posterior were found: see `optima`."

    def _usual_misfit(self, calibration: Calibration, missed: str) -> tuple[Verdict, str]:
        rank = float(calibration.misfit_p_value)
        if rank < RARE:
            return (
                Verdict.CHECK,
                f"{missed} It is more than in {1.0 - rank:.1%} of held-out simulations: refine it.",
            )
        return (
            Verdict.TRUST,
            f"{missed} This inverter's estimates miss by as much in {rank:.0%} of held-out "
            "simulations, and its intervals were tested on them. Refine it for a better fit.",
        )


_UNTESTED = (
    "The intervals of this inverter have never been tested: see `methods.calibrate`, and "
    "`methods.conformal` to correct them."
)
_WEIGH_BETTER = (
    "`Posterior` or `SequentialMonteCarlo` sample the posterior itself, and `methods.conformal` "
    "corrects intervals."
)
_LIKELY_WRONG = "The model, its noise level or the units of the readings are likely wrong."
_SO_DO_SAMPLES = "So do all of its samples that were looked at."
_MORE_STARTS = (
    "there may be a better one. Before you doubt the model, give `LeastSquares` more `starts` and "
    "`max_starts`, or sample by `SequentialMonteCarlo`."
)
_BETWEEN = (
    "Some of its samples explain them: the point lies between modes, or the prior draws it "
    "away. Look at `samples`, or refine it by `LeastSquares` from many `starts`."
)
_TOO_CLOSE = "The estimate comes closer to the readings than their noise allows"
_LOWER_NOISE = (
    "The level of the noise is too high, or the readings are smoothed or repeated: the intervals "
    "are as wrong as the level."
)
_NO_TEST = (
    "But there are no more readings than parameters, so that a wrong model would explain them, too."
)
_ESTIMATED_NOISE = (
    "The noise level is estimated, too, so that errors of the model hide in it: look at the "
    "residuals."
)


def _weighed(power: float) -> str:
    if power == 0.0:
        return "The intervals are those of the model linearized at its optima."
    return (
        "The intervals are partly those of the model linearized at its optima: too few of its "
        f"draws are likely, so that the solver's word on them counts to the power {power:.2g}."
    )


def _calibrated(calibration: Calibration, corrected: bool) -> list[tuple[Verdict, str]]:
    findings = [_familiar(calibration), _covered(calibration, corrected)]
    rank, gap = float(calibration.surrogate_p_value), float(calibration.surrogate_gap)
    if math.isnan(rank):
        return findings
    measured = f"The surrogate is {gap:.2g} standard deviations of the noise from the solver here"
    if rank < RARE:
        return [*findings, (Verdict.CHECK, f"{measured}, farther than in held-out simulations.")]
    return [*findings, (Verdict.TRUST, f"{measured}, as usual.")]


def _familiar(calibration: Calibration) -> tuple[Verdict, str]:
    rank, left = float(calibration.misspecification_p_value), float(calibration.unexplained)
    after = f"after a fit on the real solver (chi-squared per reading {left:.3g})"
    if rank >= RARE:
        return (
            Verdict.TRUST,
            f"The readings look like simulations: {rank:.0%} of {calibration.cases} held-out ones "
            f"are explained no better {after}.",
        )
    sentence = f"The readings look unlike the simulations: {after} more is left than in "
    if calibration.misspecification_p_value * (calibration.cases + 1) < 1.5:
        return (
            Verdict.DO_NOT_TRUST,
            f"{sentence}all {calibration.cases} held-out ones. {_LIKELY_WRONG}",
        )
    return Verdict.CHECK, f"{sentence}{1.0 - rank:.1%} of {calibration.cases} held-out ones."


def _covered(calibration: Calibration, corrected: bool) -> tuple[Verdict, str]:
    coverage = np.asarray(calibration.coverage)
    measured = (
        f"{_LEVEL:.0%} intervals held the truth in {coverage.mean():.1%} of held-out simulations "
        f"(worst parameter {coverage.min():.1%})"
    )
    # Of many parameters the worst falls short by chance: at 1 % for all of them together.
    error = math.sqrt(_LEVEL * (1.0 - _LEVEL) / calibration.cases)
    chance = float(ndtri(1.0 - 0.01 / coverage.size)) * error
    least = _LEVEL - max(_LEVEL - _LEAST_SINGLE, chance)
    # Parameters may all fall short together.
    least_mean = _LEVEL - max(_LEVEL - _LEAST_COVERAGE, float(ndtri(0.99)) * error)
    if coverage.mean() >= least_mean and coverage.min() >= least:
        return Verdict.TRUST, f"{measured}."
    remedy = "more simulations" if corrected else "`methods.conformal`"
    return Verdict.CHECK, f"{measured}: they are too narrow. Correct them by {remedy}."


def _known(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
