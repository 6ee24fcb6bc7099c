"""Where a training run keeps its state, so that a kill costs little and changes nothing."""

import json
import os
import pathlib
import shutil
from typing import Any, TypeVar

import jax
import numpy as np

_Tree = TypeVar("_Tree")
_MANIFEST = "run.json"


class Checkpoint:
    """A folder that holds the newest states of one training run.

    States are written by Orbax, which renames a finished folder into place: a kill in the
    middle of writing leaves the previous state valid. A manifest beside them says which run
    they belong to, and another run is refused.

    Attributes:
        folder: Where the states are.
    """

    folder: pathlib.Path

    def __init__(self, folder: str | os.PathLike[str], manifest: dict[str, Any]) -> None:
        """Open or create the folder.

        Args:
            folder: Where to keep states.
            manifest: What identifies the run, JSON values only.

        Raises:
            ValueError: If the folder belongs to another run, naming what differs.
        """
        self.folder = pathlib.Path(folder).resolve()
        path = self.folder / _MANIFEST
        wanted = json.loads(json.dumps(manifest))
        if path.exists():
            _check_same(json.loads(path.read_text()), wanted, self.folder)
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".part")
            partial.write_text(json.dumps(wanted, indent=2, sort_keys=True))
            os.replace(partial, path)

    def steps(self) -> list[int]:
        """Steps at which a state is stored, in increasing order."""
        return sorted(int(p.name) for p in self.folder.iterdir() if p.name.isdigit())

    def save(self, step: int, state: Any) -> None:
        """Store a state and drop all but the two newest.

        Args:
            step: Optimizer steps done.
            state: A PyTree of arrays.

        Raises:
            OSError: If it cannot be written; earlier states stay valid.
        """
        import orbax.checkpoint as ocp

        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(self.folder / str(step), jax.tree.map(np.asarray, state), force=True)
        for old in self.steps()[:-2]:
            shutil.rmtree(self.folder / str(old), ignore_errors=True)

    def restore(self, like: _Tree) -> _Tree | None:
        """Read the newest state.

        Args:
            like: A PyTree of arrays with the structure and shapes expected.

        Returns:
            The state, or None if there is none yet.
        """
        import orbax.checkpoint as ocp

        steps = self.steps()
        if not steps:
            return None
        template = jax.tree.map(np.asarray, like)
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(self.folder / str(steps[-1]), template)


def _check_same(stored: dict[str, Any], wanted: dict[str, Any], folder: pathlib.Path) -> None:
    keys = [k for k in sorted(stored | wanted) if stored.get(k) != wanted.get(k)]
    if keys:
        listed = "; ".join(_difference(k, stored.get(k), wanted.get(k)) for k in keys)
        raise ValueError(
            f"`checkpoint` folder {folder} belongs to another training run: {listed}. "
            "Use another folder, or delete this one to start again."
        )


def _difference(name: str, stored: Any, wanted: Any) -> str:
    """What differs; of texts of several lines those that do, which begin with a name each."""
    if isinstance(stored, str) and isinstance(wanted, str) and "\n" in wanted:
        lines = set(stored.splitlines()) ^ set(wanted.splitlines())
        return f"{name}: other {', '.join(sorted({line.split(' ')[0] for line in lines}))}"
    return f"{name} was {stored!r}, is now {wanted!r}"
