"""Kernels by neural-tangents: the side of the comparison that it runs on.

A program for the environment that :mod:`tests.benchmarks.peer` builds, which
knows neither this package nor its JAX. It is given two .npz files and a JSON
list of cases, reads the points from the first, writes all kernels to the
second, and then answers each number of a case on its standard input with the
seconds of one ``x @ x.T`` and of one call of the kernel function.
"""

import json
import math
import sys
import time
import types

import jax
import jax.numpy as jnp
import numpy as np

# Its part for TensorFlow is imported with the rest, and not needed here.
PART = "neural_tangents.experimental"
sys.modules[PART] = types.ModuleType(PART)

import neural_tangents  # noqa: E402
from neural_tangents import stax  # noqa: E402


def standardized(nonlinearity: str):
    """The nonlinearity s over the root of E[s(z)^2]."""
    if nonlinearity == "relu":  # E[s(z)^2] = 1/2
        return stax.ABRelu(0.0, math.sqrt(2))
    return stax.Erf(a=(2 / math.pi * math.asin(2 / 3)) ** -0.5)


def kernel_function(nonlinearity: str, depth: int, beta: float, window: int):
    """Both kernels of a network with ``depth`` layers, compiled.

    Dense, or for ``window`` > 0 convolutions of stride 1 on a grid surrounded
    by zeros, and a dense layer on all positions.
    """
    scales = {"W_std": math.sqrt(1 - beta**2), "b_std": beta}
    dense = stax.Dense(1, **scales, parameterization="ntk")
    layers = []
    for _ in range(depth - 1):
        affine = dense
        if window:
            shape = (window, window)
            affine = stax.Conv(1, shape, padding="SAME", **scales)
        layers += [affine, standardized(nonlinearity)]
    layers += [stax.Flatten(), dense] if window else [dense]
    _, _, kernel = stax.serial(*layers)
    return jax.jit(lambda x: kernel(x, None, ("nngp", "ntk")))


@jax.jit
def gram(x):
    """``x @ x.T``, each point as one row."""
    x = x.reshape(len(x), -1)
    return jnp.matmul(x, x.T, precision="highest")


def seconds(function, x) -> float:
    """Wall-clock time of one call, its result computed."""
    start = time.perf_counter()
    jax.block_until_ready(function(x))
    return time.perf_counter() - start


def main(points: str, kernels: str, cases: str):
    """Compute and write all kernels, then time what is asked for."""
    stored = np.load(points)
    calls, results = [], {}
    for index, case in enumerate(json.loads(cases)):
        x = jnp.asarray(stored[f"x{index}"])
        function = kernel_function(**case)
        calls.append((function, x))
        gram(x).block_until_ready()
        both = function(x)
        results[f"nngp{index}"], results[f"ntk{index}"] = both.nngp, both.ntk
    np.savez(kernels, **results)
    print(json.dumps([neural_tangents.__version__, jax.__version__]))
    sys.stdout.flush()
    for line in sys.stdin:
        function, x = calls[int(line)]
        print(json.dumps([seconds(gram, x), seconds(function, x)]))
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
