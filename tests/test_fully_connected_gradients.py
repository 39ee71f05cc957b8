"""Derivatives of the kernels, and the kernels inside jit, vmap and grad."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_helpers as ntk

rng = np.random.default_rng(3)
X, Y = rng.normal(size=(3, 4)), rng.normal(size=(2, 4))
X *= 2 / np.linalg.norm(X, axis=1, keepdims=True)  # variances near 1
Y *= 1.8 / np.linalg.norm(Y, axis=1, keepdims=True)
TWICE = np.stack([X[0], X[1], X[0]])  # a repeated row


def architecture(s, depth=3):
    return ntk.FullyConnected(depth, nonlinearity=s, beta=0.3)


def central(f, x, step=1e-5):
    """Finite differences: error step^2 + eps / step, about 1e-10."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        shift = np.zeros_like(x)
        shift[index] = step
        gradient[index] = (f(x + shift) - f(x - shift)) / (2 * step)
    return gradient


def test_gradient_away_from_coinciding_points(x64):
    net = architecture(ntk.relu.standardized())
    weights = jnp.asarray(rng.normal(size=(2, 3, 2)))

    def scalar(x):
        return jnp.sum(weights * jnp.stack(net.kernels(x, Y)))

    f = jax.jit(scalar)
    np.testing.assert_allclose(jax.grad(f)(X), central(f, X), atol=1e-7)


@pytest.mark.parametrize(
    ("dtype", "name"),
    (("float32", "relu"), ("float64", "relu"), ("float32", "tanh")),
    indirect=["dtype"],
)
def test_gradient_at_coinciding_points(dtype, named, name):
    """Finite for both kernels; right for the NNGP, which is smooth once."""
    net = architecture(named[name].standardized())
    x = jnp.asarray(TWICE, dtype)
    rows = jax.jit(jax.jacrev(lambda x: jnp.stack(net.kernels(x))))(x)
    assert jnp.isfinite(rows).all()

    # Sigma(x, y) is C^1: its gradient in y on the diagonal is half the one
    # of Sigma(x, x), by symmetry.
    def between(y):
        return net.nngp(x[:1], y)[0, 0]

    gradient = np.asarray(jax.jit(jax.grad(between))(x[:1]), float)
    with jax.enable_x64(True):
        diagonal = jax.jit(lambda x: net.nngp(x)[0, 0])
        half = central(diagonal, np.asarray(x[:1], float)) / 2
    tolerance = 1e-7 if dtype == np.float64 else 1e-5
    np.testing.assert_allclose(gradient, half, atol=tolerance)


def test_mixed_second_derivative(x64):
    """d^2 Sigma / dx dy at x = y, against finite differences."""
    net = architecture(ntk.gelu.standardized(), 2)
    x = jnp.asarray(X[:1])

    def between(x, y):
        return net.nngp(x, y)[0, 0]

    mixed = jax.jacfwd(jax.grad(between), argnums=1)(x, x)[0, :, 0]
    step = 1e-4
    f = jax.jit(between)
    expected = np.zeros((4, 4))
    for i, j in np.ndindex(4, 4):
        a, b = (np.eye(4)[k][None] * step for k in (i, j))
        expected[i, j] = (
            f(x + a, x + b)
            - f(x + a, x - b)
            - f(x - a, x + b)
            + f(x - a, x - b)
        ) / (4 * step**2)
    # Finite differences: step^2 + eps / step^2.
    np.testing.assert_allclose(mixed, expected, atol=2e-6)


def test_second_derivative_of_sin_in_closed_form(x64):
    """Depth 2, beta = 0: Sigma = exp(-(a + b)/2) sinh(c), exactly."""
    net = ntk.FullyConnected(2, nonlinearity=ntk.sin, beta=0)
    x = X[0]
    n, k = len(x), x @ x / len(x)

    def between(x, y):
        return net.nngp(x[None], y[None])[0, 0]

    mixed = jax.jacfwd(jax.grad(between), argnums=1)(
        jnp.asarray(x), jnp.asarray(x)
    )
    value, slope = np.sinh(k), np.cosh(k)
    outer = np.outer(x, x) / n**2
    expected = np.exp(-k) * (
        slope * np.eye(n) / n + outer * (2 * value - 2 * slope)
    )
    np.testing.assert_allclose(mixed, expected, atol=1e-12)


def test_gradient_at_a_zero_row(x64):
    """A zero input has no direction: finite with a bias."""
    net = architecture(ntk.relu)
    x = jnp.asarray(np.stack([X[0], np.zeros(4)]))
    assert jnp.isfinite(jax.grad(lambda x: net.ntk(x).sum())(x)).all()


def test_inside_jit_and_vmap(x64):
    net = architecture(ntk.gelu)
    batch = jnp.asarray(rng.normal(size=(3, 2, 4)))
    expected = np.stack([net.ntk(x, Y) for x in batch])
    mapped = jax.jit(jax.vmap(lambda x: net.ntk(x, Y)))(batch)
    np.testing.assert_allclose(mapped, expected, rtol=1e-12)


def test_a_user_function_under_grad_and_jit(x64):
    """Log-determinant of the NTK in the scale of the inputs."""
    net = architecture(ntk.relu.standardized())

    @jax.jit
    def logdet(scale):
        kernel = net.ntk(scale * X) + 0.1 * jnp.eye(3)
        return jnp.linalg.slogdet(kernel)[1]

    derivative = (logdet(1 + 1e-5) - logdet(1 - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(logdet)(1.0), derivative, rtol=1e-7)


def test_series_inside_a_trace(x64, oracle):
    """Off the sphere, where jit leaves no room to refine: right, or NaN."""
    net = ntk.FullyConnected(2, nonlinearity=ntk.tanh, beta=0)

    @jax.jit
    @jax.value_and_grad
    def corner(x):
        return net.nngp(x[None])[0, 0]

    def square(k):
        return oracle.duals["tanh"].dual(k, k, k)[0]

    for variance in (0.5, 1.3, 20):
        value, gradient = corner(jnp.array([2 * variance**0.5, 0, 0, 0]))
        if variance > 2:
            assert jnp.isnan(value)
            assert jnp.isnan(gradient[0])  # not 0
            continue
        slope = (square(variance + 1e-3) - square(variance - 1e-3)) / 2e-3
        np.testing.assert_allclose(value, square(variance), rtol=1e-9)
        np.testing.assert_allclose(
            gradient[0], slope * variance**0.5, rtol=1e-6
        )


@pytest.mark.parametrize("name", ("relu", "abs", "erf"))
def test_at_right_angles(x64, name):
    """Exactly orthogonal inputs, where both halves of the angle are equal."""
    net = ntk.FullyConnected(3, nonlinearity=getattr(ntk, name), beta=0.2)
    x, y, step = jnp.eye(3)[:1], jnp.eye(3)[1:2], jnp.array([[1, 0.2, 0]])

    def kernel(t):
        return net.ntk(x, y + t * step)[0, 0]

    change = 1e-6
    secant = (kernel(change) - kernel(-change)) / (2 * change)
    np.testing.assert_allclose(jax.grad(kernel)(0.0), secant, rtol=1e-7)
