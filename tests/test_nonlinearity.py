import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_helpers as ntk


@pytest.mark.parametrize("name", ("relu", "softplus", "gelu", "square"))
def test_standardized_and_normalized(x64, named, name):
    """Against 200-node quadrature; relu's kink leaves 1e-3 of it."""
    z, w = np.polynomial.hermite_e.hermegauss(200)
    w = w / np.sqrt(2 * np.pi)
    tolerance = 2e-3 if name == "relu" else 1e-10
    s = named[name]
    standard, normal = s.standardized(), s.normalized()
    assert abs(w @ standard(z) ** 2 - 1) < tolerance
    assert abs(w @ normal(z)) < tolerance
    assert abs(w @ normal(z) ** 2 - 1) < tolerance
    # Exactly, in the package's own moments.
    assert abs(standard.moments.square - 1) < 1e-12
    np.testing.assert_allclose(normal.moments[:2], (0, 1), atol=1e-12)
    # Twice is once, in either order.
    for again in (normal.normalized(), standard.normalized()):
        np.testing.assert_allclose(again(z), normal(z), atol=1e-10)
    np.testing.assert_allclose(
        standard.derivative(z), s.derivative(z) * float(standard(1) / s(1))
    )


def test_a_constant_cannot_be_normalized():
    s = ntk.Nonlinearity.from_function(jnp.ones_like)
    with pytest.raises(ValueError, match="is constant: it has no variance"):
        s.normalized()
    np.testing.assert_allclose(s.moments, (1, 1, 0), atol=1e-12)
    with pytest.raises(ValueError, match="zeros_like must not vanish"):
        ntk.Nonlinearity.from_function(jnp.zeros_like).standardized()


def test_dual_broadcasts(x64):
    kxx, kyy = jnp.ones((3, 1)), jnp.full(2, 2.0)
    value, slope = ntk.erf.dual(kxx, kyy, 0.5)
    assert value.shape == slope.shape == (3, 2)
    np.testing.assert_allclose(value, ntk.erf.dual(1.0, 2.0, 0.5)[0])
    np.testing.assert_allclose(slope, ntk.erf.dual(1, 2, 0.5)[1])
    assert ntk.erf.dual(1, 1, 1)[0].shape == ()


def test_dual_is_the_derivative_by_price(x64):
    """E[s'(u)s'(v)] = d E[s(u)s(v)] / d kxy, through jax.grad and jit."""
    for s in (ntk.relu, ntk.gelu, ntk.tanh, ntk.exp.normalized()):
        slope = jax.jit(jax.grad(lambda k, s=s: s.dual(1.2, 0.7, k)[0]))(0.4)
        np.testing.assert_allclose(slope, s.dual(1.2, 0.7, 0.4)[1], rtol=1e-9)


@pytest.mark.parametrize(
    ("entries", "message"),
    (
        ((-1, 1, 0), "kxx and kyy must be >= 0, got minima -1 and 1"),
        ((1, -2, 0), "kxx and kyy must be >= 0, got minima 1 and -2"),
        ((1, 1, 1.1), r"kxy\^2 <= kxx kyy, got an excess of 0.0999"),
        ((1, 4, -2.1), r"kxy\^2 <= kxx kyy, got an excess of 0.0999"),
        ((np.nan, 1, 0), "kxx must be finite"),
        ((1, np.inf, 0), "kyy must be finite"),
        ((1, 1, np.nan), "kxy must be finite"),
        ((1, 1, 1j), "expected real numbers"),
        ((1e9, 1e9, 0), "dual of tanh is not resolved"),
    ),
)
def test_impossible_covariances(entries, message):
    with pytest.raises(ValueError, match=message):
        ntk.tanh.dual(*entries)


def swapped(u):
    return u[::-1]


def centred(u):
    return u - u.mean()


@pytest.mark.parametrize(
    "function",
    (jnp.sum, jnp.cumsum, jax.nn.softmax, swapped, centred, lambda u: 1.0),
)
def test_what_is_not_elementwise_is_refused(function):
    with pytest.raises(ValueError, match="must act entry by entry"):
        ntk.Nonlinearity.from_function(function)


def test_what_is_not_finite_is_refused():
    for function in (jnp.sqrt, jnp.log, lambda u: 1 / u):
        with pytest.raises(ValueError, match=r"on \[-3, 3\] must be finite"):
            ntk.Nonlinearity.from_function(function)


def test_what_jax_cannot_trace_is_refused():
    with pytest.raises(ValueError, match="tanh must be a JAX function, got"):
        ntk.Nonlinearity.from_function(np.tanh)


def test_a_name_makes_no_other_nonlinearity():
    """Nor does it cost another compilation."""
    one, other = (
        ntk.Nonlinearity.from_function(jnp.tanh, name=name) for name in "ab"
    )
    assert one == other and hash(one) == hash(other)
    assert one != one.standardized()


def test_names():
    assert repr(ntk.relu) == "Nonlinearity(relu)"
    assert repr(ntk.relu.standardized()) == "Nonlinearity(relu, standardized)"
    assert ntk.Nonlinearity.from_function(jnp.tanh).name == "tanh"
    named = ntk.Nonlinearity.from_function(jnp.tanh, name="my tanh")
    assert repr(named) == "Nonlinearity(my tanh)"


def test_from_function_in_a_network(x64):
    """The user's tanh is the package's, in both views."""
    s = ntk.Nonlinearity.from_function(jnp.tanh)
    mine, own = (ntk.FullyConnected(3, 8, t, 0.2) for t in (s, ntk.tanh))
    x = np.random.default_rng(0).normal(size=(3, 4))
    np.testing.assert_allclose(mine.ntk(x), own.ntk(x), atol=1e-11)
    params = own.init(jax.random.key(0), 4)
    np.testing.assert_array_equal(mine.apply(params, x), own.apply(params, x))
