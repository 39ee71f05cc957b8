r"""Spectra of Gram matrices.

Training moves along the eigenvectors of a Gram matrix, each at a speed set by
its eigenvalue. Eigenvalues of a kernel fall over many orders of magnitude, and
those below the rounding error of the matrix are noise: a spectrum knows which.
"""

import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from . import checks
from .precision import matmul


class Spectrum(NamedTuple):
    """Eigenvalues (N,), descending, and eigenvectors (N, N), in columns.

    ``vectors[:, i]`` belongs to ``values[i]``. Build one with
    :func:`spectrum`. An eigenvalue is *resolved* if it exceeds ``rounding``;
    one that is not may be anything from 0 to there.
    """

    values: jax.Array
    vectors: jax.Array

    @property
    def rounding(self) -> jax.Array:
        """N eps lambda_max: the error of an eigenvalue from rounding.

        By Weyl's inequality an eigenvalue moves by at most the norm of the
        perturbation, here one of eps in each entry.
        """
        eps = jnp.finfo(self.values.dtype).eps
        return len(self.values) * eps * self.values[0]

    @property
    def resolved(self) -> jax.Array:
        """Which eigenvalues exceed ``rounding``, (N,) booleans."""
        return self.values > self.rounding

    @property
    def condition_number(self) -> jax.Array:
        """lambda_max/lambda_min in [1, inf].

        If lambda_min is not resolved the number is inf, and a ``UserWarning``
        gives the lower bound that is known (not inside a jit of your own).
        """
        smallest = self.values[-1]
        resolved = self.resolved[-1]
        if checks.is_concrete(self.values) and not resolved:
            dtype = self.values.dtype
            advice = "; use float64" if dtype.itemsize < 8 else ""
            warnings.warn(
                f"the smallest eigenvalue is not resolved in {dtype}: the "
                "condition number is at least lambda_max/rounding = "
                f"{float(self.values[0] / self.rounding):.2g}{advice}",
                stacklevel=2,
            )
        ratio = self.values[0] / jnp.where(resolved, smallest, 1)
        return jnp.where(resolved, ratio, jnp.inf)

    @property
    def shares(self) -> jax.Array:
        """lambda_i / trace, (N,): the share of each direction, sum 1."""
        return self.values / jnp.sum(self.values)

    @property
    def learning_times(self) -> jax.Array:
        """N/(2 lambda_i), (N,); inf where lambda_i is not resolved.

        In this time gradient flow on (1/N)||f(X) - Y||^2 divides the
        coefficient of the residual along ``vectors[:, i]`` by e.
        """
        resolved = self.resolved
        times = len(self.values) / (2 * jnp.where(resolved, self.values, 1))
        return jnp.where(resolved, times, jnp.inf)

    def coefficients(self, y) -> jax.Array:
        """vectors^T y, (N, K): the coefficients of each column of ``y``.

        Raises ``ValueError`` unless ``y`` is finite and of shape (N, K).
        """
        y = checks.targets(y, len(self.values))
        return matmul(self.vectors.T, y)


def spectrum(gram) -> Spectrum:
    """Eigendecomposition of a symmetric positive semidefinite (N, N) matrix.

    Eigenvalues that are negative by no more than ``rounding`` are kept as
    they come. Raises ``ValueError`` if the matrix is not square, not finite,
    zero, not symmetric to half of the digits, or has an eigenvalue below
    minus ``rounding``. The derivative of the eigenvectors, and of eigenvalues
    that coincide, does not exist; functions of the matrix have one, see
    :class:`LinearModel`.
    """
    gram = symmetric(gram)
    result = _descending(gram)
    if checks.is_concrete(gram):
        smallest, rounding = float(result.values[-1]), float(result.rounding)
        if smallest < -rounding:
            dtype = gram.dtype
            advice = "; try float64" if dtype.itemsize < 8 else ""
            raise ValueError(
                "gram must be positive semidefinite, got an eigenvalue "
                f"{smallest:.3g}, below minus the rounding {rounding:.3g} of "
                f"{dtype}{advice}"
            )
    return result


@jax.jit
def _descending(gram) -> Spectrum:
    """Of (gram + gram^T)/2, which is what eigh decomposes."""
    values, vectors = jnp.linalg.eigh(gram)
    return Spectrum(values[::-1], vectors[:, ::-1])


def symmetric(gram) -> jax.Array:
    """Return ``gram`` as an array; errors as in :func:`spectrum`."""
    gram = checks.inputs(gram, "gram", last="N")
    if gram.shape[0] != gram.shape[1]:
        raise ValueError(f"gram must have shape (N, N), got {gram.shape}")
    if checks.is_concrete(gram):
        entries = np.asarray(gram)
        largest = np.abs(entries).max()
        gap = np.abs(entries - entries.T).max()
        if not largest:
            raise ValueError("gram must not be zero, got zeros only")
        if gap > np.sqrt(jnp.finfo(gram.dtype).eps) * largest:
            raise ValueError(
                "gram must be symmetric, got entries that differ by "
                f"{gap:.3g} from their mirror images"
            )
    return gram


def trace_share(gram, directions) -> jax.Array:
    """tr(P gram)/tr(gram) in [0, 1], P the projection on ``directions``.

    ``directions`` (N, k) spans the subspace with its columns, which need not
    be orthonormal. For the uniform direction, a column of ones, this is the
    share of the constant function. Raises ``ValueError`` if the columns are
    not linearly independent, on shapes that do not fit, and on a matrix that
    is not symmetric, not finite or zero.
    """
    gram = symmetric(gram)
    directions = checks.inputs(directions, "directions", last="k")
    n, k = directions.shape
    if n != len(gram) or k > n:
        raise ValueError(
            f"directions must have shape (N, k) with N = {len(gram)} and "
            f"k <= N, got {directions.shape}"
        )
    basis, triangle = jnp.linalg.qr(directions)
    if checks.is_concrete(directions):
        heights = np.abs(np.diag(triangle))
        lengths = np.linalg.norm(np.asarray(directions), axis=0)
        if not (heights > n * jnp.finfo(basis.dtype).eps * lengths).all():
            raise ValueError(
                "directions must be linearly independent, got columns of "
                f"shape {directions.shape} that are not"
            )
    return jnp.sum(basis * matmul(gram, basis)) / jnp.trace(gram)
