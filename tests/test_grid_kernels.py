"""Kernels of grid networks: loops, closed forms, the theorem's bounds."""

import grid_loops
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_helpers as ntk

rng = np.random.default_rng(11)
# Of several norms, a different one at every position.
LINE, OTHER = rng.normal(size=(2, 2, 4, 3)) * rng.uniform(
    0.4, 1.6, (2, 2, 4, 1)
)
PLANE = rng.normal(size=(2, 2, 3, 2))
SHORT = LINE[:, :2]


def deconvolutional(shape, depth, window, stride, **fields):
    return ntk.Deconvolutional(shape, depth, window, stride, **fields)


def convolutional(shape, depth, window, stride, **fields):
    return ntk.Convolutional(shape, depth, window, stride, **fields)


# Architecture, x, nonlinearity; each border, scaling, rule and size occurs.
CASES = (
    (deconvolutional((2,), 3, 4, 2), SHORT, "relu"),
    (deconvolutional((2,), 3, 4, 2, graph_based=False), SHORT, "erf"),
    (deconvolutional((2,), 3, 3, 2, graph_based=False), SHORT, "relu"),
    (deconvolutional((4,), 2, 5, 3, cyclic=True), LINE, "relu"),
    (deconvolutional((4,), 3, 2, 1, learning_rates=(3, 0.5, 2)), LINE, "erf"),
    (deconvolutional((2, 3), 2, 3, 2), PLANE, "relu"),
    (deconvolutional((4,), 1, 3, 2), LINE, "relu"),
    (convolutional((4,), 4, 3, 1), LINE, "relu"),
    (convolutional((4,), 3, 3, 2, graph_based=False), LINE, "erf"),
    (convolutional((4,), 3, 2, 2, cyclic=True, pooling=True), LINE, "relu"),
    (convolutional((2, 3), 3, 3, 2, pooling=True), PLANE, "erf"),
    (convolutional((2, 3), 3, 2, 1, graph_based=False), PLANE, "relu"),
    (convolutional((4,), 1, 3, 1), LINE, "relu"),
    (convolutional((4,), 1, 3, 1, pooling=True), LINE, "relu"),
)


def with_nonlinearity(net, name, **fields):
    fields = {"beta": 0.3, **fields}
    changed = {**vars(net), **fields, "nonlinearity": getattr(ntk, name)}
    return type(net)(**changed)


def expected(net, name, x, y=None):
    """As the package shapes it: no positions after a dense layer."""
    result = grid_loops.kernels(net, grid_loops.DUALS[name], x, y)
    if not net.output_shape:
        result.nngp, result.ntk = (
            k[..., 0, 0] for k in (result.nngp, result.ntk)
        )
    return result


def assert_close(got, reference, tolerance):
    for name in ("nngp", "ntk"):
        a, b = np.asarray(getattr(got, name), float), getattr(reference, name)
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= tolerance * np.abs(b).max(), name


@pytest.mark.parametrize(("net", "x", "name"), CASES)
def test_against_loops(x64, net, x, name):
    """Every entry; nothing lies near the diagonal, so the oracle is exact."""
    net = with_nonlinearity(net, name)
    assert_close(net.kernels(x), expected(net, name, x), 1e-12)


@pytest.mark.parametrize(("net", "x", "name"), (CASES[2], CASES[8]))
def test_float32(net, x, name):
    """Within 64 ulp: some ten operations in each of three layers."""
    net, x = with_nonlinearity(net, name), x.astype(np.float32)
    got = net.kernels(x)
    assert got.ntk.dtype == jnp.float32
    assert_close(got, expected(net, name, x), 64 * np.finfo("f").eps)


def test_two_batches_and_pairs(x64):
    net = with_nonlinearity(CASES[2][0], "relu")
    y = OTHER[:1, :2]
    reference = expected(net, "relu", SHORT, y)
    full = net.kernels(SHORT, y)
    assert_close(full, reference, 1e-12)
    pairs = np.array([[[0], [0]], [[5], [9]], [[9], [5]], [[0], [15]]])
    some = net.kernels(SHORT, y, pairs=pairs)
    for got, whole in zip(some, full, strict=True):
        assert got.shape == (2, 1, 4)
        entries = whole[:, :, pairs[:, 0, 0], pairs[:, 1, 0]]
        np.testing.assert_allclose(got, entries, rtol=1e-13, atol=1e-15)
    # Other programs, so rounded otherwise.
    np.testing.assert_allclose(net.ntk(SHORT, y), full.ntk, rtol=1e-14)
    np.testing.assert_allclose(net.nngp(SHORT, y), full.nngp, rtol=1e-14)


def test_diagonal_pairs_in_two_dimensions(x64):
    net = with_nonlinearity(CASES[5][0], "relu")
    full = net.ntk(PLANE)
    got = net.ntk(PLANE, pairs=net.diagonal)
    assert net.diagonal.shape == (96, 2, 2)
    np.testing.assert_allclose(
        got, np.einsum("ijpp->ijp", full), rtol=1e-13, atol=1e-15
    )
    one = net.ntk(PLANE, pairs=[[[1, 2], [3, 6]]])
    at = full[:, :, 12 + 2, 3 * 12 + 6]
    np.testing.assert_allclose(one[..., 0], at, rtol=1e-13)


@pytest.mark.parametrize("net", (CASES[0][0], CASES[7][0]))
def test_learning_rates_weigh_the_layers(x64, net):
    """Linear in the rates; all ones is none; Sigma does not see them."""
    x = SHORT if net.shape == (2,) else LINE
    plain = with_nonlinearity(net, "relu").kernels(x)
    rates = rng.uniform(0.1, 3, net.depth)
    both = with_nonlinearity(net, "relu", learning_rates=rates).kernels(x)
    parts = 0
    for rate, unit in zip(rates, np.eye(net.depth), strict=True):
        alone = unit + 1e-300 * (1 - unit)
        one = with_nonlinearity(net, "relu", learning_rates=alone)
        parts = parts + rate * one.ntk(x)
    np.testing.assert_allclose(both.ntk, parts, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(both.nngp, plain.nngp)
    ones = with_nonlinearity(net, "relu", learning_rates=[1] * net.depth)
    np.testing.assert_array_equal(ones.ntk(x), plain.ntk)


@pytest.mark.parametrize("pooling", (False, True))
def test_one_position_is_fully_connected(x64, pooling):
    """Shape (1,) and a window of 1, and a depth-1 network on any grid."""
    x = LINE[:, :1]
    for depth in (1, 4):
        net = ntk.Convolutional((1,), depth, 1, 1, beta=0.3, pooling=pooling)
        dense = ntk.FullyConnected(depth, beta=0.3)
        for a, b in zip(net.kernels(x), dense.kernels(x[:, 0]), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-13)
    net = ntk.Convolutional((4,), 1, beta=0.3, pooling=pooling)
    flat = LINE.mean(1) if pooling else LINE.reshape(2, -1)
    np.testing.assert_allclose(
        net.ntk(LINE), ntk.FullyConnected(1, beta=0.3).ntk(flat), rtol=1e-13
    )


# The sphere: one input position, |x_q|^2 = n_0 everywhere.


def sphere(*shape):
    x = np.random.default_rng(3).normal(size=shape)
    return x * np.sqrt(shape[-1] / np.sum(x**2, axis=-1, keepdims=True))


def constant(net):
    return (1 - net.beta**2) * net.nonlinearity.moments.slope


@pytest.mark.parametrize("cyclic", (True, False))
@pytest.mark.parametrize("name", ("relu", "erf"))
def test_diagonal_on_the_sphere(dtype, name, cyclic):
    """Theta_pp = (1 - r^L)/(1 - r), at borders too, and Sigma_pp = 1."""
    s = getattr(ntk, name).standardized()
    net = ntk.Deconvolutional(
        (3,), 4, 5, 2, nonlinearity=s, beta=0.3, cyclic=cyclic
    )
    x = sphere(2, 3, 4).astype(dtype)
    r, eps = constant(net), np.finfo(dtype).eps
    got = net.kernels(x, pairs=net.diagonal)
    theta = np.einsum("iip->ip", got.ntk)
    np.testing.assert_allclose(theta, (1 - r**4) / (1 - r), rtol=32 * eps)
    np.testing.assert_allclose(
        np.einsum("iip->ip", got.nngp), 1, rtol=16 * eps
    )


def test_relu_diagonal_in_float32_off_the_sphere():
    """Exact at borders with the standard scaling, where variances differ.

    Also where a second batch repeats an input. The kernel of a point with
    itself has a closed form: K(u, u) = k/2 and slope 1/2 at any variance.
    """
    net = ntk.Deconvolutional(
        (3,), 6, 4, 2, nonlinearity=ntk.relu, beta=0.3, graph_based=False
    )
    x = (LINE[:, :3] * 3).astype(np.float32)
    variance = np.mean(x.astype(float) ** 2, axis=2)
    theta, weight, bias = 0 * variance, 0.91, 0.09
    for index, (links, counts) in enumerate(grid_loops.layers(net)):
        half = 1 if index == 0 else 0.5
        rows = [list(link.values()) for link in links]
        variance, theta = (
            weight
            * np.stack([half * v[:, q].sum(1) for q in rows], axis=1)
            / counts
            for v in (variance, theta)
        )
        variance = variance + bias
        theta = theta + variance
    for y in (None, x[:1].copy()):
        got = net.ntk(x, y, pairs=net.diagonal)
        same = got[0, 0]
        # 3e-3 is what one ulp in a correlation would cost at depth 50, and
        # 1e-4 at depth 6; rounding alone is a few ulp for each layer.
        np.testing.assert_allclose(same, theta[0], rtol=2e-6)


@pytest.mark.parametrize("distance", (1e-3, 1e-2))
def test_float32_near_coinciding_inputs(distance):
    """The same float32 numbers, in float64: the kernels agree."""
    net = ntk.Deconvolutional((3,), 5, 3, 2, beta=0.2)
    x = LINE[:, :3].astype(np.float32)
    y = (x * (1 + distance * rng.normal(size=x.shape))).astype(np.float32)
    low = np.asarray(net.ntk(x, y))
    with jax.enable_x64(True):
        high = net.ntk(x.astype(float), y.astype(float))
    bar = 1e-4 if distance < 1e-2 else 1e-5
    np.testing.assert_allclose(low, high, atol=bar * np.abs(high).max())


def test_translation_on_the_torus(x64):
    """A shift of the input by one moves the output by s^L."""
    net = ntk.Deconvolutional((2, 3), 2, 3, 2, beta=0.2, cyclic=True)
    x = rng.normal(size=(2, 2, 3, 2))
    kernel = net.ntk(x).reshape(2, 2, *(8, 12) * 2)
    moved = net.ntk(np.roll(x, (1, 2), (1, 2))).reshape(kernel.shape)
    rolled = np.roll(kernel, (4, 8, 4, 8), (2, 3, 4, 5))
    np.testing.assert_allclose(moved, rolled, rtol=1e-11, atol=1e-13)
    assert np.abs(moved - kernel).max() > 0.1


def valuation(size, stride, depth):
    """v(p - p') = max{0..L-1 : s^v | p - p'}, (P, P)."""
    gap = np.subtract.outer(np.arange(size), np.arange(size))
    divides = [gap % stride**k == 0 for k in range(1, depth)]
    return np.sum(divides, axis=0, dtype=int)


THEOREM = [(w, s) for s in (2, 3) for w in range(max(2, s), 7)]


@pytest.mark.parametrize(("window", "stride"), THEOREM)
def test_the_theorem(x64, window, stride):
    """Both bounds with C_1 = .4; on v < L - 1 theta depends on v alone.

    The freeze: a smooth s and r < 1, two inputs of two pixels on a torus.
    """
    depth = 4 if stride == 2 else 3
    erf = ntk.erf.standardized()
    for beta in (0.6, 0.8):
        net = ntk.Deconvolutional(
            (1,),
            depth,
            window,
            stride,
            nonlinearity=erf,
            beta=beta,
            cyclic=True,
        )
        r = constant(net)
        assert r < 1
        kernel = np.asarray(net.ntk(sphere(2, 1, 4)))
        theta = kernel / ((1 - r**depth) / (1 - r))
        v = valuation(stride**depth, stride, depth)
        upper = (1 - r ** (v + 1)) / (1 - r**depth)
        assert (theta <= upper + 1e-12).all()
        assert (theta >= upper - 0.4 * (v + 1) * r**v).all()
        one = theta[0, 0]
        for level in range(depth - 1):
            assert np.ptp(one[v == level]) < 1e-12
            # Between different inputs as well.
            assert np.ptp(theta[0, 1][v == level]) < 1e-12


@pytest.mark.parametrize("factor", (0.5, 1.5))
def test_upper_bound_with_learning_rates(x64, factor):
    """Rates q^-l: the bound holds with q r in the place of r."""
    depth, erf = 4, ntk.erf.standardized()
    net = ntk.Deconvolutional(
        (1,),
        depth,
        nonlinearity=erf,
        beta=0.8,
        cyclic=True,
        learning_rates=[factor ** -(layer + 1.0) for layer in range(depth)],
    )
    kernel = np.asarray(net.ntk(sphere(2, 1, 4)))
    r = factor * constant(net)
    diagonal = np.einsum("iipp->ip", kernel)
    np.testing.assert_allclose(
        diagonal,
        factor**-depth * (1 - r**depth) / (1 - r),
        rtol=1e-12,
    )
    v = valuation(2**depth, 2, depth)
    upper = (1 - r ** (v + 1)) / (1 - r**depth)
    assert (kernel / diagonal[0, 0] <= upper + 1e-12).all()


@pytest.mark.parametrize(("shape", "depth"), (((1,), 4), ((1, 1), 3)))
def test_eigenvalues_on_the_torus(x64, shape, depth):
    """lambda_k = sum_{u >= k} c_u (P/s^u)^d, s^{dk} - s^{d(k-1)} times."""
    erf, axes = ntk.erf.standardized(), len(shape)
    net = ntk.Deconvolutional(
        shape, depth, nonlinearity=erf, beta=0.7, cyclic=True
    )
    kernel = np.asarray(net.ntk(sphere(1, *shape, 4)))[0, 0]
    size = 2**depth
    # g(v), v = L at p = p': the kernel at displacement 2^v on all axes.
    moves = [[2**v % size] * axes for v in range(depth + 1)]
    at = np.ravel_multi_index(np.transpose(moves), (size,) * axes)
    g = [0, *kernel[0, at]]
    parts = np.diff(g) * [(size / 2**u) ** axes for u in range(depth + 1)]
    values = np.cumsum(parts[::-1])[::-1]
    expected, seen = [], 0
    for k, value in enumerate(values):
        expected += [value] * (2 ** (axes * k) - seen)
        seen = 2 ** (axes * k)
        # The eigenspace up to k: functions of period 2^k on each axis.
        cells = np.indices((size,) * axes).reshape(axes, -1) % 2**k
        same = (cells[:, :, None] == cells[:, None]).all(0)
        projection = same / same.sum(1)
        trace = np.trace(projection @ kernel)
        np.testing.assert_allclose(trace, sum(expected), rtol=1e-12)
        np.testing.assert_allclose(
            kernel @ projection, projection @ kernel, atol=1e-12
        )
    np.testing.assert_allclose(
        np.linalg.eigvalsh(kernel), np.sort(expected), atol=1e-12
    )


@pytest.mark.parametrize("pooling", (False, True))
def test_critical_condition_number_of_convolutions(x64, pooling):
    """(m + 2)/2 flattened, (m d + 2)/2 pooled, d pixels on a circle."""
    erf, m, d, depth = ntk.erf.standardized(), 3, 4, 800
    beta = np.sqrt(1 - 1 / erf.moments.slope)
    net = ntk.Convolutional(
        (d,),
        depth,
        nonlinearity=erf,
        beta=beta,
        cyclic=True,
        pooling=pooling,
    )
    values = np.linalg.eigvalsh(net.ntk(sphere(m, d, 6)))
    limit = (m * (d if pooling else 1) + 2) / 2
    # The corrections are O(1/L): 2 % at depth 400.
    np.testing.assert_allclose(values[-1] / values[0], limit, rtol=0.015)


def test_border_of_the_standard_scaling(x64):
    """It dims with depth; by the number of parents it is flat.

    In one dimension, wherever some position has all its links in each layer;
    from one pixel with w = 4, s = 2 none has: .519, .163, .069.
    """
    for depth, ratio in ((2, 0.275), (4, 0.089), (6, 0.039)):
        net = ntk.Deconvolutional((2,), depth, beta=0.2, graph_based=False)
        x = sphere(1, 2, 4)
        theta = np.asarray(net.ntk(x, pairs=net.diagonal)[0, 0])
        assert theta[0] == theta.min()
        assert theta[0] / theta.max() == pytest.approx(ratio, abs=6e-4)
        flat = ntk.Deconvolutional((2,), depth, beta=0.2)
        theta = flat.ntk(x, pairs=flat.diagonal)[0, 0]
        np.testing.assert_allclose(theta, (1 - 0.96**depth) / 0.04)


def test_pairs_without_a_shared_tap(x64):
    """Sigma = Theta = beta^2: nothing is left of the layers below."""
    for net in (CASES[0][0], CASES[5][0]):
        x = SHORT if net.shape == (2,) else PLANE
        pair = [[[0] * len(net.shape), [1] * len(net.shape)]]
        for kernel in net.kernels(x, pairs=pair):
            np.testing.assert_allclose(kernel, net.beta**2, rtol=1e-14)


@pytest.mark.parametrize("graph_based", (True, False))
def test_gradients_and_jit(x64, graph_based):
    """At coinciding inputs and on the diagonal: no NaN; else differences."""
    net = ntk.Deconvolutional((2,), 3, 3, 2, graph_based=graph_based)
    y = OTHER[:, :2]

    def f(x):
        return net.ntk(x, y)[0, 1].sum() + net.ntk(x).sum()

    slope = jax.jit(jax.value_and_grad(f))
    step = 1e-6 * rng.normal(size=SHORT.shape)
    change = slope(SHORT + step)[0] - slope(SHORT - step)[0]
    exact = 2 * np.vdot(slope(SHORT)[1], step)
    assert change == pytest.approx(exact, rel=1e-5)
    for x in (np.stack([SHORT[0], SHORT[0]]), 0 * SHORT):
        assert np.isfinite(slope(x)[1]).all()
    full = net.ntk(SHORT).sum() + net.ntk(SHORT, OTHER[:, :2])[0, 1].sum()
    assert float(slope(SHORT)[0]) == pytest.approx(float(full), rel=1e-12)
