"""Fisher-KPP: diffusion and growth of a population from its final density.

Result:   Zhang, Li and Lowengrub, arXiv 2404.17789, section 3.1 (Figure 2, which has no numbers):
          BiLO beside PINNs of several data weights, at several levels of noise. The limit is
          nonlinear least squares on the classical solver for the same readings, since at noise
          0.01 no method can know D to better than a third.
Command:  python experiments/pde/fisher_kpp.py --preset {smoke,quick,paper} --out DIR --seed 0
Runtime:  quick 7.7 min on two CPU cores with tests beside it for a part; paper: not yet run, 60,000
          steps of Adam for each row.
Expected: preset quick, five sets of readings of noise 1e-3: BiLO within 0.78 % (D) and 0.12 % (rho)
          of least squares in every set, 9.2 s each after pretraining of 2.4 s; its solution within
          2.4e-4 of the classical one; data loss 12 % below the noise variance, least squares 15 %
          below, at most 10 % apart. PINNs trained by the same Gauss-Newton steps end up to 25, 10
          and 9 % off in D (data weights 0.1, 1 and 10). At noise 1e-2, where the misfit hardly
          depends on D, BiLO ends up to 8.5 and 3.0 % away from least squares along the valley, with
          the same data loss; PINNs up to 78 and 30 %.

Each set of readings has a network with weights of its own; all are trained, and follow their
readings, at once. Errors of the solution compare the network with the classical solution at the
parameters that the network ended with. Each part is kept in `--out`; started again with the same
folder, a run continues.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax.random as jr
import numpy as np

import inojax as ij
from experiments.common.clocks import Clocks
from experiments.common.runner import Arguments, Preset, main, run_once
from experiments.common.trial import Trial
from experiments.pde._scalar_figures import draw_path
from experiments.pde._unknown_scalars import Answers, experiment, report, simulated
from inojax import plot
from inojax.methods import (
    PINN,
    BiLO,
    BiLOInverter,
    GaussNewtonWeightOptimizer,
    Penalty,
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


_OURS = BiLO(penalty=Penalty.NONE)
_QUICK_PINN = PINN()
_WEIGHTS = (0.1, 1.0, 10.0)
SIZES = {
    Preset.SMOKE: Size(
        (1e-3,),
        2,
        {
            "BiLO": dataclasses.replace(
                _OURS,
                width=16,
                pretraining=5,
                steps=5,
                weight_optimizer=GaussNewtonWeightOptimizer(16),
            )
        },
        {
            1.0: dataclasses.replace(
                _QUICK_PINN,
                width=16,
                pretraining=5,
                steps=5,
                weight_optimizer=GaussNewtonWeightOptimizer(16),
            )
        },
        (1e-3,),
    ),
    Preset.QUICK: Size(
        (0.0, 1e-3, 1e-2),
        5,
        {"BiLO": _OURS},
        dict.fromkeys(_WEIGHTS, _QUICK_PINN),
        (0.0, 1e-3, 1e-2),
    ),
    Preset.PAPER: Size(
        (0.0, 1e-3, 1e-2),
        5,
        {
            "BiLO": _OURS,
            "BiLO, as published": dataclasses.replace(BiLO.published()),
        },
        dict.fromkeys(_WEIGHTS, PINN.published()),
        (0.0, 1e-3, 1e-2),
    ),
}
# Of the noise that exact readings are inverted with, which sets no more than a unit.
UNIT = 1e-3


def run(arguments: FisherKPP) -> None:
    """Make the table unless it is there."""
    size = SIZES[arguments.preset]

    def make(_: Clocks) -> dict[str, Any]:
        return experiment(arguments, trials(arguments, size), picture)

    source = "The source has no numbers."
    run_once("fisher_kpp", arguments, size, make, lambda found: report(found, "Fisher-KPP", source))


def trials(arguments: FisherKPP, size: Size) -> list[Trial[Answers]]:
    """Readings of every level of noise."""
    made = []
    for level, noise in enumerate(size.noises):
        scale = noise or UNIT
        methods: dict[str, BiLO | PINN] = dict(size.bilo)
        if noise in size.pinn_noises:
            for weight, method in size.pinn.items():
                # Published for plain squares; ours are in standard deviations.
                ours = dataclasses.replace(method, data_weight=weight * scale**2)
                methods[f"PINN({weight:g})"] = ours
        key = jr.fold_in(jr.key(arguments.seed), level)
        readings = simulated(fisher_kpp(noise=noise), TRUTH, size.seeds, key=key)
        problem, label = fisher_kpp(noise=scale), f"noise {noise:g}"
        made.append(Trial(label, noise, problem, TRUTH, GUESS, readings, methods))
    return made


def picture(
    stem: Path, trial: Trial[Answers], exact: Answers, inverter: BiLOInverter, found: Any
) -> None:
    """The pretrained operator beside the guess, and how its parameters went from there."""
    draw_operator(stem, inverter)
    draw_path(stem, trial, exact.thetas, np.asarray(found.path), floor=0.2)


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


if __name__ == "__main__":
    main(FisherKPP, run, "Recover diffusion and growth of a population from its final density.")
