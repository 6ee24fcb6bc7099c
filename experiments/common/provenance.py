"""What a result was made with."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

import inojax as ij

_PACKAGES = ("jax", "equinox", "diffrax", "optax", "numpy")


def stamp() -> dict[str, Any]:
    """When and with which code a part was made, which may be kept for a later run."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"date": now, "git_commit": _git_commit()}


def provenance(preset: str, seed: int) -> dict[str, Any]:
    """What a result was made with."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    device = jax.devices()[0]
    return {
        "versions": {"python": platform.python_version(), "inojax": ij.__version__, **versions},
        "device": f"{jax.device_count()} x {device.device_kind}",
        "cpu_count": os.cpu_count(),
        "seed": seed,
        "preset": preset,
        **stamp(),
        "peak_memory_gib": _peak_memory(),
    }


def _git_commit() -> str | None:
    command = ["git", "rev-parse", "HEAD"]
    try:
        found = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def _peak_memory() -> float | None:
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30, 2)
