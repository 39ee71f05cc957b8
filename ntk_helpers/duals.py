r"""What every dual activation has in common.

A dual gives the Gaussian moments of a nonlinearity: ``point(k)`` those of one
input of variance k, ``pair(cov)`` those of two. How they are computed (closed
form, series, quadrature) is the business of the subclasses; subtracting a
constant from the nonlinearity is the same for all of them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from .covariance import Covariance, PairMoments
from .precision import safe_sqrt


def derivative(function: Callable, u):
    """Derivative of a function that acts entry by entry."""
    return jax.jvp(function, (u,), (jnp.ones_like(u),))[1]


@dataclass(frozen=True)
class Shifted:
    """The function u -> function(u) - shift, comparable and hashable."""

    function: Callable
    shift: float

    def __call__(self, u):
        """function(u) - shift."""
        return self.function(u) - self.shift


class Dual:
    """Base of all duals; subclasses define ``point`` and ``pair``."""

    def squares(self, cov: Covariance):
        """E[s(u)^2] and E[s(v)^2]."""
        return self.point(cov.xx).square, self.point(cov.yy).square

    def shifted(self, shift: float) -> "Dual":
        """The dual of s - shift."""
        return ShiftedDual(self, shift)

    def of_derivative(self) -> "Dual":
        """The dual of s', for moments of s' beyond E[s'(u)s'(v)]."""
        raise NotImplementedError

    def refined(self) -> "Dual | None":
        """A dual accurate at larger variances, or None."""
        return None


class FunctionDual(Dual):
    """Base of the duals that are dataclasses with a field ``function``."""

    def shifted(self, shift: float) -> "Dual":
        """The dual of s - shift: the same rule for another function."""
        return replace(self, function=Shifted(self.function, shift))

    def of_derivative(self) -> "Dual":
        """The dual of s': the same rule for the derivative."""
        return replace(self, function=Derivative(self.function))


@dataclass(frozen=True)
class Derivative:
    """The function u -> function'(u), comparable and hashable."""

    function: Callable

    def __call__(self, u):
        """function'(u)."""
        return derivative(self.function, u)


@dataclass(frozen=True)
class ShiftedDual(Dual):
    """Dual of s - shift from the dual of s.

    E[(s(u) - shift)^2] = E[s(u)^2] - 2 shift E[s(u)] + shift^2, while
    E[(s(u) - s(v))^2], which determines the gap, does not change.
    """

    dual: Dual
    shift: float

    def of_derivative(self) -> Dual:
        """The dual of s', which knows no shift."""
        return self.dual.of_derivative()

    def point(self, k):
        """Moments of one input of variance ``k``."""
        raw = self.dual.point(k)
        square = raw.square + self.shift * (self.shift - 2 * raw.mean)
        return raw._replace(mean=raw.mean - self.shift, square=square)

    def pair(self, cov: Covariance):
        """Moments of a pair."""
        raw = self.dual.pair(cov)
        points = [[d.point(k) for k in cov[:2]] for d in (self.dual, self)]
        before, after = (
            [safe_sqrt(point.square) for point in pair] for pair in points
        )
        means = points[0][0].mean + points[0][1].mean
        near = (before[0] - before[1]) ** 2 - (after[0] - after[1]) ** 2
        far = 2 * (after[0] * after[1] - before[0] * before[1])
        far = far + 2 * self.shift * (means - self.shift)
        # The same number twice: the first form is accurate for similar
        # variances, the second for variances of different orders.
        gap = raw.gap + cov.clean(jnp.where(cov.similar, near, far))
        return PairMoments(gap, 4 * after[0] * after[1] - gap, raw.slope)


def gap_of(cov: Covariance, square_x, square_y, collinear, drop):
    """The gap 2 (sqrt(Kxx Kyy) - Kxy) from its two parts.

    With m = sqrt(kxx kyy) it is 2 (sqrt(Kxx Kyy) - K(m)) + 2 (K(m) - K(m c)),
    c = cos(theta). The first part vanishes at equal variances; ``drop``, the
    second, is to keep its relative accuracy as theta -> 0.
    """
    offset = safe_sqrt(square_x) * safe_sqrt(square_y) - collinear
    return 2 * cov.clean(offset) + 2 * drop
