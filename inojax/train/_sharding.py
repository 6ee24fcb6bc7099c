"""Data parallelism over a device mesh."""

from typing import TypeVar

import jax
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

_Tree = TypeVar("_Tree")


def shard_batch(batch: _Tree) -> _Tree:
    """Spread the leading axis of every array over the mesh that is in force, if one is.

    Call it inside a loss on the examples just drawn: everything computed from them is then
    divided among the devices, and gradients are summed across them. Without a mesh it does
    nothing.

    Args:
        batch: A PyTree of arrays with a common leading axis.

    Returns:
        The same values, sharded.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return batch
    spec = PartitionSpec(mesh.axis_names[0])
    return jax.tree.map(lambda x: lax.with_sharding_constraint(x, spec), batch)


def replicate(tree: _Tree, mesh: jax.sharding.Mesh | None) -> _Tree:
    """Put a copy of every array on each device of a mesh.

    Args:
        tree: A PyTree of arrays.
        mesh: The mesh, or None to leave the arrays where they are.

    Returns:
        The replicated arrays.
    """
    if mesh is None:
        return tree
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def automatic(mesh: jax.sharding.Mesh | None) -> jax.sharding.Mesh | None:
    """The same devices with axes that the compiler divides work over.

    `jax.make_mesh` makes axes that every operation would have to spell out.

    Args:
        mesh: A mesh with axes of any type, or None.

    Returns:
        The mesh with automatic axes, or None.
    """
    return None if mesh is None else jax.sharding.Mesh(mesh.devices, mesh.axis_names)
