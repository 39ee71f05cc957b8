"""Peak memory of the largest kernels, in units of the size of the result.

Each case runs as a program of its own, because a peak does not go down again,
and prints the most memory the process had, in bytes. That of a process which
only imports and computes a tiny kernel is subtracted.
"""

import os
import resource
import subprocess
import sys
from typing import NamedTuple

import jax

import ntk_helpers as ntk

from .kernels import points
from .timing import Group, judged

GROUP = Group("Memory", "(peak - that of a tiny kernel) / result", unit="GB")
PROMISED = 2e9  # bytes, for the generator, nothing subtracted
GENERATOR = 8 * 8 * 1024**2 * 8  # 8 x 8 codes, 1024 x 1024 positions, 8 bytes
ROUNDS = 2


class Memory(NamedTuple):
    """Peak of a process in bytes, and its ratio to the size of the result.

    ``amount`` is the peak in GB; the other fields are those of a
    :class:`Comparison`.
    """

    group: Group
    name: str
    facts: dict
    baseline_bytes: int
    peak_bytes: int
    ratio: float
    low: float
    high: float
    rounds: int
    load: float
    promise: str = ""
    kept: bool = True

    @property
    def amount(self) -> float:
        """The peak in GB."""
        return self.peak_bytes / 1e9


def generator() -> int:
    """From one pixel to 32 x 32, for 8 codes in float64."""
    jax.config.update("jax_enable_x64", True)
    net = ntk.Deconvolutional(shape=(1, 1), depth=5, beta=0.3)
    codes = jax.random.normal(jax.random.key(0), (8, 1, 1, 16))
    return jax.block_until_ready(net.ntk(codes)).nbytes


def dense(count: int) -> int:
    """NTK of ``count`` points on the sphere, 6 layers, float32."""
    net = ntk.FullyConnected(depth=6, beta=0.1)
    return jax.block_until_ready(net.ntk(points(count))).nbytes


def peaks(case: str, count: int, result: int) -> list[int]:
    """Of several processes, in bytes, each with the ``result`` expected."""
    program = [sys.executable, "-m", "tests.benchmarks.memory"]
    found = []
    for _ in range(ROUNDS):
        command = [*program, case, str(count)]
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        # The last line: progress may stand before it.
        size, peak = map(int, run.stdout.split()[-2:] or (0, 0))
        if run.returncode or size != result:
            sys.exit(
                f"memory of {case}: expected a result of {result} bytes, got "
                f"{size} and exit status {run.returncode}"
            )
        found.append(peak)
    return found


def row(name: str, case: str, count: int, result: int, tiny: int) -> Memory:
    """One case against the peak ``tiny``."""
    found = peaks(case, count, result)
    ratios = [(peak - tiny) / result for peak in found]
    facts = {"count": count, "result_bytes": result}
    load = os.getloadavg()[0]
    spread = max(ratios), min(ratios), max(ratios), ROUNDS, load
    return Memory(GROUP, name, facts, tiny, max(found), *spread)


def rows(options):
    """Generator, and ``options.points`` points of a dense network."""
    tiny = min(peaks("dense", 2, 2 * 2 * 4))
    name = "generator, 32 x 32, K = 8, float64"
    large = row(name, "generator", 8, GENERATOR, tiny)
    promise = f"peak below {PROMISED / 1e9:g} GB"
    yield judged(large, promise, large.peak_bytes < PROMISED)
    n = options.points // (8 if options.small else 1)
    yield row(f"FC, N = {n}, L = 6, float32", "dense", n, 4 * n**2, tiny)


def main(case: str, count: str):
    """Compute the kernel, print its size and the peak."""
    size = generator() if case == "generator" else dense(int(count))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(size, peak * (1 if sys.platform == "darwin" else 1024))


if __name__ == "__main__":
    main(*sys.argv[1:])
