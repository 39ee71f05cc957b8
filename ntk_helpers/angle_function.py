r"""A deep kernel as one function of the angle between two inputs.

Where all inputs have the same norm, every variance of the recursion is the
same for all of them, and Sigma^(L)(x, y) and Theta^(L)(x, y) depend on x and y
through their angle alone, whatever the depth. That function is computed once,
in float64, and then evaluated for every pair at a cost without L in it.

In deep chaos it is a spike at theta = 0 of width r^(-L/2), which no polynomial
in theta follows. So it is stored on a scale that has room for spikes, the
binary digits of sin^2(theta/2) and cos^2(theta/2), whichever is smaller:
every octave [2^e, 2^(e+1)) is cut into 2^fineness panels with a polynomial
each. Number and place of the panel are the leading and the trailing bits of
the floating-point number, so that finding them costs no logarithm.
"""

import math
from dataclasses import dataclass
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.polynomial import chebyshev

from .covariance import Covariance
from .nonlinearity import Nonlinearity
from .precision import float64
from .recursion import Kernels, recursion, selected

BATCH = 2048  # angles per call of the recursion: one compilation for all


@dataclass(frozen=True)
class Grid:
    """Panels of sin^2(theta/2), or of cos^2, in [2^lowest, 1/2].

    ``lowest``: the exponents for acute and for obtuse angles; ``fineness``:
    an octave has 2^fineness panels; ``degree`` of the polynomials; ``dtype``
    of the kernels. Each side begins with a panel for all smaller numbers.
    """

    dtype: str
    lowest: tuple[int, int]
    fineness: int
    degree: int

    @property
    def panels(self) -> tuple[int, int]:
        """How many there are for acute and for obtuse angles."""
        return tuple(1 + (-1 - e << self.fineness) for e in self.lowest)

    def places(self, small, obtuse):
        """Panel of each number and its place there, from -1 to 1."""
        layout = jnp.finfo(self.dtype)
        shift = layout.nmant - self.fineness
        integer = jnp.int32 if layout.bits == 32 else jnp.int64
        bits = jax.lax.bitcast_convert_type(small, integer)
        rest = (bits & ((1 << shift) - 1)).astype(small.dtype)
        place = rest * 2.0 ** (1 - shift) - 1

        firsts = [
            (exponent + layout.maxexp - 1 << self.fineness) - 1
            for exponent in self.lowest
        ]
        before = jnp.where(obtuse, firsts[1], firsts[0])
        last = jnp.where(obtuse, self.panels[1] - 1, self.panels[0] - 1)
        panel = (bits >> shift) - before
        place = jnp.where(panel > last, 1, place)
        panel = jnp.clip(panel, 0, last)
        return panel + jnp.where(obtuse, self.panels[0], 0), place

    def numbers(self, places):
        """``small`` at ``places`` (Q,) of all panels but the first, by side.

        Two arrays (panels - 1, Q).
        """
        result = []
        for panels, lowest in zip(self.panels, self.lowest, strict=True):
            octave, part = np.divmod(np.arange(panels - 1), 1 << self.fineness)
            within = (part[:, None] + (places + 1) / 2) / (1 << self.fineness)
            result.append(np.ldexp(1 + within, octave[:, None] + lowest))
        return result


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["coefficients", "error"],
    meta_fields=["grid"],
)
@dataclass(frozen=True)
class AngleFunction:
    """Sigma^(L) and Theta^(L) of inputs of one norm, for any angle.

    ``coefficients`` (2, degree + 1, panels), those of Sigma before those of
    Theta, panels of acute angles before obtuse ones; ``error``: the largest
    relative error of a dual.
    """

    coefficients: jax.Array
    error: jax.Array
    grid: Grid

    def __call__(self, sin2, cos2, wanted: str | None = None) -> Kernels:
        """Kernels at sin^2 and cos^2 of theta/2; ``wanted`` names one."""
        panel, place = self.grid.places(jnp.minimum(sin2, cos2), sin2 > cos2)

        def kernel(name):
            result = 0
            table = self.coefficients[Kernels._fields.index(name)]
            for row in table[::-1]:
                term = row.at[panel].get(mode="promise_in_bounds")
                result = result * place + term
            return result

        return selected(wanted, kernel)


# dtype -> relative error allowed, degree, first and last fineness tried
RULES = {"float32": (3e-7, 3, 4, 7), "float64": (2e-11, 9, 3, 6)}


@lru_cache(maxsize=256)
def angle_function(
    s: Nonlinearity,
    normalization,
    depth: int,
    beta: float,
    square: float,
    dtype: str,
) -> tuple[AngleFunction, float] | None:
    """The kernels of inputs with |x|^2/n_0 = ``square``, and a sensitivity.

    The sensitivity is the largest factor from a relative change of |x|^2 to
    that of a kernel. Returns None where the estimated relative error, the
    first Chebyshev coefficient left out, stays above that of ``RULES`` (for
    a number below 1e-3 Sigma(x, x): of that).
    """
    tolerance, degree, coarsest, finest = RULES[dtype]
    rule = partial(_values, s, normalization, depth, beta)
    limits, sensitivity = _ends(rule, square)
    if not np.isfinite(limits).all():
        return None
    lowest = _lowest(rule, square, limits, tolerance / 10, dtype)
    for fineness in range(coarsest, finest + 1):
        grid = Grid(dtype, lowest, fineness, degree)
        coefficients, left_out, error = _fitted(rule, square, limits, grid)
        if left_out <= tolerance:
            with float64(), np.errstate(over="ignore"):
                table = jnp.asarray(coefficients.astype(dtype))
                error = jnp.asarray(error, dtype)
            return AngleFunction(table, error, grid), sensitivity
    return None


def _size(values, limits):
    """|values|, (2, ...), and 1e-3 Sigma(x, x) where they are smaller."""
    return np.maximum(np.abs(values), 1e-3 * limits[0, 0])


def _values(s, normalization, depth, beta, square, acute, obtuse):
    """Both kernels (2, A + B), and the largest error of a dual.

    At angles with sin^2(theta/2) = ``acute`` (A,), then at those with
    cos^2(theta/2) = ``obtuse`` (B,), in float64.
    """
    sin2, cos2 = (
        np.concatenate(halves)
        for halves in ((acute, 1 - obtuse), (1 - acute, obtuse))
    )
    halves, count = np.stack([sin2, cos2]), len(sin2)
    halves = np.pad(halves, ((0, 0), (0, -count % BATCH)), mode="edge")
    parts, errors = [], []
    with float64():
        for start in range(0, count, BATCH):
            batch = jnp.asarray(halves[:, start : start + BATCH])
            kernels, error = _recursion(
                s, normalization, depth, beta, square, batch
            )
            parts.append(np.stack(kernels))
            errors.append(float(error))
    return np.concatenate(parts, axis=1)[:, :count], max(errors)


@partial(jax.jit, static_argnums=(0, 1))
def _recursion(s, normalization, depth, beta, square, halves):
    # One variance for all angles: what depends on it is computed once.
    square = jnp.reshape(square, 1).astype(halves.dtype)
    cov = Covariance(square, square, *halves)
    return recursion(s, normalization, depth, beta, cov)


def _ends(rule, square: float, step: float = 1e-7):
    """Kernels at theta = 0 and pi, (2, 2), and their sensitivity."""
    zero = np.zeros(1)
    below, values, above = (
        rule(square * (1 + change), zero, zero)[0]
        for change in (-step, 0, step)
    )
    change = max(
        np.abs(other[:, 0] / values[:, 0] - 1).max()
        for other in (below, above)
    )
    return values, float(change / step)


def _lowest(rule, square, limits, tolerance, dtype) -> tuple[int, int]:
    """Exponents below which both kernels are constant to ``tolerance``."""
    exponents = np.arange(-2, np.finfo(dtype).minexp, -1)
    small = np.ldexp(1.0, exponents)
    values = rule(square, small, small)[0].reshape(2, 2, -1)
    limits = limits[:, :, None]
    change = np.abs(values - limits) / _size(limits, limits)
    moving = (change > tolerance).any(axis=0)
    last = (side.nonzero()[0].max(initial=-1) + 1 for side in moving)
    return tuple(int(exponents[min(e, len(exponents) - 1)]) for e in last)


def _fitted(rule, square, limits, grid: Grid):
    """Coefficients (2, degree + 1, panels), the relative error, the duals'.

    Interpolation in degree + 2 Chebyshev points; the last coefficient is left
    out and tells the error.
    """
    order = grid.degree + 2
    places = np.cos(math.pi * (np.arange(order) + 0.5) / order)
    small = [numbers.ravel() for numbers in grid.numbers(places)]
    values, error = rule(square, *small)
    values = values.reshape(2, -1, order)
    inverse = np.linalg.inv(chebyshev.chebvander(places, order - 1))
    terms = values @ inverse.T
    left_out = np.abs(terms[..., -1]) / _size(values, limits).max(axis=2)
    powers = np.zeros((order - 1, order - 1))
    for index in range(order - 1):
        series = np.eye(order)[index, : index + 1]
        powers[index, : index + 1] = chebyshev.cheb2poly(series)
    acute, obtuse = np.split(
        np.swapaxes(terms[..., :-1] @ powers, 1, 2), [grid.panels[0] - 1], 2
    )
    first = np.zeros((2, grid.degree + 1, 2))
    first[:, 0] = limits
    parts = first[..., :1], acute, first[..., 1:], obtuse
    return np.concatenate(parts, axis=2), left_out.max(), error
