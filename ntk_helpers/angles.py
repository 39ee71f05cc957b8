r"""Angles between inputs, as accurate as the inputs themselves.

One matrix product gives the cosines of all pairs, but 1 - cos(theta) has lost
half of its digits where two inputs nearly coincide. Such pairs are redone
here from the difference of the two vectors, and no others.
"""

import jax
import jax.numpy as jnp

from .precision import matmul, safe_sqrt

NEAR = 0.01  # sin^2(theta/2) of two unit vectors at distance 0.2
PIECE = 128  # features of one partial product
CHUNK = 64  # near pairs of one row that are redone at a time


def unit(x):
    """Vectors along the last axis at length 1; zero stays zero."""
    norm = safe_sqrt(jnp.sum(x**2, axis=-1, keepdims=True))
    return x / jnp.where(norm > 0, norm, 1)


def half_angles(x, y=None, square=None, same=None):
    """sin^2 and cos^2 of half the angle between the rows of x and of y.

    Shapes (N, n_0), (M, n_0) -> two arrays (N, M). ``y=None`` stands for
    ``x`` and makes the result symmetric. ``square``: the squared norm that
    all rows have; by default rows are brought to norm 1 first. ``same``
    (N, M): pairs known to be one and the same row, whose angle is exactly 0;
    by default the diagonal if ``y`` is None. Pairs closer to parallel or
    opposite than a distance of 0.2 are redone from the difference of the
    vectors, row by row.
    """
    if square is None:
        x, y, square = unit(x), None if y is None else unit(y), 1
    if y is None:
        y, cosine = x, products(x, x)
        cosine = (cosine + cosine.T) / 2
        same = jnp.eye(len(x), dtype=bool) if same is None else same
    else:
        cosine = products(x, y)
    cosine = cosine / square
    positive = cosine > 0
    small = (1 - jnp.where(positive, cosine, -cosine)) / 2
    near = small < NEAR
    exact = small
    if same is not None:
        near, exact = near & ~same, jnp.where(same, 0, small)
    # The product's derivative is as accurate as the inputs; only its value
    # cancels. So the value is replaced and the derivative kept.
    exact = _refined(*jax.lax.stop_gradient((exact, near, positive, x, y)))
    exact = exact / jnp.where(near, square, 1)
    small = jax.lax.stop_gradient(exact) + (
        small - jax.lax.stop_gradient(small)
    )
    large = 1 - small
    return jnp.where(positive, small, large), jnp.where(positive, large, small)


def products(x, y):
    """x y^T, (N, n), (M, n) -> (N, M), the sums taken piece by piece.

    A sum of n positive terms in float32 loses about n units of rounding in a
    row; in pieces of ``PIECE`` terms it loses as many as the pieces have.
    """
    starts = range(0, x.shape[1], PIECE)
    parts = ([z[:, start : start + PIECE] for z in (x, y)] for start in starts)
    return sum(matmul(a, b.T) for a, b in parts)


def _refined(small, near, positive, x, y):
    """``small``, where ``near`` |x -+ y|^2 / 4 instead."""

    def row(operands):
        small, near, positive, x = operands

        def chunk(number, small):
            index = jax.lax.dynamic_slice_in_dim(
                columns, number * CHUNK, CHUNK
            )
            sign = jnp.where(positive[index], 1, -1).astype(x.dtype)
            difference = x - sign[:, None] * y[index]
            distance = jnp.sum(difference**2, axis=1)
            return small.at[index].set(distance / 4, mode="drop")

        size = -(-len(y) // CHUNK) * CHUNK
        count = jnp.sum(near)
        columns = jnp.nonzero(near, size=size, fill_value=len(y))[0]
        return jax.lax.fori_loop(0, -(-count // CHUNK), chunk, small)

    def guarded(operands):
        def unchanged():
            return operands[0]

        return jax.lax.cond(
            operands[1].any(), lambda: row(operands), unchanged
        )

    def rows():
        return jax.lax.map(guarded, (small, near, positive, x))

    return jax.lax.cond(near.any(), rows, lambda: small)
