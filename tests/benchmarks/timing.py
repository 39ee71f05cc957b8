"""Timing of a function against a baseline, interleaved in one run.

A time in seconds says more about the machine than about the code. Each
comparison alternates the two functions, so that a change of load hits both,
and reports the ratio of the medians with the spread of the single ratios.
"""

import os
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import jax


class Comparison(NamedTuple):
    """Baseline against candidate; seconds are medians, ratio their quotient.

    ``low`` and ``high`` are the smallest and the largest ratio seen in one
    round, ``load`` the one-minute load average at the end.
    """

    name: str
    baseline_seconds: float
    seconds: float
    ratio: float
    low: float
    high: float
    load: float


def seconds(function: Callable) -> float:
    """Wall-clock time of one call, its result computed."""
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def compare(
    name: str, baseline: Callable, candidate: Callable, rounds: int = 5
) -> Comparison:
    """Time both functions ``rounds`` times, after one call each to compile."""
    for function in (baseline, candidate):
        jax.block_until_ready(function())
    pairs = [(seconds(baseline), seconds(candidate)) for _ in range(rounds)]
    slow, fast = (
        statistics.median(times) for times in zip(*pairs, strict=True)
    )
    ratios = [a / b for a, b in pairs]
    load = os.getloadavg()[0]
    return Comparison(
        name, slow, fast, slow / fast, min(ratios), max(ratios), load
    )


def table(comparisons: list[Comparison]) -> str:
    """The comparisons as aligned text."""
    lines = [f"{'baseline / candidate':48} {'ratio':>8} {'spread':>15} load"]
    for c in comparisons:
        spread = f"{c.low:.3g} to {c.high:.3g}"
        lines.append(f"{c.name:48} {c.ratio:8.3g} {spread:>15} {c.load:.2f}")
    return "\n".join(lines)
