"""Stages of an amortized experiment, each of which a later run picks up where it was left."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Array, Key

import inojax as ij
from experiments.common.clocks import Stopwatch
from experiments.common.files import write_json
from experiments.common.runner import stage
from inojax.methods import AbstractAmortizedMethod


def simulations(
    out: Path,
    problem: ij.InverseProblem,
    counts: tuple[int, int],
    *,
    keys: tuple[Key[Array, ""], Key[Array, ""]],
) -> tuple[ij.Dataset, ij.Dataset]:
    """Training and test data, from the disk as far as they are there."""
    (training, test), (data_key, test_key) = counts, keys
    stage(f"simulate {training} training and {test} test cases")
    dataset = ij.simulate(problem, training, store=out / "training.zarr", key=data_key)
    cases = ij.simulate(
        problem, test, store=out / "test.zarr", design=ij.Design.RANDOM, key=test_key
    )
    return dataset, cases.usable()


def held_out(
    out: Path, problem: ij.InverseProblem, purpose: str, count: int, *, key: Key[Array, ""]
) -> ij.Dataset:
    """Simulations that training does not see."""
    stage(f"simulate {count} for {purpose}")
    store = out / f"{purpose}.zarr"
    return ij.simulate(problem, count, store=store, design=ij.Design.RANDOM, key=key).usable()


def calibrated(
    method: AbstractAmortizedMethod[Any],
    inverter: ij.methods.AbstractInverter,
    out: Path,
    dataset: ij.Dataset,
    *,
    key: Key[Array, ""],
) -> ij.methods.CalibratedInverter:
    """Calibrate an inverter, or load it where a finished run left it."""
    folder = out / "calibrated"
    if (folder / "manifest.json").exists():
        return ij.load(folder, inverter.problem)
    stage(f"calibrate on {len(dataset)} held-out simulations")
    found = ij.methods.calibrate(inverter, dataset, key=key)
    ij.save(found, folder)
    return found


@dataclasses.dataclass(frozen=True)
class Fit:
    """A trained inverter, the time it took and its losses."""

    name: str
    inverter: ij.methods.AbstractInverter
    seconds: float
    logs: tuple[ij.train.TrainLog, ...]


def trained(
    name: str,
    method: AbstractAmortizedMethod[Any],
    out: Path,
    problem: ij.InverseProblem,
    dataset: ij.Dataset,
    *,
    key: Key[Array, ""],
) -> Fit:
    """Train a method, or load it where a finished run left it."""
    folder = out / name
    clock = Stopwatch(folder.with_name(f"{name}_seconds.json"))
    if (folder / "manifest.json").exists():
        stage(f"load {name}, trained before")
        inverter: Any = ij.load(folder, problem)
        return Fit(name, inverter, clock.stored, read_logs(folder))
    stage(f"train {name}")
    with clock:
        inverter = method.fit(problem, dataset, checkpoint=out / f"{name}_checkpoint", key=key)
    folder.mkdir(exist_ok=True)
    write_json(folder / "logs.json", [dataclasses.asdict(log) for log in inverter.logs])
    ij.save(inverter, folder)
    return Fit(name, inverter, clock.stored, inverter.logs)


def read_logs(folder: Path) -> tuple[ij.train.TrainLog, ...]:
    """Training logs that a finished run left beside the weights."""
    stored = json.loads((folder / "logs.json").read_text())
    return tuple(
        ij.train.TrainLog(
            **{
                name: np.array(value, int if name == "steps" else float)
                for name, value in log.items()
            }
        )
        for log in stored
    )
