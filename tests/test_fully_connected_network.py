"""The finite network: parameters, function, tangent kernel, its limit."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_helpers as ntk

rng = np.random.default_rng(5)
X, Y = rng.normal(size=(3, 4)), rng.normal(size=(3, 4))
NET = ntk.FullyConnected(
    depth=3, width=6, nonlinearity=ntk.erf, beta=0.3, n_out=2
)
SCALAR = ntk.FullyConnected(depth=3, width=6, nonlinearity=ntk.gelu, beta=0.4)


def by_hand(params, x, s, beta):
    """The lecture's formula, sum by sum, with square roots written out."""
    outputs = []
    for row in np.asarray(x, float):
        alpha = row
        for index, (weights, bias) in enumerate(params):
            w, b = np.asarray(weights, float), np.asarray(bias, float)
            n_next, n = w.shape
            pre = np.zeros(n_next)
            for i in range(n_next):
                total = sum(w[i, j] * alpha[j] for j in range(n))
                pre[i] = np.sqrt(1 - beta**2) / np.sqrt(n) * total
                pre[i] += beta * b[i]
            last = index == len(params) - 1
            alpha = pre if last else np.array([s(value) for value in pre])
        outputs.append(alpha)
    return np.array(outputs)


def brute_force(f, params, x, y):
    """Full Jacobians, flattened and multiplied: [i, j, k, l]."""

    jacobian = jax.jit(jax.jacobian(f))

    def rows(z):
        leaves = [
            np.asarray(leaf, float).reshape(*leaf.shape[:2], -1)
            for leaf in jax.tree.leaves(jacobian(params, z))
        ]
        return np.concatenate(leaves, axis=-1)

    return np.einsum("ikp,jlp->ijkl", rows(x), rows(y))


@pytest.mark.parametrize("beta", (0, 0.3, 1))
def test_parametrization(dtype, beta):
    net = ntk.FullyConnected(3, 5, ntk.sin, beta, n_out=2)
    params = net.init(jax.random.key(0), 4)
    got = net.apply(params, X.astype(dtype))
    assert got.shape == (3, 2) and got.dtype == dtype
    expected = by_hand(params, X.astype(dtype), np.sin, beta)
    np.testing.assert_allclose(got, expected, atol=32 * np.finfo(dtype).eps)


def test_depth_one_has_no_nonlinearity(x64):
    net = ntk.FullyConnected(1, 5, ntk.relu, 0.3)
    params = net.init(jax.random.key(0), 4)
    expected = by_hand(params, X, None, 0.3)
    np.testing.assert_allclose(net.apply(params, X), expected, rtol=1e-14)


def test_parameters(dtype):
    params = NET.init(jax.random.key(1), 4)
    assert [layer.weights.shape for layer in params] == [
        (6, 4),
        (6, 6),
        (2, 6),
    ]
    assert [layer.bias.shape for layer in params] == [(6,), (6,), (2,)]
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(params))
    again = NET.init(jax.random.key(1), 4)
    other = NET.init(jax.random.key(2), 4)
    leaves = map(jax.tree.leaves, (params, again, other))
    for a, b, c in zip(*leaves, strict=True):
        assert (a == b).all()
        assert (a != c).all()


def test_dtype_of_parameters_can_be_chosen(x64):
    params = NET.init(jax.random.key(1), 4, dtype=jnp.float32)
    assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(params))
    x = X.astype(np.float32)
    assert NET.apply(params, x).dtype == jnp.float32
    assert NET.empirical_ntk(params, x).dtype == jnp.float32


def test_parameters_are_standard_normal(x64):
    """Mean and variance of each leaf within 5 standard errors."""
    net = ntk.FullyConnected(3, 400, n_out=300)
    leaves = jax.tree.leaves(net.init(jax.random.key(0), 200))
    for leaf in leaves:
        entries = np.ravel(leaf)
        assert abs(entries.mean()) < 5 / np.sqrt(entries.size)
        assert abs(np.mean(entries**2) - 1) < 5 * np.sqrt(2 / entries.size)
    # Every leaf draws from a stream of its own.
    for i, j in itertools.combinations(range(len(leaves)), 2):
        a, b = (np.ravel(leaves[k])[:300] for k in (i, j))
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(300)


@pytest.mark.parametrize(
    ("dtype", "net", "y"),
    (
        ("float32", NET, Y),
        ("float64", NET, None),
        ("float64", SCALAR, Y),
    ),
    indirect=["dtype"],
    ids=("float32", "float64", "one output"),
)
def test_empirical_ntk(dtype, net, y):
    """Both routes against the full Jacobian."""
    params = net.init(jax.random.key(0), 4)
    x = jnp.asarray(X, dtype)
    y = None if y is None else jnp.asarray(y, dtype)
    expected = brute_force(net.apply, params, x, x if y is None else y)
    if net is SCALAR:
        expected = expected[..., 0, 0]
    tolerance = 1e-12 if dtype == np.float64 else 4e-6
    scale = np.abs(expected).max()
    for got in (
        net.empirical_ntk(params, x, y),
        ntk.empirical_ntk(net.apply, params, x, y),
    ):
        assert got.dtype == dtype and got.shape == expected.shape
        np.testing.assert_allclose(got, expected, atol=tolerance * scale)


@pytest.mark.parametrize("depth", (1, 2))
def test_empirical_ntk_of_shallow_networks(x64, depth):
    net = ntk.FullyConnected(depth, 5, ntk.tanh, 0.2, n_out=3)
    params = net.init(jax.random.key(0), 4)
    expected = brute_force(net.apply, params, X, Y)
    got = net.empirical_ntk(params, X, Y)
    np.testing.assert_allclose(got, expected, atol=1e-13)


def test_mean_over_seeds_approaches_the_limit(x64):
    """Within 4 standard errors and a bias of 4/n, which 1/n^1/2 is not."""
    width, seeds = 128, 1024
    net = ntk.FullyConnected(3, width, ntk.relu.standardized(), 0.3, n_out=2)
    limit = net.kernels(X)

    @jax.jit
    @jax.vmap
    def draw(key):
        params = net.init(key, 4)
        return net.apply(params, X), net.empirical_ntk(params, X)

    outputs, kernels = draw(jax.random.split(jax.random.key(0), seeds))
    outputs, kernels = np.array(outputs), np.array(kernels)
    nngp = np.einsum("sik,sjl->sijkl", outputs, outputs)
    for draws, exact in ((nngp, limit.nngp), (kernels, limit.ntk)):
        expected = np.asarray(exact)[:, :, None, None] * np.eye(2)
        error = draws.std(axis=0) / np.sqrt(seeds)
        allowed = 4 * error + 4 / width * np.abs(exact).max()
        assert (np.abs(draws.mean(axis=0) - expected) < allowed).all()
        # The allowance itself is small, or the test would pass on anything.
        assert allowed.max() < 0.25 * np.abs(exact).max()


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        ({"depth": 0}, "depth must be an integer >= 1, got 0"),
        ({"depth": 2.5}, "depth must be an integer >= 1, got 2.5"),
        ({"depth": True}, "depth must be an integer >= 1, got True"),
        ({"depth": 2, "width": 0}, "width must be an integer >= 1, got 0"),
        ({"depth": 2, "n_out": -1}, "n_out must be an integer >= 1, got -1"),
        ({"depth": 2, "beta": 1.1}, r"beta must lie in \[0, 1\], got 1.1"),
        ({"depth": 2, "beta": -0.1}, r"beta must lie in \[0, 1\], got -0.1"),
        ({"depth": 2, "beta": np.nan}, r"beta must lie in \[0, 1\], got nan"),
        ({"depth": 2, "beta": "a"}, r"beta must lie in \[0, 1\], got 'a'"),
        (
            {"depth": 2, "nonlinearity": jnp.tanh},
            "nonlinearity must be a Nonlinearity, got .* wrap a function",
        ),
    ),
)
def test_architecture_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        ntk.FullyConnected(**arguments)


ONES = np.ones((2, 4))
BAD_INPUTS = (
    (np.ones(4), r"x must have shape \(N, n_0\) .* got \(4,\)"),
    (np.ones((2, 2, 4)), r"x must have shape .* got \(2, 2, 4\)"),
    (np.ones((0, 4)), r"x must have shape .* got \(0, 4\)"),
    (np.ones((2, 0)), r"x must have shape .* got \(2, 0\)"),
    (np.where(np.eye(2, 4), np.nan, 1), "x must be finite, got 2 NaN or inf"),
    (np.where(np.eye(2, 4), np.inf, 1), "x must be finite, got 2 NaN or inf"),
    (ONES * 1j, "expected real numbers, got dtype complex"),
)


@pytest.mark.parametrize(("x", "message"), BAD_INPUTS)
def test_input_errors(x, message):
    params = SCALAR.init(jax.random.key(0), 4)
    for call in (
        SCALAR.kernels,
        SCALAR.ntk,
        SCALAR.nngp,
        lambda x: SCALAR.apply(params, x),
        lambda x: SCALAR.empirical_ntk(params, x),
    ):
        with pytest.raises(ValueError, match=message):
            call(x)
    message = message.replace("x must", "y must")
    for call in (SCALAR.ntk, lambda *z: SCALAR.empirical_ntk(params, *z)):
        with pytest.raises(ValueError, match=message):
            call(ONES, x)


def test_errors_of_a_second_argument_that_does_not_fit():
    with pytest.raises(ValueError, match="y must have 4 features .* got 3"):
        SCALAR.ntk(ONES, np.ones((2, 3)))
    params = SCALAR.init(jax.random.key(0), 4)
    with pytest.raises(ValueError, match="must have 4 features .* got 3"):
        SCALAR.empirical_ntk(params, ONES, np.ones((2, 3)))


def test_shapes_are_checked_inside_jit():
    with pytest.raises(ValueError, match="x must have shape"):
        jax.jit(SCALAR.ntk)(np.ones(4))


def test_errors_of_params_that_do_not_fit():
    params = SCALAR.init(jax.random.key(0), 4)
    with pytest.raises(ValueError, match="params must have 3 layers, got 2"):
        SCALAR.apply(params[:2], ONES)
    wider = ntk.FullyConnected(3, 7).init(jax.random.key(0), 4)
    with pytest.raises(ValueError, match="params must have weights of shapes"):
        SCALAR.apply(wider, ONES)
    with pytest.raises(ValueError, match="params must have weights of shapes"):
        SCALAR.empirical_ntk(wider, ONES)
    with pytest.raises(ValueError, match="x must have 4 features .* got 5"):
        SCALAR.apply(params, np.ones((2, 5)))
    with pytest.raises(ValueError, match="n_in must be an integer >= 1"):
        SCALAR.init(jax.random.key(0), 0)


def test_overflow_is_an_error():
    net = ntk.FullyConnected(3, nonlinearity=ntk.exp, beta=0)
    with pytest.raises(ValueError, match="at depth 3 must be finite, got"):
        net.ntk(np.full((2, 4), 9.0))
