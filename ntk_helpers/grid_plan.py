r"""Which pairs of positions the recursion over a grid needs, layer by layer.

A pair of output positions needs only the pairs of the layer below that have
its displacement, over or times the stride. Finding them is integer work, done
once in NumPy; the recursion is then sums over rows of tables. The tables of
the hidden layers are padded to the largest, so that the recursion is compiled
for one layer, however many there are.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .links import NONE, all_pairs


class Step(NamedTuple):
    """Index tables of one layer, from R' pairs of positions below to R.

    ``rows`` (R, J), ``weights`` (R,) and ``complete`` (R,) as in
    :class:`PairTable`; ``pairs`` (R, 2) are the positions above; ``parents``
    (P, J) and ``counts`` (P,) those of the single positions.
    """

    rows: np.ndarray
    weights: np.ndarray
    complete: np.ndarray
    pairs: np.ndarray
    parents: np.ndarray
    counts: np.ndarray


class Plan(NamedTuple):
    """What :func:`ntk_helpers.grid_recursion.recursion` follows.

    ``inputs`` (R_0, 2): pairs of the input's positions; ``hidden``: steps of
    hidden layers, stacked along a first axis, layers that do the same being
    one; ``order`` (L-1,): the step of each hidden layer (both None for L = 1);
    ``rows`` and ``weights``: of the last layer.
    """

    inputs: np.ndarray
    hidden: Step | None
    order: np.ndarray | None
    rows: np.ndarray
    weights: np.ndarray


def plan(links, pairs) -> Plan:
    """Of all layers, for ``pairs`` (R, 2) of the last layer's positions.

    ``links``: of every layer, from the first to the last.
    """
    *before, last = links
    rows, weights, _, pairs = last.below(pairs)
    steps, order, above = [], [], None
    for layer in reversed(before):
        if layer is not above or not np.array_equal(pairs, steps[-1].pairs):
            table = layer.below(pairs)
            single = layer.parents(), layer.counts
            steps.append(Step(*table[:3], pairs, *single))
            pairs, above = table.pairs, layer
        order.insert(0, len(steps) - 1)
    if not steps:
        return Plan(pairs, None, None, rows, weights)
    hidden = _stacked(steps, len(pairs), before[0].size)
    return Plan(pairs, hidden, np.array(order), rows, weights)


@lru_cache(8)
def full_plan(links, size: int) -> Plan:
    """The plan for all pairs of ``size`` positions of the last layer."""
    return plan(links, all_pairs(size))


def _stacked(steps, pairs: int, positions: int) -> Step:
    """Steps with tables of one size, along a new first axis.

    They have room for the inputs' ``pairs`` and ``positions``. Rows are
    filled up by repeating the last one, whose numbers do no harm, and columns
    by links to nothing.
    """
    least = pairs, pairs, pairs, pairs, positions, positions
    tables = zip(least, *steps, strict=True)
    return Step(*(np.stack(_same_size(n, group)) for n, *group in tables))


def _same_size(rows: int, tables):
    """``tables`` padded at the ends of their axes to the largest of each."""
    shape = np.max([table.shape for table in tables], axis=0)
    shape[0] = max(shape[0], rows)
    padded = []
    for table in tables:
        below, *right = [(0, n) for n in shape - table.shape]
        if right:
            table = np.pad(table, [(0, 0), *right], constant_values=NONE)
        still = [(0, 0)] * len(right)
        padded.append(np.pad(table, [below, *still], mode="edge"))
    return padded
