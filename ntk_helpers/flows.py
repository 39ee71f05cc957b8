r"""Closed forms of training, one eigendirection at a time.

In a model that is linear in its parameters, training multiplies the residual
along an eigenvector of the kernel by a number r that depends on the *rate*
2 lambda/N of that direction alone, lambda being the eigenvalue. A flow is
this function of the rate. It comes with (1 - r)/rate, which carries what was
learnt to other points, in a form that does not cancel at small rates; and with
the divided differences of both functions,

    g[a, b] = (g(a) - g(b))/(a - b),    g[a, a] = g'(a),

through which a function of a matrix is differentiated, also where
eigenvalues coincide.
"""

from dataclasses import dataclass, fields
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from . import checks

TERMS = 20  # 1/20! is below the rounding of float64


class Factors(NamedTuple):
    """r(rate) and (1 - r(rate))/rate, or derivatives of these two."""

    remaining: jax.Array
    learnt: jax.Array


def _flow(cls):
    """Make ``cls`` a frozen dataclass and a pytree that skips the checks.

    JAX rebuilds a pytree with tangents and placeholders for its leaves.
    """
    cls = dataclass(frozen=True)(cls)
    names = [field.name for field in fields(cls)]

    def rebuilt(_, leaves):
        flow = object.__new__(cls)
        vars(flow).update(zip(names, leaves, strict=True))
        return flow

    jax.tree_util.register_pytree_node(
        cls, lambda flow: ([getattr(flow, n) for n in names], None), rebuilt
    )
    return cls


@_flow
class GradientFlow:
    """Gradient flow up to ``time`` in [0, inf]: r = exp(-time rate).

    A pytree: an array of times goes through ``jax.vmap``. Raises
    ``ValueError`` on a time that is negative or NaN.
    """

    time: float

    def __post_init__(self):
        """Check the time."""
        _check(self.time, "time", "a number >= 0", lambda t: t >= 0)

    @property
    def duration(self):
        """The time of the flow."""
        return self.time

    def factors(self, rate) -> Factors:
        """r and (1 - r)/rate at rates >= 0, of any shape."""
        positive = rate > 0
        exponent = -self.time * jnp.where(positive, rate, 1)
        learnt = -jnp.expm1(exponent) / jnp.where(positive, rate, 1)
        remaining = jnp.where(positive, jnp.exp(exponent), 1)
        return Factors(remaining, jnp.where(positive, learnt, self.time))

    def differences(self, a, b) -> Factors:
        """Divided differences of both factors between rates a and b."""
        a, b = jnp.maximum(a, b), jnp.minimum(a, b)
        low = self.factors(b)
        # Where r is 0 the gap does not matter, but an infinite time does.
        gap = jnp.where(low.remaining > 0, a - b, 1)
        remaining = -low.remaining * self.factors(gap).learnt
        learnt = _learnt_difference(
            a, b, remaining, low.learnt, self.time, lambda _: self.time
        )
        return Factors(remaining, learnt)

    def slopes(self, rate) -> dict[str, Factors]:
        """Derivatives of both factors with respect to the time."""
        remaining = self.factors(rate).remaining
        return {"time": Factors(-rate * remaining, remaining)}


@_flow
class GradientDescent:
    """``steps`` steps of size ``step``: r = (1 - step rate)^steps.

    A pytree. Raises ``ValueError`` unless the step is a positive number and
    ``steps`` an integer >= 0.
    """

    step: float
    steps: int

    def __post_init__(self):
        """Check both fields."""
        _check_step(self.step)
        _check_steps(self.steps)

    @property
    def duration(self):
        """Step size times number of steps, the time of a gradient flow."""
        return self.step * self.steps

    def factors(self, rate) -> Factors:
        """r and (1 - r)/rate at rates >= 0, of any shape."""
        u = self.step * rate
        learnt = self.step * _geometric_sum(u, self.steps)
        return Factors(_power(u, self.steps), learnt)

    def differences(self, a, b) -> Factors:
        """Divided differences of both factors between rates a and b."""
        a, b = jnp.maximum(a, b), jnp.minimum(a, b)
        # x^k - y^k = (x - y) x^{k-1} (1 + q + ... + q^{k-1}), q = y/x.
        swap = jnp.abs(1 - self.step * a) < jnp.abs(1 - self.step * b)
        larger = self.step * jnp.where(swap, b, a)
        gap = self.step * jnp.where(swap, a - b, b - a)
        v = jnp.where(
            larger == 1, 0, gap / jnp.where(larger == 1, 1, 1 - larger)
        )
        power = _power(larger, jnp.maximum(self.steps - 1, 0))
        remaining = -self.step * power * _geometric_sum(v, self.steps)
        learnt = _learnt_difference(
            a,
            b,
            remaining,
            self.factors(b).learnt,
            self.duration,
            lambda m: self.step * (self.steps - m),
        )
        return Factors(remaining, learnt)

    def slopes(self, rate) -> dict[str, Factors]:
        """Derivatives of both factors with respect to the step size."""
        return {"step": _slope_in_step(self, rate)}


@_flow
class Momentum:
    """Heavy ball from rest: Polyak (1964), eq. 9.

    params_{j+1} = params_j - step grad C + momentum (params_j - params_{j-1})
    with params_{-1} = params_0, hence r_{-1} = r_0 = 1 and

        r_{j+1} = (1 + momentum - step rate) r_j - momentum r_{j-1}.

    A pytree. Raises ``ValueError`` unless the step is a positive number, the
    momentum lies in [0, 1) and ``steps`` is an integer >= 0.
    """

    step: float
    momentum: float
    steps: int

    def __post_init__(self):
        """Check the three fields."""
        _check_step(self.step)
        _check(
            self.momentum,
            "momentum",
            "a number in [0, 1)",
            lambda m: (m >= 0) & (m < 1),
        )
        _check_steps(self.steps)

    @property
    def duration(self):
        """The time of the gradient flow that it follows at small rates."""
        return self.step * self.steps / (1 - self.momentum)

    def factors(self, rate) -> Factors:
        """r and (1 - r)/rate at rates >= 0, of any shape."""
        return self._recursion(rate, rate)[0]

    def differences(self, a, b) -> Factors:
        """Divided differences of both factors between rates a and b."""
        return self._recursion(a, b)[1]

    def slopes(self, rate) -> dict[str, Factors]:
        """Derivatives with respect to the step size and the momentum."""

        def factors(momentum):
            return Momentum(self.step, momentum, self.steps).factors(rate)

        momentum = jnp.asarray(self.momentum, rate.dtype)
        one = jnp.ones_like(momentum)
        return {
            "step": _slope_in_step(self, rate),
            "momentum": jax.jvp(factors, (momentum,), (one,))[1],
        }

    def _recursion(self, a, b):
        """Factors at b, and divided differences by the Leibniz rule.

        Each line is the recursion of r with an inhomogeneity of its own; none
        subtracts numbers that are nearly equal.
        """
        at_a, at_b = (1 + self.momentum - self.step * rate for rate in (a, b))

        def advance(_, state):
            last, now = state
            old_r, old_s, old_dr, old_ds = (self.momentum * v for v in last)
            r, s, dr, ds = now
            following = (
                at_b * r - old_r,
                at_b * s - old_s + self.step,
                at_a * dr - old_dr - self.step * r,
                at_a * ds - old_ds - self.step * s,
            )
            return now, following

        zero = jnp.zeros_like(at_a + at_b)
        start = zero + 1, zero, zero, zero
        _, end = jax.lax.fori_loop(0, self.steps, advance, (start, start))
        return Factors(*end[:2]), Factors(*end[2:])


def _power(u, k):
    """(1 - u)^k for u >= 0 and an integer k >= 0."""
    sign = jnp.where((u > 1) & (k % 2 == 1), -1, 1)
    return sign * jnp.exp(k * _log_distance(u))


def _geometric_sum(u, k):
    """(1 - (1 - u)^k)/u = 1 + (1 - u) + ... + (1 - u)^{k-1}, u >= 0."""
    exponent = k * _log_distance(u)
    odd = (u > 1) & (k % 2 == 1)
    total = jnp.where(odd, 1 + jnp.exp(exponent), -jnp.expm1(exponent))
    return jnp.where(u == 0, k, total / jnp.where(u == 0, 1, u))


def _log_distance(u):
    """log|1 - u|, accurate near u = 0 and 2; -1e4 for -inf at u = 1."""
    inside = u < 1
    near_0 = jnp.log1p(-jnp.where(inside, u, 0))
    near_2 = jnp.log1p(jnp.where(u > 1, u - 2, 0))
    return jnp.where(u == 1, -1e4, jnp.where(inside, near_0, near_2))


def _slope_in_step(flow, rate) -> Factors:
    """Derivatives in the step size; r depends on step * rate alone."""
    slope = flow.differences(rate, rate).remaining / flow.step
    return Factors(rate * slope, -slope)


def _learnt_difference(high, low, remaining, learnt, total, ratio):
    r"""s[high, low] of s = (1 - r)/rate, from r[high, low] and s(low).

    rate s(rate) = 1 - r(rate) gives high s[high, low] + s(low) = -r[high,
    low]. That cancels where total * high is small, total = s(0); there the
    power series s(a) = sum_m c_m a^m, c_m = -c_{m-1} ratio(m)/(m + 1), gives
    s[a, b] = sum_m c_m (a^{m-1} + a^{m-2} b + ... + b^{m-1}).
    """
    small = total * high < 1
    quotient = -(learnt + remaining) / jnp.where(small, 1, high)
    a, b = (jnp.where(small, rate, 0) for rate in (high, low))
    finite = jnp.where(small, total, 0)

    def add(m, state):
        coefficient, power, powers, series = state
        coefficient = -coefficient * ratio(m) / (m + 1)
        series = series + coefficient * powers
        power = power * b
        return coefficient, power, powers * a + power, series

    one = jnp.ones_like(a)
    start = finite, one, one, jnp.zeros_like(a)
    series = jax.lax.fori_loop(1, TERMS, add, start)[-1]
    return jnp.where(small, series, quotient)


def _check_step(step):
    _check(
        step,
        "step",
        "a positive number",
        lambda s: (s > 0) & (s < np.inf),
    )


def _check_steps(steps):
    largest = np.iinfo(jax.dtypes.canonicalize_dtype(int)).max
    _check(
        steps,
        "steps",
        f"an integer from 0 to {largest}",
        lambda k: (
            np.issubdtype(k.dtype, np.integer) & (k >= 0) & (k <= largest)
        ),
    )


def _check(value, name, expected, valid):
    """Raise ``ValueError`` unless every entry of ``value`` is valid."""
    if not checks.is_concrete(value):
        return
    try:
        accepted = bool(np.all(valid(np.asarray(value))))
    except (TypeError, AttributeError):
        accepted = False
    if not accepted:
        raise ValueError(f"{name} must be {expected}, got {value}")
