"""Scalar Poisson: the smallest problem of all, where every claim has a closed form.

Result:   The tutorial of Zhang, Li and Lowengrub, arXiv 2404.17789: the diffusivity of a rod from
          eleven readings of variance 0.01, whose solution is sin(πx) / D. Published is one run of
          BiLO on one set of readings from D = 2: 2.228, with a data loss of 9.98e-3. Beside it
          PINNs and the limit, the most likely D in closed form; then what the method rests on:
          the direct gradient beside the whole one (Theorem 2.1), the operator beside its guess,
          and what a trained embedding does to both.
Command:  python experiments/pde/scalar_poisson.py --preset {smoke,quick,paper} --out DIR --seed 0
Runtime:  quick 2.7 min on two CPU cores with tests beside it; paper: not yet run.
Expected: preset quick, five sets of readings: BiLO and least squares agree with the closed form to
          2e-6. The tutorial's 4,000 steps end 14 % away by AMSGrad, whose steps stay small once
          a gradient was large, and 0.7 % away by plain Adam. The direct gradient at the guess is
          the whole one, -0.450, for every operator but that without residual gradient (-0.005).
          A trained embedding changes nothing here: it grows by a hundredth.

Each part is kept in `--out`; started again with the same folder, a run continues.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from experiments.common.clocks import Clocks
from experiments.common.runner import Arguments, Preset, main, run_once, stage
from experiments.common.tables import number, table
from experiments.common.trial import Trial
from experiments.pde._unknown_scalars import (
    Answers,
    experiment,
    of_the_solver,
    report,
    simulated,
)
from inojax import plot
from inojax.methods import (
    PINN,
    AdamParameterOptimizer,
    AdamWeightOptimizer,
    BiLO,
    BiLOInverter,
    GaussNewtonWeightOptimizer,
    Penalty,
)
from inojax.problems import scalar_poisson

TRUTH, GUESS = np.array([2.0]), (1.0,)
NOISE = 0.1
# Where the operator is looked at beside its guess, and the diffusivities.
FINE = np.linspace(0.0, 1.0, 101)
BESIDE = (0.7, 0.9, 1.1, 1.3)


@dataclasses.dataclass(frozen=True)
class ScalarPoisson(Arguments):
    """The options of this experiment."""

    out: Path = Path("results/scalar_poisson")
    """Folder of all results. Started again with the same one, a run continues."""


@dataclasses.dataclass(frozen=True)
class Size:
    """How much a preset computes.

    Attributes:
        seeds: Sets of readings.
        bilo: Variants of BiLO.
        pinn: The PINN, for each data weight.
        weights: These, for plain squares.
        operators: Variants whose derivative by D is looked at.
    """

    seeds: int
    bilo: dict[str, BiLO]
    pinn: PINN
    weights: tuple[float, ...]
    operators: dict[str, BiLO]


_OURS = BiLO(penalty=Penalty.NONE)
_PUBLISHED = dataclasses.replace(
    BiLO.published(pretraining=1000, steps=3000),
    width=64,
    parameter_optimizer=AdamParameterOptimizer(learning_rate=2e-3),
)
_ADAM = dataclasses.replace(
    _PUBLISHED,
    weight_optimizer=AdamWeightOptimizer(amsgrad=False),
    parameter_optimizer=AdamParameterOptimizer(learning_rate=2e-3, amsgrad=False),
)
_PINN = PINN()
_SMALL = {"width": 16, "pretraining": 5, "steps": 5}
_TINY = dataclasses.replace(_OURS, **_SMALL, weight_optimizer=GaussNewtonWeightOptimizer(16))
_OPERATORS = {
    "frozen embedding": _OURS,
    "frozen embedding, Adam": dataclasses.replace(_PUBLISHED, pretraining=10_000),
    "trained embedding, Adam": dataclasses.replace(
        _PUBLISHED, pretraining=10_000, train_embedding=True
    ),
    "no residual gradient": dataclasses.replace(_OURS, residual_gradient=1e-12),
}
SIZES = {
    Preset.SMOKE: Size(
        2,
        {"BiLO": _TINY},
        dataclasses.replace(_PINN, **_SMALL, weight_optimizer=GaussNewtonWeightOptimizer(16)),
        (1.0,),
        {"frozen embedding": _TINY},
    ),
    Preset.QUICK: Size(
        5,
        {"BiLO": _OURS, "BiLO, as published": _PUBLISHED, "BiLO by plain Adam": _ADAM},
        _PINN,
        (0.1, 1.0, 10.0),
        _OPERATORS,
    ),
    Preset.PAPER: Size(
        5,
        {"BiLO": _OURS, "BiLO, as published": _PUBLISHED, "BiLO by plain Adam": _ADAM},
        dataclasses.replace(PINN.published(pretraining=1000, steps=3000), width=64),
        (0.1, 1.0, 10.0),
        _OPERATORS,
    ),
}


def run(arguments: ScalarPoisson) -> None:
    """Make the tables unless they are there."""
    size = SIZES[arguments.preset]

    def make(_: Clocks) -> dict[str, Any]:
        made = trial(size, arguments.seed)
        content = experiment(arguments, [made], picture)
        return content | {"operators": operators(made, size.operators, arguments)}

    run_once("scalar_poisson", arguments, size, make, describe)


def describe(metrics: dict[str, Any]) -> str:
    """Both tables."""
    source = "Published: 2.228, loss 9.98e-3, one set of readings."
    table = report(metrics, "Scalar Poisson", source)
    return f"{table}\n{report_operators(metrics['operators'])}"


def trial(size: Size, seed: int) -> Trial[Answers]:
    """Readings and methods."""
    problem = scalar_poisson(noise=NOISE)
    methods: dict[str, BiLO | PINN] = dict(size.bilo)
    for weight in size.weights:
        # For plain squares; ours are in standard deviations.
        methods[f"PINN({weight:g})"] = dataclasses.replace(size.pinn, data_weight=weight * NOISE**2)
    readings = simulated(problem, TRUTH, size.seeds, key=jr.key(seed))
    others = {"closed form": closed_form}
    return Trial("noise 0.1", NOISE, problem, TRUTH, GUESS, readings, methods, others)


def closed_form(trial: Trial[Answers]) -> Answers:
    """The most likely D: readings are linear in 1 / D."""
    wave = np.sin(np.pi * np.asarray(trial.readings.times[0]))
    values = np.asarray(trial.readings.values)[:, :, 0]
    return of_the_solver(trial, ((wave @ wave) / (values @ wave))[:, None])


def picture(
    stem: Path, trial: Trial[Answers], exact: Answers, inverter: BiLOInverter, found: Any
) -> None:
    """The pretrained operator beside the guess, and how D went from there."""
    del trial
    x, wave = FINE[:, None], np.sin(np.pi * FINE)
    panels = {}
    for value in BESIDE:
        panels[f"D = {value:g}"] = {
            "sin(πx) / D": wave / value,
            "local operator, trained at 1": np.asarray(inverter.predict(x, np.array([value])))[
                :, 0
            ],
        }
    figure = plot.profiles(FINE, panels, quantity="u")
    figure.savefig(stem.with_name(f"operator_{stem.name}.png"))
    paths = np.asarray(found.path)[:, :, 0]
    lines = {f"set {index + 1}": path for index, path in enumerate(paths)}
    lines |= {"closed form, set 1": np.full(paths.shape[1], exact.thetas[0, 0])}
    figure = plot.profiles(np.arange(paths.shape[1]), {"BiLO": lines}, label="step", quantity="D")
    figure.savefig(stem.with_name(f"path_{stem.name}.png"))


def operators(
    trial: Trial[Answers], methods: dict[str, BiLO], arguments: ScalarPoisson
) -> list[dict[str, Any]]:
    """What each local operator knows at its guess: solution, its derivative by D, and the gradient.

    The gradient of the data loss at the guess is taken with the weights as they are, where the
    whole one would let them follow the equation. If the equation is solved for all nearby D, both
    are the same (Theorem 2.1).
    """
    wave = np.sin(np.pi * FINE)
    times = np.asarray(trial.readings.times[0])
    values = np.asarray(trial.readings.values)[0, :, 0]
    reads = np.sin(np.pi * times)
    # Of the mean of (sin(πx) / D - y)² at D = 1.
    whole = float(np.mean(2.0 * (reads - values) * -reads))
    rows = []
    for name, method in methods.items():
        stage(f"operator: {name}, {method.pretraining} steps at the guess")
        inverter = dataclasses.replace(method, guess=GUESS).fit(
            trial.problem, key=jr.key(arguments.seed)
        )

        def loss(theta: jax.Array, inverter: BiLOInverter = inverter) -> jax.Array:
            found = inverter.predict(times[:, None].astype(np.float32), theta)[:, 0]
            return jnp.mean(jnp.square(found - values.astype(np.float32)))

        def states(theta: jax.Array, inverter: BiLOInverter = inverter) -> jax.Array:
            return inverter.predict(FINE[:, None].astype(np.float32), theta)[:, 0]

        one = jnp.ones(1)
        slope = np.asarray(jax.jacfwd(states)(one))[:, 0]
        beside = [np.asarray(states(jnp.full(1, value))) - wave / value for value in BESIDE]
        direct = float(jax.grad(loss)(one)[0])
        rows.append(
            {
                "operator": name,
                "residual_loss": float(inverter.losses[-1]),
                "u_error": float(np.abs(np.asarray(states(one)) - wave).max()),
                "slope_error": float(np.abs(slope + wave).max()),
                "beside": {
                    f"{v:g}": float(np.abs(e).max()) for v, e in zip(BESIDE, beside, strict=True)
                },
                "gradient": direct,
                "whole_gradient": whole,
                "gradient_error": abs(direct / whole - 1.0),
                "embedding": float(np.abs(np.asarray(inverter.network.embedding)).mean()),
            }
        )
    return rows


def report_operators(rows: list[dict[str, Any]]) -> str:
    """The table of operators."""
    header = (
        "operator at D = 1", "residual loss", "u error", "du/dD error", "u(0.9) error",
        "u(1.3) error", "gradient", "whole gradient", "embedding",
    )  # fmt: skip
    lines = [
        [
            row["operator"],
            *(number(row[key]) for key in ("residual_loss", "u_error", "slope_error")),
            *(number(row["beside"][key]) for key in ("0.9", "1.3")),
            *(number(row[key]) for key in ("gradient", "whole_gradient", "embedding")),
        ]
        for row in rows
    ]
    return "\n".join(
        [
            "",
            table(header, lines),
            "",
            "Errors are the largest, beside sin(πx) / D. Gradient: of the data loss by D with the "
            "weights as they are. Embedding: mean size of what carries D into the network.",
        ]
    )


if __name__ == "__main__":
    main(
        ScalarPoisson, run, "Recover the diffusivity of a rod, where everything has a closed form."
    )
