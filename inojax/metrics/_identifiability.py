"""What readings can and cannot see, said before anyone trains."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key

from .._inverse_problem import InverseProblem
from .._observation import Observation
from .._parameters import UNIT_PRECISION
from .._sensors import Sensors
from ..noise import AR1, Gaussian, LogNormal
from ._bayes_floor import BayesFloor, floor_of
from ._information import CaseInformation, case_information
from ._probe import Probe
from ._sloppy import find_sloppy, informative
from ._sloppy_words import View, sentences

# Points of the prior at which its spread is taken; without its ends, which may be infinite.
_QUANTILES = 1024


@dataclasses.dataclass(frozen=True)
class IdentifiabilityCard:
    """What the readings of a problem are expected to tell about its parameters.

    Everything is the Laplace approximation of each case at its true parameters, averaged over
    the prior, or at one parameter vector. So it knows derivatives only; what it says no reading
    depends on was tested by solving again all over the prior. Printed, it is a table with
    sentences below.

    Attributes:
        problem: Name of the problem.
        names: Name of each parameter.
        posterior_std: Expected posterior standard deviation of each parameter in unit
            coordinates, where the prior's is 1/√12 = 0.289: root of the mean variance.
        contraction: One minus posterior over prior variance: 1 where the readings settle a
            parameter, 0 where they say nothing.
        logarithmic: Whether `scaled_std` and `directions` are about the logarithms of the
            parameters, as they are where all priors are positive, or about physical values.
        scaled_std: Expected posterior standard deviation of each logarithm, which is about the
            relative error, or of each physical value.
        prior_std: The prior's, in the same coordinates.
        fisher: Fisher information in unit coordinates, averaged over the cases.
        eigenvalues: Its eigenvalues in rising order; the prior's precision is 12.
        rank: Number of eigenvalues above the rounding error of the largest.
        informative: Number of directions in which the readings of the median case say more than
            the prior. The information of all cases together, which no observation has, may have
            more eigenvalues above 12.
        directions: Sloppiest direction first, in units of `prior_std` and of length 1: the
            eigenvectors of the averaged posterior covariance.
        direction_spread: Posterior over prior standard deviation along each of these.
        invisible: Number of directions along which the readings take less than a tenth off the
            prior's spread, wherever these point in a case.
        sentences: What the readings do not see, in words; empty if they see everything.
        floor: The Bayes floor of the same cases.
        cases: Number of cases that count.
        failed: Number of cases left out because their solve failed.
        undefined: Number of cases left out though they were solved: what is read of them is not
            finite, or has no density under the noise.
        local: Whether all cases are at one parameter vector, `at`, instead of drawn from the
            prior.
        given: Whether the times and channels are those of an observation.

    Example:
        >>> card = ij.metrics.identifiability(ij.problems.robertson(), cases=16, key=jr.key(0))
        >>> card.rank, card.failed
        (3, 0)
    """

    problem: str
    names: tuple[str, ...]
    posterior_std: Float[np.ndarray, " parameter"]
    contraction: Float[np.ndarray, " parameter"]
    logarithmic: bool
    scaled_std: Float[np.ndarray, " parameter"]
    prior_std: Float[np.ndarray, " parameter"]
    fisher: Float[np.ndarray, "parameter parameter"]
    eigenvalues: Float[np.ndarray, " parameter"]
    rank: int
    informative: int
    directions: Float[np.ndarray, "direction parameter"]
    direction_spread: Float[np.ndarray, " direction"]
    invisible: int
    sentences: tuple[str, ...]
    floor: BayesFloor
    cases: int
    failed: int
    undefined: int = 0
    local: bool = False
    given: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain Python values, ready for `json.dump`."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}

    def __str__(self) -> str:
        """A table of the parameters, best determined first, and what is not seen."""
        of = "log" if self.logarithmic else "value"
        header = ["parameter", "contraction", "posterior/prior", f"std of {of}", "prior's"]
        order = np.argsort(self.posterior_std, kind="stable")
        rows = [header, *(self._row(int(i)) for i in order)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
        table = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in rows
        ]
        return "\n".join([*self._head(), "", *table, "", *self._unseen(), *self._foot()])

    def _row(self, i: int) -> list[str]:
        # The prior's 1/√12 in unit coordinates.
        ratio = self.posterior_std[i] * np.sqrt(UNIT_PRECISION)
        stds = [f"{x[i]:.3g}" for x in (self.scaled_std, self.prior_std)]
        return [self.names[i], f"{self.contraction[i]:.3f}", f"{100 * ratio:.1f} %", *stds]

    def _head(self) -> list[str]:
        lost = f", {self.failed} more failed to solve" if self.failed else ""
        if self.undefined:
            lost += f", {self.undefined} more were solved, but have no finite readings or density"
        count = "1 case" if self.cases == 1 else f"{self.cases} cases"
        where = "at the parameters given" if self.local else "from the prior"
        read = ", read as the observation was" if self.given else ""
        error = f"{self.floor.parameter_mse:.3g}"
        told = "mean squared error in unit coordinates; the prior mean's is 0.0833"
        floor = (
            f"Expected posterior variance there: {error} (in unit coordinates; the prior's is "
            "0.0833)"
            if self.local
            else f"Bayes floor: {error} +/- {self.floor.standard_error:.2g} ({told})"
        )
        return [
            f"Identifiability of {self.problem}: {len(self.names)} parameters, "
            f"{count} {where}{read}{lost}",
            floor,
        ]

    def _unseen(self) -> list[str]:
        if self.invisible == 0:
            tightest = 100.0 * float(self.direction_spread[0])
            return [
                "Readings narrow every direction of the prior, the least visible to "
                f"{tightest:.2g} % of its spread."
            ]
        kind = "products of powers" if self.logarithmic else "weighted sums"
        count = "1 direction is" if self.invisible == 1 else f"{self.invisible} directions are"
        return [
            f"{count} invisible (by their derivatives the readings take less than 10 % off the "
            f"prior's spread), told as {kind}:",
            *(f"- {line}" for line in self.sentences),
        ]

    def _foot(self) -> list[str]:
        n = len(self.names)
        return [
            f"In the median case the readings say more than the prior in {self.informative} of {n} "
            f"directions. The information of all cases together is of rank {self.rank} of {n}."
        ]


def identifiability(
    problem: InverseProblem,
    sensors: Sensors | None = None,
    cases: int = 256,
    *,
    observation: Observation | None = None,
    at: Float[ArrayLike, " parameter"] | Sequence[float] | None = None,
    key: Key[Array, ""],
) -> IdentifiabilityCard:
    """Foretell which parameters, and which combinations of them, readings can settle.

    Use it before training anything, and with other `sensors` before measuring anything. For each
    case it draws parameters and an observation, solves with forward sensitivities and takes the
    Fisher information, as `bayes_floor` does. An invisible direction is told as the fewest
    parameters that can move along it; each formula was tested: all moves that leave it unchanged
    leave the prior at least 80 % as wide, averaged over the cases. It sees what is local: two
    separate optima, as of a sign, it takes for one.

    Args:
        problem: The inverse problem.
        sensors: What to measure instead of the problem's own sensors. Noise levels follow their
            channels.
        cases: Number of random cases; a single one where `at` and what is read are fixed.
        observation: Whose times and channels count, instead of what the sensors draw: those that
            were really read. Its values do not matter.
        at: Parameters, such as an estimate, at which to look instead of all over the prior. What
            the card says then holds near them.
        key: Source of randomness.

    Returns:
        The card; `print` it.

    Raises:
        TypeError: If `sensors` are not `Sensors`, or `observation` is no `Observation`.
        ValueError: If `cases` is below 2, if the noise is zero or does not fit the sensors, if a
            total variation couples the parameters, or if no solve succeeds; if both `sensors` and
            `observation` are given, or the latter is not of this problem; or if `at` lies outside
            of the prior.

    Example:
        >>> card = ij.metrics.identifiability(ij.problems.robertson(), cases=16, key=jr.key(0))
        >>> card.contraction.shape
        (3,)
    """
    if sensors is not None:
        problem = _measured_by(problem, sensors)
    if observation is not None:
        _check_observation(problem, sensors, observation)
    point = None if at is None else _inside(problem, at)
    information = case_information(problem, cases, observation=observation, at=point, key=key)
    variance = np.diagonal(information.covariance, axis1=1, axis2=2).mean(axis=0)
    fisher = information.fisher.mean(axis=0)
    eigenvalues = np.linalg.eigvalsh(fisher)
    rounding = len(fisher) * np.finfo(np.float64).eps * eigenvalues[-1]
    probe = Probe(problem, information.thetas, observation)
    view = _view(problem, information, np.sqrt(UNIT_PRECISION * variance), probe)
    covariance = np.linalg.inv(view.information + np.eye(len(fisher))).mean(axis=0)
    spreads, directions = np.linalg.eigh(covariance)
    sloppy = find_sloppy(view.information)
    return IdentifiabilityCard(
        problem=problem.name,
        names=problem.parameters.names,
        posterior_std=np.sqrt(variance),
        contraction=1.0 - UNIT_PRECISION * variance,
        logarithmic=view.logarithmic,
        scaled_std=np.sqrt(np.diag(covariance)) * view.scale,
        prior_std=view.scale,
        fisher=fisher,
        eigenvalues=eigenvalues,
        rank=int(np.sum(eigenvalues > rounding)),
        informative=informative(view.information),
        directions=directions.T[::-1],
        direction_spread=np.sqrt(spreads[::-1]),
        invisible=sloppy.dimension,
        sentences=sentences(view, sloppy),
        floor=floor_of(information),
        cases=len(information.thetas),
        failed=information.failed,
        undefined=information.undefined,
        local=at is not None,
        given=observation is not None,
    )


def _check_observation(
    problem: InverseProblem, sensors: Sensors | None, observation: Observation
) -> None:
    if sensors is not None:
        raise ValueError("`observation` says what was read, and so do `sensors`: give one of them.")
    problem.check_observation(observation)
    if not np.asarray(observation.mask).any():
        raise ValueError("`observation` holds no reading; at least one is needed.")


def _inside(problem: InverseProblem, at: Any) -> Float[np.ndarray, " parameter"]:
    point = np.asarray(at, np.float64)
    if point.shape != (problem.parameters.size,):
        raise ValueError(
            f"`at` must be one value for each of the {problem.parameters.size} parameters; got "
            f"shape {point.shape}."
        )
    unit = np.asarray(problem.parameters.to_unit(point))
    outside = [
        name
        for name, z in zip(problem.parameters.names, unit.tolist(), strict=True)
        if not 0.0 < z < 1.0
    ]
    if outside:
        raise ValueError(
            f"`at` must lie inside of the prior; {', '.join(outside)} does not. At its end it has "
            "no derivative."
        )
    return point


def _view(problem: InverseProblem, cases: CaseInformation, width: np.ndarray, probe: Probe) -> View:
    """The cases per prior standard deviation, of logarithms where all priors are positive."""
    space = problem.parameters
    middles = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    points = np.asarray(space.from_unit(np.tile(middles[:, None], (1, space.size))))
    # A prior that reaches zero has a logarithm all the same: zero itself is never drawn.
    logarithmic = bool(
        (points > 0.0).all() and (space.from_unit(np.zeros(space.size)) >= 0.0).all()
    )
    slopes = cases.slopes / cases.thetas if logarithmic else cases.slopes
    scale = np.std(np.log(points) if logarithmic else points, axis=0)
    factor = scale / slopes
    information = cases.fisher * factor[:, :, None] * factor[:, None, :]
    return View(
        space.names, space.units, cases.thetas, scale, information, width, logarithmic, probe,
        tuple(range(space.size)),
    )  # fmt: skip


def _measured_by(problem: InverseProblem, sensors: Sensors) -> InverseProblem:
    if not isinstance(sensors, Sensors):
        raise TypeError(
            f"`sensors` must be of type `Sensors`, or None for those of the problem; got "
            f"{type(sensors).__name__}."
        )
    noise = problem.noise
    if isinstance(noise, AR1):
        inner = InverseProblem(
            problem.name, problem.parameters, problem.model, problem.sensors, noise.inner
        )
        noise = dataclasses.replace(noise, inner=_measured_by(inner, sensors).noise)
    elif isinstance(noise, Gaussian | LogNormal) and isinstance(noise.scale, tuple):
        channels = problem.model.states if sensors.channels is None else sensors.channels
        same = sensors.observable is problem.sensors.observable
        foreign = [name for name in channels if not same or name not in problem.channels]
        if foreign:
            raise ValueError(
                f"`sensors` reads {', '.join(foreign)}, for which the problem's noise has no "
                "level. Make an `InverseProblem` with these sensors and a noise that fits them."
            )
        levels = tuple(noise.scale[problem.channels.index(name)] for name in channels)
        noise = dataclasses.replace(noise, scale=levels)
    return InverseProblem(problem.name, problem.parameters, problem.model, sensors, noise)


def _plain(value: Any) -> Any:
    """The same without NumPy."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
