"""Finite networks on a grid: function, tangent kernel, limit, refusals."""

from functools import partial

import grid_loops
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_helpers as ntk

rng = np.random.default_rng(5)
LINE, PLANE = rng.normal(size=(3, 4, 2)), rng.normal(size=(2, 2, 3, 2))
BETA = 0.3
up = partial(ntk.Deconvolutional, width=3, nonlinearity=ntk.sin, beta=BETA)
down = partial(ntk.Convolutional, width=3, nonlinearity=ntk.sin, beta=BETA)
SHORT = up((4,), 2, 3, 2, n_out=2)

CASES = (
    (SHORT, LINE),
    (up((4,), 2, 5, 3, cyclic=True), LINE),
    (up((4,), 2, 6, 2, graph_based=False), LINE),
    (up((2, 3), 2, 4, 3, cyclic=True, graph_based=False), PLANE),
    (up((2, 3), 2, 3, 2), PLANE),
    (up((2, 3), 2, 6, 1, cyclic=True), PLANE),
    (down((4,), 3, 3, 2, n_out=2), LINE),
    (down((4,), 3, 5, 2, cyclic=True), LINE),
    (down((4,), 2, 4, 3, graph_based=False, pooling=True), LINE),
    (down((2, 3), 3, 3, 2), PLANE),
    (down((2, 3), 2, 6, 1, cyclic=True, pooling=True), PLANE),
    (down((2, 3), 1, n_out=2), PLANE),
    (down((2, 3), 1, n_out=2, pooling=True), PLANE),
)


@pytest.mark.parametrize(("net", "x"), CASES)
def test_function_against_loops(x64, net, x):
    params = net.init(jax.random.key(0), 2)
    got = net.apply(params, x)
    assert got.shape == (len(x), *net.output_shape, net.n_out)[
        : got.ndim - 1
    ] + (net.n_out,)
    expected = grid_loops.function(net, params, x, np.sin)
    np.testing.assert_allclose(got, expected.reshape(got.shape), atol=1e-13)


def test_float32():
    params = SHORT.init(jax.random.key(0), 2)
    got = SHORT.apply(params, LINE.astype("f"))
    assert got.dtype == jnp.float32
    expected = grid_loops.function(SHORT, params, LINE.astype("f"), np.sin)
    np.testing.assert_allclose(got, expected, atol=32 * np.finfo("f").eps)


def test_windows_up_to_six(x64):
    """One weight at a time: every tap reaches what the table says."""
    for window in range(2, 7):
        for cyclic in (True, False):
            net = up((3,), 1, window, 2, cyclic=cyclic)
            params = net.init(jax.random.key(window), 2)
            expected = grid_loops.function(net, params, LINE[:, :3], np.sin)
            got = net._forward(params, jnp.asarray(LINE[:, :3]))
            np.testing.assert_allclose(got, expected, atol=1e-13)


def layer_kernels(net, params, x):
    """Full Jacobians of each layer, contracted: (L, N, N, PK, PK)."""
    jacobian = jax.jit(jax.jacobian(net.apply))(params, x)
    parts = []
    for layer in jacobian:
        size = np.prod((*net.output_shape, net.n_out), dtype=int)
        rows = [np.reshape(leaf, (len(x), size, -1)) for leaf in layer]
        rows = np.concatenate(rows, axis=-1)
        parts.append(np.einsum("iap,jbp->ijab", rows, rows))
    return np.array(parts)


@pytest.mark.parametrize(
    ("net", "x"), (CASES[0], CASES[4], CASES[6], CASES[10])
)
def test_empirical_ntk_against_the_jacobian(x64, net, x):
    """Layer by layer with learning rates, and all ones without."""
    params = net.init(jax.random.key(1), 2)
    parts = layer_kernels(net, params, x)
    size, k = int(np.prod(net.output_shape, dtype=int)), net.n_out
    shape = (len(x), len(x), size, k, size, k)
    positions = (size, size) if net.output_shape else ()
    channels = (k, k) if k > 1 else ()
    final = (len(x), len(x), *positions, *channels)

    def shaped(kernel):
        return kernel.reshape(shape).swapaxes(3, 4).reshape(final)

    got = net.empirical_ntk(params, x)
    assert got.shape == final
    np.testing.assert_allclose(got, shaped(parts.sum(0)), atol=1e-12)
    rates = np.array([0.3, 2, 1.7])[: net.depth]
    weighed = type(net)(**{**vars(net), "learning_rates": rates})
    expected = shaped(np.einsum("l,l...->...", rates, parts))
    one = weighed.empirical_ntk(params, x, x[:1])
    np.testing.assert_allclose(one, expected[:, :1], atol=1e-12)


def test_parameters(dtype):
    params = ntk.Convolutional((4, 6), 3, 3, 2, width=5, n_out=2).init(
        jax.random.key(0), 4
    )
    shapes = [layer.weights.shape for layer in params]
    assert shapes == [(5, 4, 3, 3), (5, 5, 3, 3), (2, 5, 1, 2)]
    assert [layer.bias.shape for layer in params] == [(5,), (5,), (2,)]
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(params))


def draws(net, x, seeds, key):
    """Outputs (S, N, P) and tangent kernels (S, N, N, P, P)."""

    @jax.jit
    @jax.vmap
    def draw(key):
        params = net.init(key, x.shape[-1])
        outputs = net.apply(params, x)
        return outputs.reshape(len(x), -1), net.empirical_ntk(params, x)

    return jax.tree.map(np.array, draw(jax.random.split(key, seeds)))


@pytest.mark.parametrize(
    "net",
    (
        ntk.Deconvolutional((2,), 3, 3, 2, 64, beta=BETA, graph_based=False),
        ntk.Convolutional((2,), 3, 3, 1, 64, beta=BETA, pooling=True),
    ),
    ids=("up", "down"),
)
def test_mean_over_seeds_approaches_the_limit(net):
    """Within 5 standard errors and a bias of 4/n."""
    x = LINE[:2, :2].astype("f")
    outputs, kernels = draws(net, x, 512, jax.random.key(2))
    limit = net.kernels(x)
    shape = kernels.shape[1:]
    nngp = np.einsum("sip,sjq->sijpq", outputs, outputs)
    nngp = nngp.reshape(-1, *shape)
    for values, exact in ((nngp, limit.nngp), (kernels, limit.ntk)):
        error = values.std(axis=0) / np.sqrt(len(values))
        largest = np.abs(exact).max()
        allowed = 5 * error + 4 / net.width * largest
        assert (np.abs(values.mean(axis=0) - exact) < allowed).all()
        # The allowance itself is small, or the test would pass on anything.
        assert allowed.max() < 0.5 * largest


def test_fluctuation_falls_as_the_root_of_the_width():
    """Slope -.5 of the relative error, over 64 seeds a width; +- .12."""
    x, widths, errors = LINE[:2, :2].astype("f"), (16, 64, 256), []
    for width in widths:
        net = ntk.Deconvolutional((2,), 2, 3, 2, width, ntk.erf, BETA)
        limit = np.asarray(net.ntk(x))
        kernels = draws(net, x, 64, jax.random.key(width))[1]
        square = np.mean(np.sum((kernels - limit) ** 2, axis=(1, 2, 3, 4)))
        errors.append(np.sqrt(square))
    slope = np.polyfit(np.log(widths), np.log(errors), 1)[0]
    assert abs(slope + 0.5) < 0.12


# Batch normalization, over the batch and the positions.

NORMALIZED = partial(
    ntk.Deconvolutional,
    shape=(3,),
    depth=2,
    window=4,
    width=3,
    nonlinearity=ntk.tanh,
    beta=BETA,
    cyclic=True,
)


def rows(net, x=LINE[:, :3], roots=1.0):
    """Theta summed over the batch and the classes of p' mod s, (N, P, s)."""
    params = net.init(jax.random.key(0), 2)
    kernel = np.asarray(net.empirical_ntk(params, x)) * roots
    n, size = len(x), kernel.shape[-1]
    split = kernel.reshape(n, n, size, size // net.stride, net.stride)
    return split.sum(axis=(1, 3))


def test_batch_normalized_function(x64):
    """Statistics of each channel over batch and positions."""
    net = NORMALIZED(normalization=ntk.BatchNorm(epsilon=0.1))
    params = net.init(jax.random.key(0), 2)

    def standard(pre):
        values = np.tanh(pre)
        variance = values.var(axis=(0, 1)) + 0.1
        return (values - values.mean(axis=(0, 1))) / np.sqrt(variance)

    expected = grid_loops.function(net, params, LINE[:, :3], standard)
    got = net.apply(params, LINE[:, :3])
    np.testing.assert_allclose(got, expected, atol=1e-13)


def test_batch_normalization_and_the_constant(x64):
    """After the last nonlinearity, on a torus: rows of Theta.

    Every tap reaches each position of its class mod s from another of the
    positions, whose mean over the batch is 0. So the sum of f over the batch
    and one class, with the weights |P(p)|^{1/2}, is beta b times theirs:
    Theta 1_c = N (P/s) beta^2 for each class c, at any width. The constant
    has eigenvalue N P beta^2, patterns of period s with mean 0 have 0.
    """
    net = NORMALIZED(normalization=ntk.BatchNorm())
    np.testing.assert_allclose(rows(net), 3 * 6 * BETA**2, rtol=1e-10)
    uneven = NORMALIZED(normalization=ntk.BatchNorm(), window=5)
    roots = np.sqrt(np.array([2, 3] * 6))  # links of even and odd positions
    roots = roots if grid_counts(uneven)[0] == 2 else roots[::-1]
    expected = 3 * 6 * BETA**2 * np.sqrt([2, 3])
    got = rows(uneven, roots=roots)
    np.testing.assert_allclose(
        got,
        0 * got + np.sort(expected)[np.argsort(np.argsort(roots[:2]))],
        rtol=1e-10,
    )


def grid_counts(net):
    return grid_loops.layers(net)[-1][1]


@pytest.mark.parametrize(
    "fields",
    (
        {"cyclic": False},  # a position at the border has fewer links
        {"normalization": ntk.BatchNorm(before=True)},
        {"normalization": ntk.BatchNorm(layer=1), "depth": 3},
    ),
    ids=("border", "before", "earlier"),
)
def test_where_the_constant_is_not_kept(x64, fields):
    net = NORMALIZED(**{"normalization": ntk.BatchNorm(), **fields})
    expected = 3 * 3 * 2 ** (net.depth - 1) * BETA**2
    assert np.ptp(rows(net)) > 0.01 * expected


@pytest.mark.parametrize("pooling", (True, False))
def test_batch_normalized_convolutions(x64, pooling):
    """With pooling the rows sum to N beta^2; with flattening they do not."""
    net = ntk.Convolutional(
        (4,),
        3,
        width=3,
        nonlinearity=ntk.tanh,
        beta=BETA,
        normalization=ntk.BatchNorm(),
        pooling=pooling,
    )
    params = net.init(jax.random.key(0), 2)
    sums = np.asarray(net.empirical_ntk(params, LINE)).sum(axis=1)
    assert (np.abs(sums - 3 * BETA**2).max() < 1e-10) == pooling


# Errors.


@pytest.mark.parametrize(
    ("fields", "message"),
    (
        ({"depth": 0}, "depth must be an integer >= 1, got 0"),
        ({"window": 0}, "window must be an integer >= 1, got 0"),
        ({"stride": 1.5}, "stride must be an integer >= 1, got 1.5"),
        ({"width": -1}, "width must be an integer >= 1, got -1"),
        ({"n_out": True}, "n_out must be an integer >= 1, got True"),
        ({"beta": 1.1}, r"beta must lie in \[0, 1\], got 1.1"),
        ({"nonlinearity": jnp.tanh}, "nonlinearity must be a Nonlinearity"),
        ({"shape": (2, 2, 2)}, r"one or two axes, got \(2, 2, 2\)"),
        ({"shape": ()}, r"one or two axes, got \(\)"),
        ({"shape": (2, 0)}, "shape must be an integer >= 1, got 0"),
        ({"shape": (1.5,)}, "shape must be an integer >= 1, got 1.5"),
        (
            {"stride": 5},
            r"window must be at least the stride.*w \d and stride 5",
        ),
        ({"learning_rates": (1, 2)}, "must be 3 finite numbers > 0, got"),
        ({"learning_rates": (1, 0, 1)}, "must be 3 finite numbers > 0, got"),
        ({"learning_rates": (1, np.nan, 1)}, "3 finite numbers > 0, got"),
        (
            {"normalization": ntk.LayerNorm()},
            r"normalization must be None or a BatchNorm, got LayerNorm",
        ),
        ({"normalization": ntk.BatchNorm(3)}, "hidden layers 1 to 2, got 3"),
        ({"cyclic": "yes"}, "cyclic must be True or False, got 'yes'"),
        ({"graph_based": 2}, "graph_based must be True or False, got 2"),
    ),
)
def test_architecture_errors(fields, message):
    for family in (ntk.Deconvolutional, ntk.Convolutional):
        with pytest.raises(ValueError, match=message):
            family(**{"shape": (4,), "depth": 3, **fields})


def test_errors_of_convolutions():
    message = r"stride must divide .* got stride 2 and \[\(6,\), \(3,\), \(2,"
    with pytest.raises(ValueError, match=message):
        ntk.Convolutional((6,), 3, 3, 2, cyclic=True)
    with pytest.raises(ValueError, match="pooling must be True or False"):
        ntk.Convolutional((6,), 3, pooling="max")


ONES = np.ones((2, 4, 2))


@pytest.mark.parametrize(
    ("x", "message"),
    (
        (np.ones((4, 2)), r"must have shape \(N, 4, n_0\), got \(4, 2\)"),
        (np.ones((2, 3, 2)), r"must have shape \(N, 4, n_0\), got \(2, 3, 2"),
        (np.ones((0, 4, 2)), r"must have shape \(N, 4, n_0\), got \(0, 4, 2"),
        (ONES * np.nan, "must be finite, got 16 NaN"),
        (ONES * 1j, "expected real numbers, got dtype complex"),
        (np.ones((2, 4, 3)), "must have 2 channels, got 3"),
    ),
)
def test_input_errors(x, message):
    params = SHORT.init(jax.random.key(0), 2)
    for call in (
        lambda x: SHORT.apply(params, x),
        lambda x: SHORT.empirical_ntk(params, ONES, x),
        lambda x: SHORT.kernels(ONES, x),
        lambda x: SHORT.ntk(x, ONES),
    ):
        if "channels" in message and x.shape[-1] == 3:
            message = "must have [23] channels, got [23]"
        with pytest.raises(ValueError, match=message):
            call(x)


def test_other_errors():
    params = SHORT.init(jax.random.key(0), 2)
    with pytest.raises(ValueError, match="params must have weights of sha"):
        up((4,), 2, 4, 2, n_out=2).apply(params, ONES)
    with pytest.raises(ValueError, match="params must have 2 layers, got 1"):
        SHORT.apply(params[:1], ONES)
    with pytest.raises(ValueError, match="n_in must be an integer >= 1"):
        SHORT.init(jax.random.key(0), 0)
    normalized = NORMALIZED(normalization=ntk.BatchNorm())
    with pytest.raises(ValueError, match="no infinite-width kernel of pairs"):
        normalized.ntk(LINE[:, :3])
    with pytest.raises(ValueError, match="pairs must be integers of shape"):
        SHORT.ntk(ONES, pairs=[[0, 1]])
    with pytest.raises(ValueError, match="pairs must be None"):
        down((4,), 2).ntk(ONES, pairs=[[[0], [1]]])
    with pytest.raises(ValueError, match="x must have shape"):
        jax.jit(SHORT.ntk)(np.ones(4))
    with pytest.raises(ValueError, match="at depth 3 must be finite"):
        up((4,), 3, nonlinearity=ntk.exp, beta=0).ntk(9 * ONES)
