r"""Which positions of a layer feed which positions of the next, as tables.

A convolution and a transposed convolution differ only in their links: tap k
of the window links input position q to output position p. The finite network
sums over the links of p, the kernels over the taps that p and p' share; both
are read off the same table.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

Shape = tuple[int, ...]
NONE = np.iinfo(np.int32).max  # in a table: no position, no pair


class PairTable(NamedTuple):
    """What R pairs of output positions need of the pairs below.

    ``rows`` (R, J): the pairs below that are linked by shared taps, as rows
    of ``pairs`` (R', 2), filled up with ``NONE``; ``weights`` (R,):
    1/sqrt(|P(p)| |P(p')|); ``complete`` (R,): whether p and p' share all
    their taps.
    """

    rows: np.ndarray
    weights: np.ndarray
    complete: np.ndarray
    pairs: np.ndarray


@dataclass(frozen=True, eq=False)
class Links:
    """Links of one layer between flattened positions.

    ``sources`` (K, P): the input position that tap k links to output p, -1
    for none; ``counts`` (P,): the number |P(p)| that sums over the links of p
    are divided by; ``size``: the number Q of input positions.
    """

    sources: np.ndarray
    counts: np.ndarray
    size: int

    def parents(self) -> np.ndarray:
        """Input positions of every output, (P, J), filled with ``NONE``."""
        linked = self.sources >= 0
        return _compressed(self.sources[linked], linked)

    def below(self, pairs: np.ndarray) -> PairTable:
        """What the ``pairs`` (R, 2) of output positions need."""
        first, second = (self.sources[:, p] for p in pairs.T)
        shared = (first >= 0) & (second >= 0)
        complete = ((first >= 0) == (second >= 0)).all(axis=0)
        codes = first[shared].astype(int) * self.size + second[shared]
        needed, number = np.unique(codes, return_inverse=True)
        if not len(needed):  # arrays without rows cannot be indexed
            needed = np.zeros(1, int)
        return PairTable(
            _compressed(number, shared),
            1 / np.sqrt(self.counts[pairs].prod(axis=1)),
            complete,
            np.stack(np.divmod(needed, self.size), axis=1),
        )


class Pooling(NamedTuple):
    """The mean over all Q positions, as the only output position."""

    size: int
    counts = 1

    def below(self, pairs: np.ndarray) -> PairTable:
        """All pairs of positions, each with the weight 1/Q^2."""
        everything = all_pairs(self.size)
        rows = np.arange(len(everything))[None]
        weights = np.array([1 / len(everything)])
        return PairTable(rows, weights, np.array([True]), everything)


def all_pairs(size: int) -> np.ndarray:
    """Pairs of flattened positions 0, ..., size - 1, (size^2, 2)."""
    return np.stack(np.divmod(np.arange(size**2), size), axis=1)


def flat_pairs(pairs, shape: Shape) -> np.ndarray:
    """``pairs`` (R, 2, axes) of positions as numbers, (R, 2)."""
    pairs = np.asarray(pairs)
    expected = f"integers of shape (R, 2, {len(shape)})"
    fits = pairs.ndim == 3 and pairs.shape[1:] == (2, len(shape))
    if not shape or not fits or not np.issubdtype(pairs.dtype, np.integer):
        raise ValueError(
            f"pairs must be {expected}, got {pairs.dtype} of {pairs.shape}"
            if shape
            else "pairs must be None: the network has one output position"
        )
    if not len(pairs) or (pairs < 0).any() or (pairs >= shape).any():
        raise ValueError(
            f"pairs must be positions inside the output's grid {shape}, got "
            f"{pairs.tolist()}"
        )
    return np.ravel_multi_index(np.moveaxis(pairs, 2, 0), shape)


@lru_cache(64)
def flattening(shape: Shape) -> Links:
    """One output position, one tap for each of the input's positions."""
    size = int(np.prod(shape))
    return Links(np.arange(size)[:, None], np.array([size]), size)


@lru_cache(64)
def deconvolution(
    shape: Shape, window: int, stride: int, cyclic: bool, graph_based: bool
) -> Links:
    """Tap k in [0, w) links q to p = s q + k - (w - s)//2 on each axis.

    Q positions become s Q. ``graph_based`` divides by the true number of
    links of a position, otherwise by that of one away from the border.
    """
    return _grid(_upward, shape, window, stride, cyclic, graph_based)


@lru_cache(64)
def convolution(
    shape: Shape, window: int, stride: int, cyclic: bool, graph_based: bool
) -> Links:
    """Tap k in [0, w) links q = s p + k - (w - s)//2 to p on each axis.

    Q positions become Q/s, rounded up. ``graph_based`` as above.
    """
    return _grid(_downward, shape, window, stride, cyclic, graph_based)


def _upward(size: int, window: int, stride: int, cyclic: bool):
    tap, p = np.ogrid[:window, : stride * size]
    dividend = p - tap + (window - stride) // 2
    return _kept(dividend // stride, size, cyclic, dividend % stride == 0)


def _downward(size: int, window: int, stride: int, cyclic: bool):
    tap, p = np.ogrid[:window, : -(-size // stride)]
    q = stride * p + tap - (window - stride) // 2
    return _kept(q, size, cyclic, np.ones_like(q, bool))


def _kept(q, size: int, cyclic: bool, linked):
    inside = (q >= 0) & (q < size)
    return np.where(linked & (cyclic or inside), q % size, -1)


def _grid(axis_sources, shape, window, stride, cyclic, graph_based) -> Links:
    sources = _joined(axis_sources, shape, window, stride, cyclic)
    interior = sources
    if not graph_based:
        interior = _joined(axis_sources, shape, window, stride, True)
    counts = (interior >= 0).sum(axis=0)
    return Links(sources.astype(np.int32), counts, int(np.prod(shape)))


def _joined(axis_sources, shape, window, stride, cyclic) -> np.ndarray:
    """The axes' tables joined to one of flattened taps and positions."""
    joined = np.zeros((1, 1), int)
    for size in shape:
        axis = axis_sources(size, window, stride, cyclic)
        first, second = joined[:, None, :, None], axis[None, :, None, :]
        both = np.where(
            (first >= 0) & (second >= 0), first * size + second, -1
        )
        joined = both.reshape(
            both.shape[0] * both.shape[1], both.shape[2] * both.shape[3]
        )
    return joined


def _compressed(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """``values`` of the entries of a table (K, R) that are ``kept``, (R, J).

    J >= 1 is the most that a column keeps; ``NONE`` fills the others.
    """
    place = np.cumsum(kept, axis=0, dtype=np.int32) - 1
    most = max(1, place[-1].max() + 1)
    rows = np.full((kept.shape[1], most), NONE, np.int32)
    rows[np.nonzero(kept)[1], place[kept]] = values
    return rows
