r"""Where arrays lie: on one device, or spread over the devices of a mesh.

Rows of a Gram matrix have nothing to say to each other, so each device can
hold its share of the rows and all of the columns. The mesh is read off the
inputs, as everywhere in JAX: who wants eight devices places ``x`` on eight.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def mesh_of(*arrays) -> Mesh | None:
    """The mesh of several devices that one of the arrays lies on, or None."""
    for array in arrays:
        sharding = getattr(array, "sharding", None)
        if isinstance(sharding, NamedSharding) and sharding.mesh.size > 1:
            return sharding.mesh
    return None


def automatic(mesh: Mesh) -> Mesh:
    """The same devices, with axes that the compiler deals with (Auto).

    On axes of type Explicit, rows that the devices do not divide cannot be
    cut off again.
    """
    return Mesh(mesh.devices, mesh.axis_names)


def by_rows(mesh: Mesh) -> NamedSharding:
    """The first axis cut into one piece for each device."""
    return NamedSharding(mesh, row_spec(mesh))


def row_spec(mesh: Mesh) -> PartitionSpec:
    """The first axis along all axes of the mesh."""
    return PartitionSpec(mesh.axis_names)


def everywhere(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def placed(tree, sharding: NamedSharding):
    """Arrays of ``tree``, wherever they lie, placed as ``sharding`` says."""
    return jax.tree.map(lambda leaf: _moved(leaf, sharding), tree)


def _moved(leaf, sharding):
    copied = jax.jit(lambda same: same, out_shardings=_automatic(sharding))
    if mesh_of(leaf) is not None:
        # Between processes, a compiled program can move data and device_put
        # cannot; device_put only renames the axes, before and after.
        leaf = copied(jax.device_put(leaf, _automatic(leaf.sharding)))
    elif jax.process_count() > 1:
        leaf = copied(np.asarray(leaf))
    return jax.device_put(leaf, sharding)


def _automatic(sharding: NamedSharding) -> NamedSharding:
    return NamedSharding(automatic(sharding.mesh), sharding.spec)


def shares(mesh: Mesh, function, x, columns, multiple: int = 1):
    """``function`` and ``columns`` everywhere, ``x`` cut into rows.

    ``multiple`` divides the rows that each device gets, the last repeated.
    """
    function, x, columns = placed((function, x, columns), everywhere(mesh))
    rows = placed(filled_up(x, multiple * mesh.size), by_rows(mesh))
    return function, rows, columns


def first_row(mesh: Mesh, rows):
    """Number of the first of the ``rows`` of this device, in a shard_map."""
    return jax.lax.axis_index(mesh.axis_names) * len(rows)


def on_one(value):
    """The first piece that this process holds: all of a copied array."""
    return value if mesh_of(value) is None else value.addressable_data(0)


def filled_up(x, multiple: int):
    """``x`` with its last row repeated until ``multiple`` divides them."""
    missing = -len(x) % multiple
    return jnp.pad(x, ((0, missing), (0, 0)), mode="edge") if missing else x
