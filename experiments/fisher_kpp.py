"""Fisher-KPP: diffusion and growth of a population from its final density.

Result:   Zhang, Li and Lowengrub, arXiv 2404.17789, section 3.1 (Figure 2, which has no numbers):
          BiLO beside PINNs of several data weights, at several levels of noise. The limit is
          nonlinear least squares on the classical solver for the same readings, since at noise
          0.01 no method can know D to better than a third.
Command:  python experiments/fisher_kpp.py --preset {smoke,quick,paper} --out DIR --seed 0
Runtime:  quick 6.2 min on two CPU cores; paper: not yet run, 60,000 steps of Adam for each row.
Expected: preset quick, five sets of readings of noise 1e-3: BiLO within 0.56 % (D) and 0.15 % (rho)
          of least squares in every set, 4.6 s each after pretraining of 18 s with its compilation,
          5.5 s when that is done; its solution within 4.1e-4 of the classical one; data loss 14 %
          below the noise variance, least squares 15 % below. PINNs trained by the same
          Gauss-Newton steps end up to 24, 10 and 8 % off in D (data weights 0.1, 1 and 10).
          Where it falls short: at noise 1e-2, where the misfit hardly depends on D, it ends up to
          59 % away from least squares along the valley, with a data loss of 1.02 instead of 0.98
          noise variances.

BiLO is pretrained once for each level of noise; readings of all seeds are followed from there at
once. Errors of the solution compare the network with the classical solution at the parameters that
the network ended with. Each part is kept in `--out`; started again with the same folder, a run
continues.
"""

import dataclasses
import functools
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from _common import (
    Arguments,
    Clocks,
    Preset,
    claim,
    complaints,
    kept,
    main,
    provenance,
    stage,
    write_json,
)
from _evaluation import Row
from _tables import number, table
from jaxtyping import Array, Float, Key

import inojax as ij
from inojax import plot
from inojax.methods import (
    PINN,
    AdamDescent,
    BiLO,
    BiLOInverter,
    Coordinates,
    GaussNewtonDescent,
    LeastSquares,
    Penalty,
    PINNInverter,
    invert_batch,
)
from inojax.problems import fisher_kpp

TRUTH = np.array([2.0, 2.0])
GUESS = (1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class FisherKPP(Arguments):
    """The options of this experiment."""

    out: Path = Path("results/fisher_kpp")
    """Folder of all results. Started again with the same one, a run continues."""


@dataclasses.dataclass(frozen=True)
class Size:
    """How much a preset computes.

    Attributes:
        noises: Standard deviations of the readings; 0 are exact ones.
        seeds: Sets of readings at each of them.
        bilo: Variants of BiLO.
        pinn: Variants of the PINN, by their published data weight.
        pinn_noises: At which levels they are run.
    """

    noises: tuple[float, ...]
    seeds: int
    bilo: dict[str, BiLO]
    pinn: dict[float, PINN]
    pinn_noises: tuple[float, ...]


_OURS = BiLO(penalty=Penalty.NONE, guess=GUESS)
_QUICK_PINN = PINN(width=64, descent=GaussNewtonDescent(), pretraining=80, steps=300, guess=GUESS)
_WEIGHTS = (0.1, 1.0, 10.0)
SIZES = {
    Preset.SMOKE: Size(
        (1e-3,),
        2,
        {
            "BiLO": dataclasses.replace(
                _OURS, width=16, pretraining=5, steps=5, descent=GaussNewtonDescent(16)
            )
        },
        {
            1.0: dataclasses.replace(
                _QUICK_PINN, width=16, pretraining=5, steps=5, descent=GaussNewtonDescent(16)
            )
        },
        (1e-3,),
    ),
    Preset.QUICK: Size(
        (0.0, 1e-3, 1e-2),
        5,
        {"BiLO": _OURS},
        dict.fromkeys(_WEIGHTS, _QUICK_PINN),
        (1e-3,),
    ),
    Preset.PAPER: Size(
        (0.0, 1e-3, 1e-2),
        5,
        {
            "BiLO": _OURS,
            "BiLO, as published": dataclasses.replace(BiLO.published(), guess=GUESS),
        },
        dict.fromkeys(_WEIGHTS, PINN(guess=GUESS, descent=AdamDescent())),
        (0.0, 1e-3, 1e-2),
    ),
}
# Of the noise that exact readings are inverted with, which sets no more than a unit.
UNIT = 1e-3


def run(arguments: FisherKPP) -> None:
    """Make the table unless it is there."""
    size = SIZES[arguments.preset]
    with complaints():
        claim(arguments, size)
    metrics = arguments.out / "metrics.json"
    if not metrics.exists():
        clocks = Clocks.in_folder(arguments.out)
        with clocks.total, clocks.compiling:
            content = experiment(arguments, size, clocks)
        write_json(metrics, content)
    print(report(json.loads(metrics.read_text())))
    print(f"\nFigures and metrics.json are in {arguments.out}.")


def experiment(arguments: FisherKPP, size: Size, clocks: Clocks) -> dict[str, Any]:
    """Simulate readings, invert them by every method, draw."""
    parts, key = arguments.out / "parts", jr.key(arguments.seed)
    parts.mkdir(exist_ok=True)
    rows: list[Row] = []
    for level, noise in enumerate(size.noises):
        trial = simulated(noise, size.seeds, key=jr.fold_in(key, level))
        methods: dict[str, BiLO | PINN] = dict(size.bilo)
        if noise in size.pinn_noises:
            for weight, method in size.pinn.items():
                # Published for plain squares; ours are in standard deviations.
                ours = weight * trial.scale**2
                methods[f"PINN({weight:g})"] = dataclasses.replace(method, data_weight=ours)
        rows += [guess_row(trial), row_of("least squares", trial, trial.exact)]
        for name, method in methods.items():
            file = f"{name.replace(', ', '_').replace(' ', '_')}_{noise:g}"
            make = functools.partial(network_row, name, method, trial, arguments.out / file, key)
            rows.append(kept(parts / f"{file}.json", make))
    draw(arguments.out, rows)
    return {
        "experiment": "fisher_kpp",
        "preset": str(arguments.preset),
        "seed": arguments.seed,
        "provenance": provenance(arguments),
        "limits": {
            f"noise {row['noise']:g}": {name: row[name] for name in ("estimates", "data_loss")}
            for row in rows
            if row["method"] == "least squares"
        },
        "rows": rows,
        "timing": clocks.timing(),
    }


@dataclasses.dataclass(frozen=True)
class Answers:
    """What a method says about every set of readings.

    Attributes:
        thetas: Parameters.
        data_loss: Mean square of the readings minus the method's own prediction.
        u_error: Relative error of its solution at these parameters, root mean square over the
            domain; zero where the classical solver is its own reference.
        seconds: Time of one inversion of several at once.
    """

    thetas: Float[np.ndarray, "seed parameter"]
    data_loss: Float[np.ndarray, " seed"]
    u_error: Float[np.ndarray, " seed"]
    seconds: float


@dataclasses.dataclass(frozen=True)
class Trial:
    """Readings of one level of noise, a set for each seed.

    Attributes:
        noise: Standard deviation of the readings; 0 for exact ones.
        scale: The one they are inverted with.
        problem: What they are inverted as.
        readings: The sets, as a batch.
        exact: Least squares on the classical solver.
    """

    noise: float
    scale: float
    problem: ij.InverseProblem
    readings: ij.Observation
    exact: Answers


def simulated(noise: float, seeds: int, *, key: Key[Array, ""]) -> Trial:
    """Readings of the truth, and what least squares makes of them."""
    stage(f"noise {noise:g}: simulate {seeds} sets of readings, least squares")
    scale = noise or UNIT
    problem, measured = fisher_kpp(noise=scale), fisher_kpp(noise=noise)
    seen = [measured.simulate(TRUTH, key=jr.fold_in(key, seed)) for seed in range(seeds)]
    readings = jax.tree.map(lambda *xs: np.stack(xs), *seen)
    settings = LeastSquares(
        starts=4, penalty=Penalty.NONE, coordinates=Coordinates.UNCONSTRAINED, candidates=0
    )
    exact = settings.fit(problem, key=key)
    thetas = np.asarray(invert_batch(exact, readings, key=key).value)
    began = time.perf_counter()
    invert_batch(exact, readings, key=key)
    seconds = (time.perf_counter() - began) / seeds
    states = np.asarray(problem.model.solve_ensemble(thetas).states)
    loss = np.square(states - np.asarray(readings.values)).mean(axis=(1, 2))
    return Trial(noise, scale, problem, readings, Answers(thetas, loss, np.zeros(seeds), seconds))


def network_row(
    name: str, method: BiLO | PINN, trial: Trial, figure: Path, key: Key[Array, ""]
) -> Row:
    """Train a method, let it follow every set of readings, and score it."""
    stage(f"noise {trial.noise:g}: {name}, {method.pretraining} steps at the guess")
    problem, seeds = trial.problem, len(trial.exact.thetas)
    began = time.perf_counter()
    inverter = method.fit(problem, key=key)
    fit_seconds = time.perf_counter() - began
    stage(f"noise {trial.noise:g}: {name}, {method.steps} steps for {seeds} sets at once")
    with jax.enable_x64(False):
        follow = jax.jit(jax.vmap(lambda o, k: inverter.follow(o, key=k)))
        readings = jax.tree.map(jnp.asarray, trial.readings)
        arguments = readings, jr.split(key, seeds)
        compiled = follow.lower(*arguments).compile()
        began = time.perf_counter()
        found = jax.block_until_ready(compiled(*arguments))
        seconds = (time.perf_counter() - began) / seeds
    answers = score(trial, inverter, found, seconds)
    if isinstance(inverter, BiLOInverter):
        draw_operator(figure, inverter)
        draw_path(figure, trial, np.asarray(found.path))
    return row_of(name, trial, answers) | {
        "fit_seconds": fit_seconds,
        "settings": inverter.settings,
        "residual_loss": float(inverter.losses[-1]),
    }


def score(
    trial: Trial, inverter: BiLOInverter | PINNInverter, found: Any, seconds: float
) -> Answers:
    """Compare networks with the readings and with the classical solver."""
    model = trial.problem.model
    assert isinstance(model, ij.PDEModel)
    everywhere = model.collocation
    places = np.asarray(model.points(trial.readings.times[0]))
    thetas = np.asarray(found.theta, np.float64)
    exact = np.asarray(model.replace(readings=everywhere).solve_ensemble(thetas).states)
    loss, error = [], []
    for seed, theta in enumerate(thetas):
        network = jax.tree.map(lambda x, seed=seed: x[seed], found.network)
        readings = np.asarray(trial.readings.values[seed])
        loss.append(np.mean(np.square(inverter.predict(places, theta, network) - readings)))
        away = inverter.predict(everywhere, theta, network) - exact[seed]
        error.append(np.linalg.norm(away) / np.linalg.norm(exact[seed]))
    return Answers(thetas, np.array(loss), np.array(error), seconds)


def row_of(name: str, trial: Trial, answers: Answers) -> Row:
    """One line of the table: means over seeds, and standard deviations beside them."""
    names, exact = trial.problem.parameters.names, trial.exact
    away = np.abs(answers.thetas / exact.thetas - 1.0)
    row: Row = {
        "method": name,
        "noise": trial.noise,
        "seeds": len(answers.thetas),
        "estimates": dict(zip(names, answers.thetas.mean(axis=0), strict=True)),
        "estimates_std": dict(zip(names, answers.thetas.std(axis=0), strict=True)),
        "each_estimate": answers.thetas,
        "from_least_squares": dict(zip(names, away.mean(axis=0), strict=True)),
        "from_least_squares_most": dict(zip(names, away.max(axis=0), strict=True)),
        "u_error": answers.u_error.mean(),
        "u_error_std": answers.u_error.std(),
        "data_loss": answers.data_loss.mean(),
        "data_loss_std": answers.data_loss.std(),
        "seconds": answers.seconds,
    }
    if trial.noise > 0.0:
        variance = trial.noise**2
        row["relative_data_loss"] = float(np.mean(answers.data_loss) / variance - 1.0)
        row["loss_beside_least_squares"] = float(
            np.max(np.abs(answers.data_loss - exact.data_loss) / exact.data_loss)
        )
    return row


def guess_row(trial: Trial) -> Row:
    """What is lost by not moving from the guess."""
    seeds = len(trial.exact.thetas)
    states = np.asarray(trial.problem.model.solve(np.array(GUESS)).states)
    loss = np.square(states[None] - np.asarray(trial.readings.values)).mean(axis=(1, 2))
    return row_of(
        "guess", trial, Answers(np.tile(GUESS, (seeds, 1)), loss, np.zeros(seeds), np.nan)
    )


def draw_operator(stem: Path, inverter: BiLOInverter) -> None:
    """The pretrained operator at parameters beside the guess, and the classical solution there."""
    model = inverter.problem.model
    assert isinstance(model, ij.PDEModel)
    x = np.linspace(0.0, 1.0, 101)
    end = np.stack([x, np.ones_like(x)], axis=1)
    fine, panels = model.replace(readings=end), {}
    for shift in ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (-0.5, 0.0), (0.0, -0.5), (0.5, 0.5)):
        theta = np.add(GUESS, shift)
        panels[f"D = {theta[0]:g}, ρ = {theta[1]:g}"] = {
            "classical solution": np.asarray(fine.solve(theta).states)[:, 0],
            "local operator, trained at (1, 1)": np.asarray(inverter.predict(end, theta))[:, 0],
        }
    figure = plot.profiles(x, panels, quantity="u at t = 1")
    figure.savefig(stem.with_name(f"operator_{stem.name}.png"))


def draw_path(stem: Path, trial: Trial, paths: Float[np.ndarray, "seed step two"]) -> None:
    """How the parameters went, over the misfit of the first set of readings."""
    reach = np.concatenate([paths.reshape(-1, 2), trial.exact.thetas, TRUTH[None]])
    low, high = reach.min(axis=0), reach.max(axis=0)
    margin = 0.15 * (high - low)
    ends = np.maximum(low - margin, 0.2), high + margin
    axes = [np.linspace(a, b, 41) for a, b in zip(*ends, strict=True)]
    first, second = np.meshgrid(*axes)
    thetas = np.stack([first.ravel(), second.ravel()], axis=1)
    states = np.asarray(trial.problem.model.solve_ensemble(thetas).states)
    away = (states - np.asarray(trial.readings.values[0])) / trial.scale
    misfit = 0.5 * np.square(away).sum(axis=(1, 2)).reshape(first.shape)
    figure = plot.landscape(
        ("D", "ρ"),
        (axes[0], axes[1]),
        misfit,
        points={
            "least squares": trial.exact.thetas,
            "BiLO": paths[:, -1],
            "truth": TRUTH[None],
        },
        paths=paths,
    )
    figure.savefig(stem.with_name(f"path_{stem.name}.png"))


def draw(out: Path, rows: list[Row]) -> None:
    """Estimates of every method beside least squares, for each level of noise."""
    noises = list(dict.fromkeys(row["noise"] for row in rows))
    with plot.house_style():
        figure = plot.new_figure(4.2 * len(noises) + 0.4, 4.2)
        panels = figure.subplots(1, len(noises), squeeze=False)[0]
        for panel, noise in zip(panels, noises, strict=True):
            for row in rows:
                if row["noise"] == noise and row["method"] != "guess":
                    thetas = np.asarray(row["each_estimate"])
                    panel.plot(thetas[:, 0], thetas[:, 1], "o", label=row["method"], alpha=0.7)
            panel.plot(*TRUTH, "k+", markersize=12, label="truth")
            panel.set_title(f"noise {noise:g}")
            panel.set_xlabel("D")
        panels[0].set_ylabel("ρ")
        lines = {line.get_label(): line for panel in panels for line in panel.lines}
        figure.legend(
            list(lines.values()), list(lines), loc="outside upper center", ncols=min(4, len(lines))
        )
    figure.savefig(out / "estimates.png")


def report(metrics: dict[str, Any]) -> str:
    """The table, with the limit beside every method."""
    header = (
        "noise", "method", "D", "rho", "D from LSQ", "rho from LSQ", "u error", "loss / σ² - 1",
        "s each",
    )  # fmt: skip
    lines = [
        [
            f"{row['noise']:g}",
            row["method"],
            *(
                f"{number(row['estimates'][name])} ± {number(row['estimates_std'][name], 2)}"
                for name in ("D", "rho")
            ),
            *(f"{100 * row['from_least_squares_most'][name]:.2f} %" for name in ("D", "rho")),
            number(row["u_error"]),
            number(row.get("relative_data_loss")),
            number(row["seconds"]),
        ]
        for row in metrics["rows"]
    ]
    total = metrics["timing"]["total_seconds"]
    return "\n".join(
        [
            f"\nFisher-KPP, preset {metrics['preset']}, {metrics['rows'][0]['seeds']} sets of "
            f"readings for each noise, {total:.0f} s in all. The source has no numbers; the limit "
            "is least squares (LSQ) on the classical solver; distances from it are the largest.",
            "",
            table(header, lines),
        ]
    )


if __name__ == "__main__":
    main(FisherKPP, run, "Recover diffusion and growth of a population from its final density.")
