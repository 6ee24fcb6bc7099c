"""The structure of the package: who imports whom, and what `import inojax` does."""

import ast
import io
import json
import subprocess
import sys
import textwrap
import tokenize
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "inojax"

# What stands further right, or in a later group, may import what stands before it.
ORDER = (
    ("_x64",),
    ("_blocks", "_rounding", "_tables"),
    ("_named_vector", "_indices", "_user_function", "_binding", "_quantile_table", "_quantiles"),
    (
        "_intervals",
        "_parameters",
        "_sensors",
        "_observation",
        "noise",
        "solvers",
        "_edges",
        "nn",
        "train",
    ),
    ("models",),
    (
        "_inverse_problem",
        "_estimate_file",
        "_estimate_status",
        "_multi_start",
        "_unfamiliar",
        "_trust",
        "_estimate",
    ),
    ("_linearization",),
    ("metrics", "data"),
    ("methods", "problems"),
    ("plot",),
)
RANK = {unit: rank for rank, unit in enumerate(sum(ORDER, ()))}
LONGEST_FUNCTION = 80  # lines of code
# Within `methods` a folder imports itself, the folders that it lies in, and those to its left.
FOLDERS = ("exact", "amortized", "pde", "calibration")
HEAVY = ("matplotlib", "numpyro", "zarr", "orbax", "flax", "tyro")

# Modules, by their paths, with those that each imports.
Graph = dict[tuple[str, ...], set[tuple[str, ...]]]


class Import(NamedTuple):
    """One imported module, as absolute path, and the place of the import."""

    target: tuple[str, ...]
    where: str


def sources(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def dotted(path: Path, root: Path = PACKAGE) -> tuple[str, ...]:
    """Module path of a file; a folder's `__init__.py` keeps its last part."""
    return (root.name, *path.relative_to(root).with_suffix("").parts)


def is_module(target: tuple[str, ...], root: Path) -> bool:
    path = root.parent.joinpath(*target)
    return path.is_dir() or path.with_suffix(".py").is_file()


def imports(path: Path, root: Path = PACKAGE) -> list[Import]:
    """All imports of our own modules in a file, those inside functions included."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            targets = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = dotted(path, root)[: -node.level] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            # `from ..data import simulate` names a content, `from .. import data` a module.
            inner = [(*base, alias.name) for alias in node.names]
            targets = [target if is_module(target, root) else base for target in inner]
        else:
            continue
        where = f"{path.name}:{node.lineno}"
        found += [Import(target, where) for target in targets if target[0] == root.name]
    return found


def is_method_beside(here: tuple[str, ...], target: tuple[str, ...]) -> bool:
    """Whether a file in `methods` imports from a folder that stands beside it or to its right."""
    if here[1] != "methods" or here[-1] == "__init__":
        return False
    if not target[-1].startswith("_"):  # a whole folder, with all that lies in it
        return True
    folder, other = here[2:-1], target[2:-1]
    if folder[: len(other)] == other:
        return False
    ranks = {name: rank for rank, name in enumerate(FOLDERS)}
    return not folder or ranks[other[0]] >= ranks[folder[0]]


def order_violations(path: Path, root: Path = PACKAGE) -> list[str]:
    """Imports in a file that point the wrong way."""
    here = dotted(path, root)
    unit, problems = here[1], []
    for target, where in imports(path, root):
        other = target[1] if len(target) > 1 else "__init__"
        if other == unit:
            if is_method_beside(here, target):
                problems.append(f"{where}: a method imports {'.'.join(target)}")
        elif other not in RANK:
            problems.append(f"{where}: {'.'.join(target)} has no place in ORDER")
        elif RANK[other] >= RANK[unit] or (unit, other) == ("problems", "methods"):
            problems.append(f"{where}: {unit} must not import {other}")
    return problems


def import_graph(paths: list[Path], root: Path = PACKAGE) -> Graph:
    """Which modules each of these files imports; a folder stands for its `__init__`."""

    def module(target: tuple[str, ...]) -> tuple[str, ...]:
        is_folder = root.parent.joinpath(*target).is_dir()
        return (*target, "__init__") if is_folder else target

    return {
        dotted(path, root): {module(target) for target, _ in imports(path, root)} for path in paths
    }


def in_cycles(graph: Graph) -> set[tuple[str, ...]]:
    """Modules that import themselves, directly or through others."""

    def reached(module: tuple[str, ...]) -> set[tuple[str, ...]]:
        found, waiting = set(), [*graph[module]]
        while waiting:
            other = waiting.pop()
            if other not in found:
                found.add(other)
                waiting += graph.get(other, ())
        return found

    return {module for module in graph if module in reached(module)}


def code_lines(source: str) -> dict[str, int]:
    """Lines of code of each function: no docstring, no comment, no blank line."""
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    occupied = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skipped:
            occupied.update(range(token.start[0], token.end[0] + 1))
    lengths = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = occupied & set(range(node.lineno, node.end_lineno + 1))
            if ast.get_docstring(node) is not None:
                lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
            lengths[f"{node.name}:{node.lineno}"] = len(lines)
    return lengths


MODULES = [path for path in sources(PACKAGE) if path != PACKAGE / "__init__.py"]
EXPERIMENTS = sources(ROOT / "experiments")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: "/".join(dotted(path)[1:]))
def test_imports_point_one_way(path: Path):
    assert dotted(path)[1] in RANK, f"give {dotted(path)[1]} a place in ORDER"
    assert order_violations(path) == []


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.name)
def test_experiments_use_public_names(path: Path):
    private = [
        where for target, where in imports(path) if any(part.startswith("_") for part in target[1:])
    ]
    assert private == []


@pytest.mark.parametrize(
    ("file", "statement", "complaint"),
    [
        ("noise/_a.py", "from ..models import ODEModel", "noise must not import models"),
        ("noise/_a.py", "from .._parameters import Parameter", None),
        ("noise/_a.py", "from ._base import AbstractNoise", None),
        ("noise/_a.py", "from .. import data", "noise must not import data"),
        ("noise/_a.py", "import inojax.data", "noise must not import data"),
        ("noise/_a.py", "def f():\n    from inojax.data import x", "noise must not import data"),
        ("data/_a.py", "from ..models._ode import ODEModel", None),
        ("data/_a.py", "from ..nowhere import x", "has no place in ORDER"),
        ("data/_a.py", "from inojax import ODEModel", "has no place in ORDER"),
        ("data/_a.py", "from numpy import array", None),
        ("methods/_a.py", "from ._base import AbstractMethod", None),
        ("methods/_a.py", "from . import B", "a method imports"),
        ("methods/_a.py", "from .exact._b import B", "a method imports"),
        ("methods/exact/_a.py", "from .._base import AbstractMethod", None),
        ("methods/exact/_a.py", "from ._b import B", None),
        ("methods/exact/_a.py", "from ..pde._b import B", "a method imports"),
        ("methods/pde/_a.py", "from ..exact._b import B", None),
        ("methods/pde/_a.py", "from ..exact import B", "a method imports"),
        ("methods/amortized/_a.py", "from .ino._b import B", "a method imports"),
        ("methods/amortized/ino/_a.py", "from .._b import B", None),
        ("methods/amortized/ino/_a.py", "from ...exact._b import B", None),
        ("methods/amortized/ino/_a.py", "from ..inverse_map._b import B", "a method imports"),
        ("methods/_a.py", "from ..problems import pollu", "methods must not import problems"),
        ("problems/_a.py", "from ..methods import INO", "problems must not import methods"),
    ],
)
def test_the_order_check_itself(tmp_path: Path, file: str, statement: str, complaint: str | None):
    root = tmp_path / "inojax"
    for unit in ("noise", "data", "models", "problems"):
        (root / unit).mkdir(parents=True)
    for folder in ("exact", "pde", "amortized", "amortized/ino", "amortized/inverse_map"):
        (root / "methods" / folder).mkdir(parents=True)
        (root / "methods" / folder / "_b.py").touch()
    for module in ("methods/_base.py", "models/_ode.py"):
        (root / module).touch()
    (root / file).write_text(statement)
    found = order_violations(root / file, root)
    assert len(found) == (complaint is not None)
    assert all(complaint in line for line in found)


def test_no_modules_import_each_other():
    assert in_cycles(import_graph(sources(PACKAGE))) == set()


@pytest.mark.parametrize(
    ("contents", "cycle"),
    [
        ({"_a": "from ._b import x", "_b": "import numpy", "_c": "from ._a import x"}, set()),
        ({"_a": "from ._b import x", "_b": "def f():\n    from ._a import x"}, {"_a", "_b"}),
        (
            {"_a": "from . import _b", "_b": "from ._c import x", "_c": "import inojax._a"},
            {"_a", "_b", "_c"},
        ),
        (
            {"_a": "from . import x", "__init__": "from ._a import x", "_c": "from ._a import x"},
            {"_a", "__init__"},
        ),
    ],
)
def test_the_cycle_check_itself(tmp_path: Path, contents: dict[str, str], cycle: set[str]):
    root = tmp_path / "inojax"
    root.mkdir()
    for name, source in contents.items():
        (root / f"{name}.py").write_text(source)
    found = in_cycles(import_graph(sources(root), root))
    assert {module[-1] for module in found} == cycle


@pytest.mark.parametrize("path", sources(PACKAGE), ids=lambda path: "/".join(dotted(path)[1:]))
def test_no_print_and_no_postponed_annotations(path: Path):
    tree = ast.parse(path.read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert [c.lineno for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"] == []
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    # jaxtyping could not check the annotations at run time if they were postponed.
    assert [node.lineno for node in froms if node.module == "__future__"] == []


@pytest.mark.parametrize("path", sources(PACKAGE) + EXPERIMENTS, ids=lambda path: path.stem)
def test_functions_are_short(path: Path):
    lengths = code_lines(path.read_text())
    assert {name: n for name, n in lengths.items() if n > LONGEST_FUNCTION} == {}


def test_the_length_check_itself():
    head = 'def f(\n    x,\n):\n    """One.\n\n    Two.\n    """\n'
    body = "\n    # why\n    y = x\n    return y\n"
    assert code_lines(head + body) == {"f:1": 5}


PROBE = """
    import json, os, sys, time
    import jax
    before = dict(jax.config.values), dict(os.environ)
    start = time.process_time()
    import inojax
    seconds = time.process_time() - start
    after = dict(jax.config.values), dict(os.environ)
    changed = [k for old, new in zip(before, after)
               for k in old.keys() | new.keys() if old.get(k) != new.get(k)]
    json.dump({
        "changed": changed,
        "heavy": sorted(HEAVY & {name.split(".")[0] for name in sys.modules}),
        "backend": bool(jax._src.xla_bridge._backends),
        "seconds": seconds,
    }, sys.stdout)
"""


@pytest.fixture(scope="module")
def fresh_import() -> dict:
    """What `import inojax` does in a new process: the quickest of three."""
    program = f"HEAVY = {set(HEAVY)!r}\n" + textwrap.dedent(PROBE)
    runs = []
    for _ in range(3):
        command = [sys.executable, "-c", program]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        runs.append(json.loads(result.stdout))
    return min(runs, key=lambda run: run["seconds"])


def test_import_changes_nothing(fresh_import: dict):
    assert fresh_import["changed"] == []
    # A started backend would take GPU memory and freeze the number of devices.
    assert not fresh_import["backend"]


def test_import_loads_no_heavy_package(fresh_import: dict):
    assert fresh_import["heavy"] == []


def test_import_is_quick(fresh_import: dict):
    # Processor time, which other work on the machine hardly touches; the bound is the design's.
    assert fresh_import["seconds"] < 2.0
