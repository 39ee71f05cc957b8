r"""Freeze, edge and chaos: what depth does to a nonlinearity's kernel.

For inputs on the sphere and a standardized s, one layer acts on a pair of
inputs through its correlation c alone,

    g(c) = (1-beta^2) E[s(u)s(v)] + beta^2,    (u, v) ~ N(0, [[1, c], [c, 1]]),

and r = g'(1) = (1-beta^2) E[s'(z)^2], the *characteristic value*, decides what
many layers do. Everything here standardizes s first. Source: Jacot, Gabriel
and Hongler (2019); Poole et al. (2016) and Schoenholz et al. (2017) for the
correlation map.
"""

from math import inf, log
from typing import NamedTuple

import jax.numpy as jnp
from scipy.optimize import brentq

from . import checks
from .covariance import Covariance, affine
from .nonlinearity import Moments, Nonlinearity
from .precision import float64

ROUNDING = 1e-9  # to which r is known for a dual by quadrature


class MeanField(NamedTuple):
    """Standard deviations of weights and biases in mean-field theory."""

    sigma_w: float
    sigma_b: float


def characteristic_value(nonlinearity: Nonlinearity, beta: float) -> float:
    r"""r = (1-beta^2) R with R = E[s'(z)^2]/E[s(z)^2], z ~ N(0, 1).

    It is chi_1 of mean-field theory. Raises ``ValueError`` when ``beta`` is
    outside [0, 1] or s vanishes.
    """
    beta = checks.unit_interval(beta, "beta")
    moments = _moments(nonlinearity)
    return (1 - beta**2) * moments.slope / moments.square


def critical_beta(nonlinearity: Nonlinearity) -> float | None:
    """The beta at which r = 1: sqrt(1 - 1/R).

    0.0 where R = 1 (relu, abs, leaky relu, the identity). None where R < 1:
    s is frozen at every beta.
    """
    slope = characteristic_value(nonlinearity, 0.0)
    if abs(slope - 1) < ROUNDING:
        return 0.0
    return (1 - 1 / slope) ** 0.5 if slope > 1 else None


def regime(nonlinearity: Nonlinearity, beta: float) -> str:
    """The word "freeze" for r < 1, "edge" for r = 1, "chaos" for r > 1.

    At the edge r is 1 to within 1e-9, the accuracy of the dual.
    """
    r = characteristic_value(nonlinearity, beta)
    if abs(r - 1) < ROUNDING:
        return "edge"
    return "freeze" if r < 1 else "chaos"


def mean_field(nonlinearity: Nonlinearity, beta: float) -> MeanField:
    r"""The (sigma_w, sigma_b) of the same network in mean-field theory.

    sigma_w^2 = (1-beta^2)/E[s(z)^2] for s as it is given to that theory, not
    standardized, and sigma_b^2 = beta^2: the variance 1 is then a fixed point
    of its variance map. Source: Poole et al. (2016), section 2.
    """
    beta = checks.unit_interval(beta, "beta")
    square = _moments(nonlinearity).square
    return MeanField(((1 - beta**2) / square) ** 0.5, beta)


def correlation_map(nonlinearity: Nonlinearity, beta: float, correlation):
    """g(c) = (1-beta^2) E[s(u)s(v)] + beta^2 for c in [-1, 1], elementwise.

    Raises ``ValueError`` outside [-1, 1].
    """
    beta = checks.unit_interval(beta, "beta")
    value, _ = nonlinearity.standardized().dual(1.0, 1.0, correlation)
    return (1 - beta**2) * value + beta**2


def fixed_point(nonlinearity: Nonlinearity, beta: float) -> float:
    """c* in [0, 1], to which correlations tend with depth: g(c*) = c*.

    1 in the freeze and at the edge; in the chaos the solution below 1, which
    is 0 at beta = 0 for E[s(z)] = 0. (For inputs that are not opposite where
    s is odd or even and beta = 0.)
    """
    return 1 - _distance(nonlinearity, beta)


def depth_scale(nonlinearity: Nonlinearity, beta: float) -> float:
    """xi = -1/log g'(c*): correlations approach c* like exp(-depth/xi).

    Infinite at the edge, where the approach is a power of the depth. Source:
    Schoenholz et al. (2017), section 3.
    """
    if regime(nonlinearity, beta) == "edge":
        return inf
    with float64():
        pair = nonlinearity.standardized().pair(
            _unit_covariance(_distance(nonlinearity, beta))
        )
        slope = (1 - beta**2) * float(pair.slope)
    return -1 / log(slope) if slope > 0 else 0.0


def freeze_bound(nonlinearity: Nonlinearity, beta: float, depth):
    r"""1 - C L r^L, below Theta(x, y)/Theta(x, x) for r < 1; L = ``depth``.

    C = (2/R) (1 + S/R) with R = E[s'(z)^2] and S = E[s''(z)^2] of s
    standardized. With K(c) = E[s(u)s(v)] = sum_k a_k^2 c^k, the bounds
    K(1) - K(c) <= R (1-c) and K'(1) - K'(c) <= S (1-c) hold term by term on
    [-1, 1]; the first gives 1 - c_l <= (2/R) r^l, and both, inserted in the
    recursion of Theta(x, x) - Theta(x, y), give C. That some C exists is
    the theorem of Jacot, Gabriel and Hongler (2019). Raises ``ValueError`` for
    r >= 1 and for s with a kink, where S is infinite.
    """
    r = characteristic_value(nonlinearity, beta)
    if r >= 1:
        raise ValueError(f"the bound needs r < 1, got r = {r:.6g}")
    s = nonlinearity.standardized()
    slope, bend = s.moments.slope, s.differentiated().moments.slope
    if not bend < inf:
        raise ValueError(
            f"the bound needs a twice differentiable function, got {s.name}"
        )
    depth = jnp.asarray(depth)
    return 1 - 2 / slope * (1 + bend / slope) * depth * r**depth


def _moments(nonlinearity) -> Moments:
    if not nonlinearity.moments.square > 0:
        raise ValueError(f"{nonlinearity.name} must not vanish")
    return nonlinearity.moments


def _distance(nonlinearity, beta) -> float:
    """1 - c*, by bisection in its logarithm.

    (1 - g(c))/(1 - c) falls from r at c = 1; it is 1 at the fixed point.
    """
    if regime(nonlinearity, beta) != "chaos":
        return 0.0
    s = nonlinearity.standardized()

    def excess(logarithm):
        distance = jnp.exp(jnp.asarray(logarithm, jnp.float64))
        point = s.point(jnp.ones(()))
        after = affine(point, point, s.pair(_unit_covariance(distance)), beta)
        return float(2 * after.sin2 / distance - 1)

    with float64():
        if excess(0.0) >= 0:  # c* = 0 exactly: beta = 0 and E[s(z)] = 0
            return 1.0
        return float(jnp.exp(brentq(excess, -40, 0.0, xtol=1e-15)))


def _unit_covariance(distance) -> Covariance:
    """The pair of variance 1 and correlation 1 - ``distance``."""
    half = jnp.asarray(distance, jnp.float64) / 2
    return Covariance(jnp.ones(()), jnp.ones(()), half, 1 - half)
