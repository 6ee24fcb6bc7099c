"""Where a training run keeps its state, so that a kill costs little and changes nothing."""

import json
import os
import pathlib
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
        with self._manager() as manager:
            return sorted(manager.all_steps())

    def save(self, step: int, state: Any) -> None:
        """Store a state and drop all but the two newest.

        Args:
            step: Optimizer steps done.
            state: A PyTree of arrays.

        Raises:
            OSError: If it cannot be written; earlier states stay valid.
        """
        import orbax.checkpoint as ocp

        arrays = jax.tree.map(np.asarray, state)
        with self._manager() as manager:
            manager.save(step, args=ocp.args.StandardSave(arrays), force=True)

    def restore(self, like: _Tree) -> _Tree | None:
        """Read the newest state.

        Args:
            like: A PyTree of arrays with the structure and shapes expected.

        Returns:
            The state, or None if there is none yet.
        """
        import orbax.checkpoint as ocp

        template = jax.tree.map(np.asarray, like)
        with self._manager() as manager:
            step = manager.latest_step()
            if step is None:
                return None
            return manager.restore(step, args=ocp.args.StandardRestore(template))

    def _manager(self) -> Any:
        import orbax.checkpoint as ocp

        # Written before the next step begins: a state that is said to be kept is kept.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2, create=False, enable_async_checkpointing=False
        )
        return ocp.CheckpointManager(self.folder, options=options)


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
