r"""Gram matrices, filled tile by tile.

Temporaries of the size of the result would multiply the memory and leave the
processor's cache at every layer. Here a kernel is evaluated on tiles of a few
hundred rows and columns and written into the result in place; without ``y``
only the tiles on one side of the diagonal are computed, and mirrored.
"""

from functools import partial

import jax
import jax.numpy as jnp
from tqdm import tqdm

from . import checks
from .recursion import Kernels

TILE = 256  # rows and columns: 256 kB of float32, a share of the cache


def gram(function, x, y=None, wanted: str | None = None):
    """Kernels (N, M) of ``function`` on all pairs, and its error.

    ``function`` is of the kind of :mod:`ntk_helpers.kernel_function`, and
    ``wanted`` names the only kernel to compute. Long runs show a bar.
    """
    columns = x if y is None else y
    if not checks.is_concrete(x, y):
        return _whole(function, x, y, wanted)
    if len(x) <= TILE and len(columns) <= TILE:
        return _compiled(function, x, y, wanted)
    shape = len(x), len(columns)
    result = Kernels(*(jnp.empty(shape, x.dtype),) * 2).only(wanted)
    result = jax.tree.map(jnp.copy, result)
    error = jnp.zeros((), x.dtype)
    bar = tqdm(range(-(-len(x) // TILE)), "Gram matrix", delay=2, unit="row")
    for number in bar:
        result, error = _row(
            result, error, function, x, y, number, wanted=wanted
        )
        if number % 8 == 7 and checks.is_concrete(error):
            error.block_until_ready()
    return result, error


def _whole(function, x, y, wanted):
    values, error = function(x, y, wanted=wanted)
    if y is None:
        values = jax.tree.map(_symmetric, values)
    return values, error


_compiled = jax.jit(_whole, static_argnames="wanted")


@partial(jax.jit, static_argnames="wanted", donate_argnums=(0, 1))
def _row(result, error, function, x, y, number, wanted):
    """``result`` with the tiles of one row of tiles, and their mirrors."""
    columns = x if y is None else y
    height, width = min(TILE, len(x)), min(TILE, len(columns))
    top = jnp.minimum(number * height, len(x) - height)
    rows = jax.lax.dynamic_slice_in_dim(x, top, height)

    def tile(column, state):
        result, error = state
        left = jnp.minimum(column * width, len(columns) - width)
        others = jax.lax.dynamic_slice_in_dim(columns, left, width)
        same = None
        if y is None:
            same = (
                jnp.arange(height)[:, None] + top == jnp.arange(width) + left
            )
        values, latest = function(rows, others, same, wanted)
        result = _placed(result, values, top, left)
        if y is None:
            values = jax.tree.map(
                lambda value: jax.lax.cond(
                    top == left, _symmetric, jnp.transpose, value
                ),
                values,
            )
            result = _placed(result, values, left, top)
        return result, jnp.maximum(error, latest)

    first = 0 if y is not None else number
    tiles = -(-len(columns) // width)
    return jax.lax.fori_loop(first, tiles, tile, (result, error))


def _symmetric(value):
    return (value + value.T) / 2


def _placed(result, values, top, left):
    return jax.tree.map(
        lambda whole, part: jax.lax.dynamic_update_slice(
            whole, part, (top, left)
        ),
        result,
        values,
    )
