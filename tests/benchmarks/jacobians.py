"""Empirical kernels against the contraction of the full Jacobian.

The Jacobian of the batch is what a user writes first. That of each input by
itself does a factor N less work, because outputs do not depend on the other
inputs, and is the stronger baseline.
"""

import sys
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

import ntk_helpers as ntk

from .timing import Group, compare, judged

GROUP = Group("Empirical NTK", "Jacobian / kernel", speedup=True)
PROMISED = 50  # layerwise empirical NTK against the Jacobian of the batch


def contracted(jacobian, count: int):
    """Theta from the Jacobian of ``count`` outputs, over all parameters."""
    blocks = [leaf.reshape(count, -1) for leaf in jax.tree.leaves(jacobian)]
    return sum(
        jnp.matmul(block, block.T, precision="highest") for block in blocks
    )


def of_batch(net, params, x):
    """Theta from the Jacobian of all outputs by all parameters at once."""
    return contracted(jax.jacrev(net.apply)(params, x), len(x))


def of_inputs(net, params, x):
    """Theta from the gradient of the output at each input by itself."""

    def output(params, one):
        return net.apply(params, one[None])[0, 0]

    gradients = jax.vmap(jax.grad(output), (None, 0))(params, x)
    return contracted(gradients, len(x))


def layerwise(net, params, x):
    """Theta as the network computes it."""
    return net.empirical_ntk(params, x)


def generic(net, params, x):
    """Theta as for any function."""
    return ntk.empirical_ntk(net.apply, params, x)


def row(name: str, net, x, kernel: Callable, jacobian: Callable = of_batch):
    """``kernel(net, params, x)`` against the Jacobian, checked for equality.

    Parameters and inputs are arguments of the compiled functions: as
    constants they would be folded away while compiling.
    """
    arguments = net.init(jax.random.key(0), x.shape[-1]), x
    baseline = jax.jit(partial(jacobian, net))
    candidate = partial(kernel, net)  # compiled within
    expected = baseline(*arguments)
    error = jnp.abs(expected - candidate(*arguments)).max() / expected.max()
    if not error < 1e-5:
        sys.exit(f"{name}: the kernels differ by {error:.1e}")
    return compare(
        GROUP,
        name,
        lambda: baseline(*arguments),
        lambda: candidate(*arguments),
        rounds=5,
        count=len(x),
        width=net.width,
        depth=net.depth,
        dtype=str(x.dtype),
    )


def rows(options):
    """Dense and convolutional; ``options.small`` takes fewer inputs."""
    many, few = (32, 8) if options.small else (256, 32)
    dense = ntk.FullyConnected(depth=4, width=512, beta=0.1)
    x = jax.random.normal(jax.random.key(1), (many, 64))
    first = row(f"dense layerwise, N = {many}", dense, x, layerwise)
    kept = options.small or first.ratio >= PROMISED
    yield judged(first, f"ratio at least {PROMISED}", kept)
    name = f"dense, to single inputs, N = {many}"
    yield row(name, dense, x, layerwise, of_inputs)
    yield row(f"dense, any function, N = {few}", dense, x[:few], generic)
    grid = ntk.Convolutional(shape=(8, 8), depth=4, width=16, beta=0.1)
    images = jax.random.normal(jax.random.key(2), (few, 8, 8, 3))
    yield row(f"convolutional, N = {few}", grid, images, layerwise)
    name = f"convolutional, to single inputs, N = {few}"
    yield row(name, grid, images, layerwise, of_inputs)
