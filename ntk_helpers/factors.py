r"""Factors of training as numbers: sums and differences that do not cancel.

Rates span many orders of magnitude and numbers of steps are large, so that
textbook forms such as (1 - (1 - u)^k)/u lose all their digits at one end.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

TERMS = 20  # 1/20! is below the rounding of float64


class Factors(NamedTuple):
    """d(rate), the decay, and (1 - d(rate))/rate, or their derivatives."""

    remaining: jax.Array
    learnt: jax.Array


def power(u, k):
    """(1 - u)^k for u >= 0 and an integer k >= 0."""
    sign = jnp.where((u > 1) & (k % 2 == 1), -1, 1)
    return sign * jnp.exp(k * _log_distance(u))


def geometric_sum(u, k):
    """(1 - (1 - u)^k)/u = 1 + (1 - u) + ... + (1 - u)^{k-1}, u >= 0."""
    exponent = k * _log_distance(u)
    odd = (u > 1) & (k % 2 == 1)
    total = jnp.where(odd, 1 + jnp.exp(exponent), -jnp.expm1(exponent))
    return jnp.where(u == 0, k, total / jnp.where(u == 0, 1, u))


def learnt_difference(high, low, remaining, learnt, total, ratio):
    r"""s[high, low] of s = (1 - d)/rate, from d[high, low] and s(low).

    rate s(rate) = 1 - d(rate) gives high s[high, low] + s(low) = -d[high,
    low]. That cancels where total * high is small, total = s(0). There, with
    u = total * rate, the power series s = total * sum_m c_m u^m, c_0 = 1 and
    c_m = -c_{m-1} ratio(m)/(m + 1), gives

        s[a, b] = total^2 sum_m c_m (u_a^{m-1} + u_a^{m-2} u_b + ...).
    """
    small = total * high < 1
    quotient = -(learnt + remaining) / jnp.where(small, 1, high)
    finite = jnp.where(small, total, 0)
    a, b = finite * high, finite * low

    def add(m, state):
        coefficient, last, powers, series = state
        coefficient = -coefficient * ratio(m) / (m + 1)
        series = series + coefficient * powers
        last = last * b
        return coefficient, last, powers * a + last, series

    one = jnp.ones_like(a)
    series = jax.lax.fori_loop(1, TERMS, add, (one, one, one, 0 * one))[-1]
    return jnp.where(small, finite**2 * series, quotient)


def _log_distance(u):
    """log|1 - u|, accurate near u = 0 and 2; -1e4 for -inf at u = 1."""
    inside = u < 1
    near_0 = jnp.log1p(-jnp.where(inside, u, 0))
    near_2 = jnp.log1p(jnp.where(u > 1, u - 2, 0))
    return jnp.where(u == 1, -1e4, jnp.where(inside, near_0, near_2))
