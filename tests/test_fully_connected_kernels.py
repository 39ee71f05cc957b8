"""Sigma^(L) and Theta^(L) against the recursion as the lecture writes it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_helpers as ntk

rng = np.random.default_rng(7)
# Rows of several norms, one of them zero; all exact in float32.
X = rng.normal(size=(4, 5)) * np.array([[0.4], [1], [1.4], [0]])
X = X.astype(np.float32).astype(float)
# New rows, a row of x, its opposite, and one nearly parallel to it.
Y = np.stack([*rng.normal(size=(2, 5)), X[1], -X[2], X[1] * (1 + 2**-10)])
Y = Y.astype(np.float32).astype(float)
# Rows of norm sqrt(5) at rounding level.
SPHERE = 5**0.5 * X[:3] / np.linalg.norm(X[:3], axis=1, keepdims=True)

CLOSED = (
    "relu",
    "leaky_relu",
    "abs",
    "identity",
    "square",
    "cube",
    "erf",
    "sin",
    "cos",
    "gelu",
)
SHIFTED = ("relu", "leaky_relu", "abs", "square", "cos", "gelu")
SERIES = ("tanh", "sigmoid", "softplus", "silu")
# name, form, depth, beta: each nonlinearity, form, depth and beta occurs.
CASES = (
    *((name, "plain", 3, 0.3) for name in CLOSED + SERIES),
    *((name, "normalized", 4, 0.3) for name in SHIFTED),
    ("cube", "standardized", 2, 0),
    ("sin", "standardized", 5, 0),
    ("gelu", "standardized", 5, 0),
    ("exp", "standardized", 2, 0.3),
    ("exp", "normalized", 2, 0.3),
    ("softplus", "normalized", 3, 0),
    ("silu", "standardized", 2, 0),
    ("relu", "standardized", 8, 0.3),
    ("erf", "plain", 8, 0.3),
    ("erf", "plain", 7, 1),
    ("relu", "plain", 2, 1),
    ("relu", "plain", 6, 0.3),
    ("relu", "plain", 1, 0.3),
)


def architecture(nonlinearity, form, depth, beta):
    if form != "plain":
        nonlinearity = getattr(nonlinearity, form)()
    return ntk.FullyConnected(depth, 8, nonlinearity, beta)


def assert_close(kernels, expected, tolerance):
    for got, name in zip(kernels, ("nngp", "ntk"), strict=True):
        reference = getattr(expected, name)
        error = np.abs(np.asarray(got, float) - reference)
        assert error.max() <= tolerance * np.abs(reference).max(), name


@pytest.mark.parametrize(("name", "form", "depth", "beta"), CASES)
def test_general_inputs(x64, named, oracle, name, form, depth, beta):
    """Any norms, coinciding and opposite pairs, y different from x."""
    net = architecture(named[name], form, depth, beta)
    reference = oracle.duals[name]
    if form != "plain":
        reference = getattr(reference, form)()
    expected = oracle.recursion(reference.dual, X, Y, depth, beta)
    tolerance = 1e-10 if name in SERIES else 1e-12
    assert_close(net.kernels(X, Y), expected, tolerance)


@pytest.mark.parametrize("name", ("relu", "tanh"))
def test_without_y(x64, named, oracle, name):
    net = architecture(named[name], "normalized", 3, 0.2)
    reference = oracle.duals[name].normalized()
    expected = oracle.recursion(reference.dual, X, X, 3, 0.2)
    tolerance = 1e-10 if name == "tanh" else 1e-12
    assert_close(net.kernels(X), expected, tolerance)
    assert_close(net.kernels(X, X), expected, tolerance)


def test_dtypes_are_kept(x64):
    """float32 inputs stay float32 in float64 mode; integers become floats."""
    net = ntk.FullyConnected(3, nonlinearity=ntk.tanh.normalized())
    for kernel in net.kernels(X[:3].astype(np.float32)):
        assert kernel.dtype == jnp.float32
    linear = ntk.FullyConnected(1)
    assert linear.ntk([[1, 2], [3, 4]]).dtype == jnp.float64
    with jax.enable_x64(False):
        assert linear.ntk([[1, 2], [3, 4]]).dtype == jnp.float32


@pytest.mark.parametrize("name", ("relu", "leaky_relu", "abs", "identity"))
def test_homogeneous_without_bias(x64, named, name):
    """Positively homogeneous s, beta = 0: both kernels are, in each input."""
    net = ntk.FullyConnected(3, nonlinearity=named[name], beta=0)
    scaled = net.kernels(3 * X, 0.5 * Y)
    for a, b in zip(scaled, net.kernels(X, Y), strict=True):
        np.testing.assert_allclose(a, 1.5 * b, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("beta", (0, 0.3, 1))
def test_depth_one_is_linear(dtype, beta):
    """Sigma^(1) = Theta^(1) = (1 - beta^2) x.y / n_0 + beta^2."""
    kernels = ntk.FullyConnected(1, beta=beta).kernels(
        X.astype(dtype), Y.astype(dtype)
    )
    expected = (1 - beta**2) * X @ Y.T / 5 + beta**2
    for kernel in kernels:
        np.testing.assert_allclose(
            kernel, expected, atol=8 * np.finfo(dtype).eps
        )


@pytest.mark.parametrize("name", ("relu", "erf", "gelu", "tanh"))
def test_diagonal_on_the_sphere(x64, named, name):
    """Sigma = 1 and Theta = (1 - r^L)/(1 - r) for standardized s."""
    s, beta, depth = named[name].standardized(), 0.3, 6
    net = ntk.FullyConnected(depth, nonlinearity=s, beta=beta)
    r = (1 - beta**2) * s.moments.slope
    kernels = net.kernels(SPHERE)
    np.testing.assert_allclose(np.diag(kernels.nngp), 1, atol=1e-11)
    np.testing.assert_allclose(
        np.diag(kernels.ntk), (1 - r**depth) / (1 - r), rtol=1e-10
    )


def test_symmetric_positive_and_invariant(dtype):
    """A Gram matrix, that turns with the inputs, and equals y=x."""
    net = ntk.FullyConnected(4, nonlinearity=ntk.relu, beta=0.2)
    x = np.random.default_rng(1).normal(size=(12, 6)).astype(dtype)
    turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(6, 6)))
    kernels = net.kernels(x)
    eps = np.finfo(dtype).eps
    turned = net.kernels((x @ turn).astype(dtype))
    for a, b, c in zip(kernels, net.kernels(x, x), turned, strict=True):
        largest = float(a.max())
        assert (a == a.T).all()
        # Rounding of 12 x 12 entries; more would be a wrong kernel.
        assert np.linalg.eigvalsh(np.asarray(a, float))[0] > (
            -12 * eps * largest
        )
        np.testing.assert_allclose(a, b, atol=8 * eps * largest)
        np.testing.assert_allclose(a, c, atol=32 * eps * largest)


def test_transposed_arguments(x64):
    net = ntk.FullyConnected(3)
    for a, b in zip(net.kernels(X, Y), net.kernels(Y, X), strict=True):
        np.testing.assert_allclose(a, b.T, rtol=1e-13)


def test_kernels_nngp_and_ntk_agree(x64):
    net = ntk.FullyConnected(3)
    kernels = net.kernels(X, Y)
    np.testing.assert_array_equal(kernels.nngp, net.nngp(X, Y))
    np.testing.assert_array_equal(kernels.ntk, net.ntk(X, Y))


def test_defaults():
    """Standardized relu, beta 0.1, one output, as the interface promises."""
    net = ntk.FullyConnected(2)
    assert (net.width, net.beta, net.n_out) == (1024, 0.1, 1)
    x = np.full((1, 3), 1.0, np.float32)
    np.testing.assert_allclose(net.nngp(x), 1, atol=1e-6)


def test_outputs_and_width_do_not_enter(x64):
    a = ntk.FullyConnected(3, width=7, n_out=3).kernels(X)
    b = ntk.FullyConnected(3).kernels(X)
    for first, second in zip(a, b, strict=True):
        np.testing.assert_array_equal(first, second)


# Accuracy in float32, where the naive form fails.


def neighbours(distance, seed=0):
    """Rows x, y in float32 with |x_i - y_i| = distance |x_i|."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(6, 20)).astype(np.float32)
    step = generator.normal(size=x.shape)
    step *= np.linalg.norm(x, axis=1, keepdims=True) / np.linalg.norm(
        step, axis=1, keepdims=True
    )
    return x, (x + distance * step).astype(np.float32)


def errors(net, reference, x, y):
    """Errors of both kernels on the pairs (x_i, y_i) against 40 digits."""
    pairs = [net.kernels(x, None if y is x else y)]
    result = []
    exact = [
        reference(x[i : i + 1], y[i : i + 1], net.depth, net.beta)
        for i in range(len(x))
    ]
    for got, name in zip(pairs[0], ("nngp", "ntk"), strict=True):
        expected = np.array([float(getattr(e, name)[0, 0]) for e in exact])
        difference = np.diag(np.asarray(got, float)) - expected
        result.append(np.abs(difference).max() / np.abs(expected).max())
    return result


# Relative distance (None: the diagonal of y = x) and the error allowed.
BARS = ((None, 1e-6), (0, 1e-6), (1e-3, 1e-4), (1e-2, 1e-5), (0.3, 1e-5))


@pytest.mark.parametrize(
    ("name", "beta"),
    (
        ("relu", 0),
        ("relu", 0.3),
        ("leaky_relu", 0),
        ("erf", 0),
        ("gelu", 0.3),
        ("tanh", 0),
    ),
)
def test_float32_near_the_diagonal(named, oracle, name, beta):
    net = ntk.FullyConnected(6, nonlinearity=named[name], beta=beta)
    if name == "relu":
        net = ntk.FullyConnected(6, beta=beta)
    reference = oracle.duals[name]
    if name == "relu":
        reference = reference.standardized()

    def exact(*arguments):
        return oracle.recursion(reference.dual, *arguments)

    for distance, bar in BARS:
        x, y = neighbours(distance or 0)
        y = x if distance is None else y.copy()
        if name == "tanh":  # its moments are sums of 625 terms
            bar = max(bar, 2e-6)
        assert max(errors(net, exact, x, y)) <= bar, distance


@pytest.mark.parametrize("name", ("relu", "erf"))
def test_float32_near_the_antipode(named, oracle, name):
    net = ntk.FullyConnected(6, nonlinearity=named[name], beta=0)

    def exact(*arguments):
        return oracle.recursion(oracle.duals[name].dual, *arguments)

    for distance, bar in BARS[1:]:
        x, y = neighbours(distance)
        assert max(errors(net, exact, x, -y)) <= bar, distance


def test_the_naive_form_fails_the_bar(oracle):
    """The recursion in float32 entries misses 1e-6 by orders of magnitude."""

    def naive(x, depth):
        x = x.astype(np.float32)
        k = x @ x.T / np.float32(x.shape[1])
        theta = k
        for _ in range(depth - 1):
            root = np.sqrt(np.diag(k))
            m = np.outer(root, root)
            t = np.arccos(np.clip(k / m, -1, 1))
            pi = np.float32(np.pi)
            k = m * (np.sin(t) + (pi - t) * np.cos(t)) / pi
            theta = k + (pi - t) / pi * theta
        return np.diag(theta)

    x, _ = neighbours(0)
    got = naive(x, 6)
    dual = oracle.duals["relu"].standardized().dual
    expected = np.array(
        [oracle.recursion(dual, [row], [row], 6, 0).ntk[0, 0] for row in x]
    )
    assert got.dtype == np.float32
    assert np.abs(got - expected).max() > 1e-4 * expected.max()
