"""The nonlinearities that come with the package.

In closed form: relu, leaky_relu, absolute, identity, monomial, erf, gelu,
sin, cos, exp. By Hermite series (relative error below 1e-10 in float64):
tanh, sigmoid, softplus, silu.
"""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp

from . import checks
from .error_functions import Erf, Gelu
from .hermite import HermiteSeries, Monomial
from .nonlinearity import Nonlinearity
from .piecewise import LinearPlusAbs
from .waves import Cos, Exp, Sin


def _same(u):
    return u


relu = Nonlinearity("relu", jax.nn.relu, LinearPlusAbs(0.5, 0.5))
absolute = Nonlinearity("abs", jnp.abs, LinearPlusAbs(0.0, 1.0))
identity = Nonlinearity("identity", _same, LinearPlusAbs(1.0, 0.0))
erf = Nonlinearity("erf", jax.lax.erf, Erf())
sin = Nonlinearity("sin", jnp.sin, Sin())
cos = Nonlinearity("cos", jnp.cos, Cos())
exp = Nonlinearity("exp", jnp.exp, Exp())
gelu = Nonlinearity("gelu", Gelu.function, Gelu())
tanh = Nonlinearity("tanh", jnp.tanh, HermiteSeries(jnp.tanh, 128))
sigmoid = Nonlinearity(
    "sigmoid", jax.nn.sigmoid, HermiteSeries(jax.nn.sigmoid, 96)
)
softplus = Nonlinearity(
    "softplus", jax.nn.softplus, HermiteSeries(jax.nn.softplus, 64)
)
silu = Nonlinearity("silu", jax.nn.silu, HermiteSeries(jax.nn.silu, 96))


@lru_cache
def leaky_relu(negative_slope: float = 0.01) -> Nonlinearity:
    """u for u >= 0 and negative_slope * u for u < 0, in closed form."""
    slope = float(checks.finite(negative_slope, "negative_slope"))
    dual_form = LinearPlusAbs((1 + slope) / 2, (1 - slope) / 2)
    function = partial(jax.nn.leaky_relu, negative_slope=slope)
    return Nonlinearity(f"leaky_relu({slope:g})", function, dual_form)


@lru_cache
def monomial(power: int) -> Nonlinearity:
    """u^power for an integer power >= 1, in closed form."""
    power = checks.positive_integer(power, "power")
    function = partial(jax.lax.integer_pow, y=power)
    return Nonlinearity(f"monomial({power})", function, Monomial(power))
