"""Peak memory of the largest kernel that the book promises to fit in 2 GB.

Run as a program it computes the kernel of a deconvolutional generator, from
one pixel to 32 x 32, for 8 codes in float64, and prints the memory in bytes
that the process had at most. Its own process: a peak does not go down again.
"""

import resource
import subprocess
import sys
from typing import NamedTuple

import jax

import ntk_helpers as ntk

PROMISED = 2e9
RESULT = 8 * 8 * 1024**2 * 8  # 8 x 8 codes, 1024 x 1024 positions, 8 bytes


class Memory(NamedTuple):
    """Peak of a process in bytes, and its ratio to the size of the result."""

    name: str
    peak_bytes: int
    ratio: float


def measured() -> Memory:
    """The large case, in a process of its own."""
    program = [sys.executable, "-m", "tests.benchmarks.memory"]
    run = subprocess.run(program, capture_output=True, text=True, check=True)
    peak = int(run.stdout)
    name = "peak memory / result, NTK of 32 x 32 pixels for 8 codes"
    return Memory(name, peak, peak / RESULT)


def main():
    """Compute the kernel, print the peak."""
    jax.config.update("jax_enable_x64", True)
    net = ntk.Deconvolutional(shape=(1, 1), depth=5, beta=0.3)
    codes = jax.random.normal(jax.random.key(0), (8, 1, 1, 16))
    kernel = jax.block_until_ready(net.ntk(codes))
    assert kernel.nbytes == RESULT
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(peak * (1 if sys.platform == "darwin" else 1024))


if __name__ == "__main__":
    main()
