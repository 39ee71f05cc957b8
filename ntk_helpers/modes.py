r"""Modes of a kernel over inputs and positions: constant, and of period s^k.

In the freeze the kernel of a generator hardly depends on the code, and of two
positions only on how often the stride divides their distance. Functions that
are constant in the input and periodic in the position then take most of the
trace; how much is a number, and so is what they take of an image.
"""

from math import prod
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from . import checks
from .precision import matmul


class ModeShares(NamedTuple):
    """Shares of the trace of Theta, each in [0, 1].

    ``constant_in_input``: functions f(x, p) that do not depend on x;
    ``periods`` (K+1,): those of them of period s^k in p, k = 0, ..., K; the
    first is the constant function. Each subspace contains the one before.
    """

    constant_in_input: jax.Array
    periods: jax.Array


def gram_matrix(kernel) -> jax.Array:
    """Kernel (N, M, P, P) as the matrix (N P, M P) of points (input, p)."""
    kernel = jnp.asarray(kernel)
    if kernel.ndim != 4 or kernel.shape[2] != kernel.shape[3]:
        raise ValueError(
            f"kernel must have shape (N, M, P, P), got {kernel.shape}"
        )
    n, m, size, _ = kernel.shape
    return kernel.swapaxes(1, 2).reshape(n * size, m * size)


def periodic_directions(shape, period: int) -> np.ndarray:
    """Orthonormal functions of period ``period`` on a grid, (P, period^d).

    Column c is constant on the positions p of ``shape`` (d axes) that have
    the same remainder of p/period on every axis, and 0 elsewhere. For period
    1 it is the constant function. Raises ``ValueError`` unless ``period``
    divides every axis.
    """
    shape = checks.grid_shape(shape)
    period = checks.positive_integer(period, "period")
    if any(n % period for n in shape):
        raise ValueError(
            f"period must divide every axis of {shape}, got {period}"
        )
    remainders = np.indices(shape).reshape(len(shape), -1) % period
    classes = np.ravel_multi_index(remainders, (period,) * len(shape))
    directions = np.eye(period ** len(shape))[classes]
    return directions / np.linalg.norm(directions, axis=0)


def mode_shares(kernel, shape, stride: int) -> ModeShares:
    r"""Shares of the constant and of the period-s^k modes in the trace.

    ``kernel`` (N, N, P, P) with P the positions of ``shape``, ``stride`` s.
    With Pi_k the projection on functions of period s^k and 1 the vector of N
    ones, the share is tr((11^T/N x Pi_k) Theta)/tr(Theta). k runs up to the
    largest power of s that divides every axis. Raises ``ValueError`` where
    the shapes do not fit or the trace is not positive.
    """
    shape = checks.grid_shape(shape)
    stride = checks.positive_integer(stride, "stride")
    if stride < 2:
        raise ValueError(f"stride must be at least 2, got {stride}")
    kernel = checks.finite(checks.floating(kernel), "kernel")
    n, size = len(kernel), prod(shape)
    if kernel.shape != (n, n, size, size):
        raise ValueError(
            f"kernel must have shape (N, N, {size}, {size}), got "
            f"{kernel.shape}"
        )
    trace = jnp.einsum("iipp->", kernel)
    if checks.is_concrete(trace) and not trace > 0:
        raise ValueError(f"kernel must have a positive trace, got {trace}")
    same_for_all = jnp.sum(kernel, axis=(0, 1)) / n
    highest = 0
    while all(m % stride ** (highest + 1) == 0 for m in shape):
        highest += 1
    traces = [
        _trace(same_for_all, periodic_directions(shape, stride**k))
        for k in range(highest + 1)
    ]
    return ModeShares(
        jnp.trace(same_for_all) / trace, jnp.stack(traces) / trace
    )


def harmonic_energy(images, period: int) -> jax.Array:
    r"""Share of each image's energy at the harmonics of 1/period, (N,).

    ``images`` (N, *shape). With F the discrete Fourier transform over the
    positions, the share of |F|^2 at the frequencies that are multiples of
    1/period on every axis, the mean (frequency 0) left out on both sides:
    how much of what varies in the image repeats every ``period`` positions.
    An image that does not vary has none, 0. Raises ``ValueError`` on a wrong
    shape, and unless ``period`` divides every axis.
    """
    images = checks.finite(checks.floating(images), "images")
    if images.ndim not in (2, 3) or 0 in images.shape:
        raise ValueError(
            "images must have shape (N, P) or (N, height, width), got "
            f"{images.shape}"
        )
    directions = periodic_directions(images.shape[1:], period)
    flat = images.reshape(len(images), -1)
    varying = flat - flat.mean(axis=1, keepdims=True)
    energy = jnp.sum(varying**2, axis=1)
    # Parseval: those frequencies span the functions of this period.
    coefficients = matmul(varying, directions.astype(flat.dtype))
    rounding = jnp.finfo(flat.dtype).eps ** 2 * jnp.sum(flat**2, axis=1)
    varies = energy > flat.shape[1] * rounding
    share = jnp.sum(coefficients**2, axis=1) / jnp.where(varies, energy, 1)
    return jnp.where(varies, share, 0)


def _trace(matrix, directions):
    directions = directions.astype(matrix.dtype)
    return jnp.sum(directions * matmul(matrix, directions))
