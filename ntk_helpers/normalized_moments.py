r"""Gaussian moments of a nonlinearity with layer normalization.

At infinite width the mean and the variance over the units of a layer are
Gaussian moments of one unit, so that a normalized layer is again a
nonlinearity, one that depends on the variance of its argument.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from .covariance import Covariance, PairMoments, PointMoments
from .duals import FunctionDual, Shifted
from .nonlinearity import Nonlinearity
from .precision import float64, safe_sqrt

Moments = tuple[PointMoments, PointMoments, PairMoments]


def plain_moments(s: Nonlinearity, cov: Covariance) -> Moments:
    """Moments of s(u), of s(v) and of the pair, nothing being normalized."""
    return s.point(cov.xx), s.point(cov.yy), s.pair(cov)


def moments_before(
    s: Nonlinearity, cov: Covariance, epsilon: float
) -> Moments:
    """Moments of u -> s(u/sqrt(q + epsilon)), q the variance of u."""
    x, y = cov.xx + epsilon, cov.yy + epsilon
    unit = cov._replace(xx=cov.xx / x, yy=cov.yy / y)
    point_x, point_y, pair = plain_moments(s, unit)
    slope = pair.slope / (jnp.sqrt(x) * jnp.sqrt(y))
    return (
        point_x._replace(slope=point_x.slope / x),
        point_y._replace(slope=point_y.slope / y),
        pair._replace(slope=slope),
    )


def moments_after(s: Nonlinearity, cov: Covariance, epsilon: float) -> Moments:
    """Moments of u -> (s(u) - E[s(u)])/sqrt(Var[s(u)] + epsilon)."""
    *points, pair = plain_moments(_from_zero(s), cov)
    means = [point.mean for point in points]
    variances = [point.square - point.mean**2 for point in points]
    roots = [safe_sqrt(point.square) for point in points]
    deviations = [safe_sqrt(variance) for variance in variances]
    # 2 (sqrt(Var Var) - sqrt(E E) + mean mean): what centring adds to the
    # gap. The first form is accurate for similar variances.
    near = (roots[0] - roots[1]) ** 2 - (deviations[0] - deviations[1]) ** 2
    near = near - (means[0] - means[1]) ** 2
    product = means[0] * means[1]
    far = 2 * (deviations[0] * deviations[1] - roots[0] * roots[1] + product)
    change = cov.clean(jnp.where(cov.similar, near, far))
    scales = [variance + epsilon for variance in variances]
    scale = safe_sqrt(scales[0]) * safe_sqrt(scales[1])
    gap, cogap = pair.gap + change, pair.cogap + change - 4 * product
    centred = [
        _centred(*several)
        for several in zip(points, variances, scales, strict=True)
    ]
    return *centred, PairMoments(
        jnp.where(gap < 0, 0, gap) / scale,
        jnp.where(cogap < 0, 0, cogap) / scale,
        pair.slope / scale,
    )


def _centred(point: PointMoments, variance, scale) -> PointMoments:
    """Moments of one input; the error grows by what the variance loses."""
    lost = jnp.finfo(variance.dtype).eps * point.square
    error = jnp.maximum(
        jnp.asarray(point.error, variance.dtype),
        lost / jnp.maximum(variance, jnp.finfo(variance.dtype).tiny),
    )
    return PointMoments(
        jnp.zeros_like(variance),
        variance / scale,
        point.slope / scale,
        jax.lax.stop_gradient(error),
    )


def _from_zero(s: Nonlinearity) -> Nonlinearity:
    """s - s(0), whose mean takes few digits of its square, if s is a series.

    In closed form a constant is subtracted from the moments: nothing gained.
    """
    if not isinstance(s.dual_form, FunctionDual):
        return s
    with float64():
        zero = float(s.function(jnp.zeros((), jnp.float64)))
    if not zero or not np.isfinite(zero):
        return s
    function, dual_form = Shifted(s.function, zero), s.dual_form.shifted(zero)
    return replace(s, function=function, dual_form=dual_form)
