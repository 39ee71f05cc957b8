r"""Linear systems of a matrix that is known by its products alone.

The method of conjugate gradients is lineax's. What is added here is what makes
it converge on kernels, whose largest eigenvalues lie far above the others: a
preconditioner from a few products with random vectors.
"""

import itertools
import sys
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import lineax
from jax.scipy.linalg import solve_triangular
from tqdm import tqdm

from . import checks
from .placement import everywhere, on_one, placed
from .precision import matmul


class Solution(NamedTuple):
    """``value`` (N, C), relative ``residual`` (C,), number of ``steps``."""

    value: jax.Array
    residual: jax.Array
    steps: int


class Nystrom(NamedTuple):
    """K close to U diag(eigenvalues) U^T: U (N, R), eigenvalues (R,)."""

    vectors: jax.Array
    eigenvalues: jax.Array

    def inverse(self, noise, residual):
        r"""P^{-1} r, with P = K + noise I where the approximation sees K.

        U (l + noise) (eigenvalues + noise)^{-1} U^T r + r - U U^T r, with l
        the smallest of the eigenvalues.
        """
        weights = self.eigenvalues[-1] + noise
        weights = weights / (self.eigenvalues + noise) - 1
        seen = matmul(self.vectors.T, residual)
        return residual + matmul(self.vectors, weights[:, None] * seen)


def nystrom(matrix, key, rank: int) -> Nystrom:
    """Approximation of a symmetric ``matrix`` from ``rank`` test vectors.

    Source: Frangella, Tropp and Udell (2023), algorithm 2.1.
    """
    shape = matrix.shape[0], rank
    tests = jax.random.normal(key, shape, matrix.dtype)
    tests = jnp.linalg.qr(tests)[0]
    # Small next to the product: once for all devices, not once on each.
    found = _approximation(tests, on_one(matrix @ tests))
    if matrix.mesh is None:
        return found
    return placed(found, everywhere(matrix.mesh))


@jax.jit
def _approximation(tests, images):
    eps = jnp.finfo(images.dtype).eps
    shift = eps * jnp.linalg.norm(images)
    images = images + shift * tests
    square = matmul(tests.T, images)
    factor = jnp.linalg.cholesky((square + square.T) / 2)
    root = solve_triangular(factor, images.T, lower=True).T
    vectors, singular, _ = jnp.linalg.svd(root, full_matrices=False)
    return Nystrom(vectors, jnp.maximum(singular**2 - shift, shift))


def solution(
    matrix, y, key, noise, rank, tolerance, max_steps, progress
) -> Solution:
    """What :meth:`KernelMatrix.solve` returns for ``y`` (N, C)."""
    _check(noise, rank, tolerance)
    max_steps = checks.positive_integer(max_steps, "max_steps")
    noise = jnp.asarray(noise, matrix.dtype)
    approximation = None
    if rank:
        approximation = nystrom(matrix, key, min(rank, matrix.shape[0]))
    sizes = _sizes(y)  # one tolerance for all columns, small ones too
    with _bar(progress and jax.process_count() == 1) as number:
        value, steps = _iterated(
            matrix,
            y / sizes,
            noise,
            approximation,
            number,
            tolerance,
            max_steps,
        )
        value = (value * sizes).block_until_ready()
    rest = y - matrix @ value - noise * value
    residual = jnp.linalg.norm(rest, axis=0) / sizes
    if not jnp.max(residual) < 10 * tolerance:
        raise ValueError(
            f"expected a relative residual of about {tolerance:.1e}, got "
            f"{float(jnp.max(residual)):.1e} after {steps} steps; raise "
            "noise, rank or max_steps, or solve in float64"
        )
    return Solution(value, residual, int(steps))


@partial(jax.jit, static_argnames=("tolerance", "max_steps"))
def _iterated(matrix, y, noise, approximation, bar, tolerance, max_steps):
    structure = jax.eval_shape(lambda: y)

    def image(vectors):
        if bar is not None:
            jax.debug.callback(_tick, bar)
        return matrix @ vectors + noise * vectors

    definite = lineax.positive_semidefinite_tag
    operator = lineax.FunctionLinearOperator(image, structure, definite)
    options = {}
    if approximation is not None:
        options["preconditioner"] = lineax.FunctionLinearOperator(
            partial(approximation.inverse, noise), structure, definite
        )
    # Every entry is measured against its own size and the typical one.
    typical = jnp.sqrt(jnp.mean(y**2))
    method = lineax.CG(
        tolerance,
        tolerance * typical,
        norm=_root_mean_square,
        max_steps=max_steps,
    )
    found = lineax.linear_solve(
        operator, y, method, options=options, throw=False
    )
    return found.value, found.stats["num_steps"]


def _root_mean_square(values):
    return jnp.sqrt(jnp.mean(values**2))


def _sizes(columns):
    """Norms (C,), 1 for a column of zeros."""
    norms = jnp.linalg.norm(columns, axis=0)
    return jnp.where(norms > 0, norms, 1)


def _check(noise, rank, tolerance):
    if not noise >= 0:
        raise ValueError(f"noise must be >= 0, got {noise}")
    if rank != 0:
        checks.positive_integer(rank, "rank")
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance must lie in (0, 1), got {tolerance}")


_bars: dict[int, tqdm] = {}
_numbers = itertools.count()


@contextmanager
def _bar(wanted: bool):
    """The number of a bar that :func:`_tick` moves, or None."""
    if not wanted:
        yield None
        return
    number = next(_numbers)
    label = {"desc": "conjugate gradients", "unit": " products"}
    with tqdm(**label, delay=3, file=sys.stdout, leave=False) as bar:
        _bars[number] = bar
        try:
            yield jnp.asarray(number)
        finally:
            jax.effects_barrier()
            del _bars[number]


def _tick(number):
    bar = _bars.get(int(number))
    if bar is not None:
        bar.update()
