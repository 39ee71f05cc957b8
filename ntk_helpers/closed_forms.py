r"""Dual activations in closed form.

The dual of s maps the covariance of a Gaussian pair (u, v) to E[s(u)s(v)] and
E[s'(u)s'(v)]. Each class here writes it in the variables of
:mod:`ntk_helpers.covariance`: ``point`` gives the moments of one input,
``pair`` those of two. Below, m = sqrt(kxx kyy), c = cos(theta), and the gap
2 (sqrt(Kxx Kyy) - Kxy) is split in two,

    2 (sqrt(Kxx Kyy) - K(m)) + 2 (K(m) - K(m c)):

the first term vanishes for equal variances, the second is written so that it
keeps its relative accuracy as theta -> 0.

Sources: Williams (1997), eq. 10 for erf; Cho and Saul (2009), eq. 1 with
n = 0, 1 for relu; Daniely, Frostig and Singer (2016), table 1. The others
follow from E[exp(u + v)], and gelu from integrating by parts twice.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from .covariance import Covariance, PairMoments, PointMoments
from .duals import Dual
from .precision import safe_sqrt

PI = float(np.pi)
LEGENDRE = np.polynomial.legendre.leggauss(6)


def _gap(cov: Covariance, square_x, square_y, collinear, drop):
    """2 (sqrt(Kxx Kyy) - K(m)) + 2 drop; the first is 0 at equal variances."""
    offset = safe_sqrt(square_x) * safe_sqrt(square_y) - collinear
    return 2 * cov.clean(offset) + 2 * drop


@dataclass(frozen=True)
class LinearPlusAbs(Dual):
    r"""s(u) = linear * u + even * |u|: relu, leaky relu, abs, identity.

    E[s(u)s(v)] = linear^2 kxy + even^2 m (2 sin t + (pi - 2t) cos t)/pi and
    E[s's'] = linear^2 + even^2 (1 - 2t/pi), t = theta; the cross terms
    E[u|v|] vanish. relu is linear = even = 1/2.
    """

    linear: float
    even: float

    def point(self, k):
        """Moments of one input of variance ``k``."""
        total = self.linear**2 + self.even**2
        mean = self.even * (2 / PI) ** 0.5 * safe_sqrt(k)
        return PointMoments(mean, total * k, total * jnp.ones_like(k))

    def pair(self, cov: Covariance):
        """Moments of a pair; |u| sees theta and pi - theta alike."""
        acute = jnp.minimum(cov.sin2, cov.cos2)
        folded = Covariance(cov.xx, cov.yy, acute, 1 - acute)
        t = folded.angle
        sine = 2 * safe_sqrt(cov.sin2) * safe_sqrt(cov.cos2)
        m = cov.scale
        gap_abs = 4 * m / PI * (t - sine + acute * (PI - 2 * t))
        linear, even = self.linear**2, self.even**2
        slope = linear + even * (1 - 2 * cov.angle / PI)
        return PairMoments(
            linear * 4 * m * cov.sin2 + even * gap_abs,
            linear * 4 * m * cov.cos2 + even * (4 * m - gap_abs),
            slope,
        )


@dataclass(frozen=True)
class Erf(Dual):
    """erf: K = (2/pi) arcsin(2 kxy / sqrt((1 + 2kxx)(1 + 2kyy)))."""

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
        square_x, square_y = (
            self.point(cov.xx).square,
            self.point(cov.yy).square,
        )
        collinear = 2 / PI * jnp.arctan2(sine, cosine)

        def gap(sin2, cos2):
            # arcsin P - arcsin(P c), P = sine, as one arctangent.
            rise = 4 * sine**2 * sin2 * cos2 / (outer + cosine)
            numerator = sine * (rise + 2 * sin2 * cosine)
            denominator = cosine * outer + sine**2 * (cos2 - sin2)
            drop = 2 / PI * jnp.arctan2(numerator, denominator)
            return _gap(cov, square_x, square_y, collinear, drop)

        slope = 4 / PI / (jnp.sqrt(product) * outer)
        return PairMoments(
            gap(cov.sin2, cov.cos2), gap(cov.cos2, cov.sin2), slope
        )


@dataclass(frozen=True)
class Sin(Dual):
    """sin: K = exp(-(kxx + kyy)/2) sinh(kxy), E[s's'] has cosh instead."""

    def point(self, k):
        """Moments of one input of variance ``k``."""
        square, slope = -jnp.expm1(-2 * k) / 2, (1 + jnp.exp(-2 * k)) / 2
        return PointMoments(jnp.zeros_like(k), square, slope)

    def pair(self, cov: Covariance):
        """Moments of a pair; sin is odd, so cogap is gap at pi - theta."""
        near, far = _waves(cov)
        square_x, square_y = (
            self.point(cov.xx).square,
            self.point(cov.yy).square,
        )
        front = jnp.exp(-((safe_sqrt(cov.xx) - safe_sqrt(cov.yy)) ** 2) / 2)
        collinear = front * -jnp.expm1(-2 * cov.scale) / 2

        def gap(sin2, cos2):
            rise = -jnp.expm1(-2 * cov.scale * sin2)
            drop = front * rise * (1 + jnp.exp(-2 * cov.scale * cos2)) / 2
            return _gap(cov, square_x, square_y, collinear, drop)

        return PairMoments(
            gap(cov.sin2, cov.cos2),
            gap(cov.cos2, cov.sin2),
            (near + far) / 2,
        )


@dataclass(frozen=True)
class Cos(Dual):
    """cos: K = exp(-(kxx + kyy)/2) cosh(kxy), E[s's'] has sinh instead."""

    def point(self, k):
        """Moments of one input of variance ``k``."""
        square, slope = (1 + jnp.exp(-2 * k)) / 2, -jnp.expm1(-2 * k) / 2
        return PointMoments(jnp.exp(-k / 2), square, slope)

    def pair(self, cov: Covariance):
        """Moments of a pair; cos is even: theta and pi - theta alike."""
        near, far = _waves(cov)
        square_x, square_y = (
            self.point(cov.xx).square,
            self.point(cov.yy).square,
        )
        front = jnp.exp(-((safe_sqrt(cov.xx) - safe_sqrt(cov.yy)) ** 2) / 2)
        collinear = front * (1 + jnp.exp(-2 * cov.scale)) / 2
        drop = front * jnp.expm1(-2 * cov.scale * cov.sin2)
        drop = drop * jnp.expm1(-2 * cov.scale * cov.cos2) / 2
        gap = _gap(cov, square_x, square_y, collinear, drop)
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


@dataclass(frozen=True)
class Gelu(Dual):
    r"""u Phi(u), Phi the normal distribution function.

    With P = (1+kxx)(1+kyy), d = P - kxy^2 and T = E[Phi(u)Phi(v)] = 1/4 +
    arctan(kxy / sqrt d)/(2 pi),

        K = kxy T + (kxx kyy d + kxy^2)/(2 pi P sqrt d)
        E[s's'] = T + kxy (3 + kxx + kyy + kxy^2/d)/(2 pi P sqrt d).
    """

    def point(self, k):
        """Moments of one input of variance ``k``."""
        value, slope = self._dual(k, k, k, jnp.zeros_like(k))
        return PointMoments(k / jnp.sqrt(2 * PI * (1 + k)), value, slope)

    def pair(self, cov: Covariance):
        """Moments of a pair; near theta = 0 the gap integrates the slope."""
        m = cov.scale
        square_x, square_y = (
            self.point(cov.xx).square,
            self.point(cov.yy).square,
        )
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
        gap = _gap(cov, square_x, square_y, collinear, drop)
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
