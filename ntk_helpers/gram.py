r"""Gram matrices, filled tile by tile in place, on one device or several."""

import sys
from functools import partial

import jax
import jax.numpy as jnp
from tqdm import tqdm

from . import checks, tiles
from .placement import (
    automatic,
    by_rows,
    everywhere,
    first_row,
    mesh_of,
    placed,
    row_spec,
    shares,
)
from .recursion import selected

LONG = 2**26  # entries from which a bar is shown, if it takes seconds


def gram(function, x, y=None, wanted: str | None = None):
    """Kernels (N, M) of ``function`` on all pairs, and its error.

    ``function`` is of the kind of :mod:`ntk_helpers.kernel_function`, and
    ``wanted`` names the only kernel to compute. If ``x`` or ``y`` lies on a
    mesh, so do the rows of the result; where the devices do not divide N,
    each has all of it. Long runs show a bar.
    """
    columns = x if y is None else y
    if not checks.is_concrete(x, y):
        return _whole(function, x, y, wanted)
    mesh = mesh_of(x, y)
    if mesh is not None:
        return _shared(function, x, y, wanted, mesh)
    if max(len(x), len(columns)) <= tiles.TILE:
        return _compiled(function, x, y, wanted)
    shape = len(x), len(columns)
    result = selected(wanted, lambda _: jnp.empty(shape, x.dtype))

    def fill(result, number):
        return _filled(result, function, x, y, number, wanted=wanted)

    return _by_rows(fill, result, len(x))


def _by_rows(fill, result, rows: int):
    """``result`` after ``fill`` of every row of tiles, the largest error."""
    entries = jax.tree.leaves(result)[0].size
    bar = tqdm(
        range(-(-rows // tiles.TILE)),
        "Gram matrix",
        delay=2,
        disable=entries < LONG,
        file=sys.stdout,
    )
    error = 0
    for number in bar:
        result, latest = fill(result, number)
        error = jnp.maximum(error, latest.max())
        # Else the bar shows what was asked for. A caller's jit has no bar.
        if number % 8 == 7 and checks.is_concrete(error):
            error.block_until_ready()
    return result, error


def _whole(function, x, y, wanted):
    kernels, error = function(x, y, wanted=wanted)
    return (tiles.symmetric(kernels) if y is None else kernels), error


_compiled = jax.jit(_whole, static_argnames="wanted")


def _store(result, kernels, top, left, _):
    def put(whole, tile):
        return jax.lax.dynamic_update_slice(whole, tile, (top, left))

    return jax.tree.map(put, result, kernels)


@partial(jax.jit, static_argnames="wanted", donate_argnums=0)
def _filled(result, function, x, y, number, *, wanted):
    columns, first = (x, 0) if y is None else (y, None)
    return tiles.visited(
        _store, result, function, x, columns, number, first, y is None, wanted
    )


def _shared(function, x, y, wanted, mesh):
    """As :func:`gram`, every device filling the rows it holds."""
    given, mesh = mesh, automatic(mesh)
    columns = x if y is None else y
    function, rows, columns = shares(mesh, function, x, columns)
    shape = len(rows), len(columns)
    empty = jax.jit(
        lambda: selected(wanted, lambda _: jnp.empty(shape, x.dtype)),
        out_shardings=by_rows(mesh),
    )
    fill = partial(_share_filled, mesh=mesh, wanted=wanted, same=y is None)
    result, error = _by_rows(
        lambda result, number: fill(result, function, rows, columns, number),
        empty(),
        len(rows) // mesh.size,
    )
    if len(rows) == len(x):
        return placed(result, by_rows(given)), error
    cut = jax.jit(
        lambda value: value[: len(x)], out_shardings=everywhere(mesh)
    )
    return placed(jax.tree.map(cut, result), everywhere(given)), error


@partial(jax.jit, static_argnames=("mesh", "wanted", "same"), donate_argnums=0)
def _share_filled(
    result, function, rows, columns, number, *, mesh, wanted, same
):
    def share(result, function, rows, columns, number):
        first = first_row(mesh, rows)
        result, error = tiles.visited(
            _store,
            result,
            function,
            rows,
            columns,
            number,
            first if same else None,
            wanted=wanted,
        )
        return result, error[None]

    split, copy = row_spec(mesh), jax.sharding.PartitionSpec()
    return jax.shard_map(
        share,
        mesh=mesh,
        in_specs=(split, copy, split, copy, copy),
        out_specs=split,
        check_vma=False,
    )(result, function, rows, columns, number)
