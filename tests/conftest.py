"""Makes JAX strict for the whole run; see `[tool.pytest.ini_options]` for the rest.

The environment is set before JAX starts its backend, and is inherited by subprocesses. The folder
of compiled programs is not: JAX does not write it atomically, and some tests kill a process.
"""

import gc
import os
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import jax
import jax.random as jr
import pytest

WANTED = {"--xla_force_host_platform_device_count": "2"}
# XLA aborts at a flag that it does not know, and this one will not stay for ever.
if jax.__version_info__[:2] == (0, 10):
    # Most of the work is compiling, which takes half the time with XLA's older way to fuse loops.
    WANTED["--xla_cpu_use_fusion_emitters"] = "false"
given = os.environ.get("XLA_FLAGS", "")
added = (f"{flag}={value}" for flag, value in WANTED.items() if flag not in given)
os.environ["XLA_FLAGS"] = " ".join([given, *added]).strip()
os.environ["MPLBACKEND"] = "Agg"

jax.config.update("jax_numpy_rank_promotion", "raise")

# Many tests build the same program anew. Each process has a folder of its own, gone at its end.
COMPILED = tempfile.TemporaryDirectory()
jax.config.update("jax_compilation_cache_dir", COMPILED.name)

# Tracing makes millions of small objects that stay: looking through them again and again for
# garbage takes a fifth of its time.
gc.set_threshold(200_000, 50, 100)

SEED = 20260312
MOST_MAPS = 20_000


# A file stays in one process, so one that takes minutes must not be the last to start.
LONGEST_FIRST = (
    "experiments/test_pollu.py",
    "methods/test_methods.py",
    "solvers/test_ensemble.py",
    "methods/test_least_squares.py",
    "experiments/test_fitzhugh_nagumo.py",
    "experiments/test_calibration.py",
    "experiments/test_benchmark_solvers.py",
    "problems/test_problems.py",
    "experiments/test_real_data.py",
    "solvers/test_speed.py",
    "methods/test_posterior.py",
    "methods/test_calibrate.py",
)


def _place(item: pytest.Item) -> int:
    name = item.path.relative_to(Path(__file__).parent).as_posix()
    return LONGEST_FIRST.index(name) if name in LONGEST_FIRST else len(LONGEST_FIRST)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    assert all((Path(__file__).parent / name).is_file() for name in LONGEST_FIRST)
    items.sort(key=_place)
    gpu_tests = [item for item in items if item.get_closest_marker("gpu")]
    if gpu_tests and not any(device.platform == "gpu" for device in jax.devices()):
        for item in gpu_tests:
            item.add_marker(pytest.mark.skip(reason="JAX finds no GPU"))


@pytest.fixture(autouse=True)
def x64_switch_is_left_alone() -> Iterator[None]:
    """Fail a test after which the global float64 switch stands differently than before."""
    before = jax.config.jax_enable_x64
    yield
    after = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", before)
    assert after == before, "the test changed `jax_enable_x64` for all tests after it"


@pytest.fixture(autouse=True, scope="module")
def compiled_programs_are_let_go() -> Iterator[None]:
    """Forget compiled programs before their pieces of memory are more than Linux allows."""
    yield
    maps = Path("/proc/self/maps")  # XLA aborts at 65,530 of them
    if maps.exists() and maps.read_text().count("\n") > MOST_MAPS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="module")
def compiled_quickly() -> Iterator[None]:
    """Compile a whole file with few optimizations, where most code runs once."""
    # Not above, where the annotations would not be checked yet.
    from tests.helpers import optimizations

    with optimizations(False):
        yield


@pytest.fixture
def key() -> jax.Array:
    """One random key, the same in every test and every run."""
    return jr.key(SEED)


@pytest.fixture
def getkey() -> Callable[[], jax.Array]:
    """A function that returns another random key at each call, the same ones in every run."""
    number = count()
    root = jr.key(SEED)
    return lambda: jr.fold_in(root, next(number))
