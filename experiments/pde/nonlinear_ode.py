"""Nonlinear ODE: one coefficient of two coupled equations, by networks of time.

Result:   An example in the code of Zhang, Li and Lowengrub, arXiv 2404.17789, without published
          numbers: BiLO beside PINNs of several data weights, from eleven readings of both states
          with noise of variance 0.05. The limit is least squares on the classical solver.
Command:  python experiments/pde/nonlinear_ode.py --preset {smoke,quick,paper} --out DIR --seed 0
Runtime:  quick 8.2 min on two CPU cores with tests beside it; paper: not yet run, 30,000 steps of
          Adam for each row.
Expected: preset quick, five sets of readings: BiLO within 0.36 % of least squares in every set,
          26 s each, its solution within 0.5 % of the classical one. PINNs end up to 4.3, 0.5 and
          0.8 % off (data weights 0.01, 0.1 and 1). Estimates scatter by 0.03 over sets.

The states turn by up to eight radians, and the network with them. Each part is kept in `--out`;
started again with the same folder, a run continues.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax.random as jr
import numpy as np

from experiments.common.clocks import Clocks
from experiments.common.runner import Arguments, Preset, main, run_once
from experiments.common.trial import Trial
from experiments.pde._unknown_scalars import Answers, experiment, report, simulated
from inojax import plot
from inojax.methods import (
    PINN,
    BiLO,
    BiLOInverter,
    GaussNewtonWeightOptimizer,
    Penalty,
)
from inojax.problems import nonlinear_ode

TRUTH, GUESS = np.array([-2.0]), (-1.0,)
NOISE = 0.05**0.5


@dataclasses.dataclass(frozen=True)
class NonlinearODE(Arguments):
    """The options of this experiment."""

    out: Path = Path("results/nonlinear_ode")
    """Folder of all results. Started again with the same one, a run continues."""


@dataclasses.dataclass(frozen=True)
class Size:
    """How much a preset computes.

    Attributes:
        seeds: Sets of readings.
        bilo: Variants of BiLO.
        pinn: The PINN, for each published data weight.
        weights: These.
    """

    seeds: int
    bilo: dict[str, BiLO]
    pinn: PINN
    weights: tuple[float, ...]


_OURS = BiLO(penalty=Penalty.NONE, pretraining=150, steps=300)
_PINN = PINN(pretraining=150)
_SMALL = {
    "width": 16,
    "pretraining": 5,
    "steps": 5,
    "weight_optimizer": GaussNewtonWeightOptimizer(16),
}
_WEIGHTS = (1e-2, 1e-1, 1.0)
SIZES = {
    Preset.SMOKE: Size(
        2,
        {"BiLO": dataclasses.replace(_OURS, **_SMALL)},
        dataclasses.replace(_PINN, **_SMALL),
        (1.0,),
    ),
    Preset.QUICK: Size(5, {"BiLO": _OURS}, _PINN, _WEIGHTS),
    Preset.PAPER: Size(
        5,
        {"BiLO": _OURS, "BiLO, as published": BiLO.published(steps=20_000)},
        PINN.published(steps=20_000),
        _WEIGHTS,
    ),
}


def run(arguments: NonlinearODE) -> None:
    """Make the table unless it is there."""
    size = SIZES[arguments.preset]

    def make(_: Clocks) -> dict[str, Any]:
        made = trial(size, arguments.seed)
        content = experiment(arguments, [made], picture)
        draw_states(arguments.out, made, content)
        return content

    source = "The source has no numbers."
    run_once(
        "nonlinear_ode", arguments, size, make, lambda found: report(found, "Nonlinear ODE", source)
    )


def trial(size: Size, seed: int) -> Trial[Answers]:
    """Readings and methods."""
    problem = nonlinear_ode(noise=NOISE)
    methods: dict[str, BiLO | PINN] = dict(size.bilo)
    for weight in size.weights:
        # Published for plain squares; ours are in standard deviations.
        methods[f"PINN({weight:g})"] = dataclasses.replace(size.pinn, data_weight=weight * NOISE**2)
    readings = simulated(problem, TRUTH, size.seeds, key=jr.key(seed))
    return Trial("a21 unknown", NOISE, problem, TRUTH, GUESS, readings, methods)


def picture(
    stem: Path, trial: Trial[Answers], exact: Answers, inverter: BiLOInverter, found: Any
) -> None:
    """The pretrained operator beside the guess, and how the coefficient went from there."""
    model: Any = inverter.problem.model
    t = np.linspace(0.0, 1.0, 101)
    fine, panels = model.replace(readings=t[:, None]), {}
    for value in (-1.0, -1.1, -1.5):
        states = np.asarray(fine.solve(np.array([value])).states)
        operator = np.asarray(inverter.predict(t[:, None], np.array([value])))
        panels[f"a21 = {value:g}"] = {
            "x, classical": states[:, 0],
            "x, local operator, trained at -1": operator[:, 0],
            "y, classical": states[:, 1],
            "y, local operator, trained at -1": operator[:, 1],
        }
    figure = plot.profiles(t, panels, label="t", quantity="states")
    figure.savefig(stem.with_name(f"operator_{stem.name}.png"))
    paths = np.asarray(found.path)[:, :, 0]
    lines = {f"set {index + 1}": path for index, path in enumerate(paths)}
    lines |= {"least squares, set 1": np.full(paths.shape[1], exact.thetas[0, 0])}
    figure = plot.profiles(np.arange(paths.shape[1]), {"BiLO": lines}, label="step", quantity="a21")
    figure.savefig(stem.with_name(f"path_{stem.name}.png"))


def draw_states(out: Path, trial: Trial[Answers], content: dict[str, Any]) -> None:
    """The solution at each method's estimate from the first set of readings."""
    model: Any = trial.problem.model
    t = np.linspace(0.0, 1.0, 101)
    fine, panels = model.replace(readings=t[:, None]), {}
    read = np.tile(model.times, 2), np.asarray(trial.readings.values)[0].T.ravel()
    for row in content["rows"]:
        states = np.asarray(fine.solve(np.asarray(row["each_estimate"])[0]).states)
        panels[row["method"]] = {"x": states[:, 0], "y": states[:, 1]}
    dots = dict.fromkeys(panels, read)
    figure = plot.profiles(t, panels, label="t", quantity="states", dots=dots)
    figure.savefig(out / "states.png")


if __name__ == "__main__":
    main(NonlinearODE, run, "Recover a coefficient of two coupled differential equations.")
