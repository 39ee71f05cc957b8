r"""A Gram matrix that is never stored.

The kernel of N inputs has N^2 entries: 40 GB in float32 at N = 100,000, while
the inputs take n_0/N of that. Products with vectors need the entries
once each, so they are computed when they are needed, tile by tile, and
forgotten; and conjugate gradients solve linear systems by such products.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from . import checks, tiles
from .architecture import settled
from .fully_connected import FullyConnected
from .kernel_function import kernel_function
from .placement import (
    automatic,
    everywhere,
    filled_up,
    first_row,
    mesh_of,
    row_spec,
    shares,
)
from .precision import matmul
from .recursion import Kernels

if TYPE_CHECKING:
    from .conjugate_gradients import Solution


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["function", "rows", "columns"],
    meta_fields=["kernel", "shape", "symmetric", "mesh"],
)
@dataclass(frozen=True)
class KernelMatrix:
    """The matrix of a kernel on all pairs of inputs; see kernel_matrix.

    ``kernel``: "nngp" or "ntk"; ``shape`` (N, M). ``matrix @ vectors`` is
    the product with (M,) or (M, K), in jit and out of it.
    """

    function: object
    rows: jax.Array
    columns: jax.Array
    kernel: str
    shape: tuple[int, int]
    symmetric: bool
    mesh: Mesh | None

    @property
    def dtype(self):
        """That of the inputs and of the entries."""
        return self.rows.dtype

    def __matmul__(self, vectors) -> jax.Array:
        """The product with ``vectors`` (M,) or (M, K), at highest precision.

        Raises ``ValueError`` on another shape and on non-finite entries.
        """
        vectors = checks.floating(vectors)
        if vectors.ndim not in (1, 2) or len(vectors) != self.shape[1]:
            raise ValueError(
                f"vectors must have shape ({self.shape[1]},) or "
                f"({self.shape[1]}, K), got {vectors.shape}"
            )
        checks.finite(vectors, "vectors")
        vectors = vectors.astype(jnp.result_type(vectors, self.dtype))
        product = _product(self, vectors.reshape(len(vectors), -1))
        return product.reshape(-1, *vectors.shape[1:])

    def diagonal(self) -> jax.Array:
        """The entries (min(N, M),) of every input with itself.

        Raises ``ValueError`` where ``y`` was given.
        """
        self._check_symmetric()
        kernels, _ = _diagonal(self.function, self.columns)
        return getattr(kernels, self.kernel)[: self.shape[0]]

    def solve(
        self,
        y,
        key,
        noise: float = 0.0,
        rank: int = 128,
        tolerance: float = 1e-5,
        max_steps: int = 1000,
        progress: bool = True,
    ) -> "Solution":
        r"""alpha with (K + noise I) alpha = y, by conjugate gradients.

        ``y`` (N, C): several right-hand sides at once. The preconditioner is
        a Nystrom approximation of the given ``rank`` from random test
        vectors drawn with ``key``; rank 0 means none. Steps end when the
        residual is about ``tolerance`` times the right-hand side, and so is
        the last change of alpha relative to alpha. Returns the solution, the
        relative residual of every column, computed anew from its definition,
        and the number of steps.

        In exact arithmetic the error shrinks by (1 - 2/(sqrt(kappa) + 1)) a
        step, kappa being the condition number that the preconditioner
        leaves. Sources: Hestenes and Stiefel (1952); Frangella, Tropp and
        Udell (2023), algorithm 2.1 and section 2.2. Raises ``ValueError`` on
        shapes that do not fit, a negative noise, a matrix of two different
        sets of inputs, and where ``max_steps`` do not suffice.
        """
        self._check_symmetric()
        y = checks.targets(y, self.shape[0]).astype(self.dtype)
        # lineax takes as long to import as JAX does.
        from .conjugate_gradients import solution

        return solution(
            self, y, key, noise, rank, tolerance, max_steps, progress
        )

    def _check_symmetric(self):
        if not self.symmetric:
            raise ValueError(
                "the matrix must be that of x with itself, got one of x and y"
            )


def kernel_matrix(
    net: FullyConnected, x, y=None, kernel: str = "ntk"
) -> KernelMatrix:
    """The matrix ``net.ntk(x, y)``, or ``net.nngp(x, y)``, never stored.

    ``x`` (N, n_0) and ``y`` (M, n_0), by default ``x``; ``kernel``: "ntk" or
    "nngp". If ``x`` or ``y`` lies on a mesh of several devices, every device
    computes the products of its share of the rows. Raises ``ValueError`` on
    another kernel and as :meth:`FullyConnected.kernels` does.
    """
    if kernel not in Kernels._fields:
        raise ValueError(f"kernel must be 'nngp' or 'ntk', got {kernel!r}")
    if not isinstance(net, FullyConnected):
        raise ValueError(f"net must be a FullyConnected, got {net!r}")
    x, y = net._sides(x, y)

    form = partial(kernel_function, x=x, y=y)
    net, x = _trusted(net, form, x)
    if y is not None:
        net, y = _trusted(net, form, y)
    function = kernel_function(net, x, y)
    columns = x if y is None else y
    shape, mesh = (len(x), len(columns)), mesh_of(x, y)
    if mesh is None:
        rows = filled_up(x, tiles.TILE)
        columns = rows if y is None else filled_up(y, tiles.TILE)
    else:
        mesh = automatic(mesh)
        function, rows, columns = shares(
            mesh, function, x, columns, tiles.TILE
        )
        columns = filled_up(columns, tiles.TILE)
    return KernelMatrix(
        function, rows, columns, kernel, shape, y is None, mesh
    )


def _trusted(net, form, x):
    """``net`` with a dual as fine as the rows of ``x`` need, and ``x``.

    Inside a jit of the caller's, ``x`` is NaN where the dual is too coarse.
    """
    net, kernels = settled(net, lambda net: _diagonal(form(net), x))
    if checks.is_concrete(kernels):
        return net, x
    factor = jnp.where(jnp.isnan(kernels.ntk), jnp.nan, 1).astype(x.dtype)
    return net, factor[:, None] * x


@jax.jit
def _diagonal(function, x):
    return function.diagonal(x)


@jax.jit
def _product(matrix: KernelMatrix, vectors):
    """Vectors (M, C) -> (N, C)."""
    missing = len(matrix.columns) - len(vectors)
    vectors = jnp.pad(vectors, ((0, missing), (0, 0)))
    share = partial(_share, matrix.kernel, matrix.symmetric, matrix.mesh)
    parts = matrix.function, matrix.columns, vectors, matrix.rows
    if matrix.mesh is None:
        return share(*parts)[: matrix.shape[0]]
    split, copy = row_spec(matrix.mesh), PartitionSpec()
    share = jax.shard_map(
        share,
        mesh=matrix.mesh,
        in_specs=(copy, copy, copy, split),
        out_specs=split,
        check_vma=False,
    )
    product = share(*parts)[: matrix.shape[0]]
    return jax.lax.with_sharding_constraint(product, everywhere(matrix.mesh))


def _share(kernel, symmetric, mesh, function, columns, vectors, rows):
    """Products of the rows that this device holds."""
    first = 0 if symmetric else None
    if symmetric and mesh is not None:
        first = first_row(mesh, rows)

    def add(product, kernels, top, left, fresh):
        entries = getattr(kernels, kernel)
        height, width = entries.shape
        part = jax.lax.dynamic_slice_in_dim(vectors, left, width)
        part = fresh * matmul(entries, part)
        before = jax.lax.dynamic_slice_in_dim(product, top, height)
        return jax.lax.dynamic_update_slice_in_dim(
            product, before + part, top, 0
        )

    def row(number, product):
        product, _ = tiles.visited(
            add,
            product,
            function,
            rows,
            columns,
            number,
            first,
            symmetric and mesh is None,
            kernel,
        )
        return product

    product = jnp.zeros((len(rows), vectors.shape[1]), vectors.dtype)
    return jax.lax.fori_loop(0, len(rows) // tiles.TILE, row, product)
