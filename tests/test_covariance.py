import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from ntk_helpers.covariance import Covariance, affine, half_angles

rng = np.random.default_rng(6)


def sin2_half(a, b):
    """sin^2 of half the angle, (1 - cos)/2 in 40 digits."""
    a, b = ([mp.mpf(float(v)) for v in row] for row in (a, b))
    dot = mp.fdot(a, b) / mp.sqrt(mp.fdot(a, a) * mp.fdot(b, b))
    return (1 - dot) / 2


@pytest.mark.parametrize("distance", (1e-6, 1e-4, 1e-2, 0.1, 0.3, 1))
@pytest.mark.parametrize("sign", (1, -1))
def test_half_angles_of_near_pairs(dtype, distance, sign):
    """The small half is as accurate as rounding of the unit vectors allows.

    Their error eps is amplified by 1 / distance where they are subtracted.
    """
    x = rng.normal(size=(4, 8)).astype(dtype)
    y = (sign * (x + distance * rng.normal(size=x.shape))).astype(dtype)
    y[0] = sign * 2 * x[0]
    sin2, cos2 = (np.asarray(half) for half in half_angles(x, y))
    assert sin2.dtype == dtype
    eps = np.finfo(dtype).eps
    near = sin2 if sign > 0 else cos2
    for i in range(4):
        exact = float(sin2_half(x[i], sign * y[i]))
        root = exact**0.5
        assert abs(near[i, i] - exact) <= 8 * eps * root + 8 * eps**2
    np.testing.assert_allclose(sin2 + cos2, 1, atol=2 * eps)


def test_half_angles_of_one_array(dtype):
    """Exact on the diagonal, symmetric, and 0 for a repeated row."""
    x = rng.normal(size=(5, 9)).astype(dtype)
    x[3] = x[1]
    x[4] = -x[1]
    sin2, cos2 = half_angles(jnp.asarray(x))
    assert (np.diag(sin2) == 0).all() and (np.diag(cos2) == 1).all()
    assert (sin2[1, 3], cos2[1, 4], sin2[1, 4]) == (0, 0, 1)
    np.testing.assert_array_equal(sin2, sin2.T)
    same = half_angles(jnp.asarray(x), jnp.asarray(x))
    np.testing.assert_allclose(same[0], sin2, atol=4 * np.finfo(dtype).eps)
    assert (np.diag(same[0]) == 0).all()


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
