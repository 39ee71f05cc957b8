import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_helpers as ntk

U = np.array([-2.5, -1.0, -0.2, 0.3, 1.0, 3.0])


def phi(u):
    """Distribution function of N(0, 1)."""
    return (1 + math.erf(u / math.sqrt(2))) / 2


def bell(u):
    return math.exp(-u * u / 2) / math.sqrt(2 * math.pi)


# s and s', written with the standard library.
FUNCTIONS = {
    "relu": (lambda u: max(u, 0), lambda u: float(u > 0)),
    "leaky_relu": (
        lambda u: u if u > 0 else 0.3 * u,
        lambda u: 1 if u > 0 else 0.3,
    ),
    "abs": (abs, lambda u: math.copysign(1, u)),
    "identity": (lambda u: u, lambda u: 1),
    "square": (lambda u: u * u, lambda u: 2 * u),
    "cube": (lambda u: u**3, lambda u: 3 * u**2),
    "erf": (math.erf, lambda u: 2 / math.sqrt(math.pi) * math.exp(-u * u)),
    "sin": (math.sin, math.cos),
    "cos": (math.cos, lambda u: -math.sin(u)),
    "exp": (math.exp, math.exp),
    "gelu": (lambda u: u * phi(u), lambda u: phi(u) + u * bell(u)),
    "tanh": (math.tanh, lambda u: math.cosh(u) ** -2),
    "sigmoid": (
        lambda u: 1 / (1 + math.exp(-u)),
        lambda u: 1 / (2 + 2 * math.cosh(u)),
    ),
    "softplus": (
        lambda u: math.log(1 + math.exp(u)),
        lambda u: 1 / (1 + math.exp(-u)),
    ),
    "silu": (
        lambda u: u / (1 + math.exp(-u)),
        lambda u: 1 / (1 + math.exp(-u)) + u / (2 + 2 * math.cosh(u)),
    ),
}

# E s, E s^2, E s'^2, and E s'^2 once standardized and once normalized.
TABLE = {
    "relu": (0.39894228, 0.5, 0.5, 1, 1.466942207),
    "abs": (0.79788456, 1, 1, 1, 2.751938394),
    "erf": (0, 0.4645590544, 0.5694100347, 1.225700004, 1.225700004),
    "tanh": (0, 0.3942944904, 0.4644029024, 1.177807232, 1.177807232),
    "sin": (0, 0.4323323584, 0.5676676416, 1.313035285, 1.313035285),
    "cos": (
        0.60653066,
        0.5676676416,
        0.4323323584,
        0.761594156,
        2.163953414,
    ),
    "gelu": (
        0.28209479,
        0.4252214826,
        0.4558508656,
        1.072031598,
        1.318844971,
    ),
    "softplus": (
        0.80605918,
        0.9212459089,
        0.2933790359,
        0.3184589837,
        1.080528053,
    ),
    "exp": (1.64872127, 7.389056099, 7.389056099, 1, 1.581976707),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_and_derivative(dtype, named, name):
    s = named[name]
    u = jnp.asarray(U, dtype)
    function, derivative = FUNCTIONS[name]
    rtol = 64 * np.finfo(dtype).eps
    for got, f in ((s(u), function), (s.derivative(u), derivative)):
        assert got.dtype == dtype
        expected = [f(v) for v in np.asarray(u, float).tolist()]
        np.testing.assert_allclose(got, expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("name", TABLE)
def test_table_of_moments(named, name):
    """To 1e-8 also where the caller works in float32."""
    mean, square, slope, standardized, normalized = TABLE[name]
    with jax.enable_x64(False):
        s = named[name]
        np.testing.assert_allclose(s.moments, (mean, square, slope), atol=1e-8)
        assert abs(s.standardized().moments.slope - standardized) < 1e-8
        assert abs(s.normalized().moments.slope - normalized) < 1e-8


def test_slope_at_the_kink_does_not_matter_elsewhere():
    """relu(0) = 0 and |0| = 0."""
    assert float(ntk.relu(0.0)) == float(ntk.abs(0.0)) == 0


@pytest.mark.parametrize(("slope", "name"), ((1, "identity"), (-1, "abs")))
def test_leaky_relu_reaches_its_neighbours(x64, named, slope, name):
    for a, b in zip(
        ntk.leaky_relu(slope).dual(0.3, 2.0, -0.5),
        named[name].dual(0.3, 2.0, -0.5),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-15)


def test_repeated_calls_give_the_same_object():
    """Equal nonlinearities share one compiled kernel."""
    assert ntk.leaky_relu(0.2) is ntk.leaky_relu(0.2)
    assert ntk.monomial(2) is ntk.monomial(2)
    assert ntk.relu.standardized() == ntk.relu.standardized()
    assert hash(ntk.tanh.normalized()) == hash(ntk.tanh.normalized())


def test_errors():
    for power in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="power must be an integer >= 1"):
            ntk.monomial(power)
    with pytest.raises(ValueError, match="negative_slope must be finite"):
        ntk.leaky_relu(float("nan"))
