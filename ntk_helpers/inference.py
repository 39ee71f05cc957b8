"""Gaussian-process inference with the kernel of an infinitely wide network.

A wide network drawn at random is a draw from a Gaussian process, so Bayesian
inference over its functions is linear algebra with the kernel.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve

from . import checks
from .precision import matmul


class Posterior(NamedTuple):
    """Mean (M, K) and covariance (M, M), the same for each output."""

    mean: jax.Array
    covariance: jax.Array


def posterior(kernel: Callable, x, y, z, noise: float = 0.0) -> Posterior:
    r"""Posterior of f ~ GP(0, kernel) at ``z`` given y = f(x) + noise.

    With S = kernel(x, x) + noise I, noise being the variance of the
    observations' Gaussian noise:

        mean = kernel(z, x) S^{-1} y
        covariance = kernel(z, z) - kernel(z, x) S^{-1} kernel(x, z).

    ``kernel(x, y=None)`` is a method such as ``net.nngp``; shapes ``x``
    (N, n_0), ``y`` (N, K), ``z`` (M, n_0). Source: Rasmussen and Williams
    (2006), eqs. 2.25 and 2.26. Raises ``ValueError`` on shapes that do not
    fit, a negative noise, and a matrix S that is singular to rounding.
    """
    factor, cross, y = _factor(kernel, x, y, z, noise)
    explained = matmul(cross, cho_solve(factor, cross.T))
    mean = matmul(cross, cho_solve(factor, y))
    return Posterior(mean, kernel(z) - explained)


def posterior_mean(kernel: Callable, x, y, z, noise: float = 0.0) -> jax.Array:
    """The mean of :func:`posterior` alone, (M, K); cheap for many ``z``."""
    factor, cross, y = _factor(kernel, x, y, z, noise)
    return matmul(cross, cho_solve(factor, y))


def _factor(kernel, x, y, z, noise):
    y = checks.targets(y, len(x))
    if checks.is_concrete(noise) and not noise >= 0:
        raise ValueError(f"noise must be >= 0, got {noise}")
    gram = kernel(x)
    gram = gram + noise * jnp.eye(len(gram), dtype=gram.dtype)
    factor = cho_factor(gram, lower=True)
    if checks.is_concrete(gram) and not _definite(gram, factor[0]):
        raise ValueError(
            "kernel(x, x) + noise I must be positive definite, got a matrix "
            f"that is singular in {gram.dtype}; raise noise or remove "
            "repeated inputs"
        )
    return factor, kernel(z, x), y


def _definite(gram, lower) -> bool:
    """Whether the pivots of Cholesky's method are above rounding."""
    rounding = len(gram) * jnp.finfo(gram.dtype).eps * jnp.diag(gram).max()
    return bool((jnp.diag(lower) ** 2 > rounding).all())
