"""Experiments as a user runs them: in a process of their own, from the root, warnings as errors."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What Python prints with these arguments, and further variables of the environment."""
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": paths} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def smoke(name: str, out: Path, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The smallest preset of an experiment, named by its path below `experiments`."""
    return python(
        f"experiments/{name}", "--preset", "smoke", "--out", str(out), *more, **environment
    )
