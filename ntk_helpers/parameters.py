r"""Parameters of a network: drawn, and checked to fit.

They are kept apart from the architecture, as plain arrays, so that any
optimizer can train them.
"""

from collections.abc import Callable
from functools import partial
from itertools import accumulate
from math import prod
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Layer(NamedTuple):
    """Parameters of one layer: W and b, of shape (n_{l+1},).

    W has shape (n_{l+1}, n_l), followed by that of the window, if any.
    """

    weights: jax.Array
    bias: jax.Array


@partial(jax.jit, static_argnums=(0, 1))
def drawn(weight_shapes, dtype, key) -> tuple[Layer, ...]:
    """Layers with weights of these shapes, every entry from N(0, 1)."""
    shapes = [s for shape in weight_shapes for s in (shape, shape[:1])]
    # One draw cut into pieces: a generator call for each array of each layer
    # would take longer to compile than the network.
    ends = list(accumulate(map(prod, shapes)))
    numbers = jax.random.normal(key, (ends[-1],), dtype)
    pieces = [
        piece.reshape(shape)
        for piece, shape in zip(
            jnp.split(numbers, ends[:-1]), shapes, strict=True
        )
    ]
    return tuple(map(Layer, pieces[::2], pieces[1::2]))


def input_dimension(params, weight_shapes: Callable) -> int:
    """n_0 of ``params``; ``weight_shapes``: of the architecture, given n_0.

    Raises ``ValueError`` on another number of layers or other shapes.
    """
    if not all(isinstance(layer, Layer) for layer in params):
        raise ValueError("params must be a tuple of Layer(weights, bias)")
    shapes = [layer.weights.shape for layer in params]
    n_in = shapes[0][1] if shapes and len(shapes[0]) > 1 else 0
    expected = list(weight_shapes(n_in))
    if len(params) != len(expected):
        raise ValueError(
            f"params must have {len(expected)} layers, got {len(params)}"
        )
    if shapes != expected:
        raise ValueError(
            f"params must have weights of shapes {expected}, got {shapes}"
        )
    biases = [layer.bias.shape for layer in params]
    if biases != [shape[:1] for shape in expected]:
        sizes = tuple(shape[0] for shape in expected)
        raise ValueError(
            f"params must have biases of sizes {sizes}, got shapes {biases}"
        )
    return n_in
