"""Run every benchmark: ``make bench``.

Prints a table and writes benchmarks.json. Exits with an error when a ratio
that the book promises is not reached.
"""

import json
import pathlib
import sys

import jax
import jax.numpy as jnp

import ntk_helpers as ntk

from .memory import PROMISED as PEAK_PROMISED
from .memory import measured
from .timing import Comparison, compare, table

PROMISED = 50  # layerwise empirical NTK against the full Jacobian


def jacobian_ntk(net, params, x):
    """Theta from the full Jacobian, contracted over all parameters."""
    jacobian = jax.jacrev(net.apply)(params, x)
    blocks = [leaf.reshape(len(x), -1) for leaf in jax.tree.leaves(jacobian)]
    return sum(
        jnp.matmul(block, block.T, precision="highest") for block in blocks
    )


def setting(count: int, n_in: int = 64):
    """Width 512, three hidden layers, ``count`` inputs, float32."""
    net = ntk.FullyConnected(depth=4, width=512, beta=0.1)
    params = net.init(jax.random.key(0), n_in)
    return net, params, jax.random.normal(jax.random.key(1), (count, n_in))


def against_jacobian(name: str, count: int, kernel) -> Comparison:
    """``kernel(net, params, x)`` against the Jacobian, checked for equality.

    Parameters and inputs are arguments of the compiled functions: as
    constants they would be folded away while compiling.
    """
    net, *arguments = setting(count)
    baseline = jax.jit(lambda params, x: jacobian_ntk(net, params, x))
    candidate = jax.jit(lambda params, x: kernel(net, params, x))
    expected = baseline(*arguments)
    error = jnp.abs(expected - candidate(*arguments)).max() / expected.max()
    if not error < 1e-5:
        sys.exit(f"{name}: the kernels differ by {error:.1e}")
    return compare(
        name, lambda: baseline(*arguments), lambda: candidate(*arguments)
    )


def main():
    """Run, print, write, judge."""
    # First: a child's peak counts from that of the process that starts it.
    memory = measured()
    comparisons = [
        against_jacobian(
            "Jacobian / layerwise empirical NTK, N = 256",
            256,
            lambda net, params, x: net.empirical_ntk(params, x),
        ),
        against_jacobian(
            "Jacobian / empirical NTK of any function, N = 32",
            32,
            lambda net, params, x: ntk.empirical_ntk(net.apply, params, x),
        ),
    ]
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, float32")
    print(table(comparisons))
    print(
        f"{memory.name}: {memory.ratio:.2f} ({memory.peak_bytes / 1e9:.2f} GB)"
    )
    rows = [row._asdict() for row in (*comparisons, memory)]
    pathlib.Path("benchmarks.json").write_text(json.dumps(rows, indent=2))
    if comparisons[0].ratio < PROMISED:
        sys.exit(f"expected a ratio of at least {PROMISED} in the first row")
    if memory.peak_bytes > PEAK_PROMISED:
        sys.exit(f"expected a peak below {PEAK_PROMISED / 1e9:.0f} GB")


if __name__ == "__main__":
    main()
