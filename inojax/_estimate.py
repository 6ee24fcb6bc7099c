"""What an inversion returns: parameter values with their spread and a verdict on the fit."""

import math
import os
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, Int

from ._estimate_file import read_module, write_module
from ._estimate_status import EstimateStatus
from ._intervals import central_interval
from ._multi_start import MultiStart
from ._named_vector import UnknownNameError, position_of
from ._trust import Calibration, TrustTicket
from ._x64 import is_traced

_LEVEL = 0.9
# Optima of less weight are counted, but not listed.
_WORTH_SHOWING = 0.001
# Unit coordinates this near to an end of the prior are at it; and what single precision leaves.
_EDGE, _ROUNDING = 1e-6, 1e-6


class Optima(eqx.Module):
    """Every mode of the posterior that was found, the best first.

    Attributes:
        value: Parameters in physical units.
        unit_value: The same in unit coordinates.
        misfit: Negative log likelihood, with the total variation of unknown functions if they have
            one, up to a constant that all share; NaN in rows that repeat
            a better one or where the solver failed.
        weight: Posterior probability of each: as far as its peak is a parabola within the prior
            (Laplace), or from draws that the solver has weighed, the parabolas again where too few
            of these are likely. 0 in rows without a misfit, and in all of them where the lowest
            point is no optimum.
        starts: Share of the starts that ended at each: where these were samples of the posterior,
            its weight by them.

    Example:
        >>> problem = ij.problems.lotka_volterra()
        >>> inverter = ij.methods.LeastSquares(draws=64, candidates=0).fit(problem)
        >>> estimate = inverter(ij.problems.lynx_hare(), key=jr.key(0))

        >>> weights = estimate.optima.weight
        >>> bool(weights[0] > 0.5), round(float(weights.sum()), 6)
        (True, 1.0)
    """

    value: Float[Array | np.ndarray, "*batch optimum parameter"]
    unit_value: Float[Array | np.ndarray, "*batch optimum parameter"]
    misfit: Float[Array | np.ndarray, "*batch optimum"]
    weight: Float[Array | np.ndarray, "*batch optimum"]
    starts: Float[Array | np.ndarray, "*batch optimum"]

    @property
    def count(self) -> Int[Array | np.ndarray, "*batch"]:
        """How many different ones there are."""
        return np.asarray((~np.isnan(np.asarray(self.misfit))).sum(-1))


class Diagnostics(eqx.Module):
    """What a method knows of the quality of its samples; None where it does not apply.

    Attributes:
        r_hat: Spread of all chains over that of single ones, for each parameter, by ranks; 1 when
            mixed.
        effective_samples: Independent draws that the samples are worth in the bulk of the
            posterior, for each parameter.
        tail_samples: The same in its tails, below 5 or above 95 %, whichever is worth less.
        log_evidence: Logarithm of the probability density of the readings, from each of several
            independent populations, by methods that know it; NaN where a total variation makes a
            prior whose integral they do not know.
        tempering_exponent: Power to which the solver's likelihood counts beside that of a
            linearized model, by methods that weigh samples of the latter: 1 means that the samples
            are of the posterior itself, 0 that they are of the linearized model.
        solver_draws: Independent draws that those are worth which the solver has weighed.
        search: How many starts ended where, by methods that search for optima.

    Example:
        >>> problem = ij.problems.lotka_volterra()
        >>> inverter = ij.methods.LeastSquares(draws=64, candidates=0).fit(problem)
        >>> estimate = inverter(ij.problems.lynx_hare(), key=jr.key(0))

        >>> float(estimate.diagnostics.tempering_exponent)  # 0: samples of parabolas
        0.0
    """

    r_hat: Float[Array | np.ndarray, "*batch parameter"] | None = None
    effective_samples: Float[Array | np.ndarray, "*batch parameter"] | None = None
    tail_samples: Float[Array | np.ndarray, "*batch parameter"] | None = None
    log_evidence: Float[Array | np.ndarray, "*batch population"] | None = None
    tempering_exponent: Float[Array | np.ndarray, "*batch"] | None = None
    solver_draws: Float[Array | np.ndarray, "*batch"] | None = None
    search: MultiStart | None = None


class Estimate(eqx.Module):
    """Estimated parameters of one experiment, or of a batch.

    `print(estimate)` shows a table, `estimate["k"]` is the estimate of one parameter, and
    `estimate.samples_of("k")` are its samples. The arrays may carry leading batch axes, as they do
    after `jax.vmap(inverter)(observations)`; then print one of them:
    `print(jax.tree.map(lambda x: x[0], estimate))`.

    Attributes:
        names: Name of each parameter.
        units: Unit of each parameter, empty where there is none.
        value: Point estimate in physical units.
        unit_value: Point estimate in unit coordinates (prior CDF), in [0, 1].
        std: Standard deviation in physical units; NaN if the method gives none.
        samples: Posterior samples or particles in physical units, or None.
        chi2_per_reading: Mean squared whitened residual of the model solved again at the estimate;
            about 1 for a good fit, NaN until that is done.
        status: An `EstimateStatus` as integer.
        optima: All optima found, from methods that look for more than one.
        diagnostics: How good the samples are, from methods that know.
        ticket: How far it can be trusted, and why; None until the model is solved again.
        fixed: Name, value and unit of each parameter that was no unknown.

    Example:
        >>> problem = ij.problems.lotka_volterra()
        >>> inverter = ij.methods.LeastSquares(draws=64, candidates=0).fit(problem)
        >>> estimate = inverter(ij.problems.lynx_hare(), key=jr.key(0))

        >>> round(float(estimate["alpha"]), 1), estimate.samples.shape
        (0.5, (64, 6))
        >>> lower, upper = estimate.interval(0.9)
    """

    names: tuple[str, ...] = eqx.field(static=True)
    units: tuple[str, ...] = eqx.field(static=True)
    value: Float[Array | np.ndarray, "*batch parameter"]
    unit_value: Float[Array | np.ndarray, "*batch parameter"]
    std: Float[Array | np.ndarray, "*batch parameter"]
    samples: Float[Array | np.ndarray, "*batch particle parameter"] | None = None
    chi2_per_reading: Float[Array | np.ndarray, "*batch"] = eqx.field(
        default_factory=lambda: np.array(np.nan)
    )
    status: Int[Array | np.ndarray, "*batch"] = eqx.field(
        default_factory=lambda: np.array(int(EstimateStatus.NOT_CHECKED))
    )
    optima: Optima | None = None
    diagnostics: Diagnostics | None = None
    ticket: TrustTicket | None = None
    fixed: tuple[tuple[str, float, str], ...] = eqx.field(static=True, default=())

    def __check_init__(self) -> None:
        """Refuse arrays that do not fit the names."""
        count = len(self.names)
        if len(self.units) != count:
            raise ValueError(f"`units` must have one entry for each of {count} names.")
        for field in ("value", "unit_value", "std", "samples"):
            array = getattr(self, field)
            if array is not None and np.shape(array)[-1:] != (count,):
                raise ValueError(
                    f"`{field}` must end in an axis of {count} parameters; "
                    f"got shape {np.shape(array)}."
                )

    def __getitem__(self, name: str) -> Float[Any, "*batch"] | float:
        """The point estimate of one parameter by its name, in physical units.

        Args:
            name: Of an unknown, or of a fixed parameter.

        Returns:
            A `float`; for a batch, or inside a transformation, an array with the batch's axes. A
            fixed parameter is a `float` always.

        Raises:
            KeyError: If there is no parameter of that name; one that is like it is proposed.
        """
        known = {fixed: value for fixed, value, _ in self.fixed}
        if name in known:
            return known[name]
        value = self.value[..., self._position(name)]
        return value if np.ndim(value) or is_traced(value) else float(value)

    def __contains__(self, name: object) -> bool:
        """Whether a parameter of that name has an estimate or is fixed."""
        return name in self.names or name in [fixed for fixed, _, _ in self.fixed]

    def __iter__(self) -> Iterator[str]:
        """The names of the unknowns, as of a dictionary."""
        return iter(self.names)

    def samples_of(self, name: str) -> Float[Any, "*batch particle"]:
        """Posterior samples of one parameter by its name, in physical units.

        Args:
            name: Of an unknown.

        Returns:
            The samples.

        Raises:
            KeyError: If there is no unknown of that name; one that is like it is proposed.
            TypeError: If `name` is no text.
            ValueError: If there are no samples.
        """
        position = self._position(name)
        if self.samples is None:
            raise ValueError(
                "`samples_of` needs samples; this estimate has only `value` and `std`."
            )
        return self.samples[..., position]

    @property
    def reduced_chi2(self) -> Float[np.ndarray, "*batch"]:
        """Chi-squared over its effective degrees of freedom: about 1 if the model is right.

        `chi2_per_reading` is less, since parameters were fitted to the readings; how many of their
        directions these settle, the samples say. NaN without a ticket.
        """
        chi2, ticket = np.asarray(self.chi2_per_reading, np.float64), self.ticket
        if ticket is None or ticket.degrees_of_freedom is None or ticket.spare_readings is None:
            return np.full(np.shape(chi2), np.nan)
        readings = np.asarray(ticket.spare_readings) + len(self.names)
        return np.asarray(chi2 * readings / np.asarray(ticket.degrees_of_freedom))

    @property
    def covariance(self) -> Float[np.ndarray, "*batch parameter parameter"]:
        """Covariance of the samples in physical units; NaN without samples."""
        if self.samples is None:
            return np.full((*np.shape(self.value), len(self.names)), np.nan)
        samples = np.asarray(self.samples, np.float64)
        gap = samples - samples.mean(axis=-2, keepdims=True)
        return np.swapaxes(gap, -1, -2) @ gap / (samples.shape[-2] - 1)

    @property
    def correlation(self) -> Float[np.ndarray, "*batch parameter parameter"]:
        """Correlation of the samples; NaN without samples, or where they do not differ."""
        covariance = self.covariance
        std = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
        with np.errstate(invalid="ignore", divide="ignore"):
            return covariance / (std[..., :, None] * std[..., None, :])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the estimate to a file, with its samples, diagnostics and ticket.

        Args:
            path: Where to, such as `estimate.safetensors`; replaced in one move if it is there.

        Raises:
            OSError: If it cannot be written.
        """
        write_module(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Estimate":
        """Read an estimate back.

        Args:
            path: Where `save` put it.

        Returns:
            The estimate, with the same bits in every array.

        Raises:
            FileNotFoundError: If there is no file.
            ValueError: If it holds no estimate, or is damaged.
        """
        return read_module(cls, _PARTS, path)

    def to_xarray(self) -> Any:
        """The estimate as an `xarray.Dataset`, with parameters and draws as labeled axes.

        `value` and `std` lie along `parameter`, `samples` along `draw` and `parameter`; a batch is
        the first axis. Units are a coordinate of `parameter`. ArviZ and pandas take it from there.

        Returns:
            The data set.

        Raises:
            ImportError: If xarray is not installed.
        """
        try:
            import xarray
        except ImportError as error:
            raise ImportError("`to_xarray` needs xarray: `pip install xarray`.") from error
        lead = [f"batch_{axis}" for axis in range(np.ndim(self.value) - 1)]
        lead = ["batch"] if len(lead) == 1 else lead
        point = (*lead, "parameter")
        content: dict[str, Any] = {
            "value": (point, np.asarray(self.value)),
            "std": (point, np.asarray(self.std)),
            "status": (lead, np.asarray(self.status)),
            "chi2_per_reading": (lead, np.asarray(self.chi2_per_reading)),
        }
        if self.samples is not None:
            content["samples"] = ((*lead, "draw", "parameter"), np.asarray(self.samples))
        coordinates = {"parameter": list(self.names), "unit": ("parameter", list(self.units))}
        fixed = {name: value for name, value, _ in self.fixed}
        return xarray.Dataset(content, coords=coordinates, attrs={"fixed": fixed} if fixed else {})

    def _position(self, name: str) -> int:
        if not isinstance(name, str):
            raise TypeError(
                f"`name` must be the name of a parameter; got {name!r}. By position there are "
                "`estimate.value` and `estimate.samples`."
            )
        for fixed, value, _ in self.fixed:
            if name == fixed:
                raise UnknownNameError(f"{name!r} is fixed at {value:g}, so it has no samples.")
        return position_of(name, self.names, "the unknowns of this estimate")

    def interval(
        self, level: float = _LEVEL
    ) -> tuple[Float[Any, "*batch parameter"], Float[Any, "*batch parameter"]]:
        """Central interval of the samples, NaN where the status says that there is no spread.

        With S samples it holds one more with the probability `level`, up to (S - 1)/(S + 1), where
        it spans all of them.

        It leaves out as much below as above. So it does not depend on the unit, and neither on
        whether a parameter or its logarithm is looked at, and what `methods.conformal` promises is
        about it. But it may leave out the estimate: a mode at an end of the prior, the best of
        several optima, or a point whose samples were corrected. Then `print(estimate)` says so. An
        interval of highest density would hold a mode, but another one in other coordinates, and
        its ends scatter more.

        Args:
            level: Probability of the truth inside, if the samples are calibrated; in (0, 1).

        Returns:
            Lower and upper end for each parameter, in physical units.

        Raises:
            ValueError: If there are no samples, or `level` is out of range.
        """
        if self.samples is None:
            raise ValueError("`interval` needs samples; this estimate has only `value` and `std`.")
        if not 0.0 < level < 1.0:
            raise ValueError(f"`level` must lie between 0 and 1; got {level!r}.")
        return central_interval(self.samples, level, axis=-2)

    def as_dict(self) -> dict[str, Any]:
        """Everything but the samples as plain Python values, ready for `json.dump`.

        Returns:
            `parameters` (name to value, unit, standard deviation, 90 % interval, None where there
            are too few samples for one, and whether it holds the value), `fixed` if some were (name
            to value and unit),
            `chi2_per_reading`, `status` and `message`, and where there are such `optima`, the
            `diagnostics` by name and the trust `ticket`; None where a number is not known.

        Raises:
            ValueError: If this is a batch of estimates.
        """
        self._require_single("as_dict")
        status = EstimateStatus(int(self.status))
        columns = [np.asarray(x).tolist() for x in (self.value, self.unit_value, self.std)]
        intervals = self._intervals()
        parameters = {
            name: {
                "value": _known(value),
                "unit": unit,
                "unit_value": _known(unit_value),
                "std": _known(std),
                "interval_90": interval if self._share >= _LEVEL else None,
                "in_interval": _within(value, interval),
            }
            for name, unit, value, unit_value, std, interval in zip(
                self.names, self.units, *columns, intervals, strict=True
            )
        }
        more: dict[str, Any] = {}
        if self.fixed:
            more["fixed"] = {name: {"value": v, "unit": unit} for name, v, unit in self.fixed}
        if self.optima is not None:
            more["optima"] = self._optima(self.optima)
        if self.diagnostics is not None:
            more |= self._diagnosed(self.diagnostics)
        if self.ticket is not None:
            more["ticket"] = self.ticket.as_dict()
        return {
            "parameters": parameters,
            "chi2_per_reading": _known(float(self.chi2_per_reading)),
            "status": status.name,
            "message": status.message,
            **more,
        }

    def _diagnosed(self, diagnostics: Diagnostics) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in ("r_hat", "effective_samples", "tail_samples"):
            values = getattr(diagnostics, name)
            if values is not None:
                numbers = map(_known, np.asarray(values).tolist())
                found[name] = dict(zip(self.names, numbers, strict=True))
        if diagnostics.log_evidence is not None:
            found["log_evidence"] = [_known(x) for x in np.asarray(diagnostics.log_evidence)]
        for name in ("tempering_exponent", "solver_draws"):
            value = getattr(diagnostics, name)
            if value is not None:
                found[name] = _known(float(value))
        if diagnostics.search is not None:
            found["search"] = diagnostics.search.as_dict()
        return found

    def _optima(self, optima: Optima) -> list[dict[str, Any]]:
        columns = optima.value, optima.misfit, optima.weight, optima.starts
        return [
            {
                "values": dict(zip(self.names, value, strict=True)),
                "misfit": misfit,
                "weight": weight,
                "starts": starts,
            }
            for value, misfit, weight, starts in zip(
                *(np.asarray(column).tolist() for column in columns), strict=True
            )
            if math.isfinite(misfit)
        ]

    def __str__(self) -> str:
        """A table of the parameters, the misfit and what the status means."""
        if is_traced(self):
            return repr(self)
        self._require_single("str")
        header = ["parameter", "estimate", "+/-", "unit", f"{100.0 * self._share:.0f} % interval"]
        rows = [header, *self._rows()]
        if self.samples is None:
            rows = [row[:-1] for row in rows]
        chi2 = float(self.chi2_per_reading)
        fit = f"{chi2:.3g}" if math.isfinite(chi2) else "not known"
        message = EstimateStatus(int(self.status)).message
        lines = [*_aligned(rows), *self._outside(), *self._fixed_line(), ""]
        lines += [f"Chi-squared per reading: {fit}", message]
        if self.ticket is not None:
            lines.append(f"Verdict: {self.ticket.verdict} (see `ticket`)")
        return "\n".join([*lines, *self._mixing(), *self._other_optima()])

    @property
    def _share(self) -> float:
        """The level of the intervals that are shown: fewer samples hold less."""
        count = 0 if self.samples is None else np.shape(self.samples)[-2]
        return min(_LEVEL, (count - 1) / (count + 1)) if count else _LEVEL

    def _outside(self) -> list[str]:
        """Why estimates lie outside of their own interval, where they do."""
        values, units = np.asarray(self.value).tolist(), np.asarray(self.unit_value).tolist()
        found = [
            f"{name} ({self._why_outside(unit)})"
            for name, value, unit, interval in zip(
                self.names, values, units, self._intervals(), strict=True
            )
            if _within(value, interval) is False
        ]
        return [f"Outside of its central interval lies {', '.join(found)}."] if found else []

    def _why_outside(self, unit_value: float) -> str:
        if not _EDGE < unit_value < 1.0 - _EDGE:
            return "at an end of its prior"
        weights = () if self.optima is None else np.asarray(self.optima.weight)
        if np.sum(np.asarray(weights) > _WORTH_SHOWING) > 1:
            return "the best of several optima"
        return "its posterior is skewed, or its samples were corrected"

    def _fixed_line(self) -> list[str]:
        known = [f"{name} = {value:g} {unit}".rstrip() for name, value, unit in self.fixed]
        return ["", f"Fixed: {', '.join(known)}"] if known else []

    def _mixing(self) -> list[str]:
        found = self.diagnostics
        if found is None or found.r_hat is None:
            return []
        worth = [np.min(x) for x in (found.effective_samples, found.tail_samples) if x is not None]
        sizes = " in the bulk, ".join(f"{size:.0f}" for size in worth)
        tails = " in the tails" if len(worth) == 2 else ""
        return [
            f"Largest R-hat: {np.max(found.r_hat):.4g}; "
            f"smallest effective sample size: {sizes}{tails}"
        ]

    def _other_optima(self) -> list[str]:
        found = [] if self.optima is None else self._optima(self.optima)
        # Where starts did not arrive, these are no optima.
        if len(found) < 2 or int(self.status) == EstimateStatus.NOT_CONVERGED:
            return []
        shown = [row for row in found if row["weight"] >= _WORTH_SHOWING]
        header = ["weight", "starts", "misfit", *self.names]
        rows = [
            [
                f"{row['weight']:.3f}",
                f"{row['starts']:.3f}",
                f"{row['misfit']:.6g}",
                *(_text(v, 4) for v in row["values"].values()),
            ]
            for row in shown
        ]
        return [
            "",
            f"{len(found)} optima, {len(shown)} of weight above {_WORTH_SHOWING:g}:",
            *_columns([header, *rows]),
        ]

    def _rows(self) -> list[list[str]]:
        values, stds = np.asarray(self.value).tolist(), np.asarray(self.std).tolist()
        rows = []
        for name, unit, value, std, ends in zip(
            self.names, self.units, values, stds, self._intervals(), strict=True
        ):
            digits = _digits(value, std)
            interval = "-" if ends is None else f"[{_text(ends[0], 4)}, {_text(ends[1], 4)}]"
            rows.append([name, _text(value, digits), _text(std, 2), unit, interval])
        return rows

    def _intervals(self) -> list[list[float | None] | None]:
        if self.samples is None:
            return [None] * len(self.names)
        both = np.stack(self.interval(), axis=-1)
        return [None if np.isnan(ends).any() else [*map(_known, ends.tolist())] for ends in both]

    def _require_single(self, what: str) -> None:
        if np.ndim(self.value) != 1:
            raise ValueError(
                f"`{what}` needs a single estimate; this is a batch of shape "
                f"{np.shape(self.value)[:-1]}. Take one with "
                "`jax.tree.map(lambda x: x[0], estimate)`."
            )


def _within(value: float, interval: list[float | None] | None) -> bool | None:
    """Whether an interval holds a value, but for rounding; None where one of them is not known."""
    if interval is None or not math.isfinite(value):
        return None
    lower, upper = (float("nan") if end is None else end for end in interval)
    slack = _ROUNDING * max(abs(lower), abs(upper))
    return not (value < lower - slack or value > upper + slack)


def _known(value: float) -> float | None:
    """None for NaN and infinity, which JSON does not have."""
    return value if math.isfinite(value) else None


def _digits(value: float, std: float) -> int:
    """Significant digits of a value that its standard deviation leaves meaningful."""
    if not (math.isfinite(value) and math.isfinite(std)) or value == 0.0 or std <= 0.0:
        return 4
    digits = math.floor(math.log10(abs(value))) - math.floor(math.log10(std)) + 2
    return min(max(digits, 2), 8)


def _text(value: float | None, digits: int) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:#.{digits}g}".rstrip(".")


def _aligned(rows: list[list[str]]) -> list[str]:
    """Rows as lines; numbers to the right, names and units to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column in (1, 2) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _columns(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]


# The modules that an estimate may hold, by the names of their fields.
_PARTS: dict[str, type[eqx.Module]] = {
    "optima": Optima,
    "diagnostics": Diagnostics,
    "ticket": TrustTicket,
    "calibration": Calibration,
    "search": MultiStart,
}
