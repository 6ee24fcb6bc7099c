"""Parts of a run as files, each written in one move."""

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np


def write_json(path: Path, content: Any) -> None:
    """Write JSON in one move, so that a kill leaves the old file or the new one."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(_plain(content), indent=1, allow_nan=False) + "\n")
    os.replace(partial, path)


def file_name(*words: str) -> str:
    """Words as a name of a file."""
    return "_".join("".join(c if c.isalnum() or c in "-." else "_" for c in w) for w in words)


def load_or_make(path: Path, make: Callable[[], Any]) -> Any:
    """What a file holds, made first if it is not there."""
    if not path.exists():
        write_json(path, make())
    return json.loads(path.read_text())


def _plain(value: Any) -> Any:
    """Python values instead of NumPy's, and None for what JSON lacks: NaN and infinity."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return _plain(np.asarray(value).tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
