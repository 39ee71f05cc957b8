r"""The tiles of a Gram matrix, one row of tiles at a time.

Temporaries of the size of the result would multiply the memory and leave the
processor's cache at every layer. So a kernel is evaluated on tiles of a few
hundred rows and columns. What is done with a tile, storing it or multiplying
a vector by it, is the caller's business.
"""

import jax
import jax.numpy as jnp

from .recursion import Kernels

TILE = 256  # rows and columns: 256 kB of float32, a share of the cache


def visited(
    visit, state, function, x, y, number, first=None, mirror=False, wanted=None
):
    """``state`` after a visit to each tile of row ``number``, and the error.

    ``x`` (N, n_0) and ``y`` (M, n_0), the rows and the columns; ``function``
    is of the kind of :mod:`ntk_helpers.kernel_function`. Where the rows are
    among the columns, ``first`` is the column of the first row. ``mirror``,
    for ``x`` = ``y``: only tiles from the diagonal on are computed, and each
    is visited a second time, transposed. A visit is a call

        state = visit(state, kernels, top, left, fresh)

    with the position of the tile, ``fresh`` = 0 for a diagonal tile that is
    visited again. The last tile of a row or a column ends where ``x`` or
    ``y`` ends, and then overlaps the tile before.
    """
    height, width = min(TILE, len(x)), min(TILE, len(y))
    top = jnp.minimum(number * height, len(x) - height)
    rows = jax.lax.dynamic_slice_in_dim(x, top, height)

    def tile(column, carried):
        state, error = carried
        left = jnp.minimum(column * width, len(y) - width)
        columns = jax.lax.dynamic_slice_in_dim(y, left, width)
        same = None
        if first is not None:
            row_numbers = first + top + jnp.arange(height)
            same = row_numbers[:, None] == left + jnp.arange(width)
        kernels, latest = function(rows, columns, same, wanted)
        if mirror:
            diagonal = top == left
            kernels = jax.lax.cond(
                diagonal, symmetric, lambda same: same, kernels
            )
        state = visit(state, kernels, top, left, 1)
        if mirror:
            mirrored = jax.tree.map(jnp.transpose, kernels)
            fresh = jnp.where(diagonal, 0, 1).astype(x.dtype)
            state = visit(state, mirrored, left, top, fresh)
        return state, jnp.maximum(error, latest)

    start = number if mirror else 0
    carried = state, jnp.zeros((), x.dtype)
    return jax.lax.fori_loop(start, -(-len(y) // width), tile, carried)


def symmetric(kernels: Kernels) -> Kernels:
    """The mean of square kernels and their transposes."""
    return jax.tree.map(lambda kernel: (kernel + kernel.T) / 2, kernels)
