import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from ntk_helpers.covariance import Covariance, _spread, affine

rng = np.random.default_rng(6)


def sin2_half(a, b):
    """sin^2 of half the angle, (1 - cos)/2 in 40 digits."""
    a, b = ([mp.mpf(float(v)) for v in row] for row in (a, b))
    dot = mp.fdot(a, b) / mp.sqrt(mp.fdot(a, a) * mp.fdot(b, b))
    return (1 - dot) / 2


def test_from_entries(x64):
    cov = Covariance.from_entries(jnp.array(2.0), jnp.array(0.5), -0.3)
    np.testing.assert_allclose(cov.xy, -0.3, rtol=4e-15)
    np.testing.assert_allclose(cov.scale, 1, rtol=1e-15)
    np.testing.assert_allclose(cov.angle, np.arccos(-0.3), rtol=1e-15)
    zero = Covariance.from_entries(jnp.array(0.0), jnp.array(1.0), 0.0)
    assert float(zero.xy) == 0 and np.isfinite(zero).all()


def test_from_inputs(x64):
    x, y = rng.normal(size=(3, 4)), rng.normal(size=(2, 4))
    cov = Covariance.from_inputs(jnp.asarray(x), jnp.asarray(y))
    assert (cov.xx.shape, cov.yy.shape) == ((3, 1), (1, 2))
    np.testing.assert_allclose(cov.xx[:, 0], (x**2).mean(axis=1))
    np.testing.assert_allclose(cov.yy[0], (y**2).mean(axis=1))
    np.testing.assert_allclose(cov.xy, x @ y.T / 4, atol=1e-15)


@pytest.mark.parametrize("beta", (0, 0.3, 1))
def test_affine(x64, beta):
    """Entry by entry (1 - beta^2) K + beta^2, the angle without loss."""
    x = rng.normal(size=(3, 4))
    y = np.concatenate([-x[:1], x[1:2] * (1 + 1e-9), rng.normal(size=(2, 4))])
    cov = Covariance.from_inputs(jnp.asarray(x), jnp.asarray(y))
    got = affine(*cov.as_moments(), beta)
    w, q = 1 - beta**2, beta**2
    expected = w * x @ y.T / 4 + q
    np.testing.assert_allclose(got.xy, expected, atol=1e-15)
    np.testing.assert_allclose(
        got.xx[:, 0], w * (x**2).mean(axis=1) + q, rtol=1e-15
    )
    np.testing.assert_allclose(
        got.yy[0], w * (y**2).mean(axis=1) + q, rtol=1e-15
    )
    if beta:
        with_bias = (
            np.concatenate([w**0.5 * z, np.full((len(z), 1), 2 * beta)], 1)
            for z in (x, y)
        )
        a, b = with_bias
        for i, j in np.ndindex(got.sin2.shape):
            exact = float(sin2_half(a[i], b[j]))
            bound = 8 * 2e-16 * exact**0.5 + 1e-30
            assert abs(got.sin2[i, j] - exact) <= bound


def test_clean_keeps_derivatives(x64):
    """Rounding at equal variances becomes 0, and only there."""
    level = Covariance.from_entries(jnp.array(2.0), jnp.array(2.0), 1.0)
    assert float(level.clean(jnp.array(1e-17))) == 0
    uneven = level._replace(yy=jnp.array(2.1))
    assert float(uneven.clean(jnp.array(1e-3))) == 1e-3
    assert float(jax.grad(level.clean)(1.0)) == 1


def test_derivative_of_the_angle_at_its_ends_is_finite(x64):
    for sin2 in (0.0, 1.0):
        slope = jax.grad(
            lambda s: Covariance(jnp.ones(()), jnp.ones(()), s, 1 - s).angle
        )(sin2)
        assert jnp.isfinite(slope)


def test_acute_angle_from_both_halves(x64):
    """min(theta, pi - theta), relatively accurate down to 0; 0 for 0 / 0."""
    theta = np.array([0, 1e-150, 1e-9, 1, np.pi / 2, 2.5, np.pi])
    halves = np.sin(theta / 2) ** 2, np.cos(theta / 2) ** 2
    cov = Covariance(jnp.ones(7), jnp.ones(7), *map(jnp.asarray, halves))
    acute = np.minimum(theta, np.pi - theta)
    np.testing.assert_allclose(cov.acute_angle, acute, rtol=1e-15, atol=2e-16)
    np.testing.assert_allclose(cov.acute_angle[:4], acute[:4], rtol=1e-15)
    np.testing.assert_allclose(cov.angle, theta, rtol=1e-15)
    nothing = cov._replace(sin2=jnp.zeros(7), cos2=jnp.zeros(7))
    assert (nothing.acute_angle == 0).all()


def test_spread_of_equal_roots_is_zero(dtype):
    """Rounding of the roots sets no two inputs apart; derivatives stay."""
    eps = np.finfo(dtype).eps
    root = jnp.asarray(3, dtype)
    for ulps, kept in ((0, False), (2, False), (7, False), (10, True)):
        other = root * (1 + jnp.asarray(ulps * eps, dtype))
        for pair in ((root, other), (other, root)):
            spread = _spread(*pair)
            assert (spread > 0) == kept
            if kept:
                expected = (float(root) - float(other)) ** 2
                np.testing.assert_allclose(spread, expected, rtol=8 * eps)
    slope = jax.grad(_spread)(root * (1 + 4 * eps), root)
    np.testing.assert_allclose(slope, 2 * 3 * 4 * eps, rtol=0.3)
