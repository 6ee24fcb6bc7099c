"""Heat: an unknown initial temperature from the final one, exact or noisy.

Result:   Zhang, Li and Lowengrub, arXiv 2404.17789, Tables 4 (exact readings) and 5 (noisy). The
          limits are the exact regularized minimizer for the same readings and penalty, the point
          where BiLO's own steps end on the classical solver, and where a PINN of the same weights
          would end: the function that fits equation and readings best.
Command:  python experiments/pde/heat.py --preset {smoke,quick,paper} --out DIR --seed 0
Runtime:  quick 13 min on two CPU cores with light work beside it; paper: not yet run.
Expected: preset quick, five sets of readings, each with weights of its own, largest and mean square
          error of f: exact, BiLO 0.047 and 7.1e-5, its solution within 4.5e-5 of the classical one
          (published 0.054, 1.0e-4 and 4.6e-4), 35 s each; fixed point 0.028 and 2.4e-5, minimizer
          0.038 and 5.4e-5. PINNs 0.086, 0.082 and 0.113 (published 0.092, 0.087 and 0.149).
          Noisy, BiLO 0.255 and 7.3e-3 with a data loss of 3.7 noise variances, its solution within
          1.1e-3 (published 0.241, 6.1e-3, 4.1 and 1.5e-3; fixed point 0.256, 7.5e-3 and 3.7;
          minimizer 0.279, 9.1e-3 and 4.4). PINNs of weights 10, 100 and 1000 have 0.68, 0.40 and
          0.16 variances: they overfit, and their solutions are 12 % away from that of their own
          function (published 0.52, 0.26 and 0.21; 13 to 14 %). Their largest errors 0.270, 0.253
          and 0.237 (published 0.262, 0.253 and 0.242) are near 0.269, 0.259 and 0.258 of the
          PINN limit, which has 0.40, 0.09 and 0.07 variances: no network of 32 units bends as far.

Waves of the start are damped by exp(-0.1 k²) until they are read, and BiLO needs the more steps for
them. Exact readings are inverted as if they were known to 1e-4 and slopes of 2 were expected, which
they are. Each part is kept in `--out`; started again with the same folder, a run continues.
"""

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any

import numpy as np

from experiments.common.clocks import Clocks
from experiments.common.runner import Arguments, Preset, main, run_once
from experiments.common.trial import Trial
from experiments.pde._pinn_limit import pinn_limit
from experiments.pde._unknown_function import (
    FINE,
    Answers,
    UnknownFunction,
    experiment,
    limits,
    measured,
    report,
    solutions,
)
from inojax.methods import PINN, BiLO, GaussNewtonWeightOptimizer, Penalty
from inojax.problems import heat

NOISE, PENALTY = 0.001**0.5, 1e-2
# Of exact readings: known to this, with as many of them and this slope expected.
UNIT, EXACT_READINGS, SLOPE = 1e-4, 51, 2.0
START = UnknownFunction(
    truth=lambda x: 1.0 - 2.0 * np.abs(x - 0.5),
    guess=lambda x: np.sin(np.pi * x),
    changes={
        "f = sin πx": np.zeros_like,
        "f = sin πx + 0.1": lambda x: np.full_like(x, 0.1),
        "f = sin πx + 0.1 x": lambda x: 0.1 * x,
        "f = sin πx + 0.1 sin 2πx": lambda x: 0.1 * np.sin(2.0 * np.pi * x),
    },
    square=True,
    published={
        "BiLO, exact": (5.43e-2, 1.01e-4, 4.64e-4, 1.52e-9),
        "PINN(0.1), exact": (9.24e-2, 5.43e-4, 1.29e-3, 4.05e-6),
        "PINN(10), exact": (8.69e-2, 4.31e-4, 2.44e-3, 1.62e-6),
        "PINN(1000), exact": (1.49e-1, 1.92e-3, 2.54e-2, 3.83e-8),
        "BiLO, noisy": (2.41e-1, 6.11e-3, 1.46e-3, 4.08e-3),
        "PINN(10), noisy": (2.62e-1, 8.13e-3, 1.26e-1, 5.21e-4),
        "PINN(100), noisy": (2.53e-1, 7.11e-3, 1.38e-1, 2.61e-4),
        "PINN(1000), noisy": (2.42e-1, 6.56e-3, 1.36e-1, 2.05e-4),
    },
)


@dataclasses.dataclass(frozen=True)
class Heat(Arguments):
    """The options of this experiment."""

    out: Path = Path("results/heat")
    """Folder of all results. Started again with the same one, a run continues."""


@dataclasses.dataclass(frozen=True)
class Size:
    """How much a preset computes.

    Attributes:
        seeds: Sets of readings; the weights differ even where readings are exact.
        exact: Variants of BiLO for exact readings by their name.
        noisy: The same for noisy ones.
        pinn: The PINN of exact readings, for each of their weights.
        noisy_pinn: The same of noisy ones.
        weights: Weights of exact readings, and of noisy ones.
    """

    seeds: int
    exact: dict[str, BiLO]
    noisy: dict[str, BiLO]
    pinn: PINN
    noisy_pinn: PINN
    weights: tuple[tuple[float, ...], tuple[float, ...]]


# What the readings hardly show of the function wants many steps, and larger ones.
_EXACT = BiLO(
    width=32, field_width=32, field_optimizer=GaussNewtonWeightOptimizer(points=None), steps=2000
)
_NOISY = BiLO()
_PINN = PINN(width=32, field_width=32)
# Noisy readings contradict the equation, so a step must not fulfill both at the points it draws.
_NOISY_PINN = dataclasses.replace(
    _PINN, weight_optimizer=GaussNewtonWeightOptimizer(256, damping=1e-5)
)
_SMALL = {"width": 16, "field_width": 8, "pretraining": 60, "steps": 20}
_TINY = GaussNewtonWeightOptimizer(64, damping=1e-5)
_PUBLISHED = BiLO.published(residual_gradient=1e-3, penalty=Penalty.DENSITY, steps=10_000)
_WEIGHTS = (0.1, 10.0, 1000.0), (10.0, 100.0, 1000.0)
SIZES = {
    Preset.SMOKE: Size(
        2,
        {},
        {"BiLO": dataclasses.replace(_NOISY, **_SMALL, weight_optimizer=_TINY)},
        dataclasses.replace(_PINN, **_SMALL, weight_optimizer=_TINY),
        dataclasses.replace(_NOISY_PINN, **_SMALL, weight_optimizer=_TINY),
        ((), (100.0,)),
    ),
    Preset.QUICK: Size(5, {"BiLO": _EXACT}, {"BiLO": _NOISY}, _PINN, _NOISY_PINN, _WEIGHTS),
    Preset.PAPER: Size(
        5,
        {"BiLO": _EXACT, "BiLO as published": _PUBLISHED},
        {"BiLO": _NOISY, "BiLO as published": _PUBLISHED},
        PINN.published(steps=10_000),
        PINN.published(steps=10_000),
        _WEIGHTS,
    ),
}


def run(arguments: Heat) -> None:
    """Make the table unless it is there."""
    size = SIZES[arguments.preset]

    def make(_: Clocks) -> dict[str, Any]:
        return experiment(arguments, START, trials(size, arguments.seed))

    run_once("heat", arguments, size, make, lambda found: report(found, "Heat", START.square))


def trials(size: Size, seed: int) -> list[Trial[Answers]]:
    """Noisy readings, then exact ones."""
    # The penalty whose prior expects that slope.
    penalty = UNIT**2 / (EXACT_READINGS * SLOPE**2)
    exact = heat(noise=UNIT, readings=EXACT_READINGS, penalty=penalty)
    noisy = heat(noise=NOISE, penalty=PENALTY)
    of_noisy = measured(START, noisy, NOISE, size.seeds, seed)
    of_exact = measured(START, exact, 0.0, size.seeds, seed)
    made = [
        Trial("noisy", **of_noisy, methods=_named(size.noisy, "noisy"), others=limits("noisy")),
        Trial(
            "exact",
            **of_exact,
            methods=_named(size.exact, "exact"),
            others=limits("exact") if size.exact else {},
        ),
    ]
    for weight in size.weights[0]:
        method = dataclasses.replace(size.pinn, data_weight=weight * UNIT**2)
        made.append(Trial("exact", **of_exact, methods={f"PINN({weight:g}), exact": method}))
    for weight in size.weights[1]:
        # The source weighs the penalty by 1e-2 beside the residual, whatever the readings weigh.
        problem = heat(noise=NOISE, penalty=PENALTY / weight)
        method = dataclasses.replace(size.noisy_pinn, data_weight=weight * NOISE**2)
        made.append(
            Trial(
                "noisy",
                **measured(START, problem, NOISE, size.seeds, seed),
                methods={f"PINN({weight:g}), noisy": method},
                others={f"PINN limit({weight:g}), noisy": functools.partial(limit_of_pinn, weight)},
            )
        )
    return made


def limit_of_pinn(weight: float, trial: Trial[Answers]) -> Answers:
    """What the PINN's own objective allows; its solution need not be that of its function."""
    readings = np.asarray(trial.readings.values)[:, :, 0]
    began = time.perf_counter()
    curves, predicted = pinn_limit(readings, FINE, weight, PENALTY)
    seconds = (time.perf_counter() - began) / len(readings)
    return Answers(curves, predicted, solutions(trial.problem.model, curves), seconds)


def _named(methods: dict[str, BiLO], kind: str) -> dict[str, BiLO | PINN]:
    return {f"{name}, {kind}": method for name, method in methods.items()}


if __name__ == "__main__":
    main(Heat, run, "Recover an unknown initial temperature from the final one.")
