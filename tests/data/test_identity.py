"""Another problem is told apart from the stored one by a store, a data set and an inverter."""

import functools
import json
import re
import warnings
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest

import inojax as ij
from inojax import ODEModel, PDEModel, simulate
from inojax.data._compare import compare
from inojax.data._manifest import describe_measurement, describe_problem
from inojax.data._parts import prior_text
from inojax.methods import LeastSquares, Regression
from inojax.methods.amortized._training_data import check_dataset
from inojax.models import MethodOfLines, partial
from inojax.models._pde_solver import AbstractDirectSolver
from inojax.noise import AR1, AbstractNoise, Gaussian, LogNormal

pytestmark = pytest.mark.usefixtures("compiled_quickly")

TIMES = np.arange(1.0, 25.0)
TABLE = np.ones(25)
METHOD = Regression(width=8, depth=1, steps=4, batch=8, draws=4)
STATES = {"observable": None, "channels": ("x", "y")}


def field(t, y, theta, *, table=TABLE, loss=1.0, gain=0.1):
    drive = jnp.interp(t, jnp.arange(25.0), jnp.asarray(tuple(table)))
    slow = loss * theta[0] * y[0]
    return jnp.stack([drive - slow, gain * slow - theta[1] * y[1]])


def reading(y, theta, scale=2.0):
    return jnp.stack([scale * y[0], y[0] + theta[1] * y[1]])


SETTINGS = {
    "a": dist.Uniform(0.1, 1.0),
    "b": dist.LogUniform(0.05, 0.5),
    "names": ("a", "b"),
    "units": ("1/h", ""),
    "vector_field": field,
    "initial_state": np.array([0.0, 0.5]),
    "times": TIMES,
    "states": ("x", "y"),
    "schedule": ij.FixedTimes(TIMES[::2]),
    "missing": 0.0,
    "channels": ("double", "sum"),
    "observable": reading,
    "noise": Gaussian((0.1, 0.2)),
    "name": "driven",
}


def problem(**changes):
    """Two states that follow an input, seen through an observable."""
    s = SETTINGS | changes
    model = {k: v for k, v in changes.items() if k in ("rtol", "atol", "max_steps", "initial_time")}
    pairs = zip(s["names"], (s["a"], s["b"]), s["units"], strict=True)
    return ij.InverseProblem(
        s["name"],
        ij.ParameterSpace(tuple(ij.Parameter(*pair) for pair in pairs)),
        ODEModel(
            s["vector_field"], s["initial_state"], times=s["times"], states=s["states"], **model
        ),
        ij.Sensors(s["schedule"], s["channels"], s["missing"], s["observable"]),
        s["noise"],
    )


def run(which, **arguments):
    return simulate(which, 24, key=jr.key(0), progress=False, **arguments)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A store, the data set in it and an inverter of the unchanged problem."""
    folder = tmp_path_factory.mktemp("kept")
    dataset = run(problem(), store=folder / "store")
    check_dataset(problem(), dataset)
    ij.save(LeastSquares().fit(problem(), key=jr.key(0)), folder / "inverter")
    return folder, dataset


def load(folder, which, **arguments):
    """Read an inverter of any kind; one that knows observables needs no training."""
    return ij.load(folder, which, **arguments)


def refused(action, words, error=ValueError):
    with pytest.raises(error, match=words) as info:
        action()
    return str(info.value)


def with_table(hours, value):
    table = TABLE.copy()
    table[hours] = value
    return functools.partial(field, table=table)


class Pulse(eqx.Module):
    weights: np.ndarray

    def __call__(self, t, y, theta):
        return field(t, y, theta) + self.weights


def scaled(factor):
    return lambda y, theta: reading(y, theta, factor)


def late(t, y, theta):
    return jnp.where(t > 23.7, 0.9, 1.0) * field(t, y, theta)


def moved_normal(flipped=False):
    moves = [dist.transforms.AffineTransform(0.5, 0.1), dist.transforms.ExpTransform()]
    return dist.TransformedDistribution(dist.Normal(0.0, 1.0), moves[:: -1 if flipped else 1])


ARRAY = r"its constants differ: an array of shape \(25,\) has other values"
NUMBERS = "its constants differ"

# What trajectories depend on, and what a message must say.
SOLUTIONS = {
    "much of the table": ({"vector_field": with_table(slice(8, 20), 20.0)}, ARRAY),
    "one hour of the table": ({"vector_field": with_table(13, 1.01)}, ARRAY),
    "constant by keyword": ({"vector_field": functools.partial(field, gain=0.1001)}, NUMBERS),
    "array of a module": ({"vector_field": Pulse(np.array([0.0, 1e-4]))}, "vector field"),
    "a factor of one": ({"vector_field": functools.partial(field, loss=1.001)}, "vector field"),
    "the last hour": ({"vector_field": late}, "vector field: its program differs"),
    "start": ({"initial_state": np.array([0.0, 0.5001])}, "initial state.*0.5001 where 0.5 is"),
    "start by function": ({"initial_state": lambda k: jnp.stack([0.0 * k[0], k[0]])}, "initial"),
    "upper end of a prior": ({"a": dist.Uniform(0.1, 1.0001)}, r"priors \(a .*high=1.0001\)"),
    "prior alike in the middle": ({"a": dist.TruncatedNormal(0.55, 9.0, low=0.1, high=1.0)}, "pri"),
    "moved prior": ({"a": moved_normal(flipped=True)}, "priors"),
    "names": ({"names": ("a", "c")}, "parameter names"),
    "order of names": ({"names": ("b", "a")}, "parameter names"),
    "units": ({"units": ("1/s", "")}, "parameter units"),
    "states": ({"states": ("y", "x")}, "state names"),
    "times": ({"times": np.append(TIMES[:-1], 24.001), "schedule": ij.FixedTimes(TIMES[:9])},
              "output times"),
    "initial time": ({"initial_time": 0.5}, "initial time"),
    "name": ({"name": "other"}, "problem name"),
}  # fmt: skip


@pytest.mark.parametrize("name", SOLUTIONS)
def test_another_equation_is_refused_everywhere(kept, name):
    folder, dataset = kept
    changes, words = SOLUTIONS[name]
    other = problem(**changes)
    places = (
        functools.partial(run, other, store=folder / "store"),
        functools.partial(check_dataset, other, dataset),
        functools.partial(load, folder / "inverter", other),
    )
    for place in places:
        refused(place, words)
        refused(functools.partial(place, accept=True), words)


class Own(AbstractNoise):
    """Noise whose level is any function."""

    level: object

    def sample(self, clean, theta, *, times=None, key):
        return clean + self.level(clean) * jr.normal(key, clean.shape, clean.dtype)

    def log_prob(self, readings, clean, theta, mask=None, *, times=None):
        return -jnp.sum(jnp.square((readings - clean) / self.level(clean)))

    def whiten(self, readings, clean, theta, mask=None, *, times=None):
        return (readings - clean) / self.level(clean)

    def log_scale(self, clean, theta, mask=None, *, times=None):
        return jnp.log(self.level(clean))


READINGS = {
    "level": (
        {"noise": Gaussian((0.1, 0.2001))},
        r"noise \(scale .*0.2001\] where .*0.2\] is stored",
    ),
    "levels": ({"noise": Gaussian(0.1)}, "noise"),
    "unknown level": ({"noise": Gaussian((0.1, "a"))}, "noise"),
    "kind": ({"noise": LogNormal((0.1, 0.2))}, "noise"),
    "correlated": ({"noise": AR1(Gaussian((0.1, 0.2)), 0.5, step=1.0)}, "noise"),
    "own": ({"noise": Own(lambda x: 0.1 + 0.0 * x)}, "noise"),
    "observable": ({"observable": scaled(2.001)}, "observable: .*2.001 where 2.0 is stored"),
    "no observable": ({"observable": None, "channels": ("x", "y")}, "channels.*observable"),
    "channels": ({"channels": ("sum", "double")}, "channels"),
    "schedule": ({"schedule": ij.FixedTimes(TIMES[1::2])}, "times of the sensors"),
    "random times": ({"schedule": ij.RandomTimes(12)}, "times of the sensors"),
    "missing": ({"missing": 0.1}, "share of missing readings"),
}


@pytest.mark.parametrize("name", READINGS)
def test_other_readings_are_refused_by_an_inverter(kept, name):
    folder, dataset = kept
    changes, words = READINGS[name]
    other = problem(**changes)
    refused(lambda: load(folder / "inverter", other), words)
    refused(lambda: load(folder / "inverter", other, accept=True), words)
    # Trajectories do not depend on them.
    check_dataset(other, dataset)
    assert run(other, store=folder / "store").timing.simulated == 0


def test_the_order_of_transforms_of_a_prior_counts():
    first, other = (describe_problem(problem(a=moved_normal(flipped=f))) for f in (False, True))
    assert re.search("priors .*AffineTransform", compare(first, other).changed[0])


class Doubled(dist.Uniform):
    def icdf(self, q):
        return self.low + (self.high - self.low) * q**2

    def cdf(self, value):
        return jnp.sqrt(super().cdf(value))


def test_a_prior_of_ones_own_is_traced():
    first, other = (
        describe_problem(problem(a=prior(0.1, 1.0))) for prior in (dist.Uniform, Doubled)
    )
    assert "prior_maps" in other
    assert compare(first, other).changed


def test_other_noise_of_ones_own_is_told_apart():
    levels = (lambda x: 0.1 + 0.2 * x, lambda x: 0.1 + 0.3 * x, lambda x: 0.2 * x + 0.1)
    first, other, same = (describe_measurement(problem(noise=Own(level))) for level in levels)
    assert compare(first, other).changed == ["noise: its constants differ: 0.3 where 0.2 is stored"]
    assert not any(compare(first, same))


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"rtol": 1e-7}, "rtol"), ({"atol": 1e-12}, "atol"), ({"max_steps": 99}, "max_steps")],
)
def test_a_store_knows_the_solver_settings(kept, changes, words):
    folder, dataset = kept
    refused(lambda: run(problem(**changes), store=folder / "store"), f"solver settings.*{words}")
    check_dataset(problem(**changes), dataset)  # the same equation, only solved more exactly


# --- The same problem -------------------------------------------------------------------------


def unpacked(time, state, constants):
    grid = np.arange(25)
    fast, slow = state
    k = constants[0]
    second = 0.1 * (k * fast) - slow * constants[1]
    first = -(fast * k) + jax.jit(jnp.interp)(time, 1.0 * jnp.asarray(grid), jnp.ones(25))
    return jnp.zeros(2).at[0].set(first).at[1].set(second)


HARMLESS = {
    "copied": {"vector_field": functools.partial(field, table=TABLE.tolist())},
    "written anew": {"vector_field": unpacked},
    "lambda": {"vector_field": lambda t, y, k: field(t, y, k)},  # noqa: PLW0108
    "start by function": {"initial_state": lambda theta: jnp.array([0.0, 0.5])},
    "computed": {"times": 0.5 * np.arange(2, 50, 2), "initial_state": np.array([0, 1]) / 2},
    "observable": {"observable": lambda y, k: jnp.array([y[0] * 2, k[1] * y[1] + y[0]])},
    "noise": {"noise": Gaussian(np.array([0.1, 0.2]))},
    "bounds": {"a": dist.Uniform(0.1, 0.7 + 0.2 + 0.1)},
}


@pytest.mark.parametrize("name", HARMLESS)
def test_the_same_problem_is_the_same_however_it_is_written(name):
    one, two = problem(), problem(**HARMLESS[name])
    assert not any(compare(describe_problem(one), describe_problem(two)))
    assert not any(compare(describe_measurement(one), describe_measurement(two)))


@pytest.fixture
def rewritten():
    """The same equation and observable, but a constant is 0.1 and a rounding error."""
    return problem(
        vector_field=functools.partial(field, gain=0.3 - 0.2),
        observable=scaled(1.9 + 0.1 + 1e-15),
    )


def test_rewritten_equations_ask_for_a_second_look(kept, rewritten):
    folder, dataset = kept
    actions = {
        "store": lambda **k: run(rewritten, store=folder / "store", **k),
        "data set": lambda **k: check_dataset(rewritten, dataset, **k),
        "inverter": lambda **k: load(folder / "inverter", rewritten, **k),
    }
    for action in actions.values():
        message = refused(action, "its constants differ: 0.0999.* where 0.1 is stored")
        assert "solved again are the stored ones" in message
        assert "`accept=True`" in message
    found = actions["store"](accept=True)
    assert found.timing.simulated == 0
    np.testing.assert_array_equal(found.trajectories, dataset.trajectories)
    check_dataset(rewritten, found)  # It has been looked at.
    actions["data set"](accept=True)
    actions["inverter"](accept=True)


def test_training_and_loading_ask_for_a_second_look(kept, tmp_path):
    dataset, arguments = kept[1], {"progress": False, "key": jr.key(1)}
    rewritten = problem(vector_field=functools.partial(field, gain=0.3 - 0.2), **STATES)
    refused(lambda: METHOD.fit(rewritten, dataset, **arguments), "`accept=True`")
    inverter = METHOD.fit(rewritten, dataset, accept=True, **arguments)
    ij.save(inverter, tmp_path)
    refused(lambda: ij.load(tmp_path, problem(**STATES)), "`accept=True`")
    loaded = ij.load(tmp_path, problem(**STATES), accept=True)
    theta = np.array([0.5, 0.1])
    observation = problem(**STATES).simulate(theta, key=jr.key(2))
    first, second = (which(observation, key=jr.key(3)) for which in (inverter, loaded))
    np.testing.assert_array_equal(first.value, second.value)
    other = problem(vector_field=with_table(slice(8, 20), 1.1), **STATES)
    for accept in (False, True):
        arguments["accept"] = accept
        refused(functools.partial(ij.load, tmp_path, other, accept=accept), ARRAY)
        refused(functools.partial(METHOD.fit, other, dataset, **arguments), ARRAY)


def test_a_rewritten_store_is_finished_after_a_second_look(kept, rewritten, tmp_path):
    run(problem(), store=tmp_path / "s", chunk_size=8)
    (tmp_path / "s/complete/c/1").unlink()
    found = run(rewritten, store=tmp_path / "s", chunk_size=8, accept=True)
    assert found.timing.simulated == 8
    np.testing.assert_allclose(found.trajectories, kept[1].trajectories, rtol=1e-9)


def test_a_store_without_a_simulation_cannot_be_looked_at(rewritten, tmp_path):
    run(problem(), store=tmp_path / "s")
    (tmp_path / "s/complete/c/0").unlink()
    refused(lambda: run(rewritten, store=tmp_path / "s", accept=True), "no trajectories to compare")


def test_another_version_of_jax_makes_the_trajectories_decide(kept, tmp_path):
    run(problem(), store=tmp_path / "s")
    file = tmp_path / "s/zarr.json"
    manifest = json.loads(file.read_text())
    manifest["attributes"]["jax"] = "0.1.2"
    file.write_text(json.dumps(manifest))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(problem(), store=tmp_path / "s")
    manifest["attributes"]["vector_field"]["program"] = "as it was traced then"
    file.write_text(json.dumps(manifest))
    with pytest.warns(UserWarning, match=r"JAX 0.1.2 traced another program.*stored ones"):
        run(problem(), store=tmp_path / "s")
    other = problem(vector_field=with_table(13, 1.01))
    refused(lambda: run(other, store=tmp_path / "s", accept=True), ARRAY)


def test_data_sets_made_by_hand_stay_usable(kept):
    dataset = kept[1]
    parts = {"times": dataset.times, "status": dataset.status}
    for manifest in (None, {}, {"problem": "driven"}):
        found = ij.Dataset(
            dataset.thetas,
            dataset.unit,
            trajectories=np.asarray(dataset.trajectories),
            manifest=manifest,
            **parts,
        )
        check_dataset(problem(vector_field=with_table(13, 1.01)), found)


def test_inverters_of_an_older_format_are_refused(kept, tmp_path):
    folder = kept[0]
    for file in (folder / "inverter").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"format": 2}))
    refused(lambda: load(tmp_path, problem()), "format 2; this version.*or train again")


def test_a_checkpoint_of_another_problem_is_refused(kept, tmp_path):
    dataset = kept[1]
    arguments = {"checkpoint": tmp_path, "progress": False, "key": jr.key(1)}
    METHOD.fit(problem(**STATES), dataset, **arguments)
    METHOD.fit(problem(**STATES), dataset, **arguments)
    noisier = problem(noise=Gaussian((0.1, 0.3)), **STATES)
    refused(lambda: METHOD.fit(noisier, dataset, **arguments), "identity: other noise")
    rarer = problem(schedule=ij.FixedTimes(TIMES[1::2]), **STATES)
    refused(lambda: METHOD.fit(rarer, dataset, **arguments), "identity: other schedule")


def test_a_function_whose_array_changes_is_refused():
    table = TABLE.copy()

    def reads(t, y, theta):
        return field(t, y, theta, table=table)

    describe_problem(problem(vector_field=reads))
    table[3] = 2.0
    refused(
        lambda: describe_problem(problem(vector_field=reads)),
        "`vector_field` computes something else.*Define the function again",
        RuntimeError,
    )


def test_a_callback_is_decided_by_trajectories():
    def calling(t, y, theta):
        shape = jax.ShapeDtypeStruct((), y.dtype)
        return field(t, y, theta) * jax.pure_callback(lambda t: 1.0 + 0.0 * t, shape, t)

    found = describe_problem(problem(vector_field=calling))
    (phrase,) = compare(found, found).unseen
    assert "calls back into Python" in phrase


# --- Partial differential equations -----------------------------------------------------------


SOURCE = np.linspace(0.0, 1.0, 11)


def pde(rate=1.0, source=SOURCE, height=1.0, end=1.0, points=21, nodes=17, at=5, turned=False):
    def residual(u, x, theta):
        flow = theta[0] * partial(u, 0, 0)(x)
        push = jnp.interp(x[0], jnp.linspace(0.0, 1.0, 11), jnp.asarray(source))
        slope = partial(u, 1)(x)
        return -(flow - slope + rate * push) if turned else slope - flow - rate * push

    def ansatz(n, x, theta):
        return height * jnp.sin(jnp.pi * x[0]) + x[1] * x[0] * (1.0 - x[0]) * n

    model = PDEModel(
        residual,
        ansatz,
        domain={"x": (0.0, 1.0), "t": (0.0, end)},
        collocation=(points, 11),
        readings=np.stack([np.full(at, 0.5), np.linspace(0.1, 0.9, at)], axis=1),
        solver=MethodOfLines(nodes),
    )
    space = ij.ParameterSpace((ij.Parameter("D", dist.Uniform(0.1, 1.0)),))
    return ij.InverseProblem("pde", space, model, ij.Sensors(ij.RandomTimes(3)), Gaussian(0.1))


def identity(which):
    return describe_problem(which) | describe_measurement(which)


# Newer versions of JAX keep a table's search whole, so that only the program as a whole differs.
OTHER_SOURCE = r"residual: .*array of shape \(11,\)"
if jax.__version_info__ >= (0, 11):
    OTHER_SOURCE = "residual: its program differs"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rate": 1.001}, "residual"),
        ({"source": SOURCE + 1e-4}, OTHER_SOURCE),
        ({"height": 1.001}, "ansatz"),
        ({"end": 1.1}, "domain"),
        ({"points": 22}, "collocation points"),
        ({"at": 6}, "output times"),
    ],
)
def test_other_pdes_are_told_apart(changes, words):
    found = compare(identity(pde()), identity(pde(**changes)))
    assert any(re.search(words, phrase) for phrase in found.changed + found.rewritten)


def test_the_same_pde_is_the_same():
    assert not any(compare(identity(pde()), identity(pde(turned=True))))


class Exact(AbstractDirectSolver):
    rate: Callable

    def values(self, formula, theta, points):
        return jnp.exp(-self.rate(theta) * points[:, 1:]) * jnp.sin(jnp.pi * points[:, :1])

    def tightened(self):
        return self


def test_a_solver_of_ones_own_is_traced():
    found = []
    for rate in (lambda k: jnp.pi**2 * k[0], lambda k: 10.0 * k[0], lambda k: k[0] * np.pi**2):
        which = pde()
        model = which.model.replace(solver=Exact(rate))
        found.append(
            describe_problem(
                ij.InverseProblem("pde", which.parameters, model, which.sensors, which.noise)
            )
        )
    assert compare(*found[:2]).changed == [
        "values of the solver: its constants differ: 10.0 where 9.869604401089358 is stored"
    ]
    assert not any(compare(found[0], found[2]))


def mixture(second):
    parts = dist.LogNormal(jnp.log(jnp.array([0.1, second])), jnp.array([0.1, 0.1]))
    return dist.MixtureSameFamily(dist.Categorical(probs=jnp.array([0.5, 0.5])), parts)


def test_parts_of_mixtures_belong_to_a_prior():
    one, other = prior_text(mixture(0.3)), prior_text(mixture(5.0))
    assert one == prior_text(mixture(0.3))
    assert one != other
