import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

import ntk_helpers as ntk

ANGLES = np.linspace(0, np.pi, 6)


def erf_profile(beta, cosine, depth, digits=400):
    """theta and 1 - theta with 400 digits: nothing cancels at that rate."""
    with mp.workdps(digits):
        weight = 1 - mp.mpf(beta) ** 2
        scale = mp.asin(mp.mpf(2) / 3)
        c = weight * mp.mpf(cosine) + mp.mpf(beta) ** 2
        theta, diagonal = c, mp.mpf(1)
        r = weight * 2 / mp.sqrt(5) / scale
        rows = [(theta, 1 - theta)]
        for _ in range(depth - 1):
            slope = weight * 2 / mp.sqrt(9 - 4 * c**2) / scale
            c = weight * mp.asin(2 * c / 3) / scale + mp.mpf(beta) ** 2
            theta, diagonal = c + slope * theta, 1 + r * diagonal
            quotient = theta / diagonal
            rows.append((float(quotient), float(1 - quotient)))
    return np.array(rows, float).T


@pytest.mark.parametrize("name", ("relu", "erf", "tanh", "gelu", "softplus"))
@pytest.mark.parametrize("beta", (0.0, 0.3, 0.8))
def test_is_the_quotient_of_kernels(x64, name, beta):
    s = getattr(ntk, name)
    theta, complement = ntk.depth_profile(s, beta, np.cos(ANGLES), 6)
    x = np.sqrt(2) * np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1)
    assert theta.shape == complement.shape == (6, 6)
    for depth in (1, 2, 6):
        net = ntk.FullyConnected(depth, 8, s.standardized(), beta)
        kernel = net.ntk(x)
        # tanh's series is cut at 1e-12.
        expected = kernel[0] / kernel[0, 0]
        np.testing.assert_allclose(theta[depth - 1], expected, atol=1e-10)
    np.testing.assert_allclose(theta + complement, 1, atol=1e-10)


@pytest.mark.parametrize("beta", (0.2, 0.6))
@pytest.mark.parametrize("cosine", (0.999, 0.2))
def test_relative_accuracy_of_both_sides(x64, beta, cosine):
    """Chaos, where theta falls to 1e-70, and freeze, where 1 - theta does."""
    got = ntk.depth_profile(ntk.erf, beta, cosine, 1000)
    expected = erf_profile(beta, cosine, 1000)
    small = expected[0] if beta == 0.2 else expected[1]
    assert 1e-110 < small.min() < 1e-60
    # Each layer adds a few roundings.
    for values, reference in zip(got, expected, strict=True):
        np.testing.assert_allclose(values, reference, rtol=1e-11)


def test_limits_at_the_edge(x64):
    """1/4 with a kink, 1/3 without, within .006 at L = 1000."""
    critical = ntk.critical_beta(ntk.erf)
    for s, beta, limit in (
        (ntk.relu, 0, 1 / 4),
        (ntk.abs, 0, 1 / 4),
        (ntk.leaky_relu(0.1), 0, 1 / 4),
        (ntk.erf, critical, 1 / 3),
        (ntk.exp, 0, 1 / 3),
    ):
        theta = ntk.depth_profile(s, beta, 0.0, 1000).theta
        assert abs(theta[-1] - limit) < 0.006
    relu = ntk.depth_profile(ntk.relu, 0, 0.0, 30).theta
    assert abs(relu[29] - 0.3002) < 1e-4  # slowly


def test_rates(x64):
    """Freeze r^L (times L), frozen relu r^(L/2), chaos r^-L."""
    for s, beta, rate in ((ntk.erf, 0.6, 1), (ntk.relu, 0.5, 0.5)):
        r = ntk.characteristic_value(s, beta)
        gap = ntk.depth_profile(s, beta, 0.3, 2000).complement
        power = 1 if rate == 1 else 0
        depths = np.array([400, 800])
        fall = np.log(np.asarray(gap)[depths - 1] / depths**power)
        slope = np.diff(fall)[0] / 400
        assert abs(slope / (rate * np.log(r)) - 1) < 0.02
    r = ntk.characteristic_value(ntk.erf, 0.2)
    theta = np.asarray(ntk.depth_profile(ntk.erf, 0.2, 0.3, 800).theta)
    assert abs(np.log(theta[799] / theta[399]) / 400 / np.log(r) + 1) < 0.02


def test_any_depth(x64):
    """No overflow of Theta, no NaN, and 1 where the points coincide."""
    for s, beta in ((ntk.sin, 0.1), (ntk.relu, 0.0), (ntk.softplus, 0.1)):
        theta, complement = ntk.depth_profile(s, beta, [0.5, 1.0], 20_000)
        assert jnp.isfinite(theta).all() and jnp.isfinite(complement).all()
        np.testing.assert_allclose(theta[:, 1], 1, atol=1e-12)
        assert (complement[:, 1] < 1e-12).all()


def test_dtype_and_gradient(dtype):
    cosine = jnp.asarray([0.5, 1.0], dtype)
    profile = ntk.depth_profile(ntk.erf, 0.6, cosine, 40)
    assert profile.theta.dtype == profile.complement.dtype == dtype
    reference = erf_profile(0.6, 0.5, 40)[1]
    rtol = 1e-11 if dtype == np.float64 else 1e-4
    np.testing.assert_allclose(profile.complement[:, 0], reference, rtol=rtol)

    def last(c):
        return ntk.depth_profile(ntk.erf, 0.6, c, 40).theta[-1]

    slope = jax.grad(last)(cosine[0])
    assert jnp.isfinite(slope) and slope > 0


def test_errors():
    with pytest.raises(ValueError, match=r"cosine must lie in \[-1, 1\], got"):
        ntk.depth_profile(ntk.erf, 0.1, [0.0, 1.2], 3)
    with pytest.raises(ValueError, match="depth must be an integer >= 1"):
        ntk.depth_profile(ntk.erf, 0.1, 0.0, 0)
    with pytest.raises(ValueError, match="cosine must be finite"):
        ntk.depth_profile(ntk.erf, 0.1, np.nan, 3)
