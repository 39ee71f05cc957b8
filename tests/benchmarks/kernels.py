"""Cost of both kernels of fully connected networks, by depth, size and dtype.

The unit is ``x @ x.T`` for the same points, which every kernel contains. On
the sphere |x| = sqrt(n_0) the cost is promised not to depend on the depth.
"""

import itertools
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import ntk_helpers as ntk

from .timing import (
    FEATURES,
    Group,
    compare,
    comparison,
    gram,
    judged,
    seconds,
)

SPHERE = Group("FC kernels on the sphere", "kernels / x @ x.T")
SPACE = Group("FC kernels off the sphere", "kernels / x @ x.T")
FIRST = Group("FC kernels at a new depth, float32", "kernels / x @ x.T")
BETA = 0.1
PROMISED = {(4096, 6): 4, (4096, 64): 5, (4096, 1000): 5}  # by N and L
PROMISED_SECONDS = 1.0  # of the first call at a new depth
TOLERANCE = {"float32": 1e-5, "float64": 1e-9}  # relative, of every entry
CHECKED = 64  # rows and columns compared with the reference


class Case(NamedTuple):
    """Number of points N, depth L, precision, and whether on the sphere."""

    count: int
    depth: int
    dtype: str = "float32"
    sphere: bool = True

    @property
    def name(self) -> str:
        """Sizes and dtype as the table shows them."""
        return f"N = {self.count}, L = {self.depth}, {self.dtype}"

    @property
    def facts(self) -> dict:
        """What JSON stores."""
        return {**self._asdict(), "n_in": FEATURES, "beta": BETA}


CASES = (
    *(Case(n, 6) for n in (1024, 2048, 4096)),
    *(Case(4096, depth) for depth in (64, 1000)),
    *(Case(2048, depth, "float64") for depth in (6, 64)),
    *(Case(2048, depth, sphere=False) for depth in (2, 6, 64)),
)


def points(count: int, dtype: str = "float32", sphere: bool = True):
    """(count, 784), normal, or scaled to the norm sqrt(784)."""
    x = np.random.default_rng(0).standard_normal((count, FEATURES))
    if sphere:
        x *= np.sqrt(FEATURES) / np.linalg.norm(x, axis=1, keepdims=True)
    return jnp.asarray(x.astype(dtype))


def reference(x, depth: int, beta: float):
    """NNGP and NTK of standardized relu, layer by layer in NumPy, float64.

    With relu scaled by sqrt(2), variances obey k' = (1-beta^2) k + beta^2 and
    E[s(u)s(v)] = m (sin t + (pi-t) cos t)/pi, E[s'(u)s'(v)] = (pi-t)/pi for
    the angle t and m = sqrt(kxx kyy). Source: Cho and Saul (2009), section 2.
    """
    x = np.asarray(x, np.float64)
    weight, bias = 1 - beta**2, beta**2
    square = weight * (x**2).mean(axis=1) + bias
    nngp = theta = weight * x @ x.T / x.shape[1] + bias
    for _ in range(depth - 1):
        scale = np.sqrt(np.outer(square, square))
        unit = np.clip(nngp / scale, -1, 1)
        # The rounding of 1 - unit would be an angle of 1e-8.
        np.fill_diagonal(unit, 1)
        t = np.arccos(unit)
        value = scale * (np.sin(t) + (np.pi - t) * unit) / np.pi
        nngp = weight * value + bias
        theta = nngp + weight * (np.pi - t) / np.pi * theta
        square = weight * square + bias
    return nngp, theta


def check(case: Case, x, kernels):
    """Exit unless a block of ``kernels`` agrees with the reference."""
    expected = reference(x[:CHECKED], case.depth, BETA)
    for value, right in zip(kernels, expected, strict=True):
        block = np.asarray(value[:CHECKED, :CHECKED], np.float64)
        error = np.abs(block / right - 1).max()
        if not error < TOLERANCE[case.dtype]:
            sys.exit(f"{case.name}: the kernels are wrong by {error:.1e}")


def row(case: Case):
    """One row of the table, its kernels checked first."""
    net = ntk.FullyConnected(depth=case.depth, beta=BETA)
    group = SPHERE if case.sphere else SPACE
    with jax.enable_x64(case.dtype == "float64"):
        x = points(case.count, case.dtype, case.sphere)
        check(case, x, net.kernels(x))
        result = compare(
            group,
            case.name,
            lambda: gram(x),
            lambda: net.kernels(x),
            **case.facts,
        )
    bound = PROMISED.get((case.count, case.depth))
    if bound is None or not case.sphere:
        return result
    return judged(result, f"ratio at most {bound}", result.ratio <= bound)


def first_call(count: int):
    """The first call at new depths, which builds the function of the angle.

    Of the same shape as calls before, so that nothing is compiled again.
    """
    x, depths = points(count), itertools.count(200)
    result = compare(
        FIRST,
        f"N = {count}, L = 200 to 207",
        lambda: gram(x),
        lambda: ntk.FullyConnected(depth=next(depths), beta=BETA).kernels(x),
        **Case(count, 200).facts,
    )
    promise = f"first call at most {PROMISED_SECONDS:g} s"
    return judged(result, promise, result.seconds <= PROMISED_SECONDS)


def compiled_call(count: int):
    """First calls of both, after JAX has forgotten all programs."""
    x, pairs = points(count), []
    for depth in range(300, 303):
        jax.clear_caches()
        net = ntk.FullyConnected(depth=depth, beta=BETA)
        baseline = seconds(lambda: gram(x))
        pairs.append((baseline, seconds(lambda net=net: net.kernels(x))))
    name = f"N = {count}, L = 300 to 302, both compiled"
    return comparison(FIRST, name, pairs, **Case(count, 300).facts)


def rows(options):
    """All rows; ``options.small`` divides the numbers of points by 8."""
    shrink = 8 if options.small else 1
    for case in CASES:
        yield row(case._replace(count=case.count // shrink))
    yield first_call(1024 // shrink)
    yield compiled_call(1024 // shrink)
