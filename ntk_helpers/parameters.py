r"""Parameters of the fully connected network: drawn, and checked to fit.

They are kept apart from the architecture, as plain arrays, so that any
optimizer can train them.
"""

from functools import partial
from itertools import accumulate
from math import prod
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Layer(NamedTuple):
    """Parameters of one layer: W, shape (n_{l+1}, n_l), and b, (n_{l+1},)."""

    weights: jax.Array
    bias: jax.Array


@partial(jax.jit, static_argnums=(0, 1))
def drawn(sizes, dtype, key) -> tuple[Layer, ...]:
    """Layers between ``sizes`` n_0, ..., n_L, every entry from N(0, 1)."""
    shapes = [
        shape
        for n, n_next in zip(sizes[:-1], sizes[1:], strict=True)
        for shape in ((n_next, n), (n_next,))
    ]
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


def input_dimension(params, hidden: tuple[int, ...]) -> int:
    """n_0 of ``params``; ``hidden`` = n_1, ..., n_L of the architecture.

    Raises ``ValueError`` on another number of layers or other shapes.
    """
    if len(params) != len(hidden):
        raise ValueError(
            f"params must have {len(hidden)} layers, got {len(params)}"
        )
    if not all(isinstance(layer, Layer) for layer in params):
        raise ValueError("params must be a tuple of Layer(weights, bias)")
    n_in = params[0].weights.shape[-1]
    expected = list(zip(hidden, (n_in, *hidden), strict=False))
    shapes = [layer.weights.shape for layer in params]
    if shapes != expected:
        raise ValueError(
            f"params must have weights of shapes {expected}, got {shapes}"
        )
    biases = [layer.bias.shape for layer in params]
    if biases != [(size,) for size in hidden]:
        raise ValueError(
            f"params must have biases of sizes {hidden}, got shapes {biases}"
        )
    return n_in
