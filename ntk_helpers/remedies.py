r"""Changes of an architecture that move its NTK away from freeze and chaos.

A remedy is proposed because of the theory and kept because of a measurement:
the kernel of the changed architecture on the same points.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from .fully_connected import FullyConnected
from .nonlinearity import Nonlinearity
from .normalization import BatchNorm, LayerNorm
from .regimes import characteristic_value, critical_beta

Change = tuple[str, FullyConnected]

FAINT = 0.1  # below this mean similarity of points, chaos counts as deep
GAIN = 0.95  # a remedy saves more than a twentieth of the steps
UNIT = 1e-6  # distance of E[s(z)^2] from 1 that counts as standardized


class Remedy(NamedTuple):
    """A change, the changed architecture, and what it does on these points.

    ``steps`` and ``similarity`` are those of its own :class:`Diagnosis`. The
    architecture is None for a function of the user's, and the numbers are
    None where no kernel is known: batch normalization at infinite width.
    """

    description: str
    net: FullyConnected | None
    steps: float | None
    similarity: float | None


def advice(net, found, diagnosed, empirical: bool):
    """Remedies that do what they are for, measured; the best first."""
    if net.depth == 1:
        return
    if found.regime == "freeze":
        changes = list(against_freeze(net))
        last = batch_normalized(net, len(found.spectrum.values))
        if empirical and not isinstance(net.normalization, BatchNorm):
            changes.append(last)
        remedies = [_remedy(*change, diagnosed) for change in changes]
        remedies = [r for r in remedies if r.steps < GAIN * found.steps]
        yield from sorted(remedies, key=lambda r: _rounded(r.steps))
        level = len(found.spectrum.values) * net.beta**2
        if not empirical and level < found.constant:
            yield Remedy(*last, None, None)
    elif found.deep_chaos:
        changes = list(at_the_edge(net))
        if not empirical:

            def enough(changed):
                return diagnosed(changed).similarity >= FAINT

            changes += shallower(net, enough)
        remedies = [_remedy(*change, diagnosed) for change in changes]
        remedies = [r for r in remedies if r.similarity > found.similarity]
        yield from sorted(remedies, key=lambda r: -_rounded(r.similarity))


def _rounded(value: float) -> float:
    """Four digits: remedies that differ by rounding keep their order."""
    return float(f"{value:.4g}")


def _remedy(description, net, diagnosed) -> Remedy:
    after = diagnosed(net)
    return Remedy(description, net, after.steps, after.similarity)


def notes(net: FullyConnected, x):
    """What limits the conclusions drawn from r."""
    if not standardized(net):
        yield (
            "the nonlinearity is not standardized: r is that of its "
            "standardized form"
        )
    if isinstance(net.normalization, BatchNorm):
        yield "r is that of the layers without batch normalization"
    norms = np.linalg.norm(np.asarray(x, float), axis=1) / x.shape[1] ** 0.5
    if np.abs(norms - 1).max() > 1e-3:
        yield (
            "the inputs are not on the sphere: |x|/sqrt(n_0) from "
            f"{norms.min():.2g} to {norms.max():.2g}, and r is that of 1"
        )


def effective(net: FullyConnected) -> Nonlinearity:
    """The nonlinearity whose r decides the regime: of the whole layer.

    With layer normalization after the nonlinearity it is the normalized one.
    """
    if _normalized_after(net):
        return net.nonlinearity.normalized()
    return net.nonlinearity


def standardized(net: FullyConnected) -> bool:
    """Whether pre-activations of variance 1 keep it from layer to layer."""
    return abs(effective(net).moments.square - 1) < UNIT


def against_freeze(net: FullyConnected) -> Iterator[Change]:
    """Beta, the nonlinearity, layer normalization: what raises r."""
    if not standardized(net):
        changed = replace(net, nonlinearity=net.nonlinearity.standardized())
        yield "the nonlinearity standardized", changed
    yield from at_the_edge(net)
    if _normalized_after(net):
        return
    normal = net.nonlinearity.normalized()
    r = characteristic_value(normal, net.beta)
    changed = replace(net, nonlinearity=normal)
    yield f"the nonlinearity normalized: r = {r:.3g}", changed
    if not isinstance(net.normalization, BatchNorm):
        changed = replace(net, normalization=LayerNorm())
        yield f"LayerNorm() after the nonlinearity: r = {r:.3g}", changed


def at_the_edge(net: FullyConnected) -> Iterator[Change]:
    """The critical beta, if there is one, for a standardized nonlinearity."""
    beta = critical_beta(effective(net))
    if beta is None:
        return
    if standardized(net):
        yield f"beta = {beta:.3g}: r = 1", replace(net, beta=beta)
    else:
        s = net.nonlinearity.standardized()
        changed = replace(net, beta=beta, nonlinearity=s)
        yield f"beta = {beta:.3g}, nonlinearity standardized: r = 1", changed


def batch_normalized(net: FullyConnected, points: int) -> Change:
    """Batch normalization after the last nonlinearity."""
    level = points * net.beta**2
    description = f"BatchNorm(): the constant mode at N beta^2 = {level:.3g}"
    return description, replace(net, normalization=BatchNorm())


def shallower(net: FullyConnected, enough: Callable) -> Iterator[Change]:
    """The largest depth that is ``enough``, which more depth only undoes."""
    low = 0 if net.normalization is None else 1
    high = net.depth
    while high - low > 1:
        middle = (low + high) // 2
        found = enough(replace(net, depth=middle))
        low, high = (middle, high) if found else (low, middle)
    if low > (net.normalization is not None):
        yield f"depth = {low}", replace(net, depth=low)


def _normalized_after(net: FullyConnected) -> bool:
    normalization = net.normalization
    return isinstance(normalization, LayerNorm) and not normalization.before
