"""A diagnosis in words and as a figure.

What is shown, and how it is rounded, changes for other reasons than what is
measured.
"""

from math import inf

import numpy as np

TOP = 0.9  # cosine from which the top eigenvector counts as the constant
VERDICTS = {
    "freeze": "Freeze: inputs look alike to the network, and what tells them "
    "apart is learnt last.",
    "edge": "At the edge: nothing to change.",
    "chaos": "Chaos, but at this depth points still inform each other: "
    "nothing to change.",
}
DEEP = (
    "Deep chaos: the kernel is nearly diagonal, and little is carried from "
    "one point to another."
)
CONSTANT = (
    "The constant mode is the top one: it bounds the step size, and the rest "
    "is learnt at that step."
)
OTHER = "The top direction is not the constant mode."


def text(found) -> str:
    """The diagnosis as a short table and two lists."""
    lines = [verdict(found), "", *table(found)]
    for title, rows in (
        ("what helps", [advice(found, remedy) for remedy in found.advice]),
        ("to bear in mind", found.notes),
    ):
        if rows:
            lines += [f"{title}:", *[f"  - {row}" for row in rows]]
    return "\n".join(lines)


def verdict(found) -> str:
    """One sentence on the regime, or on the constant mode of a function."""
    if found.deep_chaos:
        return DEEP
    if found.regime:
        return VERDICTS[found.regime]
    return CONSTANT if found.constant_overlap > TOP else OTHER


def table(found):
    """Aligned lines of names and rounded numbers."""
    n, times = len(found.spectrum.values), found.learning_times
    rows = {"kernel": f"{found.kernel}, {n} points"}
    if found.regime:
        critical = found.critical_beta
        edge = "none" if critical is None else f"{critical:.3g}"
        r = f"{found.characteristic_value:.3g}"
        rows["regime"] = f"{found.regime}, r = {r}, critical beta {edge}"
    rows["constant mode"] = (
        f"{found.constant_share:.1%} of the trace, "
        f"{found.constant_share_of_largest:.1%} of lambda_max, overlap "
        f"{found.constant_overlap:.3f}"
    )
    rows["similarity"] = f"{found.similarity:.2f} on average"
    rows["condition"] = f"{_condition(found)} (bulk {_bulk(found)})"
    rows["learning time"] = (
        f"constant mode {_count(times.constant)}, bulk {_count(times.bulk)}"
    )
    rows["slowest"] = f"{_count(found.steps)} of the best size"
    return [f"{name:15}{value}" for name, value in rows.items()]


def advice(found, remedy) -> str:
    """A remedy with what it does: to the steps, or to the similarity."""
    if remedy.steps is None:
        return f"{remedy.description} instead of {found.constant:.3g}"
    if found.deep_chaos:
        change = f"{found.similarity:.2f} -> {remedy.similarity:.2f}"
        return f"{remedy.description}, similarity {change}"
    change = f"{_count(found.steps)} -> {_count(remedy.steps)}"
    return f"{remedy.description}, {change}"


def drawn(found, axes=None):
    """The spectrum in ``axes``, new ones by default; returns them."""
    if axes is None:
        import matplotlib.pyplot as plt

        _, axes = plt.subplots()
    values = np.asarray(found.spectrum.values)
    resolved = np.asarray(found.spectrum.resolved)
    rank = np.arange(1, len(values) + 1)
    axes.semilogy(rank[resolved], values[resolved], "o", label="eigenvalues")
    if not resolved.all():
        axes.axhline(
            float(found.spectrum.rounding),
            color="0.5",
            linestyle=":",
            label=f"rounding: {(~resolved).sum()} below",
        )
    if found.constant > found.spectrum.rounding:
        axes.axhline(
            found.constant,
            color="C1",
            linestyle="--",
            label="constant mode",
        )
    axes.set_xlabel("rank")
    axes.set_ylabel("eigenvalue of the NTK")
    axes.legend()
    return axes


def _condition(found) -> str:
    if found.condition_number < inf:
        return f"{found.condition_number:.2g}"
    bound = found.spectrum.values[0] / found.spectrum.rounding
    return f"above {float(bound):.2g}, not resolved"


def _bulk(found) -> str:
    number = found.bulk_condition_number
    return f"{number:.2g}" if number < inf else "not resolved"


def _count(steps: float) -> str:
    return f"{steps:.2g} steps" if steps < inf else "not resolved"
