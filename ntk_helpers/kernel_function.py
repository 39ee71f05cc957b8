r"""Kernels of an architecture as functions of two blocks of inputs.

A Gram matrix too large for one piece is filled block by block, its products
with vectors are formed without it, and several devices share its rows. All of
them need the kernel as a function that a compiled program can carry as an
argument. The two forms here give the same kernel; which one serves better, in
cost and in float32 in accuracy, is decided once for all blocks.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from . import checks
from .angle_function import AngleFunction, angle_function
from .angles import half_angles
from .covariance import Covariance
from .nonlinearity import Nonlinearity
from .precision import float64
from .recursion import recursion, selected

# Entries times layers from which building the function of the angle pays.
WORTHWHILE = 2**22
# Relative change of a kernel through norms that are not quite equal.
UNEVEN = {"float32": 3e-6, "float64": 1e-11}


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["depth", "beta"],
    meta_fields=["nonlinearity", "normalization"],
)
@dataclass(frozen=True)
class LayerFunction:
    """The kernels layer by layer, for inputs of any norms."""

    nonlinearity: Nonlinearity
    normalization: object
    depth: int
    beta: float

    def __call__(self, x, y=None, same=None, wanted: str | None = None):
        """Kernels (N, M) and the largest relative error of a dual.

        ``same``: pairs of one and the same row, as in :func:`half_angles`.
        """
        cov = Covariance.from_inputs(x, y, same)
        rule = self.nonlinearity, self.normalization, self.depth, self.beta
        kernels, error = recursion(*rule, cov)
        return selected(wanted, partial(getattr, kernels)), error

    def diagonal(self, x):
        """Kernels (N,) of every row with itself, and the error."""
        square = jnp.mean(x**2, axis=1)
        cov = Covariance(square, square, 0 * square, 1 + 0 * square)
        rule = self.nonlinearity, self.normalization, self.depth, self.beta
        return recursion(*rule, cov)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["square", "function"],
    meta_fields=[],
)
@dataclass(frozen=True)
class SphereFunction:
    """The kernels of inputs with |x|^2 = ``square``, from their angles."""

    square: jax.Array
    function: AngleFunction

    def __call__(self, x, y=None, same=None, wanted: str | None = None):
        """Kernels (N, M) and error, as :class:`LayerFunction` gives them."""
        angles = half_angles(x, y, self.square, same)
        return self.function(*angles, wanted), self.function.error

    def diagonal(self, x):
        """Kernels (N,) of every row with itself, and the error."""
        zero = jnp.zeros(len(x), x.dtype)
        return self.function(zero, zero + 1), self.function.error


def kernel_function(net, x, y=None):
    """The better of both forms for the kernels of ``net`` on x and y.

    A :class:`SphereFunction` where all norms agree to rounding, the kernels
    do not enlarge what is left, and there are entries enough, or layers in
    float32: chaos would enlarge their rounding.
    """
    rule = net.nonlinearity, net.normalization, net.depth, net.beta
    entries = len(x) * len(x if y is None else y)
    dtype, hidden = x.dtype.name, net.depth - 1
    worthwhile = entries * hidden >= WORTHWHILE
    worthwhile = worthwhile or (dtype == "float32" and hidden > 1)
    if worthwhile and checks.is_concrete(x, y):
        square, unevenness = common_square(x, y)
        if square and x.dtype == (x if y is None else y).dtype:
            found = angle_function(*rule, square, dtype)
            if found and found[1] * unevenness <= UNEVEN[dtype]:
                length = jnp.asarray(square * x.shape[1], x.dtype)
                return SphereFunction(length, found[0])
    return LayerFunction(*rule)


def common_square(x, y=None) -> tuple[float, float]:
    """|x|^2/n_0 if all rows share it, else 0; and the largest deviation.

    Rows share it if their values differ from it by 16 units of rounding at
    most, relatively. It is rounded to a few bits less than the inputs have,
    so that other points of the same sphere get the same function.
    """
    if x.dtype.name not in UNEVEN:
        return 0.0, np.inf
    with float64():
        squares = [_squares(z) for z in (x, y) if z is not None]
        lowest = min(float(value.min()) for value in squares)
        highest = max(float(value.max()) for value in squares)
    eps = float(jnp.finfo(x.dtype).eps)
    mantissa, exponent = np.frexp((lowest + highest) / 2)
    square = float(
        np.ldexp(np.round(mantissa / (8 * eps)) * 8 * eps, exponent)
    )
    layout = jnp.finfo(x.dtype)
    if not float(layout.tiny) <= square * x.shape[1] <= float(layout.max):
        return 0.0, np.inf
    deviation = max(highest / square - 1, 1 - lowest / square)
    return (square, deviation) if deviation <= 16 * eps else (0.0, deviation)


@jax.jit
def _squares(x):
    return jnp.mean(x.astype(jnp.float64) ** 2, axis=1)
