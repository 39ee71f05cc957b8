r"""Dual activations of sin, cos and exp, in closed form.

All three follow from E[exp(a u + b v)] for a Gaussian pair. The gap is split
as in :func:`ntk_helpers.duals.gap_of`.

Source: Daniely, Frostig and Singer (2016), table 1.
"""

from dataclasses import dataclass

import jax.numpy as jnp

from .covariance import Covariance, PairMoments, PointMoments
from .duals import Dual, gap_of
from .precision import safe_sqrt


@dataclass(frozen=True)
class Sin(Dual):
    """sin: K = exp(-(kxx + kyy)/2) sinh(kxy), E[s's'] has cosh instead."""

    def of_derivative(self) -> "Cos":
        """The dual of cos."""
        return Cos()

    def point(self, k):
        """Moments of one input of variance ``k``."""
        square, slope = -jnp.expm1(-2 * k) / 2, (1 + jnp.exp(-2 * k)) / 2
        return PointMoments(jnp.zeros_like(k), square, slope)

    def pair(self, cov: Covariance):
        """Moments of a pair; sin is odd, so cogap is gap at pi - theta."""
        near, far = _waves(cov)
        square_x, square_y = self.squares(cov)
        front = jnp.exp(-((safe_sqrt(cov.xx) - safe_sqrt(cov.yy)) ** 2) / 2)
        collinear = front * -jnp.expm1(-2 * cov.scale) / 2

        def gap(sin2, cos2):
            rise = -jnp.expm1(-2 * cov.scale * sin2)
            drop = front * rise * (1 + jnp.exp(-2 * cov.scale * cos2)) / 2
            return gap_of(cov, square_x, square_y, collinear, drop)

        return PairMoments(
            gap(cov.sin2, cov.cos2),
            gap(cov.cos2, cov.sin2),
            (near + far) / 2,
        )


@dataclass(frozen=True)
class Cos(Dual):
    """cos: K = exp(-(kxx + kyy)/2) cosh(kxy), E[s's'] has sinh instead."""

    def of_derivative(self) -> "Sin":
        """The dual of -sin, which is that of sin."""
        return Sin()

    def point(self, k):
        """Moments of one input of variance ``k``."""
        square, slope = (1 + jnp.exp(-2 * k)) / 2, -jnp.expm1(-2 * k) / 2
        return PointMoments(jnp.exp(-k / 2), square, slope)

    def pair(self, cov: Covariance):
        """Moments of a pair; cos is even: theta and pi - theta alike."""
        near, far = _waves(cov)
        square_x, square_y = self.squares(cov)
        front = jnp.exp(-((safe_sqrt(cov.xx) - safe_sqrt(cov.yy)) ** 2) / 2)
        collinear = front * (1 + jnp.exp(-2 * cov.scale)) / 2
        drop = front * jnp.expm1(-2 * cov.scale * cov.sin2)
        drop = drop * jnp.expm1(-2 * cov.scale * cov.cos2) / 2
        gap = gap_of(cov, square_x, square_y, collinear, drop)
        cogap = 4 * safe_sqrt(square_x) * safe_sqrt(square_y) - gap
        return PairMoments(gap, cogap, (near - far) / 2)


def _waves(cov: Covariance):
    """exp(-(kxx + kyy)/2 + kxy) and exp(-(kxx + kyy)/2 - kxy)."""
    spread = (safe_sqrt(cov.xx) - safe_sqrt(cov.yy)) ** 2 / 2
    near = jnp.exp(-spread - 2 * cov.scale * cov.sin2)
    return near, jnp.exp(-spread - 2 * cov.scale * cov.cos2)


@dataclass(frozen=True)
class Exp(Dual):
    """exp: K = E[s's'] = exp((kxx + kyy)/2 + kxy)."""

    def of_derivative(self) -> "Exp":
        """The same."""
        return self

    def point(self, k):
        """Moments of one input of variance ``k``."""
        return PointMoments(jnp.exp(k / 2), jnp.exp(2 * k), jnp.exp(2 * k))

    def pair(self, cov: Covariance):
        """Moments of a pair."""
        half = (cov.xx + cov.yy) / 2
        collinear, root = jnp.exp(half + cov.scale), jnp.exp(2 * half)
        drop = -collinear * jnp.expm1(-2 * cov.scale * cov.sin2)
        gap = 2 * cov.clean(root - collinear) + 2 * drop
        value = jnp.exp(half + cov.xy)
        return PairMoments(gap, 2 * (root + value), value)
