r"""Closed forms of training, one eigendirection at a time.

In a model that is linear in its parameters, training multiplies the residual
along an eigenvector of the kernel by a *decay* d that depends on the *rate*
2 lambda/N of that direction alone, lambda being the eigenvalue. A flow is
this function of the rate. It comes with (1 - d)/rate, which carries what was
learnt to other points, in a form that does not cancel at small rates; and with
the divided differences of both functions,

    g[a, b] = (g(a) - g(b))/(a - b),    g[a, a] = g'(a),

through which a function of a matrix is differentiated, also where
eigenvalues coincide.
"""

from dataclasses import dataclass, fields, replace

import jax
import jax.numpy as jnp
import numpy as np

from . import checks
from .factors import Factors, geometric_sum, learnt_difference, power


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
    """Gradient flow up to ``time`` in [0, inf]: d = exp(-time rate).

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
        """d and (1 - d)/rate at rates >= 0, of any shape."""
        positive = rate > 0
        exponent = -self.time * jnp.where(positive, rate, 1)
        learnt = -jnp.expm1(exponent) / jnp.where(positive, rate, 1)
        remaining = jnp.where(positive, jnp.exp(exponent), 1)
        return Factors(remaining, jnp.where(positive, learnt, self.time))

    def differences(self, a, b) -> Factors:
        """Divided differences of both factors between rates a and b."""
        a, b = jnp.maximum(a, b), jnp.minimum(a, b)
        low = self.factors(b)
        # Where d is 0 the gap does not matter, but an infinite time does.
        gap = jnp.where(low.remaining > 0, a - b, 1)
        remaining = -low.remaining * self.factors(gap).learnt
        learnt = learnt_difference(
            a, b, remaining, low.learnt, self.time, lambda _: 1
        )
        return Factors(remaining, learnt)

    def slopes(self, rate) -> dict[str, Factors]:
        """Derivatives of both factors with respect to the time."""
        remaining = self.factors(rate).remaining
        return {"time": Factors(-rate * remaining, remaining)}


@_flow
class GradientDescent:
    """``steps`` steps of size ``step``: d = (1 - step rate)^steps.

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
        """d and (1 - d)/rate at rates >= 0, of any shape."""
        u = self.step * rate
        learnt = self.step * geometric_sum(u, self.steps)
        return Factors(power(u, self.steps), learnt)

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
        first = power(larger, jnp.maximum(self.steps - 1, 0))
        remaining = -self.step * first * geometric_sum(v, self.steps)
        learnt = learnt_difference(
            a,
            b,
            remaining,
            self.factors(b).learnt,
            self.duration,
            lambda m: 1 - m / jnp.maximum(self.steps, 1),
        )
        return Factors(remaining, learnt)

    def slopes(self, rate) -> dict[str, Factors]:
        """Derivatives of both factors with respect to the step size."""
        return {"step": _slope_in_step(self, rate)}


@_flow
class Momentum:
    """Heavy ball, started at rest. Source: Polyak (1964).

    params_{j+1} = params_j - step grad C + momentum (params_j - params_{j-1})
    with params_{-1} = params_0, hence d_{-1} = d_0 = 1 and

        d_{j+1} = d_j - step rate d_j + momentum (d_j - d_{j-1}).

    Rounding adds up to at most steps eps. A pytree. Raises ``ValueError``
    unless the step is a positive number, the momentum lies in [0, 1) and
    ``steps`` is an integer >= 0.
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
        """d and (1 - d)/rate at rates >= 0, of any shape."""
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

        In the form of a velocity, which does not move at rate 0; no quotient
        of a difference is formed.
        """

        def advance(_, state):
            (d, s, slope_d, slope_s), velocity = state
            force = -b * d, d, -a * slope_d - d, -a * slope_s - s
            velocity = tuple(
                self.momentum * v + self.step * f
                for v, f in zip(velocity, force, strict=True)
            )
            now = tuple(map(jnp.add, state[0], velocity))
            return now, velocity

        zero = 0 * (a + b)
        start = (zero + 1, zero, zero, zero), (zero,) * 4
        end, _ = jax.lax.fori_loop(0, self.steps, advance, start)
        return Factors(*end[:2]), Factors(*end[2:])


def cast(flow, dtype):
    """``flow`` with its real numbers in ``dtype``, whatever they came in."""
    return replace(
        flow,
        **{
            name: jnp.asarray(value, int if name == "steps" else dtype)
            for name, value in vars(flow).items()
        },
    )


def _slope_in_step(flow, rate) -> Factors:
    """Derivatives in the step size; d depends on step * rate alone."""
    slope = flow.differences(rate, rate).remaining / flow.step
    return Factors(rate * slope, -slope)


def _check_step(step):
    _check(step, "step", "a positive number", lambda s: (0 < s) & (s < np.inf))


def _check_steps(steps):
    largest = jnp.iinfo(jnp.result_type(int)).max

    def valid(k):
        return np.issubdtype(k.dtype, np.integer) & (0 <= k) & (k <= largest)

    _check(steps, "steps", f"an integer from 0 to {largest}", valid)


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
