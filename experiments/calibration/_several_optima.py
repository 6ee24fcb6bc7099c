"""Readings that several modes fit: what they weigh by tempering and by brute force."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, Key

import inojax as ij
from experiments.common.runner import stage
from experiments.common.tables import number, table
from inojax import plot
from inojax.methods import AbstractInverter, LeastSquares, SequentialMonteCarlo

# Ten years apart: a cycle more between two readings, or one less, explains them as well.
TIMES = (0.0, 10.0, 20.0)
# Hare and lynx, every time.
STATE = (25.0, 12.0)
NOISE = 4.0
# Enough for the angle around the equilibrium to be followed.
FINE = np.linspace(0.0, 20.0, 201)
# Optima of less weight are not listed.
LEAST_WEIGHT = 0.003
RESAMPLED = 4000


@dataclasses.dataclass(frozen=True)
class Ambiguous:
    """How much is computed for the ambiguous readings."""

    starts: int
    particles: int  # of each of four populations
    prior_draws: int


def ambiguous_problem() -> tuple[ij.InverseProblem, ij.Observation]:
    """Lotka-Volterra read three times in twenty years, and such readings."""
    whole = ij.problems.lotka_volterra(noise=NOISE)
    sensors = ij.Sensors(ij.FixedTimes(TIMES))
    model = whole.model.replace(times=FINE)
    problem = ij.InverseProblem("rarely_read", whole.parameters, model, sensors, whole.noise)
    readings = np.tile(STATE, (len(TIMES), 1))
    return problem, ij.Observation.from_arrays(np.array(TIMES), readings, problem=problem)


def cycles(
    problem: ij.InverseProblem, thetas: Float[np.ndarray, "sample parameter"]
) -> Int[np.ndarray, " sample"]:
    """How often predator and prey go around their equilibrium in ten years, to the nearest."""
    states = np.asarray(problem.model.solve_ensemble(thetas).states)
    alpha, beta, gamma, delta = thetas[:, :4].T
    hare = np.log(states[:, :, 0] * (delta / gamma)[:, None])
    lynx = np.log(states[:, :, 1] * (beta / alpha)[:, None])
    angle = np.unwrap(np.arctan2(lynx, hare), axis=1)
    return np.rint(np.nan_to_num(np.abs(angle[:, -1] - angle[:, 0])) / (4.0 * np.pi)).astype(int)


@dataclasses.dataclass(frozen=True)
class Draws:
    """The posterior by brute force: draws from the prior, weighed by their likelihood.

    Attributes:
        thetas: Draws, resampled by weight.
        cycles: Of each.
        effective: Equally weighed draws that all of them are worth.
    """

    thetas: Float[np.ndarray, "sample parameter"]
    cycles: Int[np.ndarray, " sample"]
    effective: float


def brute_force(
    problem: ij.InverseProblem, observation: ij.Observation, draws: int, *, key: Key[Array, ""]
) -> Draws:
    """Weigh draws from the prior; neither gradients nor optima take part."""
    draw_key, pick_key = jr.split(key)
    thetas = problem.parameters.design(draws, kind=ij.Design.RANDOM, key=draw_key)
    thetas = np.asarray(thetas, np.float64)
    states = np.asarray(problem.model.solve_ensemble(thetas, np.array(TIMES)).states)
    misfit = 0.5 * np.square((states - observation.values) / NOISE).sum(axis=(1, 2))
    weight = np.where(np.isfinite(misfit), np.exp(-misfit), 0.0)
    weight /= weight.sum()
    seed = np.asarray(jr.key_data(pick_key)).tolist()
    pick = np.random.default_rng(seed).choice(draws, RESAMPLED, p=weight)
    chosen = thetas[pick]
    return Draws(chosen, cycles(problem, chosen), float(1.0 / np.square(weight).sum()))


def weigh_optima(size: Ambiguous, out: Path, *, key: Key[Array, ""]) -> dict[str, Any]:
    """Compare the weights of the optima with brute force, and draw each mode.

    Args:
        size: How much is computed.
        out: Where the figures go.
        key: Source of randomness.

    Returns:
        Settings, and a row for each number of cycles in ten years.
    """
    stage(
        f"ambiguous readings: {size.starts} starts, {size.particles} particles, "
        f"{size.prior_draws} draws from the prior"
    )
    draw_key, key = jr.split(key)
    problem, observation = ambiguous_problem()
    draws = brute_force(problem, observation, size.prior_draws, key=draw_key)
    tempered = SequentialMonteCarlo(particles=size.particles).fit(problem, key=key)
    estimate, seconds = _timed(tempered, observation, key)
    # These descend from samples of a run of their own, which tells how far two runs differ.
    descents, _ = _timed(LeastSquares(starts=size.starts).refine(tempered), observation, key)
    optima, diagnostics = descents.optima, estimate.diagnostics
    assert optima is not None
    assert diagnostics is not None
    assert estimate.samples is not None
    parabolas, _ = _timed(LeastSquares(starts=size.starts).fit(problem, key=key), observation, key)
    assert parabolas.optima is not None
    by_parabolas = np.asarray(parabolas.optima.weight)
    of_parabolas = np.where(
        by_parabolas > 0.0, cycles(problem, np.asarray(parabolas.optima.value)), -1
    )
    sampled = cycles(problem, np.asarray(estimate.samples))
    weight, misfit = np.asarray(optima.starts), np.asarray(optima.misfit)
    known = weight > 0.0
    values, weight, misfit = np.asarray(optima.value)[known], weight[known], misfit[known]
    found = cycles(problem, values)
    rows = []
    for count in sorted({*found.tolist(), *sampled.tolist(), *draws.cycles.tolist()}):
        share = float((draws.cycles == count).mean())
        mine = found == count
        stated = float((sampled == count).mean())
        if max(share, stated) < LEAST_WEIGHT:
            continue
        row = {
            "cycles": count,
            "weight": stated,
            "weight_descents": float(weight[mine].sum()),
            "weight_parabolas": float(by_parabolas[of_parabolas == count].sum()),
            "weight_brute_force": share,
            "weight_brute_force_error": float(np.sqrt(share * (1.0 - share) / draws.effective)),
            "optima": int(mine.sum()),
        }
        if mine.any():
            best = int(np.argmax(np.where(mine, weight, -1.0)))
            row |= {"misfit": float(misfit[best]), "values": values[best]}
            cloud = np.asarray(problem.model.solve_ensemble(_some(draws, count)).states)
            states = np.asarray(problem.model.solve(values[best]).states)
            figure = plot.trajectories(problem, observation, states=states, cloud=cloud)
            figure.savefig(out / f"{count}_cycles_in_ten_years.png")
        rows.append(row)
    assert diagnostics.r_hat is not None
    return {
        "problem": problem.name,
        "starts": size.starts,
        "particles": size.particles,
        "r_hat": float(np.max(diagnostics.r_hat)),
        "log_evidence": diagnostics.log_evidence,
        "prior_draws": size.prior_draws,
        "effective_draws": draws.effective,
        "seconds": seconds,
        "rows": rows,
    }


def _timed(
    inverter: AbstractInverter, observation: ij.Observation, key: Key[Array, ""]
) -> tuple[ij.Estimate, float]:
    """The estimate, and how many seconds it took with compiling."""
    began = time.perf_counter()
    return inverter(observation, key=key), time.perf_counter() - began


def _some(draws: Draws, count: int) -> Float[np.ndarray, "sample parameter"]:
    """As many draws of one mode as the solver advances together."""
    mine = draws.thetas[draws.cycles == count]
    everything = mine if len(mine) else draws.thetas
    return np.resize(everything, (128, everything.shape[1]))


def optima_table(several: dict[str, Any]) -> str:
    """Weights side by side, a line for each mode."""
    lines = [
        [
            str(row["cycles"]),
            str(row["optima"]),
            number(row["weight"]),
            number(row["weight_descents"]),
            number(row["weight_parabolas"]),
            f"{row['weight_brute_force']:.3f} ± {row['weight_brute_force_error']:.3f}",
            number(row.get("misfit")),
        ]
        for row in several["rows"]
    ]
    header = (
        "cycles in ten years", "optima", "share of samples", "of descents", "of parabolas",
        "brute force", "misfit",
    )  # fmt: skip
    return "\n".join(
        [
            "Lotka-Volterra, read three times ten years apart: 4 x "
            f"{several['particles']} particles from prior to posterior in "
            f"{several['seconds']:.0f} s, compilation included (R-hat {several['r_hat']:.3f}); "
            f"{several['starts']} descents from samples of another run; by brute force "
            f"{several['prior_draws']} draws from the prior, worth "
            f"{several['effective_draws']:.0f}\n",
            table(header, lines),
        ]
    )
