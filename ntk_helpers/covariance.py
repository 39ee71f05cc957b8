r"""Covariance of a pair of Gaussian pre-activations, without cancellation.

Two jointly Gaussian variables u, v are usually described by kxx = E[u^2],
kyy = E[v^2] and kxy = E[uv]. For nearly equal inputs that loses half of the
digits: the angle theta between u and v is read off 1 - cos(theta), which in
float32 is a multiple of 6e-8, so theta is a multiple of 3.5e-4, and the ReLU
NTK, which has a kink at theta = 0, inherits the error. The state carried from
layer to layer here is (kxx, kyy, sin^2(theta/2), cos^2(theta/2)) instead.
Each half is accurate where it is small, and one layer of the network maps the
state to the next by sums of positive terms alone.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from .angles import half_angles
from .precision import safe_sqrt

PI = math.pi


class PointMoments(NamedTuple):
    """Moments of s(u), u ~ N(0, k), for one input at a time.

    mean = E[s(u)], square = E[s(u)^2], slope = E[s'(u)^2]; ``error`` is an
    estimate of the relative error of these and of the pair moments at the
    same variance, 0 for closed forms.
    """

    mean: jax.Array
    square: jax.Array
    slope: jax.Array
    error: jax.Array | float = 0.0


class PairMoments(NamedTuple):
    """Moments of s(u), s(v) for a pair of inputs.

    With m = sqrt(E[s(u)^2] E[s(v)^2]): gap = 2 (m - E[s(u)s(v)]) and
    cogap = 2 (m + E[s(u)s(v)]), both >= 0 by Cauchy and Schwarz, and
    slope = E[s'(u)s'(v)].
    """

    gap: jax.Array
    cogap: jax.Array
    slope: jax.Array


class Covariance(NamedTuple):
    """Covariance of (u, v): variances and the squared halves of the angle.

    ``xx`` = E[u^2] and ``yy`` = E[v^2] broadcast against each other (shapes
    (N, 1) and (1, M) for a Gram matrix); ``sin2`` = sin^2(theta/2) and
    ``cos2`` = cos^2(theta/2) have the full shape, theta being the angle with
    cos(theta) = E[uv] / sqrt(E[u^2] E[v^2]).
    """

    xx: jax.Array
    yy: jax.Array
    sin2: jax.Array
    cos2: jax.Array

    @property
    def scale(self):
        """Geometric mean of the variances, sqrt(E[u^2] E[v^2])."""
        return safe_sqrt(self.xx) * safe_sqrt(self.yy)

    @property
    def xy(self):
        """E[uv] = sqrt(E[u^2] E[v^2]) cos(theta)."""
        return self.scale * (self.cos2 - self.sin2)

    def clean(self, term):
        """A ``term`` of second order in xx - yy, freed of rounding.

        Where the square of the relative difference of the variances is below
        rounding the value becomes 0; the derivatives stay.
        """
        tolerance = float(jnp.finfo(jnp.result_type(self.xx)).eps) ** 0.5 / 8
        level = jnp.abs(self.xx - self.yy) <= tolerance * (self.xx + self.yy)
        return term - jax.lax.stop_gradient(jnp.where(level, term, 0))

    @property
    def similar(self):
        """Whether the variances differ by at most a factor of about 1.2."""
        return jnp.abs(self.xx - self.yy) <= 0.1 * (self.xx + self.yy)

    @property
    def acute_angle(self):
        """min(theta, pi - theta); its derivative at 0 is set to 0."""
        small, large = self.ordered
        large = jnp.where(large > 0, large, 1)  # both are 0 for a zero input
        # An arctangent of one argument costs half of what arctan2 costs.
        return 2 * jnp.arctan(safe_sqrt(small) / jnp.sqrt(large))

    @property
    def acute(self):
        """Whether theta is at most pi/2."""
        return self.sin2 <= self.cos2

    @property
    def ordered(self):
        """The smaller and the larger of sin2 and cos2.

        Chosen, not compared by minimum, whose derivative is halved where
        both are equal, at right angles.
        """
        small = jnp.where(self.acute, self.sin2, self.cos2)
        return small, jnp.where(self.acute, self.cos2, self.sin2)

    @property
    def angle(self):
        """Angle theta in [0, pi]; its derivative at 0 and pi is set to 0."""
        acute = self.acute_angle
        return jnp.where(self.acute, acute, PI - acute)

    @classmethod
    def from_entries(cls, kxx, kyy, kxy) -> "Covariance":
        """Covariance from its three entries, broadcast together.

        kxx kyy - kxy^2 is exactly 0 where u and v are parallel, so it is
        taken before the root; negative rounding is cut off.
        """
        root = safe_sqrt(kxx) * safe_sqrt(kyy)
        size = jnp.abs(kxy)
        level = (kxx - size) * (kxx + size)
        determinant = jnp.where(kxx == kyy, level, kxx * kyy - size**2)
        double = 2 * root * (root + size)
        small = determinant / jnp.where(double > 0, double, 1)
        small = jnp.where(small < 0, 0, small)
        sin2 = jnp.where(kxy > 0, small, 1 - small)
        return cls(kxx, kyy, sin2, jnp.where(kxy > 0, 1 - small, small))

    @classmethod
    def from_inputs(cls, x, y=None, same=None) -> "Covariance":
        """Second moments of inputs: x.y / n_0, rows of (N, n_0), (M, n_0).

        ``same``: pairs of one and the same row, as in :func:`half_angles`.
        """
        xx = jnp.mean(x**2, axis=1)
        yy = xx if y is None else jnp.mean(y**2, axis=1)
        return cls(xx[:, None], yy[None, :], *half_angles(x, y, same=same))

    def as_moments(self):
        """Moments of the identity: what the first layer receives."""
        one = jnp.ones_like
        points = [
            PointMoments(jnp.zeros_like(k), k, one(k))
            for k in (self.xx, self.yy)
        ]
        gap, cogap = 4 * self.scale * self.sin2, 4 * self.scale * self.cos2
        return *points, PairMoments(gap, cogap, one(gap))


def affine(point_x, point_y, pair: PairMoments, beta: float) -> Covariance:
    r"""Covariance of sqrt(1-beta^2)/sqrt(n) W alpha + beta b, n -> infinity.

    From K = E[s(u)s(v)] to (1-beta^2) K + beta^2. With w = 1-beta^2,
    q = beta^2 and D = E[(s(u)-s(v))^2] the new determinant is

        xx yy - xy^2 = w^2 (Kxx Kyy - Kxy^2) + w q D,

    a sum of positive terms, and the small one of sin^2(theta/2) and
    cos^2(theta/2) is that determinant divided by a sum of positive terms.
    """
    weight, bias = 1 - beta**2, beta**2
    xx = weight * point_x.square + bias
    yy = weight * point_y.square + bias
    xy = weight * (pair.cogap - pair.gap) / 4 + bias
    root = safe_sqrt(xx) * safe_sqrt(yy)
    spread = _spread(safe_sqrt(point_x.square), safe_sqrt(point_y.square))
    acute = xy > 0
    large = root + jnp.where(acute, xy, -xy)
    inverse = 1 / jnp.where(large > 0, large, 1)
    # The determinant over `large`, without squaring: K may be tiny or huge.
    small = weight**2 / 4 * (pair.gap * inverse * pair.cogap)
    small = small + weight * bias * (pair.gap + spread) * inverse
    double = 1 / jnp.where(root > 0, 2 * root, 1)
    small, large = small * double, large * double
    sin2 = jnp.where(acute, small, large)
    return Covariance(xx, yy, sin2, jnp.where(acute, large, small))


def _spread(root_x, root_y):
    """(root_x - root_y)^2, 0 where rounding alone sets the roots apart.

    In chaos the next layers would enlarge that rounding to an angle.
    """
    difference = root_x - root_y
    eps = float(jnp.finfo(difference.dtype).eps)
    level = jnp.abs(difference) <= 4 * eps * (root_x + root_y)
    square = difference**2
    return square - jax.lax.stop_gradient(jnp.where(level, square, 0))
