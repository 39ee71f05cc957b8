import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_helpers as ntk

rng = np.random.default_rng(2)
X, Z = rng.normal(size=(5, 3)), rng.normal(size=(4, 3))
TARGETS = rng.normal(size=(5, 2))


def kernel(x, y=None):
    """Squared exponential: a kernel of its own, not the package's."""
    y = x if y is None else y
    return jnp.exp(-jnp.sum((x[:, None] - y[None]) ** 2, -1) / 4)


def conditioned(noise):
    """Conditioning of the joint Gaussian of (y, f(z)), by its precision.

    The block of the inverse joint covariance that belongs to f(z) is the
    inverse posterior covariance; no formula of the posterior enters.
    """
    points = np.concatenate([X, Z])
    distances = np.sum((points[:, None] - points[None]) ** 2, -1)
    joint = np.exp(-distances / 4)
    joint[:5, :5] += noise * np.eye(5)
    precision = np.linalg.inv(joint)
    covariance = np.linalg.inv(precision[5:, 5:])
    return -covariance @ precision[5:, :5] @ TARGETS, covariance


@pytest.mark.parametrize("noise", (0.0, 0.3))
def test_posterior_is_the_conditional(dtype, noise):
    x, z, y = (jnp.asarray(a, dtype) for a in (X, Z, TARGETS))
    got = ntk.posterior(kernel, x, y, z, noise)
    mean, covariance = conditioned(noise)
    # The condition number of the Gram matrix is about 10.
    atol = 1e-11 if dtype == np.float64 else 1e-5
    assert got.mean.dtype == got.covariance.dtype == dtype
    np.testing.assert_allclose(got.mean, mean, atol=atol)
    np.testing.assert_allclose(got.covariance, covariance, atol=atol)
    alone = ntk.posterior_mean(kernel, x, y, z, noise)
    np.testing.assert_allclose(alone, mean, atol=atol)


def test_interpolates_without_noise(x64):
    net = ntk.FullyConnected(3)
    got = ntk.posterior(net.nngp, X, TARGETS, X)
    np.testing.assert_allclose(got.mean, TARGETS, atol=1e-9)
    np.testing.assert_allclose(got.covariance, 0, atol=1e-11)


def test_is_differentiable_in_the_noise(x64):
    def total(noise):
        return ntk.posterior_mean(kernel, X, TARGETS, Z, noise).sum()

    step = 1e-6
    expected = (
        conditioned(0.3 + step)[0].sum() - conditioned(0.3 - step)[0].sum()
    ) / (2 * step)
    np.testing.assert_allclose(
        jax.jit(jax.grad(total))(0.3), expected, rtol=1e-7
    )


@pytest.mark.parametrize("infer", (ntk.posterior, ntk.posterior_mean))
def test_errors(infer):
    with pytest.raises(ValueError, match="one row per row of x, 5, got 4"):
        infer(kernel, X, TARGETS[:4], Z)
    with pytest.raises(ValueError, match=r"y must have shape .* got \(5,\)"):
        infer(kernel, X, TARGETS[:, 0], Z)
    with pytest.raises(ValueError, match="noise must be >= 0, got -0.1"):
        infer(kernel, X, TARGETS, Z, noise=-0.1)
    with pytest.raises(ValueError, match="noise must be >= 0, got nan"):
        infer(kernel, X, TARGETS, Z, noise=float("nan"))
    with pytest.raises(ValueError, match="y must be finite, got 10 NaN"):
        infer(kernel, X, TARGETS * np.nan, Z)
    net = ntk.FullyConnected(2, beta=0)
    with pytest.raises(ValueError, match="singular in float32; raise noise"):
        infer(net.nngp, np.zeros_like(X), TARGETS, Z)
    # Repeated inputs leave a pivot of rounding size, of either sign.
    for repeated in range(1, len(X)):
        twice = np.concatenate([X[:repeated], X[:-repeated]])
        with pytest.raises(ValueError, match="or remove repeated inputs"):
            infer(kernel, twice, TARGETS, Z)
    infer(kernel, twice, TARGETS, Z, noise=1e-3)
