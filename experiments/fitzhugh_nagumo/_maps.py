"""Inverse maps of the neuron: their data, their training in resumable parts, their answers."""

import contextlib
import dataclasses
import itertools
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Key

import inojax as ij
from experiments.common.evaluation import invert_all, observe
from experiments.common.runner import stage
from inojax.methods import InverseMap, InverseMapInverter, Spread

CLEAN, NOISY = "clean", "noisy"


@dataclasses.dataclass(frozen=True)
class MapSpec:
    """A map to train, once for each seed.

    Attributes:
        method: Its name in the tables.
        simulations: How many it gets, with those that ours holds out to choose the best weights.
        settings: How it is trained.
        joint: Whether it also recovers level and correlation of the noise.
    """

    method: str
    simulations: int
    settings: InverseMap
    joint: bool = False

    @property
    def train_noise(self) -> str:
        """Whether the series it learns from are noisy."""
        return CLEAN if self.settings.clean else NOISY

    @property
    def stem(self) -> str:
        """What its files are called, but for the seed."""
        kind = "joint" if self.joint else "neuron"
        return f"{self.method}_{kind}_{self.simulations}_{self.train_noise}"


class Answers(NamedTuple):
    """What the map of one seed says about the test cases.

    Attributes:
        clean: Estimates from clean series, in physical units; empty where not asked for.
        noisy: Estimates from noisy ones.
        covariance_clean: Covariances, empty where the map states none.
        covariance_noisy: The same from noisy series.
        inside: Share of each parameter's true values within the 90 % interval; NaN without one.
        fit_seconds: Time to train, compilation included.
        compile_seconds: Compilation of the training loop alone.
    """

    clean: Float[np.ndarray, "case parameter"]
    noisy: Float[np.ndarray, "case parameter"]
    covariance_clean: Float[np.ndarray, "some parameter parameter"]
    covariance_noisy: Float[np.ndarray, "some parameter parameter"]
    inside: Float[np.ndarray, " parameter"]
    fit_seconds: Float[np.ndarray, ""]
    compile_seconds: Float[np.ndarray, ""]

    def values(self, test_noise: str) -> Float[np.ndarray, "case parameter"]:
        """Estimates from series of one kind."""
        return self.clean if test_noise == CLEAN else self.noisy

    def covariances(self, test_noise: str) -> Float[np.ndarray, "some parameter parameter"]:
        """Covariances from series of one kind."""
        return self.covariance_clean if test_noise == CLEAN else self.covariance_noisy


@dataclasses.dataclass(frozen=True)
class TestSeries:
    """One problem with its test cases, measured with and without noise.

    Attributes:
        problem: The problem.
        truth: True parameters and trajectories.
        clean: Series without noise.
        noisy: The same with noise.
    """

    problem: ij.InverseProblem
    truth: ij.Dataset
    clean: ij.Observation
    noisy: ij.Observation

    def series(self, test_noise: str) -> ij.Observation:
        """Series of one kind."""
        return self.clean if test_noise == CLEAN else self.noisy


def measured_series(
    problem: ij.InverseProblem, truth: ij.Dataset, *, key: Key[Array, ""]
) -> TestSeries:
    """Measure test cases once with noise and once without."""
    noisy = observe(problem, truth, key=key)
    (channel,) = problem.channel_index
    values = np.asarray(truth.trajectories[:, :, channel, None])
    return TestSeries(problem, truth, dataclasses.replace(noisy, values=values), noisy)


def with_noise_unknowns(
    joint: ij.InverseProblem, neuron: ij.Dataset, *, key: Key[Array, ""]
) -> ij.Dataset:
    """The same simulations, with level and correlation of the noise drawn for each."""
    known = neuron.thetas.shape[1]
    drawn = joint.parameters.design(len(neuron), kind=ij.Design.RANDOM, key=key)
    thetas = np.concatenate([neuron.thetas, np.asarray(drawn)[:, known:]], axis=1)
    with jax.enable_x64(True):
        unit = np.asarray(joint.parameters.to_unit(thetas))
    return ij.Dataset(
        thetas,
        unit,
        times=neuron.times,
        trajectories=neuron.trajectories,
        status=neuron.status,
    )


def simulated(
    out: Path, problem: ij.InverseProblem, name: str, count: int, seed: int
) -> ij.Dataset:
    """Simulations drawn from the prior, from the disk as far as they are there."""
    stage(f"{name}: simulate {count}")
    wanted = count + 16 if count > 64 else count  # a few may fail
    found = ij.simulate(
        problem,
        wanted,
        store=out / f"{name}.zarr",
        design=ij.Design.RANDOM,
        progress=False,
        key=jr.fold_in(jr.key(seed), len(name)),
    ).usable()
    _ = found.trajectories  # read from the disk once, not for each map
    return first(found, count)


def first(data: ij.Dataset, count: int) -> ij.Dataset:
    """The first of many simulations, or all where there are fewer."""
    return data if count >= len(data) else data.split(len(data) - count)[0]


@dataclasses.dataclass(frozen=True)
class MapStudy:
    """Where maps are trained.

    Attributes:
        out: Folder of all parts.
        neuron: Test cases with known noise.
        joint: The same with unknown noise.
        training: Simulations of each seed.
        seed: Seed of the experiment.
    """

    out: Path
    neuron: TestSeries
    joint: TestSeries
    training: tuple[ij.Dataset, ...]
    seed: int

    @property
    def seeds(self) -> int:
        """How often each map is trained."""
        return len(self.training)

    def path(self, spec: MapSpec, seed: int) -> Path:
        """Where a map's answers are kept."""
        return self.out / "parts" / f"{spec.stem}_{seed}.npz"

    def train(self, specs: Sequence[MapSpec]) -> None:
        """Train what is not there yet, two at a time: such small networks keep one core busy."""
        (self.out / "parts").mkdir(exist_ok=True)
        longest_first = sorted(specs, key=lambda spec: -spec.settings.steps * spec.settings.batch)
        half = -(-len(specs) // 2)
        # Neighbours may be the same program: apart, one finds what the other has compiled.
        mixed_specs = list(itertools.zip_longest(longest_first[:half], longest_first[half:]))
        tasks = [
            (spec, seed)
            for seed in range(self.seeds)
            for spec in itertools.chain.from_iterable(mixed_specs)
            if spec is not None and not self.path(spec, seed).exists()
        ]
        # Factorizations of two calls at a time may wait for each other for ever.
        factoring = threading.Lock()
        with ThreadPoolExecutor(2) as pool:
            futures = [pool.submit(self._train, *task, factoring) for task in tasks]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def answers(self, spec: MapSpec) -> list[Answers]:
        """What the maps of all seeds say; they must have been trained."""
        found = []
        for seed in range(self.seeds):
            with np.load(self.path(spec, seed)) as stored:
                found.append(Answers(*(stored[name] for name in Answers._fields)))
        return found

    def inverter(self, spec: MapSpec, seed: int) -> InverseMapInverter:
        """A trained map."""
        return ij.load(self._folder(spec, seed), self._tests(spec).problem)

    def _tests(self, spec: MapSpec) -> TestSeries:
        return self.joint if spec.joint else self.neuron

    def _folder(self, spec: MapSpec, seed: int) -> Path:
        return self.out / "maps" / f"{spec.stem}_{seed}"

    def _train(self, spec: MapSpec, seed: int, factoring: threading.Lock) -> None:
        stage(f"train {spec.stem}, seed {seed}: {spec.settings.steps} steps")
        cases, spread = self._tests(spec), spec.settings.spread
        data = first(self.training[seed], spec.simulations)
        key = jr.fold_in(jr.key(self.seed), 1000 + seed)
        if spec.joint:
            data = with_noise_unknowns(cases.problem, data, key=key)
        free = contextlib.nullcontext()
        with factoring if spread is Spread.LAPLACE else free:
            began = time.perf_counter()
            inverter = spec.settings.fit(cases.problem, data, progress=False, key=key)
            seconds = time.perf_counter() - began
        with free if spread is Spread.NONE else factoring:
            answers = _ask(inverter, cases, seconds, key=key)
        if spread is not Spread.NONE:
            ij.save(inverter, self._folder(spec, seed))
        keep_arrays(self.path(spec, seed), answers._asdict())


def keep_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays in one move, so that a kill leaves all of them or none."""
    partial = path.with_suffix(".part")
    with partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    partial.replace(path)


def _ask(
    inverter: InverseMapInverter, cases: TestSeries, seconds: float, *, key: Key[Array, ""]
) -> Answers:
    size = cases.problem.parameters.size
    values, covariances = {}, {}
    inside = np.full(size, np.nan)
    for kind in (CLEAN, NOISY):
        estimate = invert_all(inverter, cases.series(kind), key=key)
        values[kind] = np.asarray(estimate.value, np.float64)
        covariances[kind] = np.zeros((0, size, size))
        if inverter.method.spread is not Spread.NONE:
            covariances[kind] = inverter.mean_and_covariance(cases.series(kind))[1]
            if kind == NOISY:
                inside = np.asarray(
                    ij.metrics.coverage(*estimate.interval(0.9), cases.truth.thetas)
                )
    (log,) = inverter.logs
    return Answers(
        values[CLEAN],
        values[NOISY],
        covariances[CLEAN],
        covariances[NOISY],
        inside,
        np.asarray(seconds),
        np.asarray(log.compile_seconds),
    )
