r"""A nonlinearity: the function a finite network applies, and its dual.

The finite network needs s itself, the infinite-width limit only the Gaussian
moments of s. Keeping both in one object is what lets one architecture have
two views. A factor in front is kept apart from the function, so that
standardizing and normalizing keep the closed form of the dual.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from . import checks
from .covariance import Covariance, PairMoments, PointMoments
from .duals import Derivative, Dual, Shifted, derivative
from .hermite import HermiteSeries
from .panels import SplitQuadrature
from .precision import float64


class Moments(NamedTuple):
    """Moments at z ~ N(0, 1), computed in float64.

    mean = E[s(z)], square = E[s(z)^2], slope = E[s'(z)^2].
    """

    mean: float
    square: float
    slope: float


@dataclass(frozen=True)
class Nonlinearity:
    r"""s(u) = scale * function(u) with the dual activation of ``function``.

    Call it on an array to apply it entry by entry. Build one with
    :meth:`from_function`, or take one of the package's, such as
    ``ntk_helpers.relu``.
    """

    name: str = field(compare=False)
    function: Callable
    dual_form: Dual
    scale: float = 1.0

    @classmethod
    def from_function(
        cls, function: Callable, kinks=(), name: str | None = None
    ) -> "Nonlinearity":
        """Nonlinearity of any elementwise JAX function of one real variable.

        A smooth function gets a Hermite series with the number of terms it
        needs: in float64 the relative error of E[s'(z)^2] is below 1e-12 at
        variance 1 and, with more terms where needed, below 1e-9 at others.
        One that is only piecewise smooth needs ``kinks``, the points where it
        or a derivative breaks; its dual is a quadrature split there (1e-9).

        Raises ``ValueError`` if the function is not elementwise, not finite,
        or not resolved: a kink that is not named is an error, never a wrong
        number.
        """
        name = name or getattr(function, "__name__", "nonlinearity")
        kinks = np.ravel(checks.finite(np.asarray(kinks, float), "kinks"))
        with float64():
            grid = jnp.linspace(-3, 3, 7)
            try:
                compiled = jax.jit(lambda u: function(u))
                values = compiled(grid)
            except jax.errors.TracerArrayConversionError:
                raise ValueError(
                    f"{name} must be a JAX function, got one that needs NumPy "
                    "arrays: write it with jax.numpy"
                ) from None
            if values.dtype != grid.dtype:
                raise ValueError(
                    f"{name} must keep the dtype, expected {grid.dtype}, got "
                    f"{values.dtype}"
                )
            if values.shape != grid.shape:
                raise ValueError(
                    f"{name} must act entry by entry: expected shape "
                    f"{grid.shape}, got {values.shape}"
                )
            checks.finite(values, f"{name} on [-3, 3]")
            alone = [compiled(z)[0] for z in np.asarray(grid)[[0, 6], None]]
            if not np.allclose(alone, np.asarray(values)[[0, 6]]):
                raise ValueError(
                    f"{name} must act entry by entry: expected the same value "
                    "at a point whatever the others, got another"
                )
        if kinks.size:
            dual_form = SplitQuadrature.resolve(function, kinks)
            return cls(name, function, dual_form)
        return cls(name, function, HermiteSeries.resolve(function))

    def __call__(self, u):
        """s(u), entry by entry."""
        return self.scale * self.function(checks.floating(u))

    def derivative(self, u):
        """s'(u), entry by entry."""
        return self.scale * derivative(self.function, checks.floating(u))

    def differentiated(self) -> "Nonlinearity":
        """The nonlinearity s': its moments are those of s''s derivative.

        Where s has kinks, s' jumps and E[s''(u)s''(v)] has no meaning.
        """
        return replace(
            self,
            name=f"derivative of {self.name}",
            function=Derivative(self.function),
            dual_form=self.dual_form.of_derivative(),
        )

    def __repr__(self):
        return f"Nonlinearity({self.name})"

    @cached_property
    def moments(self) -> Moments:
        """E[s(z)], E[s(z)^2] and E[s'(z)^2], z ~ N(0, 1), in float64."""
        with float64():
            point = self.point(jnp.ones((), jnp.float64))
            return Moments(*map(float, point[:3]))

    def standardized(self) -> "Nonlinearity":
        """s / sqrt(E[s(z)^2]): second moment 1 (Jacot et al. 2019b)."""
        if not self.moments.square > 0:
            raise ValueError(f"{self.name} must not vanish, got E[s(z)^2] = 0")
        scale = self.scale / self.moments.square**0.5
        return replace(self, name=f"{self.name}, standardized", scale=scale)

    def normalized(self) -> "Nonlinearity":
        """(s - E[s(z)]) / sqrt(Var[s(z)]): mean 0 and variance 1."""
        shift = self.moments.mean / self.scale
        centred = replace(
            self,
            name=f"{self.name}, normalized",
            function=Shifted(self.function, shift),
            dual_form=self.dual_form.shifted(shift),
        )
        variance = centred.moments.square
        if not variance > 1e-12 * self.moments.square:
            raise ValueError(f"{self.name} is constant: it has no variance")
        return replace(centred, scale=self.scale / variance**0.5)

    def dual(self, kxx, kyy, kxy):
        """(E[s(u)s(v)], E[s'(u)s'(v)]), (u, v) ~ N(0, [[kxx, kxy], [., kyy]]).

        Arguments broadcast against each other. Raises ``ValueError`` when
        they are not finite, when kxx or kyy is negative, when kxy^2 exceeds
        kxx kyy, or when s is not resolved at these variances (inside a jit of
        your own, where nothing can be raised, NaN is returned there).
        """
        dtype = jnp.result_type(*map(checks.floating, (kxx, kyy, kxy)))
        entries = [jnp.asarray(k, dtype) for k in (kxx, kyy, kxy)]
        self._check_covariance(*entries)
        values, error = _dual(self, *entries)
        finer = self.resolved(error)
        if finer is not self:
            return finer.dual(kxx, kyy, kxy)
        return self.guarded(values, error)

    def point(self, k) -> PointMoments:
        """E[s(u)], E[s(u)^2], E[s'(u)^2] for u ~ N(0, k), elementwise."""
        raw = self.dual_form.point(k)
        square, slope = (self.scale**2 * m for m in (raw.square, raw.slope))
        return PointMoments(self.scale * raw.mean, square, slope, raw.error)

    def pair(self, cov: Covariance) -> PairMoments:
        """Moments of a pair; rounding below 0 is cut off."""
        gap, cogap, slope = (
            self.scale**2 * moment for moment in self.dual_form.pair(cov)
        )
        return PairMoments(
            jnp.where(gap < 0, 0, gap), jnp.where(cogap < 0, 0, cogap), slope
        )

    def resolved(self, error) -> "Nonlinearity":
        """Itself if ``error``, from :meth:`point`, is small; else a finer one.

        The finer one has a Hermite series of twice the order. Raises
        ``ValueError`` where there is none.
        """
        if not checks.is_concrete(error):
            return self
        worst, bound = float(jnp.max(error)), _bound(error)
        if worst < bound:
            return self
        finer = self.dual_form.refined()
        if finer is None:
            raise ValueError(
                f"the dual of {self.name} is not resolved at the variances "
                f"that occur: estimated relative error {worst:.1e}, expected "
                f"below {bound:.1e}. Scale the inputs down, or build the "
                "nonlinearity with (more) kinks, for example kinks=(0.0,)"
            )
        return replace(self, dual_form=finer)

    @staticmethod
    def guarded(values, error):
        """``values``, NaN where ``error`` is too large and nothing raised."""
        if checks.is_concrete(error):
            return values
        # A factor, not a selection: the gradient must be NaN as well.
        factor = jnp.where(error < _bound(error), 1, jnp.nan)
        return jax.tree.map(
            lambda value: value * factor.astype(value.dtype), values
        )

    @staticmethod
    def _check_covariance(kxx, kyy, kxy):
        for value, name in ((kxx, "kxx"), (kyy, "kyy"), (kxy, "kxy")):
            checks.finite(value, name)
        if not checks.is_concrete(kxx, kyy, kxy):
            return
        if (kxx < 0).any() or (kyy < 0).any():
            raise ValueError(
                f"kxx and kyy must be >= 0, got minima {kxx.min():.6g} and "
                f"{kyy.min():.6g}"
            )
        excess = jnp.abs(kxy) - jnp.sqrt(kxx * kyy) * (1 + 1e-5)
        if (excess > 0).any():
            raise ValueError(
                "kxy must satisfy kxy^2 <= kxx kyy, got an excess of "
                f"{excess.max():.6g} of |kxy| over sqrt(kxx kyy)"
            )


@partial(jax.jit, static_argnums=0)
def _dual(s: Nonlinearity, kxx, kyy, kxy):
    error = jnp.maximum(s.point(kxx).error, s.point(kyy).error)
    pair = s.pair(Covariance.from_entries(kxx, kyy, kxy))
    return ((pair.cogap - pair.gap) / 4, pair.slope), error


def _bound(error) -> float:
    """Largest relative error accepted: 1e-9, or rounding in float32."""
    return max(1e-9, 20 * float(jnp.finfo(jnp.result_type(error)).eps))
