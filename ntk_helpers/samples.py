r"""Statistics of generated images: how varied they are, how near real ones.

Collapse is a statement about the distribution of a generator's images over
its codes. These numbers say how far it has gone without looking at images.
"""

import jax
import jax.numpy as jnp
import numpy as np

from . import checks
from .precision import matmul


def relative_variance(images, reference) -> jax.Array:
    """Variance across images, over that across the ``reference`` images.

    Both (n, ...), n >= 2; variances are summed over pixels. 0 for a generator
    that makes one image of all codes, 1 for one as varied as the reference.
    Raises ``ValueError`` on other shapes, non-finite pixels and a reference
    that does not vary.
    """
    images, reference = _flat(images, "images"), _flat(reference, "reference")
    _check_pixels(images, reference)
    total = jnp.sum(jnp.var(reference, axis=0))
    if checks.is_concrete(total) and not total > 0:
        raise ValueError("reference must vary, got equal images")
    return jnp.sum(jnp.var(images, axis=0)) / total


def effective_classes(labels) -> float:
    """exp(-sum_c p_c log p_c), p_c the share of class c in ``labels`` (n,).

    The number of equally frequent classes with the same entropy: 1 if all
    labels agree. Raises ``ValueError`` unless labels are n >= 1 integers.
    """
    labels = np.asarray(labels)
    if (
        labels.ndim != 1
        or not len(labels)
        or not np.issubdtype(labels.dtype, np.integer)
    ):
        raise ValueError(
            f"labels must be integers of shape (n,), got {labels.dtype} of "
            f"shape {labels.shape}"
        )
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    return float(np.exp(-np.sum(shares * np.log(shares))))


def frechet_distance(images, reference, components: int = 16) -> jax.Array:
    r"""Frechet distance between Gaussians fitted in principal components.

    With mu and S the mean and the covariance of the first ``components``
    principal components of ``reference``, of both sets,

        |mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1^{1/2} S_2 S_1^{1/2})^{1/2}),

    in squared units of a pixel. 0 for equal moments. Source: Dowson and
    Landau (1982); Heusel et al. (2017) take it between features of a network
    where this takes it between principal components. Raises ``ValueError`` as
    :func:`relative_variance` does, and for more components than pixels.
    """
    images, reference = _flat(images, "images"), _flat(reference, "reference")
    _check_pixels(images, reference)
    components = checks.positive_integer(components, "components")
    if components > reference.shape[1]:
        raise ValueError(
            f"components must be at most the {reference.shape[1]} pixels, got "
            f"{components}"
        )
    centre = reference.mean(axis=0)
    covariance = jnp.cov(reference, rowvar=False, bias=True)
    directions = jnp.linalg.eigh(jnp.atleast_2d(covariance))[1]
    directions = directions[:, ::-1][:, :components]
    projected = [matmul(z - centre, directions) for z in (images, reference)]
    means, covariances = zip(*map(_moments, projected), strict=True)
    root = _root(covariances[1])
    cross = _root(matmul(root, matmul(covariances[0], root)))
    distance = jnp.sum((means[0] - means[1]) ** 2)
    spread = jnp.trace(covariances[0] + covariances[1] - 2 * cross)
    return jnp.maximum(distance + spread, 0)


def _moments(z):
    return z.mean(axis=0), jnp.atleast_2d(jnp.cov(z, rowvar=False, bias=True))


def _root(matrix):
    """Square root of a symmetric matrix, eigenvalues below 0 cut off."""
    values, vectors = jnp.linalg.eigh(matrix)
    roots = jnp.sqrt(jnp.maximum(values, 0))
    return matmul(vectors * roots, vectors.T)


def _flat(images, name: str):
    images = checks.finite(checks.floating(images), name)
    if images.ndim < 2 or len(images) < 2 or 0 in images.shape:
        raise ValueError(
            f"{name} must have shape (n, ...) with n >= 2, got {images.shape}"
        )
    return images.reshape(len(images), -1)


def _check_pixels(images, reference):
    if images.shape[1] != reference.shape[1]:
        raise ValueError(
            "images and reference must have as many pixels, got "
            f"{images.shape[1]} and {reference.shape[1]}"
        )
