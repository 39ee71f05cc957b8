"""Layer and batch normalization: finite networks, their limit, refusals."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_helpers as ntk
from ntk_helpers.hermite import HermiteSeries

rng = np.random.default_rng(8)
X, Y = rng.normal(size=(2, 4, 5))
# Off the sphere, where a statistic depends on the point.
X *= np.array([0.4, 1, 2, 1.2])[:, None]
SPHERE = X * np.sqrt(5) / np.linalg.norm(X, axis=1, keepdims=True)
BETA = 0.3


def network(normalization, s=ntk.relu, depth=3, width=6, n_out=1):
    return ntk.FullyConnected(depth, width, s, BETA, n_out, normalization)


def statistics(values, axis, epsilon):
    mean = values.mean(axis=axis, keepdims=True)
    return mean, np.sqrt(values.var(axis=axis, keepdims=True) + epsilon)


def by_hand(params, x, s, epsilon, axis, before, layers):
    """The network in NumPy; ``layers`` are normalized along ``axis``."""
    alpha, weight = x, 1 - BETA**2
    for index, (w, b) in enumerate(params, 1):
        pre = np.sqrt(weight / alpha.shape[1]) * alpha @ np.asarray(w).T
        pre = pre + BETA * np.asarray(b)
        alpha = pre
        if index in layers and before:
            mean, root = statistics(alpha, axis, epsilon)
            alpha = (alpha - mean) / root
        alpha = s(alpha)
        if index in layers and not before:
            mean, root = statistics(alpha, axis, epsilon)
            alpha = (alpha - mean) / root
    return pre


def jacobian(f, params, step=1e-5):
    """Central differences in each parameter, (N, K, p): about 1e-10."""
    leaves, tree = jax.tree.flatten(params)
    leaves, columns = [np.array(leaf) for leaf in leaves], []
    for leaf in leaves:
        for index in np.ndindex(leaf.shape):
            start, values = leaf[index], []
            for leaf[index] in (start + step, start - step):
                values.append(f(jax.tree.unflatten(tree, leaves)))
            leaf[index] = start
            columns.append((values[0] - values[1]) / (2 * step))
    return np.stack(columns, axis=-1)


CASES = (
    (ntk.LayerNorm(), 1, (1, 2)),
    (ntk.LayerNorm(before=True, epsilon=0.1), 1, (1, 2)),
    (ntk.BatchNorm(), 0, (2,)),
    (ntk.BatchNorm(layer=1, before=True, epsilon=0), 0, (1,)),
    (ntk.BatchNorm(everywhere=True, epsilon=1e-3), 0, (1, 2)),
)


@pytest.mark.parametrize(("normalization", "axis", "layers"), CASES)
def test_function_and_tangent_kernel(x64, normalization, axis, layers):
    """Gradients through the statistics; y is a batch of its own."""
    net = network(normalization, ntk.tanh, n_out=2)
    params = net.init(jax.random.key(0), 5)
    epsilon, before = normalization.epsilon, normalization.before

    def exact(params, x=X):
        return by_hand(params, x, np.tanh, epsilon, axis, before, layers)

    np.testing.assert_allclose(net.apply(params, X), exact(params), atol=1e-14)
    rows = jacobian(exact, params), jacobian(partial(exact, x=Y), params)
    expected = np.einsum("ikp,jlp->ijkl", *rows)
    got = net.empirical_ntk(params, X, Y)
    np.testing.assert_allclose(got, expected, atol=1e-8)


@pytest.mark.parametrize("normalization", (ntk.LayerNorm(), ntk.BatchNorm(1)))
def test_float32(normalization):
    net = network(normalization, ntk.tanh)
    params = net.init(jax.random.key(0), 5)
    low = net.empirical_ntk(params, X.astype(np.float32))
    assert low.dtype == jnp.float32
    with jax.enable_x64(True):
        double = jax.tree.map(lambda p: p.astype(float), params)
        high = net.empirical_ntk(double, X.astype(np.float32).astype(float))
    np.testing.assert_allclose(low, high, atol=1e-5 * np.abs(high).max())


def limit(x, before, epsilon, depth=3):
    """Both kernels for relu, with the statistics' Gaussian values."""
    weight, bias = 1 - BETA**2, BETA**2
    sigma = weight * x @ x.T / x.shape[1] + bias
    theta = sigma
    for _ in range(depth - 1):
        variance = np.diag(sigma)
        if before:
            root = np.sqrt(variance + epsilon)
            sigma, theta = (k / np.outer(root, root) for k in (sigma, theta))
            variance = np.diag(sigma)
        m = np.sqrt(np.outer(variance, variance))
        c = np.clip(sigma / m, -1, 1)
        np.fill_diagonal(c, 1)
        t = np.arccos(c)
        value = m * (np.sin(t) + c * (np.pi - t)) / (2 * np.pi)
        slope = (np.pi - t) / (2 * np.pi)
        if not before:
            mean = np.sqrt(variance / (2 * np.pi))
            value = value - np.outer(mean, mean)
            root = np.sqrt(np.diag(value) + epsilon)
            value, slope = (k / np.outer(root, root) for k in (value, slope))
        sigma = weight * value + bias
        theta = sigma + weight * slope * theta
    return sigma, theta


@pytest.mark.parametrize(
    ("dtype", "epsilon"),
    (("float32", 0), ("float64", 0.3)),
    indirect=["dtype"],
)
@pytest.mark.parametrize("before", (False, True))
def test_limit_off_the_sphere(dtype, before, epsilon):
    """Rounding of sigma/theta at unit size, ten operations a layer."""
    x = X.astype(dtype)
    got = network(ntk.LayerNorm(before, epsilon)).kernels(x)
    expected = limit(x.astype(float), before, epsilon)
    tolerance = 1e-13 if dtype == np.float64 else 1e-5
    for ours, exact in zip(got, expected, strict=True):
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours, exact, rtol=tolerance)


@pytest.mark.parametrize("before", (False, True))
def test_finite_networks_approach_the_limit(x64, before):
    """Off the sphere: within 4 standard errors and a bias of 4/n.

    No term comes from the statistics' derivatives, which are O(1/n).
    """
    width, seeds = 96, 512
    net = network(ntk.LayerNorm(before), width=width)

    def draw(key):
        return net.empirical_ntk(net.init(key, 5), X)

    keys = jax.random.split(jax.random.key(0), seeds)
    draws = np.array(jax.jit(lambda k: jax.lax.map(draw, k))(keys))
    exact = limit(X, before, 0)[1]
    error = draws.std(axis=0) / np.sqrt(seeds)
    allowed = 4 * error + 4 / width * exact.max()
    gap = np.abs(draws.mean(axis=0) - exact)
    assert (gap < allowed).all()
    assert allowed.max() < 0.1 * exact.max()
    # Other kernels are not within it.
    plain = np.asarray(network(None).ntk(X))
    other = limit(X, not before, 0)[1]
    for wrong in (plain, other):
        assert (np.abs(draws.mean(axis=0) - wrong) > allowed).any()


def test_the_kernel_of_the_normalized_nonlinearity(x64):
    """The mean over 48 networks of width 1024, within 2 per cent.

    One network is off by about 2.5/sqrt(1024) = 8 per cent.
    """
    net = network(ntk.LayerNorm(), width=1024)
    keys = jax.random.split(jax.random.key(1), 48)

    def draw(key):
        return net.empirical_ntk(net.init(key, 5, jnp.float32), x)

    x = SPHERE.astype(np.float32)
    mean = jax.jit(lambda k: jax.lax.map(draw, k))(keys).mean(axis=0)

    def distance(s):
        kernel = network(None, s).ntk(SPHERE)
        return np.linalg.norm(mean - kernel) / np.linalg.norm(kernel)

    assert distance(ntk.relu.normalized()) < 0.02
    assert distance(ntk.relu.standardized()) > 0.4


def test_limit_on_the_sphere(x64):
    """The kernel of the normalized nonlinearity, here a series."""
    got = network(ntk.LayerNorm(), ntk.sigmoid).kernels(SPHERE)
    expected = network(None, ntk.sigmoid.normalized()).kernels(SPHERE)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-13)


def test_a_constant_in_front_does_not_matter():
    """In float32 too, where it takes digits from a variance."""

    def function(u):
        return 30 + jax.lax.erf(u)

    lifted = ntk.Nonlinearity("lifted", function, HermiteSeries(function, 64))
    x = X.astype(np.float32)
    got = network(ntk.LayerNorm(), lifted).ntk(x)
    expected = network(ntk.LayerNorm(), ntk.erf).ntk(x)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_limit_is_differentiable(x64):
    """Against central differences; finite where two points coincide."""
    net = network(ntk.LayerNorm())
    direction = rng.normal(size=X.shape)

    def along(s):
        return jnp.sum(net.ntk(X + s * direction, Y))

    expected = (along(1e-5) - along(-1e-5)) / 2e-5
    got = jax.jit(jax.jvp, static_argnums=0)(along, (0.0,), (1.0,))[1]
    np.testing.assert_allclose(got, expected, rtol=1e-8)
    repeated = jnp.asarray(X[[0, 1, 0]])
    gradient = jax.jit(jax.grad(lambda x: net.ntk(x).sum()))(repeated)
    assert jnp.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("dtype", "s", "depth", "width", "epsilon"),
    (
        ("float64", ntk.relu, 4, 5, 1e-5),
        ("float64", ntk.cos, 2, 2, 0.5),
        ("float64", ntk.tanh, 3, 6, 0),
        ("float32", ntk.relu, 3, 6, 1e-5),
    ),
    indirect=["dtype"],
)
def test_constant_mode(dtype, s, depth, width, epsilon):
    """Theta 1 = N beta^2 1, exactly, at any width."""
    net = network(ntk.BatchNorm(epsilon=epsilon), s, depth, width)
    params = net.init(jax.random.key(2), 5)
    x = X.astype(dtype)
    theta = net.empirical_ntk(params, x)
    tolerance = 1e-10 if dtype == np.float64 else 1e-5
    scale = max(1, float(jnp.abs(theta).max()))
    expected = len(X) * BETA**2
    got = np.asarray(theta).sum(axis=1)
    np.testing.assert_allclose(got, expected, atol=tolerance * scale)
    mean = net.apply(params, x).mean()
    bias = BETA * params[-1].bias[0]
    np.testing.assert_allclose(mean, bias, atol=tolerance)


def spread(rows):
    """How far row sums are from N beta^2, relative to that."""
    return np.abs(np.asarray(rows).sum(axis=1) / (4 * BETA**2) - 1).max()


def test_ways_of_breaking_the_constant_mode(x64):
    good = network(ntk.BatchNorm(), ntk.tanh)
    params = good.init(jax.random.key(3), 5)
    theta = good.empirical_ntk(params, X)
    assert spread(theta) < 1e-10
    for normalization in (
        ntk.BatchNorm(before=True),
        ntk.BatchNorm(layer=1),
        ntk.LayerNorm(),
    ):
        net = network(normalization, ntk.tanh)
        assert spread(net.empirical_ntk(params, X)) > 0.05
    # Three of the four points; and y, a batch of its own.
    assert np.ptp(theta[:3, :3].sum(axis=1)) > 0.05
    assert np.ptp(good.empirical_ntk(params, X, Y).sum(axis=1)) < 1e-10

    def last(params, x, stop, shift):
        pres, _ = good._forward(params, x)
        alpha = jnp.tanh(pres[-2])
        mean = stop(alpha.mean(axis=0))
        root = jnp.sqrt(stop(alpha.var(axis=0)) + 1e-5)
        alpha = (alpha - mean) / root + shift
        weights, bias = params[-1]
        scale = np.sqrt((1 - BETA**2) / 6)
        return scale * alpha @ weights.T + BETA * bias

    def same(params, x):
        return last(params, x, lambda m: m, 0)

    def stopped(params, x):
        return last(params, x, jax.lax.stop_gradient, 0)

    def shifted(both, x):
        return last(both[0], x, lambda m: m, both[1])

    np.testing.assert_allclose(
        ntk.empirical_ntk(same, params, X), theta, atol=1e-12
    )
    assert spread(ntk.empirical_ntk(stopped, params, X)) > 0.05
    trainable = (params, jnp.zeros(6))
    assert spread(ntk.empirical_ntk(shifted, trainable, X)) > 0.05


def test_a_dead_unit_is_an_error():
    """Without an epsilon; with one the unit stays at 0."""
    for normalization in (ntk.BatchNorm(epsilon=0), ntk.LayerNorm()):
        net = network(normalization, width=2)
        params = net.init(jax.random.key(0), 5)
        dead = params[0]._replace(weights=0 * params[0].weights - 9)
        params = (dead, *params[1:])
        x = np.abs(SPHERE)
        with pytest.raises(ValueError, match="Norm.* divides by 0 where"):
            net.apply(params, x)
        if isinstance(normalization, ntk.BatchNorm):
            with pytest.raises(ValueError, match="Norm.* divides by 0 where"):
                net.empirical_ntk(params, x)
            net = network(ntk.BatchNorm(), width=2)
            assert jnp.isfinite(net.apply(params, x)).all()


def test_equal_numbers_have_no_variance(dtype):
    """Although their mean differs from them by rounding."""
    pre = jnp.tile(jnp.linspace(0.1, 9, 50, dtype=dtype), (7, 1))
    for rows, normalization in (
        (pre, ntk.BatchNorm(epsilon=0)),
        (pre.T, ntk.LayerNorm()),
    ):
        got = normalization.activations(ntk.identity, rows)
        assert jnp.isnan(got).all()


def test_inputs_that_vanish():
    x = np.zeros((4, 5))
    for before in (False, True):
        normalization = ntk.LayerNorm(before)
        net = ntk.FullyConnected(3, 4, ntk.relu, 0, 1, normalization)
        with pytest.raises(ValueError, match="no row of zeros for beta = 0"):
            net.ntk(x)
        assert jnp.isfinite(network(normalization).ntk(x)).all()


def test_a_variance_lost_in_rounding_is_an_error():
    """Of cos near 0, where it is 1 - u^2/2."""
    net = ntk.FullyConnected(3, 4, ntk.cos, 0, 1, ntk.LayerNorm())
    with pytest.raises(ValueError, match="dual of cos is not resolved"):
        net.ntk(np.float32(0.05) * X.astype(np.float32))


@pytest.mark.parametrize("call", ("kernels", "nngp", "ntk"))
def test_batch_normalization_has_no_limit_here(call):
    net = network(ntk.BatchNorm())
    with pytest.raises(ValueError, match="no infinite-width .* empirical_ntk"):
        getattr(net, call)(X)


def test_a_batch_of_one_point():
    net = network(ntk.BatchNorm())
    params = net.init(jax.random.key(0), 5)
    with pytest.raises(ValueError, match="at least 2 points in x, got 1"):
        net.apply(params, X[:1])
    with pytest.raises(ValueError, match="at least 2 points in y, got 1"):
        net.empirical_ntk(params, X, X[:1])


@pytest.mark.parametrize(
    ("build", "message"),
    (
        (
            lambda: ntk.LayerNorm(epsilon=-1e-9),
            "epsilon must be .* got -1e-09",
        ),
        (lambda: ntk.BatchNorm(epsilon=np.nan), "epsilon must be .* got nan"),
        (lambda: ntk.LayerNorm(epsilon="a"), "epsilon must be .* got 'a'"),
        (lambda: ntk.LayerNorm(0.1), "before must be True or False, got 0.1"),
        (lambda: ntk.BatchNorm(0), "layer must be an integer >= 1, got 0"),
        (
            lambda: network(ntk.BatchNorm(layer=3)),
            "hidden layers 1 to 2, got 3",
        ),
        (
            lambda: network(ntk.BatchNorm(), depth=1),
            "BatchNorm.* needs a hidden layer: expected depth >= 2, got 1",
        ),
        (
            lambda: network(ntk.LayerNorm(), depth=1),
            "LayerNorm.* needs a hidden layer",
        ),
        (
            lambda: network(ntk.LayerNorm(), width=1),
            "needs a width >= 2, got 1",
        ),
        (
            lambda: ntk.BatchNorm(1, everywhere=True),
            "layer must be None with everywhere=True, got 1",
        ),
        (lambda: ntk.BatchNorm(everywhere=1), "everywhere must be True or"),
        (lambda: network("batch"), "None, a LayerNorm or .* got 'batch'"),
    ),
)
def test_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build()
