r"""The recursion of both kernels of a wide network over its layers.

Sigma and Theta share the covariances of the layers before, so one loop
computes both. The loop is compiled once for all values of beta.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from .covariance import Covariance, affine
from .nonlinearity import Nonlinearity
from .normalized_moments import plain_moments


class Kernels(NamedTuple):
    """Sigma^(L) and Theta^(L) on the same pairs of inputs, each (N, M)."""

    nngp: jax.Array
    ntk: jax.Array


@partial(jax.jit, static_argnums=(0, 1, 2))
def recursion(s: Nonlinearity, normalization, depth: int, beta: float, x, y):
    """Kernels at ``depth`` and the largest relative error of a dual.

    Sigma and Theta as in :meth:`FullyConnected.kernels`; ``y=None`` is ``x``.
    """
    moments = normalization.moments if normalization else plain_moments
    weight = 1 - beta**2
    cov = affine(*Covariance.from_inputs(x, y).as_moments(), beta)

    def layer(_, state):
        cov, theta, error = state
        point_x, point_y, pair = moments(s, cov)
        for point in (point_x, point_y):
            latest = jnp.max(jnp.asarray(point.error, x.dtype))
            error = jnp.maximum(error, latest)
        cov = affine(point_x, point_y, pair, beta)
        return cov, cov.xy + weight * pair.slope * theta, error

    state = cov, cov.xy, jnp.zeros((), x.dtype)
    cov, theta, error = jax.lax.fori_loop(0, depth - 1, layer, state)
    return Kernels(cov.xy, theta), error
