r"""Dual activations of erf and gelu, in closed form.

The dual of s maps the covariance of a Gaussian pair (u, v) to E[s(u)s(v)] and
E[s'(u)s'(v)]. Each class here writes it in the variables of
:mod:`ntk_helpers.covariance`: ``point`` gives the moments of one input,
``pair`` those of two.

Sources: Williams (1997), eq. 10 for erf; gelu follows from integrating by
parts twice.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from .covariance import Covariance, PairMoments, PointMoments
from .duals import Derivative, Dual, gap_of
from .hermite import HermiteSeries
from .precision import safe_sqrt

PI = float(np.pi)
LEGENDRE = np.polynomial.legendre.leggauss(6)


@dataclass(frozen=True)
class Erf(Dual):
    """erf: K = (2/pi) arcsin(2 kxy / sqrt((1 + 2kxx)(1 + 2kyy)))."""

    def of_derivative(self) -> "Bell":
        """The dual of 2 exp(-u^2)/sqrt(pi)."""
        return Bell()

    def point(self, k):
        """Moments of one input of variance ``k``."""
        root = safe_sqrt(1 + 4 * k)
        square = 2 / PI * jnp.arctan2(2 * k, root)
        return PointMoments(jnp.zeros_like(k), square, 4 / PI / root)

    def pair(self, cov: Covariance):
        """Moments of a pair; erf is odd, so cogap is gap at pi - theta."""
        m = cov.scale
        product = (1 + 2 * cov.xx) * (1 + 2 * cov.yy)
        sine = 2 * m / jnp.sqrt(product)
        inner = (1 + 2 * cov.xx + 2 * cov.yy) / product  # 1 - sine^2
        cosine = jnp.sqrt(inner)
        outer = jnp.sqrt(inner + 4 * sine**2 * cov.sin2 * cov.cos2)
        squares = self.squares(cov)
        collinear = 2 / PI * jnp.arctan(sine / cosine)
        # arcsin P - arcsin(P |c|), P = sine, as one arctangent. The larger of
        # gap and cogap is what the smaller leaves.
        small, large = cov.ordered
        rise = 4 * sine**2 * small * large / (outer + cosine)
        numerator = sine * (rise + 2 * small * cosine)
        denominator = cosine * outer + sine**2 * (large - small)
        drop = 2 / PI * jnp.arctan(numerator / denominator)
        near = gap_of(cov, *squares, collinear, drop)
        far = 4 * safe_sqrt(squares[0]) * safe_sqrt(squares[1]) - near
        slope = 4 / PI / (jnp.sqrt(product) * outer)
        return PairMoments(
            jnp.where(cov.acute, near, far),
            jnp.where(cov.acute, far, near),
            slope,
        )


@dataclass(frozen=True)
class Bell(Dual):
    """2 exp(-u^2)/sqrt(pi) = erf': K = 4/pi (P - 4 kxy^2)^(-1/2).

    P = (1 + 2kxx)(1 + 2kyy), and E[s's'] = dK/dkxy (Price).
    """

    def point(self, k):
        """Moments of one input of variance ``k``."""
        inner = 1 + 4 * k
        mean = 2 / jnp.sqrt(PI * (1 + 2 * k))
        square = 4 / PI / jnp.sqrt(inner)
        return PointMoments(mean, square, 4 * k * square / inner)

    def pair(self, cov: Covariance):
        """Moments of a pair."""
        squares = self.squares(cov)
        inner = 1 + 2 * cov.xx + 2 * cov.yy  # P - 4 kxx kyy
        rise = 16 * cov.xx * cov.yy * cov.sin2 * cov.cos2
        near, far = jnp.sqrt(inner), jnp.sqrt(inner + rise)
        collinear, value = 4 / PI / near, 4 / PI / far
        drop = collinear * rise / (far * (near + far))
        gap = gap_of(cov, *squares, collinear, drop)
        cogap = 4 * safe_sqrt(squares[0]) * safe_sqrt(squares[1]) - gap
        return PairMoments(gap, cogap, 4 * cov.xy * value / far**2)


@dataclass(frozen=True)
class Gelu(Dual):
    r"""u Phi(u), Phi the normal distribution function.

    With P = (1+kxx)(1+kyy), d = P - kxy^2 and T = E[Phi(u)Phi(v)] = 1/4 +
    arctan(kxy / sqrt d)/(2 pi),

        K = kxy T + (kxx kyy d + kxy^2)/(2 pi P sqrt d)
        E[s's'] = T + kxy (3 + kxx + kyy + kxy^2/d)/(2 pi P sqrt d).
    """

    function = staticmethod(partial(jax.nn.gelu, approximate=False))

    def of_derivative(self) -> HermiteSeries:
        """The dual of Phi(u) + u phi(u), phi the density, by a series."""
        return HermiteSeries(Derivative(self.function), 64)

    def point(self, k):
        """Moments of one input of variance ``k``."""
        value, slope = self._dual(k, k, k, jnp.zeros_like(k))
        return PointMoments(k / jnp.sqrt(2 * PI * (1 + k)), value, slope)

    def pair(self, cov: Covariance):
        """Moments of a pair; near theta = 0 the gap integrates the slope."""
        m = cov.scale
        square_x, square_y = self.squares(cov)
        length = 2 * m * cov.sin2  # m - kxy
        collinear, _ = self._dual(cov.xx, cov.yy, m, jnp.zeros_like(m))
        value, slope = self._dual(cov.xx, cov.yy, m, length)
        # Price: dK/dkxy = E[s's']. On a short interval, far from the
        # singularity at sqrt((1+kxx)(1+kyy)) > m + 1/2, six nodes are exact
        # to rounding.
        t, w = (jnp.asarray(rule, m.dtype) for rule in LEGENDRE)
        inside = jnp.minimum(length, 0.2)[..., None] * (1 - t) / 2
        spread = (k[..., None] for k in (cov.xx, cov.yy, m))
        drop = jnp.sum(w / 2 * self._dual(*spread, inside)[1], axis=-1)
        drop = jnp.where(length < 0.2, length * drop, collinear - value)
        gap = gap_of(cov, square_x, square_y, collinear, drop)
        cogap = 4 * safe_sqrt(square_x) * safe_sqrt(square_y) - gap
        return PairMoments(gap, cogap, slope)

    @staticmethod
    def _dual(kxx, kyy, m, drop):
        """Both duals at kxy = m - drop, m = sqrt(kxx kyy)."""
        kxy, total = m - drop, kxx + kyy
        product = (1 + kxx) * (1 + kyy)
        determinant = 1 + total + drop * (2 * m - drop)
        root = jnp.sqrt(determinant)
        gate = 1 / 4 + jnp.arctan2(kxy, root) / (2 * PI)
        density = 1 / (2 * PI * product * root)
        value = kxy * gate + (kxx * kyy * determinant + kxy**2) * density
        inner = kxy * (3 + total + kxy**2 / determinant)
        return value, gate + inner * density
