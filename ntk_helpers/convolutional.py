r"""Convolutional and deconvolutional networks: what their links are.

A generator of images turns a code at few positions into an image at many, by
transposed convolutions; a classifier goes the other way. Both are the network
of :mod:`ntk_helpers.grid_network` and differ in one table.
"""

from dataclasses import dataclass
from math import prod

import jax
import jax.numpy as jnp

from . import checks
from .grid_network import GridNetwork
from .links import Pooling, Shape, convolution, deconvolution, flattening
from .precision import HIGHEST, matmul


@dataclass(frozen=True)
class Deconvolutional(GridNetwork):
    r"""Strided transposed convolutions, from codes to images.

    Tap k in {0, ..., w-1} links, on each axis, position q of the input to
    p = s q + k - (w-s)//2 of the output, so that every layer has s times as
    many positions: ``shape`` times s^L in the end. Fields, verbs and errors
    as in :class:`GridNetwork`. Source: Jacot, Gabriel and Hongler (2019).
    """

    @property
    def output_shape(self):
        """Positions of the output on each axis: s^L times the input's."""
        return tuple(self.stride**self.depth * n for n in self.shape)

    def _links(self):
        rule = self.window, self.stride, self.cyclic, self.graph_based
        return tuple(
            deconvolution(shape, *rule) for shape in self._shapes[:-1]
        )

    @property
    def _shapes(self):
        """Positions of every layer, from the input to the output."""
        return [
            tuple(self.stride**layer * n for n in self.shape)
            for layer in range(self.depth + 1)
        ]

    def _weight_shapes(self, n_in: int):
        hidden = [self.width] * (self.depth - 1)
        return _windows(self, [n_in, *hidden, self.n_out])

    def _sum(self, weights, alpha, layer: int):
        offset = (self.window - self.stride) // 2
        margin = -(-self.window // self.stride) if self.cyclic else 0
        padding = [(self.window - 1 - offset, self.stride - 1 + offset)]
        flipped = jnp.flip(weights, range(2, weights.ndim))
        total = _convolution(
            _wrapped(alpha, margin),
            flipped,
            padding * len(self.shape),
            dilation=self.stride,
        )
        return _cropped(total, self.stride * margin)


@dataclass(frozen=True)
class Convolutional(GridNetwork):
    r"""Convolutions of a grid, then one dense layer to ``n_out`` outputs.

    Of the L = ``depth`` weight matrices the first L-1 are convolutions: tap k
    in {0, ..., w-1} links, on each axis, position q = s p + k - (w-s)//2 of
    the input to p, so that every layer has 1/s times as many positions,
    rounded up. The last is dense, on all positions and channels (flattening)
    or, with ``pooling``, on the mean over the positions (global average
    pooling). Outputs have shape (N, n_out) and kernels (N, M), as those of
    :class:`FullyConnected`. Fields and verbs as in :class:`GridNetwork`; it
    raises ``ValueError`` as that does, and where a ``cyclic`` grid is not
    divisible by the stride. Source: Arora et al. (2019), section 4; Xiao,
    Pennington and Schoenholz (2020), section 5.
    """

    window: int = 3
    stride: int = 1
    pooling: bool = False

    def __post_init__(self):
        """Check every field."""
        super().__post_init__()
        checks.boolean(self.pooling, "pooling")
        if self.cyclic and any(
            n % self.stride for shape in self._shapes[:-1] for n in shape
        ):
            raise ValueError(
                "on a cyclic grid the stride must divide the positions of "
                f"every layer, got stride {self.stride} and {self._shapes}"
            )

    @property
    def output_shape(self):
        """No axes: the dense layer has one position."""
        return ()

    def _links(self):
        rule = self.window, self.stride, self.cyclic, self.graph_based
        *before, last = self._shapes
        dense = Pooling(prod(last)) if self.pooling else flattening(last)
        return *(convolution(shape, *rule) for shape in before), dense

    @property
    def _shapes(self):
        """Positions of every layer, from the input to the dense layer's."""
        shapes = [self.shape]
        for _ in range(self.depth - 1):
            shapes.append(tuple(-(-n // self.stride) for n in shapes[-1]))
        return shapes

    def _weight_shapes(self, n_in: int):
        channels = n_in if self.depth == 1 else self.width
        dense = () if self.pooling else self._shapes[-1]
        return (
            *_windows(self, [n_in, *[self.width] * (self.depth - 1)]),
            (self.n_out, channels, *dense),
        )

    def _sum(self, weights, alpha, layer: int):
        if layer == self.depth - 1:
            axes = range(1, alpha.ndim - 1)
            flat = alpha.mean(axes) if self.pooling else _flat(alpha)
            return matmul(flat, weights.reshape(len(weights), -1).T)
        offset = (self.window - self.stride) // 2
        margin = -(-self.window // self.stride) if self.cyclic else 0
        alpha = _wrapped(alpha, self.stride * margin)
        padding = [
            (offset, (-n) % self.stride + self.window - self.stride - offset)
            for n in alpha.shape[1:-1]
        ]
        total = _convolution(alpha, weights, padding, stride=self.stride)
        return _cropped(total, margin)


def _windows(net: GridNetwork, channels) -> tuple[Shape, ...]:
    """Shapes of the weights between layers of these ``channels``."""
    window = (net.window,) * len(net.shape)
    pairs = zip(channels[1:], channels[:-1], strict=True)
    return tuple((*pair, *window) for pair in pairs)


def _convolution(alpha, weights, padding, stride: int = 1, dilation: int = 1):
    """Sums over a window, (N, *grid, n) and (m, n, *window) -> (.., m)."""
    axes = alpha.ndim - 2
    letters = "HW"[:axes]
    return jax.lax.conv_general_dilated(
        alpha,
        weights,
        (stride,) * axes,
        padding,
        lhs_dilation=(dilation,) * axes,
        dimension_numbers=(f"N{letters}C", f"OI{letters}", f"N{letters}C"),
        precision=HIGHEST,
    )


def _wrapped(alpha, margin: int):
    """The torus continued by ``margin`` positions at both ends of an axis."""
    grid = [(margin, margin)] * (alpha.ndim - 2)
    return jnp.pad(alpha, [(0, 0), *grid, (0, 0)], mode="wrap")


def _cropped(alpha, margin: int):
    """Without ``margin`` positions at both ends of every axis."""
    grid = [slice(margin, n - margin) for n in alpha.shape[1:-1]]
    return alpha[:, *grid]


def _flat(alpha):
    """(N, *grid, n) -> (N, n times positions), as weights are stored."""
    return jnp.moveaxis(alpha, -1, 1).reshape(len(alpha), -1)
