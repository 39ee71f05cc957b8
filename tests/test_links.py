"""Tables of links against loops over taps and positions."""

import grid_loops
import numpy as np
import pytest

from ntk_helpers import links

GRIDS = ((3,), (5,), (2, 3))
RULES = [(w, s) for w in range(2, 7) for s in (1, 2, 3) if s <= w]
BUILDERS = (
    (links.deconvolution, grid_loops.up),
    (links.convolution, grid_loops.down),
)


def taps(got, axes, window):
    """Links of every output as the loops write them, tap -> source."""
    result = []
    for column in got.sources.T:
        kept = np.flatnonzero(column >= 0)
        names = np.unravel_index(kept, (window,) * axes)
        names = map(tuple, np.transpose(names).tolist())
        result.append(dict(zip(names, column[kept].tolist(), strict=True)))
    return result


@pytest.mark.parametrize(("built", "loop"), BUILDERS, ids=("up", "down"))
@pytest.mark.parametrize("graph_based", (True, False))
@pytest.mark.parametrize("cyclic", (True, False))
def test_against_loops(built, loop, cyclic, graph_based):
    for shape in GRIDS:
        for window, stride in RULES:
            if len(shape) == 2 and window > 4:
                continue
            if loop is grid_loops.down and cyclic and shape[0] % stride:
                continue  # refused by the architecture
            rule = shape, window, stride, cyclic, graph_based
            got, (expected, counts) = built(*rule), loop(*rule)
            assert taps(got, len(shape), window) == expected, rule
            np.testing.assert_array_equal(got.counts, counts)
            assert got.size == np.prod(shape)
            for row, link in zip(got.parents(), expected, strict=True):
                kept = row[row != links.NONE].tolist()
                assert sorted(kept) == sorted(link.values())
            assert got.counts.min() >= 1


@pytest.mark.parametrize("graph_based", (True, False))
@pytest.mark.parametrize("cyclic", (True, False))
def test_pairs_below(cyclic, graph_based):
    """Rows, weights and completeness of every pair, from dictionaries."""
    for shape, window, stride in (((3,), 5, 2), ((4,), 3, 3), ((2, 3), 3, 2)):
        rule = shape, window, stride, cyclic, graph_based
        expected, counts = grid_loops.up(*rule)
        pairs = links.all_pairs(len(expected))[::3]
        table = links.deconvolution(*rule).below(pairs)
        assert len({tuple(p) for p in table.pairs.tolist()}) == len(
            table.pairs
        )
        used = set()
        for (i, j), row, weight, complete in zip(
            pairs, table.rows, table.weights, table.complete, strict=True
        ):
            a, b = expected[i], expected[j]
            shared = sorted((a[k], b[k]) for k in a.keys() & b.keys())
            got = table.pairs[row[row != links.NONE]].tolist()
            assert sorted(map(tuple, got)) == shared
            assert weight == pytest.approx(1 / np.sqrt(counts[i] * counts[j]))
            assert complete == (a.keys() == b.keys())
            used.update(shared)
        # Nothing else is computed.
        assert used == {tuple(pair) for pair in table.pairs.tolist()}


def test_no_tap_is_shared_unless_the_stride_divides_the_displacement():
    pairs = links.all_pairs(12)
    table = links.deconvolution((4,), 6, 3, True, True).below(pairs)
    shared = (table.rows != links.NONE).any(axis=1)
    np.testing.assert_array_equal(shared, np.diff(pairs)[:, 0] % 3 == 0)


def test_dense_layers():
    dense = links.flattening((2, 3))
    np.testing.assert_array_equal(dense.parents(), [range(6)])
    table = dense.below(np.array([[0, 0]]))
    positions = table.pairs[table.rows[0]]
    np.testing.assert_array_equal(positions, [[q, q] for q in range(6)])
    assert table.weights == pytest.approx(1 / 6) and table.complete.all()
    table = links.Pooling(3).below(np.array([[0, 0]]))
    np.testing.assert_array_equal(
        table.pairs[table.rows[0]], links.all_pairs(3)
    )
    assert table.weights == pytest.approx(1 / 9) and table.complete.all()


def test_pairs_of_positions():
    pairs = [[[0, 2], [1, 0]], [[1, 1], [0, 0]]]
    np.testing.assert_array_equal(
        links.flat_pairs(pairs, (2, 3)), [[2, 3], [4, 0]]
    )
    np.testing.assert_array_equal(
        links.all_pairs(2), [[0, 0], [0, 1], [1, 0], [1, 1]]
    )


@pytest.mark.parametrize(
    ("pairs", "shape", "message"),
    (
        ([[0, 1]], (4,), r"integers of shape \(R, 2, 1\), got int64 of"),
        ([[[0], [1], [2]]], (4,), r"\(R, 2, 1\), got int64 of \(1, 3, 1\)"),
        ([[[0.0], [1.0]]], (4,), r"\(R, 2, 1\), got float64 of"),
        ([[[0], [4]]], (4,), r"inside the output's grid \(4,\), got \[\[\[0"),
        ([[[0], [-1]]], (4,), r"inside the output's grid \(4,\), got"),
        (np.zeros((0, 2, 1), int), (4,), r"inside the output's grid .*\[\]"),
        ([[[0], [0]]], (), "pairs must be None: the network has one output"),
    ),
)
def test_pairs_that_do_not_fit(pairs, shape, message):
    with pytest.raises(ValueError, match=message):
        links.flat_pairs(pairs, shape)
