r"""Dual activations of piecewise linear functions, in closed form.

relu, leaky relu, abs and the identity are one family. Their duals depend on
the variances through a factor only: what is left is a function of the angle.

Source: Cho and Saul (2009), eq. 1 with n = 0, 1.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from .covariance import Covariance, PairMoments, PointMoments
from .duals import Dual
from .precision import safe_sqrt

PI = float(np.pi)


@dataclass(frozen=True)
class LinearPlusAbs(Dual):
    r"""s(u) = linear * u + even * |u|: relu, leaky relu, abs, identity.

    E[s(u)s(v)] = linear^2 kxy + even^2 m (2 sin t + (pi - 2t) cos t)/pi and
    E[s's'] = linear^2 + even^2 (1 - 2t/pi), t = theta; the cross terms
    E[u|v|] vanish. relu is linear = even = 1/2.
    """

    linear: float
    even: float

    def of_derivative(self) -> "Step":
        """The dual of linear + even * sign(u)."""
        return Step(self.linear, self.even)

    def point(self, k):
        """Moments of one input of variance ``k``."""
        total = self.linear**2 + self.even**2
        mean = self.even * (2 / PI) ** 0.5 * safe_sqrt(k)
        return PointMoments(mean, total * k, total * jnp.ones_like(k))

    def pair(self, cov: Covariance):
        """Moments of a pair; |u| sees theta and pi - theta alike."""
        acute, _ = cov.ordered
        t = cov.acute_angle
        sine = 2 * safe_sqrt(cov.sin2) * safe_sqrt(cov.cos2)
        m = 4 * cov.scale
        gap_abs = m / PI * (_excess(t, sine) + acute * (PI - 2 * t))
        linear, even = self.linear**2, self.even**2
        slope = linear + even * (1 - 2 * cov.angle / PI)
        return PairMoments(
            linear * m * cov.sin2 + even * gap_abs,
            linear * m * cov.cos2 + even * (m - gap_abs),
            slope,
        )


def _excess(t, sine):
    """t - sin(t) for t in [0, pi/2], where ``sine`` = sin(t)."""
    square = t**2
    series = 1
    for power in (13, 11, 9, 7, 5):
        series = 1 - square / (power * (power - 1)) * series
    return jnp.where(square < 0.1, t * square / 6 * series, t - sine)


@dataclass(frozen=True)
class Step(Dual):
    r"""s(u) = linear + even * sign(u), the derivative of the class above.

    E[s(u)s(v)] = linear^2 + even^2 (1 - 2t/pi), t = theta. It jumps, so that
    E[s'(u)^2] is infinite.
    """

    linear: float
    even: float

    def point(self, k):
        """Moments of one input of variance ``k``."""
        square = (self.linear**2 + self.even**2) * jnp.ones_like(k)
        mean = self.linear * jnp.ones_like(k)
        return PointMoments(mean, square, jnp.full_like(k, jnp.inf))

    def pair(self, cov: Covariance):
        """Moments of a pair."""
        share = cov.angle / PI
        gap = 4 * self.even**2 * share
        cogap = 4 * self.linear**2 + 4 * self.even**2 * (1 - share)
        return PairMoments(gap, cogap, jnp.full_like(gap, jnp.inf))
