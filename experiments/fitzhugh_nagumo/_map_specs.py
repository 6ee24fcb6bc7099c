"""The maps that the tables of inverse maps need, and how much a preset computes."""

import dataclasses
from collections.abc import Collection
from typing import Any

from experiments.fitzhugh_nagumo._landscape import Starts
from experiments.fitzhugh_nagumo._maps import MapSpec
from experiments.fitzhugh_nagumo._width_timing import Widths
from inojax import nn
from inojax.methods import Inputs, InverseMap, Spread


@dataclasses.dataclass(frozen=True)
class Size:
    """How much a preset computes.

    Attributes:
        seeds: How often each map is trained, each time on other simulations.
        cases: Test cases.
        epochs: Numbers of simulations of table b, with epochs of each.
        joint_epochs: The same for table d.
        redrawn_epochs: Epochs of the published network of table d whose noise is drawn anew; 0
            leaves it out.
        inputs: What networks of table d see.
        covariance: Simulations and epochs of table e.
        ours: Our default.
        joint_ours: Our default for unknown noise.
        fresh_ours: Our default with new simulations in each step; `None` leaves it out.
        floor_cases: Cases of the floors of the other noises; 0 leaves them out.
        widths: How much table f measures.
        starts: How much table g computes.
    """

    seeds: int
    cases: int
    epochs: dict[int, int]
    joint_epochs: dict[int, int]
    redrawn_epochs: int
    inputs: tuple[Inputs, ...]
    covariance: tuple[int, int]
    ours: InverseMap
    joint_ours: InverseMap
    fresh_ours: InverseMap | None
    floor_cases: int
    widths: Widths
    starts: Starts

    @property
    def simulations(self) -> int:
        """The most that any map learns from."""
        return max(*self.epochs, *self.joint_epochs, self.covariance[0])


def all_specs(size: Size) -> dict[str, list[MapSpec]]:
    """Every map there is to train, by what it is for."""
    networks = {"cnn": nn.Convolutional.published(), "dense": nn.Dense.published()}

    def published(method: str, simulations: int, epochs: int, **changes: Any) -> MapSpec:
        settings = InverseMap.published(networks[method], simulations=simulations, epochs=epochs)
        joint = changes.pop("joint", False)
        settings = dataclasses.replace(settings, **changes)
        name = f"{method}_{changes['inputs'].value}" if joint else method
        return MapSpec(name, simulations, settings, joint)

    most = max(size.epochs)
    table_e, epochs_e = size.covariance
    laplace = published("cnn", table_e, epochs_e, spread=Spread.LAPLACE)
    laplace = dataclasses.replace(laplace, method="cnn_covariance")
    clean = dataclasses.replace(laplace.settings, clean=True)
    ours = dataclasses.replace(size.ours, spread=Spread.LAPLACE)
    fresh = [MapSpec("ours_fresh", most, size.fresh_ours)] if size.fresh_ours else []
    joint_most = max(size.joint_epochs)
    redrawn = []
    if size.redrawn_epochs:
        anew: dict[str, Any] = {"inputs": Inputs.BOTH, "joint": True, "fixed_noise": False}
        spec = published("cnn", joint_most, size.redrawn_epochs, **anew)
        redrawn = [dataclasses.replace(spec, method="cnn_redrawn")]
    return {
        "dense": [
            published("dense", most, size.epochs[most], clean=noiseless)
            for noiseless in (True, False)
        ],
        "cnn": [
            published("cnn", n, epochs, clean=noiseless)
            for n, epochs in size.epochs.items()
            for noiseless in (True, False)
        ],
        "joint": [
            published("cnn", n, epochs, inputs=inputs, joint=True)
            for n, epochs in size.joint_epochs.items()
            for inputs in size.inputs
        ]
        + redrawn,
        "covariance": [
            dataclasses.replace(laplace, settings=clean),
            laplace,
            MapSpec("ours_covariance", table_e, ours),
        ],
        "ours": [MapSpec("ours", most, size.ours), *fresh],
        "joint_ours": [MapSpec("ours", joint_most, size.joint_ours, joint=True)],
    }


def needed(specs: dict[str, list[MapSpec]], letters: Collection[str]) -> list[MapSpec]:
    """The maps that tables of these letters need, each once."""
    default = specs["ours"][:1]
    most = [spec for spec in specs["cnn"] if spec.simulations == default[0].simulations]
    uses = {
        "a": [*specs["dense"], *most],
        "b": [*specs["cnn"], *specs["ours"]],
        "c": [*most, *default],
        "d": [*specs["joint"], *specs["joint_ours"]],
        "e": [*specs["covariance"], *default],
        "g": default,
    }
    wanted = [spec for letter, some in uses.items() if letter in letters for spec in some]
    every = [spec for some in specs.values() for spec in some]
    return [spec for spec in every if any(spec is one for one in wanted)]
