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
import jax.numpy as jnp

FEATURES = 784  # n_0 of the points whose Gram matrix is the unit of cost


class Group(NamedTuple):
    """What the rows of one table have in common.

    ``quotient`` says what the ratio is; ``speedup`` whether it is that of the
    baseline to the candidate (more is better), or its inverse (less is).
    """

    title: str
    quotient: str
    speedup: bool = False
    unit: str = "seconds"


class Comparison(NamedTuple):
    """Baseline against candidate; seconds are medians, ratio their quotient.

    ``low`` and ``high`` are the smallest and the largest ratio seen in one
    round, ``load`` the one-minute load average at the end. ``facts``: sizes
    and dtype. ``promise`` says what the book promises, ``kept`` whether it
    holds.
    """

    group: Group
    name: str
    facts: dict
    baseline_seconds: float
    seconds: float
    ratio: float
    low: float
    high: float
    rounds: int
    load: float
    promise: str = ""
    kept: bool = True

    @property
    def amount(self) -> float:
        """What the table shows next to the ratio."""
        return self.seconds


@jax.jit
def gram(x):
    """``x @ x.T`` at full precision, the unit of cost of a kernel."""
    return jnp.matmul(x, x.T, precision="highest")


def seconds(function: Callable) -> float:
    """Wall-clock time of one call, its result computed."""
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def compare(
    group: Group,
    name: str,
    baseline: Callable,
    candidate: Callable,
    rounds: int = 7,
    budget: float = 15.0,
    **facts,
) -> Comparison:
    """Time both functions, after one call of each to compile.

    There are ``rounds`` of them, or as many as fit in ``budget`` seconds.
    """
    for function in (baseline, candidate):
        jax.block_until_ready(function())
    pairs = []
    start = time.perf_counter()
    while len(pairs) < rounds:
        pairs.append((seconds(baseline), seconds(candidate)))
        if time.perf_counter() - start > budget:
            break
    return comparison(group, name, pairs, **facts)


def comparison(group: Group, name: str, pairs, **facts) -> Comparison:
    """The summary of ``pairs`` of seconds, of baseline and candidate."""
    medians = [statistics.median(times) for times in zip(*pairs, strict=True)]
    ratio, *single = (
        a / b if group.speedup else b / a for a, b in (medians, *pairs)
    )
    spread = min(single), max(single)
    load = os.getloadavg()[0]
    return Comparison(
        group, name, facts, *medians, ratio, *spread, len(pairs), load
    )


def judged(row, promise: str, kept: bool):
    """``row`` with a promise, and whether it is kept."""
    return row._replace(promise=promise, kept=bool(kept))


def table(rows) -> str:
    """Rows of one group as aligned text, at most 79 columns."""
    group = rows[0].group
    better = "more" if group.speedup else "less"
    lines = [
        f"{group.title}: {group.quotient} ({better} is better)",
        f"  {'':38} {'ratio':>7} {'spread':>14} {group.unit:>8} {'load':>5}",
    ]
    for row in rows:
        spread = f"{row.low:.3g}-{row.high:.3g}"
        lines.append(
            f"  {row.name:38} {row.ratio:7.3g} {spread:>14} "
            f"{row.amount:8.3g} {row.load:5.2f}"
        )
    return "\n".join(lines)


def record(row) -> dict:
    """A row as JSON stores it."""
    fields = row._asdict()
    return {**fields.pop("group")._asdict(), **fields}
