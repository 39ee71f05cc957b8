r"""The recursion of both kernels of a wide network over its layers.

Sigma and Theta share the covariances of the layers before, so one loop
computes both. It starts from covariances, so that it serves inputs and angles
alike.
"""

from collections.abc import Callable
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


def selected(wanted: str | None, kernel: Callable) -> Kernels:
    """``kernel(name)`` for the ``wanted`` one, None for the other.

    ``wanted`` = None stands for both.
    """
    return Kernels(
        *(
            kernel(name) if wanted in (None, name) else None
            for name in Kernels._fields
        )
    )


def recursion(
    s: Nonlinearity, normalization, depth: int, beta: float, cov: Covariance
):
    """Kernels at ``depth`` and the largest relative error of a dual.

    Sigma and Theta as in :meth:`FullyConnected.kernels`; ``cov`` holds the
    second moments x.y / n_0 of the inputs. Where ``depth`` is traced, there
    is no derivative in reverse mode.
    """
    moments = normalization.moments if normalization else plain_moments
    weight = 1 - beta**2
    cov = affine(*cov.as_moments(), beta)
    dtype = cov.xy.dtype

    def layer(_, state):
        cov, theta, error = state
        point_x, point_y, pair = moments(s, cov)
        for point in (point_x, point_y):
            latest = jnp.max(jnp.asarray(point.error, dtype))
            error = jnp.maximum(error, latest)
        cov = affine(point_x, point_y, pair, beta)
        return cov, cov.xy + weight * pair.slope * theta, error

    state = cov, cov.xy, jnp.zeros((), dtype)
    cov, theta, error = jax.lax.fori_loop(0, depth - 1, layer, state)
    return Kernels(cov.xy, theta), error
