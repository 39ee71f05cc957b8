r"""Dual activations of functions with kinks, by quadrature split at the kinks.

A product rule or a Hermite series sees a kink only through slowly decaying
errors. Here the plane of (z_1, z_2), with u = sqrt(kxx) z_1 and
v = sqrt(kyy) (c z_1 + sqrt(1 - c^2) z_2), is cut along every line on which u
or v meets a kink, and each piece gets a Gauss-Legendre rule of its own. The
result is right for every covariance, at about 4 10^4 evaluations a pair: meant
for a hundred points, or for functions no series resolves.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from .covariance import Covariance, PairMoments, PointMoments
from .duals import FunctionDual, derivative
from .precision import float64, safe_sqrt

REACH = 9.0  # the normal density is below 1e-18 of its peak beyond
# Odd numbers on purpose: a kink that is not named must not sit on a cut.
CUTS = (-REACH, -5.27, -3.31, -1.91, -0.73, 0.73, 1.91, 3.31, 5.27, REACH)
LAYERS = (-6.0, -2.0, 0.0, 2.0, 6.0)
NODES = 16
TOLERANCE = 1e-9


def _rule(cuts, count: int = NODES):
    """Nodes and weights of E[g(z)], Gauss-Legendre between sorted cuts."""
    t, w = np.polynomial.legendre.leggauss(count)
    cuts = jnp.sort(jnp.clip(cuts, -REACH, REACH), axis=-1)
    low, length = cuts[..., :-1, None], jnp.diff(cuts)[..., None]
    nodes = low + length * (jnp.asarray(t, cuts.dtype) + 1) / 2
    weights = length * jnp.asarray(w / 2, cuts.dtype)
    weights = weights * jnp.exp(-(nodes**2) / 2) / (2 * np.pi) ** 0.5
    shape = (*nodes.shape[:-2], -1)
    return nodes.reshape(shape), weights.reshape(shape)


def _divide(numerator, denominator):
    """Quotient, with a tiny number instead of a denominator below it."""
    tiny = 1e-12
    return numerator / jnp.where(denominator > tiny, denominator, tiny)


@dataclass(frozen=True)
class SplitQuadrature(FunctionDual):
    """Dual of a continuous ``function`` that is smooth between ``kinks``."""

    function: Callable
    kinks: tuple[float, ...]

    @classmethod
    def resolve(cls, function: Callable, kinks) -> "SplitQuadrature":
        """The rule for ``function``; ``ValueError`` where it would be wrong.

        That is where the function jumps (E[s'(u)s'(v)] then has no meaning),
        and where a rule with four nodes fewer disagrees by more than 1e-9.
        """
        dual = cls(function, tuple(float(kink) for kink in kinks))
        value, slope, point = map(
            jax.jit, (function, partial(derivative, function), dual.point)
        )
        with float64():
            for kink in dual.kinks:
                ends = np.array([kink - 1e-9, kink + 1e-9])
                low, high = np.asarray(value(ends))
                if not abs(high - low) < 1e-6:
                    raise ValueError(
                        f"the function must be continuous, got a jump from "
                        f"{low:.6g} to {high:.6g} at {kink:.6g}"
                    )
                for side in (-1, 1):
                    near = kink + side * np.array([1e-9, 1e-6, 1e-4])
                    slopes = np.asarray(slope(near))
                    if not np.ptp(slopes) < 0.05 * (1 + abs(slopes).max()):
                        raise ValueError(
                            f"splitting at kinks={dual.kinks} leaves a kink "
                            f"beside {kink:.6g}: a kink is missing, or not "
                            "exact"
                        )
            error = float(point(np.ones(1)).error[0])
        if not error < TOLERANCE:
            raise ValueError(
                f"splitting at kinks={dual.kinks} leaves a relative error of "
                f"{error:.1e}, expected below {TOLERANCE}: a kink is missing, "
                "or the function is too steep; add points to kinks"
            )
        return dual

    def point(self, k):
        """Moments of one input of variance ``k``; error against 12 nodes."""
        fine, coarse = self._point(k, NODES), self._point(k, NODES - 4)
        # E[s] and E[s'] see a kink that their squares may not.
        sizes = [jnp.sqrt(fine[1]), fine[1], fine[2], jnp.sqrt(fine[2])]
        error = jnp.zeros_like(k)
        for a, b, size in zip(fine, coarse, sizes, strict=True):
            relative = jnp.abs(a - b) / jnp.where(size > 0, size, 1)
            error = jnp.maximum(error, relative)
        error = jnp.where(jnp.isnan(error), jnp.inf, error)
        return PointMoments(*fine[:3], jax.lax.stop_gradient(error))

    def pair(self, cov: Covariance):
        """Moments of a pair, 64 pairs at a time."""
        full = jnp.broadcast_arrays(*cov)
        flat = Covariance(*(entry.ravel() for entry in full))
        results = jax.lax.map(jax.checkpoint(self._pair), flat, batch_size=64)
        return PairMoments(*(r.reshape(full[0].shape) for r in results))

    def _point(self, k, count):
        root = safe_sqrt(k)[..., None]
        cuts = _divide(jnp.asarray(self.kinks, k.dtype), root)
        fixed = jnp.broadcast_to(
            jnp.asarray(CUTS, k.dtype), (*k.shape, len(CUTS))
        )
        nodes, weights = _rule(jnp.concatenate([fixed, cuts], -1), count)
        value = self.function(root * nodes)
        slope = derivative(self.function, root * nodes)
        moments = value, value**2, slope**2, slope
        return [jnp.sum(weights * g, axis=-1) for g in moments]

    def _pair(self, cov: Covariance):
        a, b = safe_sqrt(cov.xx), safe_sqrt(cov.yy)
        cosine = cov.cos2 - cov.sin2
        sine = 2 * safe_sqrt(cov.sin2) * safe_sqrt(cov.cos2)
        kinks = jnp.asarray(self.kinks, a.dtype)
        fixed = jnp.asarray(CUTS, a.dtype)
        # The inner integral changes over a distance sine / |cosine| around
        # the z_1 at which v meets a kink: cuts there on that scale too.
        centre = _divide(jnp.sign(cosine) * kinks, b * jnp.abs(cosine))
        width = _divide(sine, jnp.abs(cosine))
        layers = centre[:, None] + width * jnp.asarray(LAYERS, a.dtype)
        outer, outer_weights = _rule(
            jnp.concatenate([fixed, _divide(kinks, a), layers.ravel()])
        )
        crossing = _divide(kinks, b) - cosine * outer[:, None]
        inner_cuts = jnp.concatenate(
            [
                jnp.broadcast_to(fixed, (outer.size, fixed.size)),
                _divide(crossing, sine),
            ],
            axis=-1,
        )
        inner, inner_weights = _rule(inner_cuts)
        u = a * outer[:, None]
        # u - v without cancellation: 1 - cosine = 2 sin^2(theta/2).
        v = u - (
            (a - b + 2 * b * cov.sin2) * outer[:, None] - b * sine * inner
        )
        weights = outer_weights[:, None] * inner_weights
        f, g = self.function(u), self.function(v)
        distance = jnp.sum(weights * (f - g) ** 2)
        slope = jnp.sum(
            weights
            * derivative(self.function, u)
            * derivative(self.function, v)
        )
        square_x, square_y = (
            self._point(k[None], NODES)[1][0] for k in (cov.xx, cov.yy)
        )
        roots = safe_sqrt(square_x), safe_sqrt(square_y)
        gap = distance - (roots[0] - roots[1]) ** 2
        return PairMoments(gap, 4 * roots[0] * roots[1] - gap, slope)
