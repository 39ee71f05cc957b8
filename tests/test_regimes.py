from math import asin, inf, log, pi, sqrt

import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from scipy.optimize import brentq

import ntk_helpers as ntk

# R standardized, critical beta, R normalized, critical beta.
TABLE = {
    "relu": (1, 0, pi / (pi - 1), pi**-0.5),
    "abs": (1, 0, 2.751938394, 0.79788456),
    "erf": (1.225700004, 0.42911499, 1.225700004, 0.42911499),
    "tanh": (1.177807232, 0.38854167, 1.177807232, 0.38854167),
    "sin": (1.313035285, 0.48826821, 1.313035285, 0.48826821),
    "cos": (0.761594156, None, 2.163953414, 0.73340497),
    "gelu": (1.072031598, 0.25921357, 1.318844971, 0.49169174),
    "softplus": (0.3184589837, None, 1.080528053, 0.27299555),
    "exp": (1, 0, 1.581976707, 0.60653066),
}


def erf_map(c, beta):
    """The correlation map of erf, by the arcsine formula."""
    scale = asin(2 / 3)  # of E[erf(z)^2], up to the factor 2/pi
    return (1 - beta**2) * asin(2 * c / 3) / scale + beta**2


@pytest.mark.parametrize("name", TABLE)
def test_table(name):
    """In either precision of the caller: the moments are of float64."""
    s = getattr(ntk, name)
    standard, beta, normal, beta_normal = TABLE[name]
    for t, slope, critical in (
        (s, standard, beta),
        (s.standardized(), standard, beta),
        (s.normalized(), normal, beta_normal),
    ):
        assert abs(ntk.characteristic_value(t, 0) - slope) < 1e-8
        got = ntk.critical_beta(t)
        if critical is None:
            assert got is None
            assert ntk.regime(t, 0) == ntk.regime(t, 0.9) == "freeze"
            continue
        assert abs(got - critical) < 1e-8
        assert ntk.regime(t, got) == "edge"
        assert ntk.regime(t, got + 1e-6) == "freeze" or got == 0
        assert got == 0 or ntk.regime(t, got - 1e-6) == "chaos"


@pytest.mark.parametrize("slope", (0.0, 0.01, 0.5, 1.0, -1.0))
def test_the_edge_is_exact_for_piecewise_linear(slope):
    s = ntk.leaky_relu(slope)
    assert ntk.critical_beta(s) == 0
    assert ntk.regime(s, 0) == "edge"
    assert ntk.regime(s, 1e-3) == "freeze"


def test_characteristic_value_is_the_slope_of_the_map(x64):
    for s in (ntk.erf, ntk.relu.normalized(), ntk.cos):
        r = ntk.characteristic_value(s, 0.3)
        near = jnp.array([1.0, 1 - 1e-5])
        one, below = ntk.correlation_map(s, 0.3, near)
        # relu's slope misses r by the root of the distance.
        assert abs(float(one - below) / 1e-5 - r) < 5e-3
        assert abs(one - 1) < 1e-14


def test_correlation_map_of_erf(x64):
    correlations = np.linspace(-1, 1, 9)
    got = ntk.correlation_map(ntk.erf, 0.2, correlations)
    expected = [erf_map(c, 0.2) for c in correlations]
    np.testing.assert_allclose(got, expected, atol=1e-14)


def test_mean_field_dictionary():
    for s in (ntk.relu, ntk.tanh, ntk.gelu):
        mean, square, slope = s.moments
        sigma_w, sigma_b = ntk.mean_field(s, 0.3)
        assert abs(sigma_w**2 * square + sigma_b**2 - 1) < 1e-12
        chi = sigma_w**2 * slope
        assert abs(chi - ntk.characteristic_value(s, 0.3)) < 1e-12
    # He's initialization.
    assert abs(ntk.mean_field(ntk.relu, 0).sigma_w - sqrt(2)) < 1e-12


def test_fixed_point_and_depth_scale_of_erf():
    for beta in (0.1, 0.3, 0.42):
        expected = brentq(lambda c, b=beta: erf_map(c, b) - c, 0, 0.999)
        assert abs(ntk.fixed_point(ntk.erf, beta) - expected) < 1e-11
        c = [expected + 1e-3]
        for _ in range(400):
            c.append(erf_map(c[-1], beta))
        # The slope of the map there, from the decay of the distance.
        middle = 30 if beta < 0.4 else 300
        ratio = (c[middle + 1] - expected) / (c[middle] - expected)
        scale = ntk.depth_scale(ntk.erf, beta)
        # The next order of the map is left at the last beta.
        assert abs(-1 / log(ratio) / scale - 1) < 5e-3


def test_fixed_point_close_to_the_edge():
    """1 - c* against 40 digits, where it is 1e-5 and less."""
    beta = ntk.critical_beta(ntk.erf) - 1e-6
    with mp.workdps(40):
        weight, scale = 1 - mp.mpf(beta) ** 2, mp.asin(mp.mpf(2) / 3)

        def rest(d):
            value = mp.asin(2 * (1 - d) / 3) / scale
            return (weight * (1 - value) - d) / d

        expected = float(mp.findroot(rest, (1e-6, 1e-5), solver="anderson"))
    got = 1 - ntk.fixed_point(ntk.erf, beta)
    assert expected < 1e-5
    assert abs(got / expected - 1) < 1e-4  # r - 1 is 1e-6, to 1e-15


def test_fixed_points_known_exactly():
    assert ntk.fixed_point(ntk.tanh, 0) == 0
    assert ntk.fixed_point(ntk.relu, 0) == ntk.fixed_point(ntk.relu, 0.5) == 1
    assert ntk.depth_scale(ntk.relu, 0) == inf
    scale = ntk.depth_scale(ntk.relu, 0.5)
    assert abs(scale + 1 / log(0.75)) < 1e-12
    # sin: g(c) = sinh(c)/sinh(1), so g'(0) = 1/sinh(1).
    assert abs(ntk.depth_scale(ntk.sin, 0) - 1 / log(np.sinh(1))) < 1e-9


@pytest.mark.parametrize("name", ("erf", "tanh", "softplus", "cos", "gelu"))
def test_freeze_bound(x64, name):
    """It holds, and with half the constant it would not."""
    s = getattr(ntk, name)
    slope = ntk.characteristic_value(s, 0)
    cosines, depths, share = jnp.linspace(-1, 0.9, 12), np.arange(1, 41), 0
    for beta in (0.3, 0.6, 0.9, 0.97):
        if ntk.regime(s, beta) != "freeze":
            continue
        missing = ntk.depth_profile(s, beta, cosines, 40).complement
        allowed = 1 - np.asarray(ntk.freeze_bound(s, beta, depths))
        seen = allowed > 1e-14  # of the order of the rounding of 1 - allowed
        ratio = np.asarray(missing)[seen] / allowed[seen, None]
        assert ratio.max() < 1
        share = max(share, ratio.max())
        # What 3/R instead of C would allow.
        three = (
            3 / slope * depths * ntk.characteristic_value(s, beta) ** depths
        )
        if name == "cos" and beta == 0.97:
            assert (np.asarray(missing)[seen] > three[seen, None]).any()
    assert share > 0.5


def test_errors():
    for name in ("characteristic_value", "regime", "mean_field"):
        with pytest.raises(ValueError, match=r"beta must lie in \[0, 1\]"):
            getattr(ntk, name)(ntk.relu, 1.1)
    with pytest.raises(ValueError, match="the bound needs r < 1, got r = 1.2"):
        ntk.freeze_bound(ntk.erf, 0, 5)
    with pytest.raises(ValueError, match="twice differentiable function, got"):
        ntk.freeze_bound(ntk.relu, 0.5, 5)
    with pytest.raises(ValueError, match="must not vanish"):
        ntk.mean_field(ntk.Nonlinearity.from_function(jnp.zeros_like), 0.1)
    with pytest.raises(ValueError, match=r"kxy\^2 <= kxx kyy"):
        ntk.correlation_map(ntk.erf, 0.1, 1.5)
