import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

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
    "exp",
    "gelu",
)
VARIANCES = ((1, 1), (0.3, 2), (4, 0.1), (1.02, 1), (0.01, 5), (3, 20))
CORRELATIONS = (-1, -1 + 1e-9, -0.9999, -0.9, -0.5, 0, 0.3, 0.99, 0.99999, 1)


def grid(dtype, correlations=CORRELATIONS):
    points = [
        (a, b, c * np.sqrt(a * b)) for a, b in VARIANCES for c in correlations
    ]
    return np.asarray(points, dtype).T


def errors(s, reference, entries):
    """Correlation, and errors in units of the moments at correlation 1."""
    got = np.stack(s.dual(*entries))
    for (a, b, k), pair in zip(entries.T, got.T, strict=True):
        a, b, k = (mp.mpf(float(entry)) for entry in (a, b, k))
        m = mp.sqrt(a * b)
        expected = reference.dual(a, b, max(-m, min(m, k)))
        ends = zip(
            reference.dual(a, a, a), reference.dual(b, b, b), strict=True
        )
        value, slope = (
            float(abs(mp.mpf(float(g)) - e) / mp.sqrt(x * y))
            for g, e, (x, y) in zip(pair, expected, ends, strict=True)
        )
        yield float(k / m), value, slope


def assert_matches(s, reference, entries, tolerance):
    eps = np.finfo(entries.dtype).eps
    for c, value, slope in errors(s, reference, entries):
        assert value < tolerance
        # The angle of a kink is an arccosine of rounded entries: 4 eps in
        # its argument is divided by its sine.
        sine = np.sqrt(max(0, 1 - c * c))
        assert slope < tolerance + 4 * eps / max(sine, np.sqrt(eps))


@pytest.mark.parametrize("name", CLOSED)
def test_textbook_formula_is_the_integral(oracle, name):
    """The oracle itself: formula against quadrature, to 14 digits."""
    for a, b, k in ((1, 1, 0.5), (0.3, 2, -0.7), (1, 1, 0.9999), (2, 2, 0)):
        entries = mp.mpf(a), mp.mpf(b), mp.mpf(k)
        formula = oracle.duals[name].dual(*entries)
        for e, f in zip(oracle.integral(name, a, b, k), formula, strict=True):
            assert abs(e - f) < 1e-14 * (1 + abs(f))


@pytest.mark.parametrize("form", ("plain", "normalized"))
@pytest.mark.parametrize("name", CLOSED)
def test_dual(x64, named, oracle, name, form):
    s, reference = named[name], oracle.duals[name]
    if form != "plain":
        s, reference = getattr(s, form)(), getattr(reference, form)()
    assert_matches(s, reference, grid(np.float64), 1e-12)


@pytest.mark.parametrize("name", CLOSED)
def test_dual_in_float32(named, oracle, name):
    """Rounding of exponents up to 16 costs up to 16 units."""
    entries = grid(np.float32, (-0.99, -0.5, 0, 0.3, 0.9, 0.99))
    value, slope = named[name].dual(*entries)
    assert value.dtype == slope.dtype == jnp.float32
    assert_matches(named[name], oracle.duals[name], entries, 4e-6)


@pytest.mark.parametrize("name", CLOSED)
def test_coinciding_and_opposite_inputs_are_exact(x64, named, oracle, name):
    """kxy^2 = kxx kyy to the last digit leaves no room for an angle."""
    entries = np.array([(0.3, 0.3, 0.3), (0.7, 0.7, -0.7), (4, 1, 2)]).T
    for _, value, slope in errors(named[name], oracle.duals[name], entries):
        assert value < 1e-14
        assert slope < 1e-14


@pytest.mark.parametrize("name", CLOSED)
def test_variance_zero(x64, named, name):
    """At u = 0 the value is s(0) E[s(v)]; s(0)^2 when both vanish."""
    s = named[name]
    value, _ = s.dual(0.0, jnp.array([0.0, 2.0]), 0.0)
    at_zero = float(s(jnp.zeros(())))
    mean = float(s.point(jnp.array([2.0])).mean[0])
    np.testing.assert_allclose(value, [at_zero**2, at_zero * mean], atol=1e-15)
