"""Command line and course of every experiment: claim a folder, run once, resume, report."""

import contextlib
import dataclasses
import enum
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import tyro
import wadler_lindig

from experiments.common.clocks import Clocks
from experiments.common.files import write_json
from experiments.common.provenance import provenance


class Preset(enum.StrEnum):
    """How much is computed: a test, a result on a laptop, or the published amount."""

    SMOKE = "smoke"
    QUICK = "quick"
    PAPER = "paper"


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The options that every experiment has; subclasses add their own and a default folder."""

    out: Path
    """Folder of all results. Started again with the same one, a run continues."""
    preset: Preset = Preset.QUICK
    """smoke: under a minute; quick: minutes on a laptop; paper: the published amount, on a GPU."""
    seed: int = 0
    """Seed of all randomness."""


_Arguments = TypeVar("_Arguments", bound=Arguments)


def run_once(
    name: str,
    arguments: Arguments,
    size: Any,
    make: Callable[[Clocks], dict[str, Any]],
    report: Callable[[dict[str, Any]], str],
) -> dict[str, Any]:
    """Make `metrics.json` unless it is there, and print what it says.

    Args:
        name: Name of the experiment.
        arguments: The command line, whose folder the run claims.
        size: How much is computed; a folder that holds a run of another size is refused.
        make: Computes rows and limits, with the clocks that time it; what it says of `provenance`
            is added to what is known of every run.
        report: What is printed of the content.

    Returns:
        The content of `metrics.json`.
    """
    with input_errors():
        claim_folder(arguments, size)
    metrics = arguments.out / "metrics.json"
    if not metrics.exists():
        clocks = Clocks.in_folder(arguments.out)
        with clocks.total, clocks.compiling:
            made = make(clocks)
            made_with = provenance(str(arguments.preset), arguments.seed) | made.pop(
                "provenance", {}
            )
        head = {"experiment": name, "preset": str(arguments.preset), "seed": arguments.seed}
        write_json(metrics, head | {"provenance": made_with} | made | {"timing": clocks.timing()})
    content = json.loads(metrics.read_text())
    print(report(content))
    print(f"\nmetrics.json and any figures are in {arguments.out}.")
    return content


def main(
    kind: type[_Arguments],
    run: Callable[[_Arguments], None],
    summary: str,
    *,
    optimized: bool = False,
) -> None:
    """Read the command line, run, and end with a sentence where a traceback would not help.

    Args:
        kind: The options.
        run: The experiment.
        summary: What it does, for `--help`.
        optimized: Whether XLA optimizes in the smoke preset as well.
    """
    _refuse_another_clone(Path(sys.argv[0]).resolve())
    arguments = tyro.cli(kind, description=summary, config=(tyro.conf.EnumChoicesFromValues,))
    if arguments.preset is Preset.SMOKE:
        # Nearly all of its time would be spent on compiling code that runs for a second.
        _compile_quickly()
        if not optimized:
            jax.config.update("jax_disable_most_optimizations", True)
    try:
        run(arguments)
    except KeyboardInterrupt:
        print(
            f"\nStopped. What is finished is kept in {arguments.out}; start the same command "
            "again to continue.",
            file=sys.stderr,
        )
        raise SystemExit(130) from None
    except OSError as error:
        _refuse(str(error))


def _refuse_another_clone(script: Path) -> None:
    """Refuse a script that would run with the modules of a clone that it is not part of."""
    installed = Path(__file__).resolve().parents[2]
    if installed not in script.parents:
        _refuse(
            f"{script} would run with the modules of {installed}. Install the clone that the "
            "script is part of, `pip install -e .` there, or name it in PYTHONPATH."
        )


def _compile_quickly() -> None:
    """Let XLA fuse loops in its older way, which compiles in half the time and runs slower."""
    flag, given = "--xla_cpu_use_fusion_emitters", os.environ.get("XLA_FLAGS", "")
    # XLA aborts at a flag that it does not know, and this one will not stay for ever.
    if jax.__version_info__[:2] == (0, 10) and flag not in given:
        os.environ["XLA_FLAGS"] = f"{given} {flag}=false".strip()


@contextlib.contextmanager
def input_errors() -> Iterator[None]:
    """End the program with the message of a wrong input, exit code 2, without a traceback."""
    try:
        yield
    except (OSError, ValueError) as error:
        _refuse(str(error))


def _refuse(message: str) -> None:
    print(f"\nerror: {message}", file=sys.stderr)
    raise SystemExit(2) from None


def claim_folder(arguments: Arguments, settings: Any) -> None:
    """Create the folder of a run, or make sure that it holds the same run.

    Args:
        arguments: The command line.
        settings: Everything else that results depend on; compared as text, defaults included.

    Raises:
        ValueError: If the folder holds another run.
        OSError: If it cannot be written.
    """
    path = arguments.out / "run.json"
    text = wadler_lindig.pformat(settings, short_arrays=False, hide_defaults=False)
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        wanted = {
            "preset": str(arguments.preset),
            "seed": arguments.seed,
            "settings": text.splitlines(),
        }
        stored = json.loads(path.read_text()) if path.exists() else wanted
        write_json(path, stored)
    except OSError as error:
        raise OSError(f"`--out` {arguments.out} cannot be written: {error.strerror}.") from error
    changed = [name for name in wanted if stored.get(name) != wanted[name]]
    if changed:
        raise ValueError(
            f"`--out` {arguments.out} holds a run of preset {stored['preset']}, seed "
            f"{stored['seed']}, which differs in: {', '.join(changed)}. Choose another folder, or "
            "delete this one."
        )


def stage(text: str) -> None:
    """Say on one line what runs now."""
    print(f"-- {text}", flush=True)
