r"""Dual activations of smooth functions by Hermite series.

With h_k the Hermite polynomials normalised in L^2(N(0, 1)) and
a_k(q) = E[s(sqrt(q) z) h_k(z)], Mehler's formula gives, for variances kxx,
kyy and correlation c (Daniely, Frostig and Singer 2016, section 4.2, for unit
variance),

    E[s(u)s(v)] = sum_k a_k(kxx) a_k(kyy) c^k,

so the coefficients are computed once per input, not once per pair. They fall
exponentially in sqrt(k) for functions analytic in a strip and only like a
power of k for functions with a kink; the difference between E[s'(u)^2] and
the partial sum measures what was cut off.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from math import factorial, sqrt

import jax
import jax.numpy as jnp
import numpy as np

from .covariance import Covariance, PairMoments, PointMoments
from .duals import Dual, FunctionDual, derivative
from .precision import float64, matmul, safe_sqrt

STEP = 0.04
NODES = STEP * np.arange(-312, 313)
EDGE = 25  # nodes on a unit of length
ORDERS = (16, 32, 64, 96, 128, 192, 256, 512, 1024)
TOLERANCE = 1e-12


@lru_cache(maxsize=16)
def table(order: int):
    """Weights on NODES of E[g(z)], (Q,), and E[g(z) h_k(z)], (Q, order).

    The trapezoidal rule on [-12.5, 12.5]: for a function analytic in a strip
    of half-width d around the real axis its error is of the order of
    exp(-2 pi d / STEP), far below that of a Gauss rule of equal size.
    """
    nodes = NODES
    root = np.exp(-(nodes**2) / 4) / (2 * np.pi) ** 0.25
    waves = np.empty((order, nodes.size))  # h_k(z) sqrt(density): bounded
    waves[0] = root
    waves[1] = nodes * root
    for k in range(2, order):
        waves[k] = nodes * waves[k - 1] - np.sqrt(k - 1) * waves[k - 2]
        waves[k] /= np.sqrt(k)
    return STEP * root**2, STEP * (waves * root).T


def _horner(a, b, c):
    """p(c) and (p(1) - p(c)) / (1 - c) for p(c) = sum_k a_k b_k c^k.

    ``a`` and ``b`` hold coefficients along their last axis; both results come
    from one pass of Horner's rule.
    """
    shape = jnp.broadcast_shapes(a.shape[:-1], b.shape[:-1], c.shape)
    zero = jnp.zeros(shape, jnp.result_type(a, b, c))

    def step(state, coefficients):
        value, tail, drop = state
        a_k, b_k = coefficients
        # drop gathers sum_{k > j} a_k b_k as the coefficient of c^j.
        drop = drop * c + tail
        product = a_k * b_k
        return (value * c + product, tail + product, drop), None

    coefficients = jnp.moveaxis(a, -1, 0), jnp.moveaxis(b, -1, 0)
    (value, _, drop), _ = jax.lax.scan(
        step, (zero, zero, zero), coefficients, reverse=True, unroll=8
    )
    return value, drop


class MehlerPair(Dual):
    """What any dual given by Hermite coefficients shares: its pair moments.

    Subclasses give ``coefficients(k)``: those of s and of s' at variance k.
    """

    def pair(self, cov: Covariance):
        """Moments of a pair, by Horner's rule in the correlation."""
        a_x, b_x = self.coefficients(cov.xx)
        a_y, b_y = self.coefficients(cov.yy)
        c = cov.cos2 - cov.sin2
        value, drop = _horner(a_x, a_y, c)
        root_x = safe_sqrt(jnp.sum(a_x**2, axis=-1))
        root_y = safe_sqrt(jnp.sum(a_y**2, axis=-1))
        near = jnp.sum((a_x - a_y) ** 2, axis=-1) - (root_x - root_y) ** 2
        far = 2 * (root_x * root_y - jnp.sum(a_x * a_y, axis=-1))
        spread = jnp.where(cov.similar, near, far)
        return PairMoments(
            gap=cov.clean(spread) + 4 * cov.sin2 * drop,
            cogap=2 * (root_x * root_y + value),
            slope=_horner(b_x, b_y, c)[0],
        )


@dataclass(frozen=True)
class HermiteSeries(MehlerPair, FunctionDual):
    """Dual of a smooth ``function`` from ``order`` Hermite coefficients."""

    function: Callable
    order: int

    @classmethod
    def resolve(cls, function: Callable) -> "HermiteSeries":
        """The shortest series that resolves ``function`` at variance 1.

        That is, whose sum for E[s'(z)^2] misses a share of 1e-12 at most.
        Raises ``ValueError`` where 1024 terms do not do it: the function has a
        kink, a jump, or a slope too steep for a series.
        """
        with float64():
            series = cls(function, ORDERS[0])
            sides = [np.asarray(side) for side in _sampled(series)]
        for order in ORDERS:
            weights, project = table(order)
            error = 0.0
            for values in sides:
                total, lost = _mass(values, values @ project, weights)
                error = np.maximum(error, lost / (total or 1))
            if error < TOLERANCE:  # false for NaN
                return replace(series, order=order)
        raise ValueError(
            f"{order} Hermite terms leave a relative error of {error:.1e} in "
            f"E[s'(z)^2], expected below {TOLERANCE}: the function is not "
            "smooth, or too steep. Name the points where it or a derivative "
            "is not smooth, for example kinks=(0.0,)"
        )

    def refined(self) -> "HermiteSeries | None":
        """The series of twice the order, None beyond 1024 terms."""
        order = 2 * self.order
        return replace(self, order=order) if order <= ORDERS[-1] else None

    def coefficients(self, k):
        """a_j(k) = E[s(sqrt(k) z) h_j(z)] and the same of s', (..., K)."""
        _, project = table(self.order)
        project = jnp.asarray(project, k.dtype)
        return [matmul(values, project) for values in self._values(k)]

    def point(self, k):
        """Moments of one input of variance ``k`` and what the series cut."""
        weights = jnp.asarray(table(self.order)[0], k.dtype)
        coefficients = self.coefficients(k)
        whole, error = [], jnp.zeros_like(k)
        for a, values in zip(coefficients, self._values(k), strict=True):
            total, lost = _mass(values, a, weights)
            error = jnp.maximum(error, lost / jnp.where(total > 0, total, 1))
            whole.append(total)
        error = jnp.where(jnp.isnan(error), jnp.inf, error)
        mean = coefficients[0][..., 0]
        return PointMoments(mean, *whole, jax.lax.stop_gradient(error))

    def _values(self, k):
        points = safe_sqrt(k)[..., None] * jnp.asarray(NODES, k.dtype)
        return self.function(points), derivative(self.function, points)


@partial(jax.jit, static_argnums=0)
def _sampled(series: HermiteSeries):
    """s and s' at the nodes."""
    return series._values(jnp.ones(()))


def _mass(values, coefficients, weights):
    """E[s^2], and how much of it the series and the nodes may miss."""
    mass = weights * values**2
    total = mass.sum(-1)
    # Beyond the nodes: less than on the last unit of length, if it is finite.
    ends = mass[..., :EDGE].sum(-1) + mass[..., -EDGE:].sum(-1)
    return total, abs(total - (coefficients**2).sum(-1)) + ends


@dataclass(frozen=True)
class Monomial(MehlerPair):
    """factor u^p; its series is finite: a_j = factor k^{p/2} E[z^p h_j]."""

    power: int
    factor: float = 1.0

    def of_derivative(self) -> "Monomial":
        """The dual of factor p u^(p-1)."""
        return Monomial(max(self.power - 1, 0), self.factor * self.power)

    def coefficients(self, k):
        """a_j(k) of factor u^p and of its derivative, j <= p."""
        p, root = self.power, safe_sqrt(k)[..., None]
        lower = max(p - 1, 0)
        value = np.array([_monomial_coefficient(p, j) for j in range(p + 1)])
        slope = np.array(
            [_monomial_coefficient(lower, j) for j in range(lower + 1)]
        )
        value, slope = (jnp.asarray(a, k.dtype) for a in (value, slope))
        front = self.factor, self.factor * p
        return front[0] * root**p * value, front[1] * root**lower * slope

    def point(self, k):
        """Moments of one input of variance ``k``."""
        a, b = self.coefficients(k)
        sums = jnp.sum(a**2, axis=-1), jnp.sum(b**2, axis=-1)
        return PointMoments(a[..., 0], *sums)


def _monomial_coefficient(p: int, j: int) -> float:
    """E[z^p h_j(z)] = p! / (2^i i! sqrt(j!)) with i = (p - j)/2, or 0."""
    i, odd = divmod(p - j, 2)
    return (
        0.0
        if odd
        else factorial(p) / (2**i * factorial(i) * sqrt(factorial(j)))
    )
