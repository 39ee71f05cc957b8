r"""The normalized NTK as the depth grows, accurate at any depth.

theta_l = Theta^(l)(x, y)/Theta^(l)(x, x) on the sphere. In the chaos Theta
itself overflows near L = 2700/r; in the freeze 1 - theta_l drops below the
rounding of theta_l after some ten layers. So the ratio is carried, and its
complement beside it.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from . import checks
from .covariance import Covariance, affine
from .nonlinearity import Nonlinearity


class DepthProfile(NamedTuple):
    """theta_1, ..., theta_L and the same of 1 - theta, shape (L, ...)."""

    theta: jax.Array
    complement: jax.Array


def depth_profile(
    nonlinearity: Nonlinearity, beta: float, cosine, depth: int
) -> DepthProfile:
    r"""Theta^(l)(x, y)/Theta^(l)(x, x) for l = 1, ..., ``depth``.

    For x, y on the sphere of radius sqrt(n_0) with x.y/n_0 = ``cosine`` in
    [-1, 1], any shape, and s standardized. With the correlation c of layer l,
    D(c) = (1-beta^2) E[s'(u)s'(v)], r = D(1) and a = 1/Theta^(l)(x, x),

        theta' = (a c' + D(c) theta)/(a + r)
        1 - theta' = (a (1-c') + r - D(c) + D(c) (1 - theta))/(a + r)
        a' = a/(a + r),

    where c' = g(c). Each difference is a gap that the dual gives without
    cancellation, so that both results keep their relative accuracy where
    they are small. Raises ``ValueError`` on a cosine outside [-1, 1].
    """
    beta = checks.unit_interval(beta, "beta")
    depth = checks.positive_integer(depth, "depth")
    cosine = checks.finite(checks.floating(cosine), "cosine")
    if checks.is_concrete(cosine) and (jnp.abs(cosine) > 1).any():
        raise ValueError(
            "cosine must lie in [-1, 1], got values from "
            f"{cosine.min():.6g} to {cosine.max():.6g}"
        )
    s = nonlinearity.standardized()
    slopes = s.differentiated()
    # The series of s' may need more terms than that of s.
    slopes = slopes.resolved(slopes.point(jnp.ones((1,), cosine.dtype)).error)
    return _profile(s, slopes, depth, beta, cosine)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _profile(s: Nonlinearity, slopes: Nonlinearity, depth, beta, cosine):
    weight, one = 1 - beta**2, jnp.ones_like(cosine)
    point = s.point(one)
    r = weight * point.slope
    half = (1 - cosine) / 2
    identity = Covariance(one, one, half, 1 - half).as_moments()
    start = affine(*identity, beta)

    def layer(state, _):
        sin2, cos2, inverse, theta, complement = state
        cov = Covariance(one, one, sin2, cos2)
        pair = s.pair(cov)
        slope, drop = weight * pair.slope, weight * slopes.pair(cov).gap / 2
        after = affine(point, point, pair, beta)
        total = inverse + r
        theta = inverse * (after.cos2 - after.sin2) + slope * theta
        rest = inverse * 2 * after.sin2 + drop + slope * complement
        new = (inverse / total, theta / total, rest / total)
        return (after.sin2, after.cos2, *new), DepthProfile(*new[1:])

    first = DepthProfile(start.cos2 - start.sin2, 2 * start.sin2)
    state = (start.sin2, start.cos2, one, *first)
    _, rest = jax.lax.scan(layer, state, length=depth - 1)
    return jax.tree.map(
        lambda head, tail: jnp.concatenate([head[None], tail]), first, rest
    )
