import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

import ntk_helpers as ntk

SERIES = ("tanh", "sigmoid", "softplus", "silu")
VARIANCES = ((1, 1), (0.3, 2), (2.2, 2.2), (4, 0.1), (0.01, 5))
CORRELATIONS = (-1, -0.99999, -0.7, 0, 0.5, 0.999, 1)


def gauss_hermite(s, slope, kxx, kyy, kxy, nodes=120):
    """Product rule for entire functions of moderate growth."""
    z, w = np.polynomial.hermite_e.hermegauss(nodes)
    w = w / np.sqrt(2 * np.pi)
    c = np.clip(kxy / np.sqrt(kxx * kyy), -1, 1)
    u = np.sqrt(kxx) * z[:, None]
    v = np.sqrt(kyy) * (c * z[:, None] + np.sqrt(1 - c * c) * z)
    weights = w[:, None] * w
    return np.array(
        [np.sum(weights * s(u) * s(v)), np.sum(weights * slope(u) * slope(v))]
    )


def assert_dual(got, reference, kxx, kyy, kxy, tolerance):
    expected, *ends = (
        np.array(reference(*k), float)
        for k in ((kxx, kyy, kxy), (kxx, kxx, kxx), (kyy, kyy, kyy))
    )
    scale = np.sqrt(ends[0] * ends[1])
    assert (np.abs(np.array(got) - expected) <= tolerance * scale).all()


def test_constants_of_tanh(x64):
    square, slope = ntk.tanh.moments[1:]
    assert abs(square - 0.3942944903978412) < 1e-12
    assert abs(slope - 0.4644029024482682) < 1e-12
    half = ntk.tanh.dual(1.0, 1.0, 0.5)
    np.testing.assert_allclose(
        half, (0.186324413203458, 0.384747028441060), atol=1e-12
    )


@pytest.mark.parametrize("form", ("plain", "normalized"))
@pytest.mark.parametrize("name", SERIES)
def test_dual(x64, named, oracle, name, form):
    s, reference = named[name], oracle.duals[name]
    if form == "normalized":
        s, reference = s.normalized(), reference.normalized()
    for a, b in VARIANCES:
        k = np.array(CORRELATIONS) * np.sqrt(a * b)
        got = np.stack(s.dual(float(a), float(b), k), -1)
        for pair, kxy in zip(got, k, strict=True):
            assert_dual(pair, reference.dual, a, b, kxy, 1e-10)


@pytest.mark.parametrize("name", SERIES)
def test_dual_in_float32(named, oracle, name):
    """The sum over 625 nodes of one sign costs a few units of rounding."""
    for a, b in VARIANCES[:3]:
        k = np.array(CORRELATIONS, np.float32) * np.float32(np.sqrt(a * b))
        value, slope = named[name].dual(a, b, k)
        assert value.dtype == slope.dtype == jnp.float32
        for *pair, kxy in zip(value, slope, k, strict=True):
            assert_dual(pair, oracle.duals[name].dual, a, b, kxy, 2e-6)


def test_smooth_function(x64):
    """sin(2u) + u^2/2, entire: quadrature converges to rounding."""
    s = ntk.Nonlinearity.from_function(lambda u: jnp.sin(2 * u) + u**2 / 2)

    def reference(*k):
        return gauss_hermite(
            lambda u: np.sin(2 * u) + u**2 / 2,
            lambda u: 2 * np.cos(2 * u) + u,
            *k,
        )

    for a, b in VARIANCES:
        k = np.array(CORRELATIONS) * np.sqrt(a * b)
        got = np.stack(s.dual(float(a), float(b), k), -1)
        for pair, kxy in zip(got, k, strict=True):
            assert_dual(pair, reference, a, b, kxy, 1e-9)


@pytest.mark.parametrize("p", (1, 2, 3, 4, 7))
def test_monomial_equals_its_series(x64, p):
    """The finite series against quadrature exact for polynomials."""
    for a, b, c in ((1, 1, 0.4), (0.2, 3, -0.9), (2, 2, 1)):
        k = c * np.sqrt(a * b)
        got = ntk.monomial(p).dual(float(a), float(b), k)
        expected = gauss_hermite(
            lambda u: u**p, lambda u: p * u ** (p - 1), a, b, k, 16
        )
        np.testing.assert_allclose(got, expected, rtol=1e-12)


def sine_dual(w):
    """sin(w u): that of sin at w^2 times the variances."""

    def dual(kxx, kyy, kxy):
        kxx, kyy, kxy = (mp.mpf(k) * w**2 for k in (kxx, kyy, kxy))
        front = mp.exp(-(kxx + kyy) / 2)
        return front * mp.sinh(kxy), w**2 * front * mp.cosh(kxy)

    return dual


def growing_dual(kxx, kyy, kxy):
    """exp(u^2 / 8): with Q = K^-1 - I/4, det(K Q)^-1/2 and Price's rule."""
    kxx, kyy, kxy = (mp.mpf(k) / 4 for k in (kxx, kyy, kxy))
    determinant = (1 - kxx) * (1 - kyy) - kxy**2
    if determinant <= 0 or kxx >= 1 or kyy >= 1:
        return mp.inf, mp.inf
    return determinant**-0.5, kxy / 4 * determinant**-1.5


CASES = {
    "tanh": jnp.tanh,
    "exp": jnp.exp,
    "sin": lambda u: jnp.sin(5 * u),
    "growing": lambda u: jnp.exp(u**2 / 8),
}


@pytest.mark.parametrize("name", CASES)
def test_right_or_refused_at_any_variance(x64, oracle, name):
    """Unit variance resolves; whatever comes back elsewhere is right."""
    s = ntk.Nonlinearity.from_function(CASES[name])
    references = {
        "growing": growing_dual,
        "sin": sine_dual(5),
    }
    reference = references.get(name) or oracle.duals[name].dual
    resolved = []
    for a in (0.01, 1.0, 1.5, 2.5, 12.0):
        entries = np.array(
            [(a, a, a), (a, a, -0.9 * a), (0.02, a, 0.1 * np.sqrt(a))]
        )
        try:
            got = np.stack(s.dual(*entries.T), -1)
        except ValueError as error:
            assert "is not resolved at the variances" in str(error)
            continue
        resolved.append(a)
        for pair, k in zip(got, entries.tolist(), strict=True):
            assert_dual(pair, reference, *k, 1e-9)
    assert {0.01, 1.0} <= set(resolved)
    if name == "growing":  # E[s(u)^2] is infinite from variance 2 on
        assert max(resolved) < 2


def test_series_grows_with_the_variance(x64):
    """A kernel whose inputs are large takes a longer series by itself."""
    x = jnp.array([[3.0, 0.0], [0.0, 3.0]])
    net = ntk.FullyConnected(2, nonlinearity=ntk.tanh, beta=0.0)
    order = ntk.tanh.dual_form.order
    value, _ = ntk.tanh.dual(4.5, 4.5, 0.0)
    finer = ntk.tanh.resolved(jnp.ones(1))
    assert finer.dual_form.order == 2 * order
    np.testing.assert_allclose(net.nngp(x)[0, 1], value, atol=1e-10)
    np.testing.assert_allclose(
        net.nngp(x)[0, 0], ntk.tanh.dual(4.5, 4.5, 4.5)[0], rtol=1e-10
    )
