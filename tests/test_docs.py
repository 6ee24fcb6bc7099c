"""README and reference say what is there, and all that is there."""

import ast
import importlib
import inspect
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import inojax as ij

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "pages"
README = (ROOT / "README.md").read_text()
EXPERIMENTS = ROOT / "experiments"
EXPERIMENTS_README = (EXPERIMENTS / "README.md").read_text()
COMMANDS = [
    'pip install -e ".[experiments]" && python experiments/pollu',
    'pip install -e ".[test]" && pytest',
]
NAMESPACES = ["inojax"] + [
    f"inojax.{init.parent.name}"
    for init in sorted((ROOT / "inojax").glob("*/__init__.py"))
    if not init.parent.name.startswith("_")
]


def blocks(text: str, language: str) -> list[str]:
    """Contents of the fenced code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def public_names(module: ModuleType) -> dict[str, object]:
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }


def local_links(page: Path) -> list[str]:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    return [target for target in targets if "://" not in target]


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_reference_renders_every_namespace(namespace: str):
    # The documentation is built with `members: true`, so a namespace brings all its names.
    assert re.search(rf"^::: {re.escape(namespace)}$", (PAGES / "api.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_every_public_name_is_ours_and_documented(namespace: str):
    for name, value in public_names(importlib.import_module(namespace)).items():
        assert getattr(value, "__module__", "").startswith("inojax"), f"{name} leaks from elsewhere"
        text = getattr(value, "__doc__", None) or ""
        # A dataclass without a docstring gets its signature instead.
        documented = text.strip() and not text.startswith(f"{name}(")
        assert documented, f"{name} has no docstring"


def test_readme_has_exactly_the_two_commands():
    shell = [line for language in ("bash", "sh", "console") for line in blocks(README, language)]
    assert [block.strip() for block in shell] == COMMANDS


def test_readme_commands_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {extra for command in COMMANDS for extra in re.findall(r"\[(\w+)\]", command)}
    assert named <= project["optional-dependencies"].keys()
    assert (ROOT / "experiments" / "pollu" / "__main__.py").is_file()


def scripts() -> set[str]:
    """Every experiment as it is started: a script, or a folder with a single one."""
    found = set()
    for path in EXPERIMENTS.glob("*/*.py"):
        if path.name == "__main__.py":
            found.add(path.parent.relative_to(ROOT).as_posix())
        elif "__main__" in path.read_text():
            found.add(path.relative_to(ROOT).as_posix())
    return {name for name in found if not name.startswith("experiments/data/")}


def test_experiments_are_listed_with_their_commands():
    table = [line for line in EXPERIMENTS_README.splitlines() if "`python experiments/" in line]
    listed = set()
    for line in table:
        (command,) = re.findall(r"`python (\S+)[^`]*`", line)
        ((shown, link),) = re.findall(r"\[([^\]]+)\]\(([^)]+)\)", line)
        assert shown == link == command.removeprefix("experiments/")
        listed.add(command)
    assert listed == scripts()


def test_experiments_say_how_they_are_started():
    for name in scripts():
        path = ROOT / name
        script = path / "__main__.py" if path.is_dir() else path
        assert f"\nCommand:  python {name} --preset " in script.read_text()


def test_ci_runs_the_test_command():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert "stage tests pytest" in lines


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", EXPERIMENTS / "README.md", *sorted(PAGES.glob("*.md"))],
    ids=lambda page: f"{page.parent.name}/{page.stem}",
)
def test_links_and_figures_exist(page: Path):
    assert [link for link in local_links(page) if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted(PAGES.glob("*.md"))])
def test_python_in_the_pages_uses_names_that_exist(page: Path):
    for block in blocks(page.read_text(), "python"):
        tree = ast.parse(block, page.name)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("inojax"):
                found = vars(importlib.import_module(str(node.module)))
                missing = [alias.name for alias in node.names if alias.name not in found]
                assert missing == [], f"{page.name} imports {missing} from {node.module}"
        for chain in re.findall(r"\bij((?:\.\w+)+)", block):
            value: object = ij
            for name in chain.strip(".").split("."):
                assert hasattr(value, name), f"{page.name} speaks of ij{chain}"
                value = getattr(value, name)


def test_own_equation_example_runs():
    (block,) = [block for block in blocks(README, "python") if "ij.InverseProblem(" in block]
    scope: dict = {}
    exec(compile(block, "<own equation>", "exec"), scope)
    observation = scope["observation"]
    assert observation.values.shape == (10, 2)
    assert observation.mask.any()


def test_own_pde_example_runs():
    """A new equation with exact and learned inversion, in less than 40 lines before methods."""
    model, *methods = blocks((PAGES / "pdes.md").read_text(), "python")
    assert len([line for line in model.splitlines() if line.strip()]) <= 40
    scope: dict = {}
    for block in (model, *methods):
        exec(compile(block, "<own pde>", "exec"), scope)
    truth = scope["np"].array([0.2, 1.5])
    exact = scope["exact"](scope["observation"], key=scope["jr"].key(2))
    learned = scope["inverter"](scope["observation"], key=scope["jr"].key(2))
    assert (abs(exact.value - truth) < 4.0 * exact.std).all()
    assert (abs(learned.value - exact.value) < 0.02 * exact.value).all()
