"""Least squares on the real solver: every optimum, how far it can be trusted, from any start."""

import enum
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..._estimate import Diagnostics, Estimate, Optima
from ..._estimate_status import EstimateStatus
from ..._inverse_problem import InverseProblem
from ..._multi_start import MultiStart
from ..._observation import Observation
from ..._x64 import is_traced
from ...models._calls import compiled, in_calls
from ...train import TrainLog
from .._batches import split_each
from .._checks import check_choices, check_counts
from .._inverter import AbstractExactInverter, AbstractInverter
from .._method import AbstractMethod, FitArguments
from .._penalty import Penalty
from .._resimulate import estimates_noise
from ._importance import resample, temper
from ._laplace_mixture import draw, find_peaks, how_it_ended, log_densities
from ._levenberg_marquardt import Local, Minimum, minimize
from ._objective import Coordinates, Objective
from ._rounds import Ended, Limits, Rounds, all_rounds, with_search
from ._start import starting_from

# So large a share of the candidates comes evenly from all optima, whatever they seem to weigh.
_EVEN = 0.1


class Point(enum.Enum):
    """Which point of the posterior is the estimate: its mode or the mean of its samples.

    Example:
        >>> ij.methods.LeastSquares(point=ij.methods.Point.MEAN).point.value
        'mean'
    """

    MODE = "mode"
    MEAN = "mean"


class LeastSquares(AbstractMethod["LeastSquaresInverter"]):
    """Bounded multi-start Levenberg-Marquardt on the real solver.

    Use it where an answer must be as exact as the readings allow, alone for a few observations
    or behind an amortized method (`refine`), whose estimate it polishes. It needs no training:
    the residuals are whitened by the noise model, the derivatives are forward sensitivities of the
    solver, and all starts of all observations advance together.

    Where the best optimum of the first `starts` misses the readings by more than their noise, more
    are taken, spread evenly over the prior: as many again and again, until one more would end in
    an optimum that is not known yet with a chance below 5 %, or `max_starts` are used up. Where
    the level of the noise is unknown, too, so that any optimum explains the readings, this goes
    on until two have ended in the best. The estimate's ticket says how many starts ended in it.
    Under a transformation there are only the first.

    If the steps of a start are used up at a point that is lower than all optima, the estimate is
    that point with the status `NOT_CONVERGED`: there is an optimum below it that was not reached,
    whatever the others have found, and no spread is given.

    Samples are drawn from the posterior with the model linearized at each optimum (Laplace), each
    with the weight that its height and width give it; then the solver says how likely each of
    these candidates really is, and the estimate's samples are chosen by that.

    Attributes:
        starts: Starts for each observation: the prior's center and random ones, or those that
            an inverter gives.
        max_steps: Most steps of each start.
        tolerance: A start has arrived when a step gains less, in units of log density.
        coordinates: In which it works.
        penalty: What is added to the misfit.
        point: Which point of the posterior is the estimate.
        draws: Samples for each observation.
        candidates: Draws of the linearized posterior for each sample: the samples are chosen among
            them, with repetitions, and the optima weighed, by what the solver says about each; 0
            trusts the linearization.
        max_starts: Most starts for each observation; with no more than `starts` only these are
            taken.

    Source:
        Nocedal and Wright, Numerical Optimization, chapter 10; Kass and Raftery, Bayes factors,
        J. Am. Stat. Assoc. 90 (1995), for Laplace's approximation; Boender and Rinnooy Kan, Math.
        Program. 37 (1987), for how many starts are enough.

    Example:
        >>> problem = ij.problems.lotka_volterra()
        >>> inverter = ij.methods.LeastSquares(draws=64, candidates=0).fit(problem)
        >>> estimate = inverter(ij.problems.lynx_hare(), key=jr.key(0))

        >>> bool(abs(estimate["beta"] - 0.03) < 0.01)
        True
    """

    _trains: ClassVar[bool] = False

    starts: int = 8
    max_steps: int = 100
    tolerance: float = 1e-6
    coordinates: Coordinates = Coordinates.UNIT
    penalty: Penalty = Penalty.SPREAD
    point: Point = Point.MODE
    draws: int = 128
    candidates: int = 4
    max_starts: int = 128

    def __check_init__(self) -> None:
        """Refuse counts below one, unknown choices and a tolerance that is not positive."""
        check_counts(self, "starts", "max_steps", "draws", "max_starts")
        check_choices(self, coordinates=Coordinates, penalty=Penalty, point=Point)
        if self.candidates < 0:
            raise ValueError(f"`candidates` must not be negative; got {self.candidates}.")
        if not self.tolerance > 0.0:
            raise ValueError(f"`tolerance` must be positive; got {self.tolerance!r}.")

    def _fit(self, arguments: FitArguments) -> "LeastSquaresInverter":
        return self._blank(arguments.problem)

    def _blank(self, problem: InverseProblem) -> "LeastSquaresInverter":
        return LeastSquaresInverter(problem=problem, method=self)

    def refine(
        self, start: AbstractInverter | Estimate, problem: InverseProblem | None = None
    ) -> "LeastSquaresInverter":
        """Make an inverter that starts where another one ends.

        The first start is the other's estimate, further ones are samples of it, or of the prior
        where it has none. Where these do not explain the readings, more are taken from the prior.

        Args:
            start: Any inverter, or an estimate to start from.
            problem: The problem of an estimate.

        Returns:
            An inverter of the same problem.

        Raises:
            TypeError: If `start` is neither an inverter nor an estimate.
            ValueError: If the problem of an estimate is missing, or is not the one of its
                parameters.
        """
        first = starting_from(start, problem)
        return LeastSquaresInverter(problem=first.problem, method=self, first=first)


class LeastSquaresInverter(AbstractExactInverter):
    """From `LeastSquares.fit` or `LeastSquares.refine`.

    Attributes:
        problem: The problem it inverts.
        method: Its settings.
        first: The inverter whose estimates it starts from, if any.
        logs: Empty.
    """

    problem: InverseProblem
    method: LeastSquares
    first: AbstractInverter | None = None
    logs: tuple[TrainLog, ...] = ()

    @property
    def _inner(self) -> AbstractInverter | None:
        return self.first

    def _infer(self, observations: Observation, keys: Key[Array, " batch"]) -> Estimate:
        # What is compiled must not depend on where the starts come from.
        alone = LeastSquaresInverter(problem=self.problem, method=self.method)

        def descend(guesses: Float[Array | np.ndarray, "batch start parameter"]) -> Ended:
            return in_calls(_minimize_block, alone, (observations, guesses), sensitivities=True)

        key_data = jr.key_data(keys)
        first = descend(self._guesses(observations, keys))
        # How many more starts are taken depends on where these end: on the host only.
        rounds = None if is_traced(first) else self._more(first, descend, observations, key_data)
        minimum = first.minimum if rounds is None else rounds.minimum
        found = in_calls(_draw_block, alone, (minimum, key_data), sensitivities=True)
        if self.method.candidates:
            density = self._objective.log_densities(found.x, observations)
            # These rows are small: the same shapes of calls as above serve them.
            rows = found, density, key_data
            found = in_calls(_choose_block, alone, rows, sensitivities=True)
        return found if rounds is None else with_search(found, rounds)

    def _more(
        self,
        first: Ended,
        descend: Callable[[Float[np.ndarray, "batch start parameter"]], Ended],
        observations: Observation,
        key_data: Any,
    ) -> Rounds:
        """Where the first starts ended, and those that are taken behind them."""
        readings = np.asarray(observations.mask).sum(axis=(-2, -1))
        # The p-value of counts is not that of their squares, which this search goes by.
        known = not (estimates_noise(self.problem) or self.problem.noise.counts)
        limits = Limits(self.method.max_starts, readings, known)
        return all_rounds(first, descend, limits, np.asarray(key_data).reshape(len(key_data), -1))

    def _guesses(self, observations: Observation, keys: Key[Array, " batch"]) -> Array:
        """Unit coordinates to start from: an estimate, then samples of it or the prior."""
        if self.first is None:
            return self._starts(keys)
        estimate = self.first._invert(observations, split_each(keys)[0])
        guesses = jnp.asarray(estimate.unit_value)[:, None]
        if estimate.samples is None:
            guesses = jnp.concatenate([guesses, self._starts(keys)[:, 1:]], axis=1)
        elif self.method.starts > 1:
            samples = jnp.asarray(estimate.samples)
            index = np.linspace(0, samples.shape[1] - 1, self.method.starts - 1).astype(int)
            unit = jnp.asarray(self.problem.parameters.to_unit(samples[:, index]))
            guesses = jnp.concatenate([guesses, unit], axis=1)
        # Where the first inverter has nothing to give, starts are those of the prior.
        return jnp.where(jnp.isfinite(guesses), guesses, self._starts(keys))

    def _minimize(self, observations: Observation, guesses: Array, count: Any) -> Ended:
        objective = self._objective
        starts = jnp.asarray(guesses, jnp.float64)
        batch, many, size = starts.shape
        every = jax.tree.map(lambda x: jnp.repeat(x, many, axis=0), observations)

        def evaluate(x: Array, count: Array, which: Array) -> Local:
            return objective(x, jax.tree.map(lambda leaf: leaf[which], every), count)

        minimum = minimize(
            evaluate,
            objective.from_unit(starts.reshape(-1, size)),
            objective.bounds,
            max_steps=self.method.max_steps,
            tolerance=self.method.tolerance,
            count=jnp.asarray(count) * many,
        )
        chi2 = self._chi2(minimum, every)
        return jax.tree.map(lambda x: x.reshape(batch, many, *x.shape[1:]), Ended(minimum, chi2))

    def _chi2(self, minimum: Minimum, observations: Observation) -> Float[Array, " row"]:
        """What is left of a misfit without the logarithms of the noise's scale."""
        objective, noise = self._objective, self.problem.noise

        def of_scale(theta: Array, observation: Observation) -> Array:
            mask = jnp.asarray(observation.mask)
            readings = jnp.where(mask, jnp.asarray(observation.values), 1.0)
            log_scale = noise.log_scale(readings, theta, mask, times=observation.times)
            coupling = objective.coupling(theta)
            rest = jnp.sum(jnp.where(mask, log_scale, 0.0))
            return rest if coupling is None else rest + coupling.value

        rest = jax.vmap(of_scale)(objective.theta(minimum.x), observations)
        return 2.0 * (minimum.local.value - objective.prior(minimum.x).value - rest)

    def _starts(self, keys: Key[Array, " batch"]) -> Float[Array, "batch start parameter"]:
        size = self.problem.parameters.size
        shape = (self.method.starts - 1, size)
        random = jax.vmap(lambda key: jr.uniform(key, shape, jnp.float64))(split_each(keys)[0])
        return jnp.concatenate([jnp.full((len(keys), 1, size), 0.5), random], axis=1)

    @property
    def _objective(self) -> Objective:
        method = self.method
        coupled = method.penalty is not Penalty.NONE
        return Objective(self.problem, method.coordinates, method.penalty, coupled)

    def _draw(self, minimum: Minimum, key: Array) -> "_Candidates":
        mass_key, pick_key, draw_key = jr.split(key, 3)
        objective = self._objective
        peaks = find_peaks(objective, minimum, key=mass_key)
        # Without any optimum all rows are as good.
        some = jnp.any(peaks.known)
        log_weight = jnp.where(some, peaks.log_weight, -jnp.log(float(peaks.known.size)))
        share = jnp.exp(log_weight)
        if self.method.candidates:
            even = peaks.known / jnp.maximum(jnp.sum(peaks.known), 1)
            share = jnp.where(some, (1.0 - _EVEN) * share + _EVEN * even, share)
        count = self.method.draws * max(self.method.candidates, 1)
        which = jr.categorical(pick_key, jnp.log(share), shape=(count,))
        x = draw(objective, peaks, which, key=draw_key)
        optima = Optima(
            objective.theta(peaks.x),
            objective.to_unit(peaks.x),
            jnp.where(peaks.known, peaks.misfit, jnp.nan),
            jnp.where(peaks.known, jnp.exp(peaks.log_weight), 0.0),
            peaks.starts,
        )
        densities = log_densities(peaks, x)
        laplace = jax.nn.logsumexp(densities + log_weight[None], axis=1)
        proposal = jax.nn.logsumexp(densities + jnp.log(share)[None], axis=1)
        belongs = jax.nn.softmax(densities + log_weight[None], axis=1)
        search = MultiStart(
            jnp.asarray(peaks.known.size),
            jnp.sum(minimum.arrived & jnp.isfinite(minimum.local.value)),
            jnp.sum(peaks.known),
            jnp.round(peaks.starts[0] * peaks.known.size).astype(int),
        )
        status = how_it_ended(minimum)
        return _Candidates(optima, x, laplace, laplace - proposal, belongs, status, search)

    def _chosen(
        self, found: "_Candidates", log_density: Float[Array, " draw"], key: Array
    ) -> Estimate:
        """The estimate from those candidates that the solver finds likely."""
        # Starts and draws have the first two; `fold_in` would give one of these again.
        *_, key = jr.split(key, 3)
        base = jnp.where(jnp.isfinite(found.log_base), found.log_base, 0.0)
        ratio = log_density - found.log_laplace
        weights, power = temper(ratio, base, float(self.method.draws))
        index = resample(weights, self.method.draws, key=key)
        # Where no candidate is possible the optima weigh what the parabolas say.
        possible = jnp.any(jnp.isfinite(ratio))
        share = jnp.where(possible, weights @ found.belongs, found.optima.weight)
        optima = eqx.tree_at(lambda o: o.weight, found.optima, share)
        chosen = found._replace(optima=optima, x=found.x[index])
        worth = 1.0 / jnp.sum(jnp.square(weights))
        return self._estimate(chosen, jnp.where(possible, power, 0.0), worth)

    def _estimate(
        self,
        found: "_Candidates",
        power: Float[Array, ""] | float = 0.0,
        worth: Float[Array, ""] | None = None,
    ) -> Estimate:
        """The estimate of which `x` are the samples, weighed by a power of the likelihood."""
        objective, space = self._objective, self.problem.parameters
        # Around a point that is no optimum a parabola says nothing.
        there = found.status == EstimateStatus.NOT_CHECKED
        samples = jnp.where(there, objective.theta(found.x), jnp.nan)
        optima = eqx.tree_at(
            lambda o: o.weight, found.optima, jnp.where(there, found.optima.weight, 0.0)
        )
        value, unit_value = optima.value[0], optima.unit_value[0]
        if self.method.point is Point.MEAN:
            mean = jnp.mean(objective.to_unit(found.x), axis=0)
            unit_value = jnp.where(there, mean, unit_value)
            value = jnp.where(there, jnp.asarray(space.from_unit(unit_value)), value)
        return Estimate(
            space.names,
            space.units,
            jnp.asarray(value),
            jnp.asarray(unit_value),
            jnp.std(samples, axis=0),
            samples,
            jnp.asarray(jnp.nan),
            found.status,
            optima,
            Diagnostics(
                tempering_exponent=jnp.asarray(power, jnp.float64),
                solver_draws=worth,
                search=found.search,
            ),
            fixed=space.fixed_values,
        )


class _Candidates(NamedTuple):
    """Optima of an observation, and draws from their parabolas.

    Attributes:
        optima: The optima.
        x: Coordinates of the draws.
        log_laplace: Log density of the parabolas together, each by its weight.
        log_base: The same over the log density that the draws have.
        belongs: Probability that a draw belongs to each optimum, by the parabolas.
        status: How the minimization ended, as an `EstimateStatus`.
        search: How many starts ended where.
    """

    optima: Optima
    x: Float[Array, "*batch draw parameter"]
    log_laplace: Float[Array, "*batch draw"]
    log_base: Float[Array, "*batch draw"]
    belongs: Float[Array, "*batch draw peak"]
    status: Int[Array, "*batch"]
    search: MultiStart


@compiled
def _minimize_block(inverter: LeastSquaresInverter, rows: Any, count: Any, lanes: int) -> Ended:
    del lanes
    observations, guesses = rows
    return inverter._minimize(observations, guesses, count)


@compiled
def _draw_block(
    inverter: LeastSquaresInverter, rows: Any, count: Any, lanes: int
) -> "_Candidates | Estimate":
    del count, lanes
    minimum, key_data = rows
    found = jax.vmap(inverter._draw)(minimum, split_each(jr.wrap_key_data(key_data))[1])
    return found if inverter.method.candidates else jax.vmap(inverter._estimate)(found)


@compiled
def _choose_block(inverter: LeastSquaresInverter, rows: Any, count: Any, lanes: int) -> Estimate:
    del count, lanes
    found, density, key_data = rows
    return jax.vmap(inverter._chosen)(found, density, jr.wrap_key_data(key_data))
