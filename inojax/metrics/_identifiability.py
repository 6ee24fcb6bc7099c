"""What readings can and cannot see, said before anyone trains."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Key

from .._inverse_problem import InverseProblem
from .._sensors import Sensors
from ..noise import AR1, Gaussian, LogNormal
from ._bayes_floor import BayesFloor, floor_of
from ._information import PRIOR_PRECISION, CaseInformation, case_information
from ._sloppy import find_sloppy
from ._sloppy_words import View, sentences

# Points of the prior at which its spread is taken; without its ends, which may be infinite.
_QUANTILES = 1024


@dataclasses.dataclass(frozen=True)
class IdentifiabilityCard:
    """What the readings of a problem are expected to tell about its parameters.

    Everything is the Laplace approximation of each case at its true parameters, averaged over
    the prior. Printed, it is a table with sentences below.

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
        informative: Number of eigenvalues above 12: directions in which the average readings
            say more than the prior.
        directions: Sloppiest direction first, in units of `prior_std` and of length 1: the
            eigenvectors of the averaged posterior covariance.
        direction_spread: Posterior over prior standard deviation along each of these.
        invisible: Number of directions along which the readings take less than a tenth off the
            prior's spread, wherever these point in a case.
        sentences: What the readings do not see, in words; empty if they see everything.
        floor: The Bayes floor of the same cases.
        cases: Number of cases whose solve succeeded.
        failed: Number of cases left out because their solve failed.
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
        ratio = self.posterior_std[i] * np.sqrt(PRIOR_PRECISION)
        stds = [f"{x[i]:.3g}" for x in (self.scaled_std, self.prior_std)]
        return [self.names[i], f"{self.contraction[i]:.3f}", f"{100 * ratio:.1f} %", *stds]

    def _head(self) -> list[str]:
        lost = f", {self.failed} more failed to solve" if self.failed else ""
        return [
            f"Identifiability of {self.problem}: {len(self.names)} parameters, "
            f"{self.cases} cases from the prior{lost}",
            f"Bayes floor: {self.floor.parameter_mse:.3g} +/- {self.floor.standard_error:.2g} "
            "(mean squared error in unit coordinates; the prior mean's is 0.0833)",
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
            f"{count} invisible (the readings take less than 10 % off the prior's spread), told "
            f"as {kind}:",
            *(f"- {line}" for line in self.sentences),
        ]

    def _foot(self) -> list[str]:
        n = len(self.names)
        return [
            f"Averaged information: rank {self.rank} of {n}; it says more than the prior in "
            f"{self.informative} of {n} directions."
        ]


def identifiability(
    problem: InverseProblem,
    sensors: Sensors | None = None,
    cases: int = 256,
    *,
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
        cases: Number of random cases.
        key: Source of randomness.

    Returns:
        The card; `print` it.

    Raises:
        TypeError: If `sensors` are not `Sensors`.
        ValueError: If `cases` is below 2, if the noise is zero or does not fit the sensors, if a
            total variation couples the parameters, or if no solve succeeds.
    """
    if sensors is not None:
        problem = _measured_by(problem, sensors)
    information = case_information(problem, cases, key=key)
    variance = np.diagonal(information.covariance, axis1=1, axis2=2).mean(axis=0)
    fisher = information.fisher.mean(axis=0)
    eigenvalues = np.linalg.eigvalsh(fisher)
    rounding = len(fisher) * np.finfo(np.float64).eps * eigenvalues[-1]
    view = _view(problem, information, np.sqrt(PRIOR_PRECISION * variance))
    covariance = np.linalg.inv(view.information + np.eye(len(fisher))).mean(axis=0)
    spreads, directions = np.linalg.eigh(covariance)
    sloppy = find_sloppy(view.information)
    return IdentifiabilityCard(
        problem=problem.name,
        names=problem.parameters.names,
        posterior_std=np.sqrt(variance),
        contraction=1.0 - PRIOR_PRECISION * variance,
        logarithmic=view.logarithmic,
        scaled_std=np.sqrt(np.diag(covariance)) * view.scale,
        prior_std=view.scale,
        fisher=fisher,
        eigenvalues=eigenvalues,
        rank=int(np.sum(eigenvalues > rounding)),
        informative=int(np.sum(eigenvalues > PRIOR_PRECISION)),
        directions=directions.T[::-1],
        direction_spread=np.sqrt(spreads[::-1]),
        invisible=sloppy.dimension,
        sentences=sentences(view, sloppy),
        floor=floor_of(information),
        cases=len(information.thetas),
        failed=information.failed,
    )


def _view(problem: InverseProblem, cases: CaseInformation, width: np.ndarray) -> View:
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
    return View(space.names, space.units, cases.thetas, scale, information, width, logarithmic)


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
