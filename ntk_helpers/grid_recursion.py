r"""The recursion of both kernels over the layers and positions of a network.

With P(p) the links of position p and q(k, p) the input position that tap k
links to p, the pre-activations of the limit have, w = 1 - beta^2, covariance

    Sigma'_{pp'} = beta^2 + w/sqrt(|P(p)| |P(p')|) sum_k E[s(u_q)s(u_q')],

k running over the taps that p and p' share, q = q(k, p) and q' = q(k, p').
A pair needs only pairs of the layer below that have its displacement, over or
times the stride; a plan lists them for every layer, so that nothing else is
computed.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .covariance import (
    Covariance,
    PairMoments,
    PointMoments,
    affine,
    half_angles,
)
from .nonlinearity import Nonlinearity
from .precision import safe_sqrt
from .recursion import Kernels


class Step(NamedTuple):
    """Index tables of one layer, from R' pairs of positions below to R.

    ``rows`` (R, J), ``weights`` (R,) and ``complete`` (R,) as in
    :class:`PairTable`; ``pairs`` (R, 2) are the positions above; ``parents``
    (P, J) and ``counts`` (P,) those of the single positions, None in the last
    layer, where they are not needed.
    """

    rows: np.ndarray
    weights: np.ndarray
    complete: np.ndarray
    pairs: np.ndarray
    parents: np.ndarray | None
    counts: np.ndarray | None


class Plan(NamedTuple):
    """``pairs`` (R', 2) of the input's positions, and the steps from there.

    Step i is done ``repeats[i]`` times: layers that do the same count as one.
    """

    pairs: np.ndarray
    steps: tuple[Step, ...]
    repeats: tuple[int, ...]


def plan(links, pairs) -> Plan:
    """What the ``pairs`` (R, 2) of the last layer's positions need.

    ``links``: of every layer, from the first to the last.
    """
    steps, repeats, above = [], [], None
    for layer in reversed(links):
        same = layer is above and np.array_equal(pairs, steps[0].pairs)
        if same and steps[0].parents is not None:
            repeats[0] += 1
            continue
        last = not steps
        table = layer.below(pairs)
        single = (None, None) if last else (layer.parents(), layer.counts)
        steps.insert(0, Step(*table[:3], pairs, *single))
        repeats.insert(0, 1)
        pairs, above = table.pairs, layer
    return Plan(pairs, tuple(steps), tuple(repeats))


@partial(jax.jit, static_argnums=(0, 1, 2))
def recursion(
    s: Nonlinearity,
    wanted: str | None,
    repeats,
    beta,
    rates,
    pairs,
    steps,
    x,
    y,
):
    """Kernels of ``pairs`` of the last layer and the duals' largest error.

    ``x`` (N, Q, n_0) and ``y`` (M, Q, n_0); ``repeats``, ``pairs`` and
    ``steps`` of a :class:`Plan`; ``rates`` (L,), the learning rates of the
    layers. Results have shape (N, M, R). ``wanted`` names the only kernel to
    compute; None stands for both.
    """
    weight, bias = 1 - beta**2, beta**2

    def layer(step, pairs, first, index, state):
        squares, pair, theta, error = state
        rate = rates[first + index]
        carried = _linked(step, pair.slope * theta)
        pair = _averaged(step, squares, pair, pairs)
        squares = [_over_parents(step, square) for square in squares]
        cov = affine(*_at(squares, step.pairs), pair, beta)
        theta = rate * cov.xy + weight * carried
        points = [s.point(weight * square + bias) for square in squares]
        for point in points:
            latest = jnp.max(jnp.asarray(point.error, x.dtype))
            error = jnp.maximum(error, latest)
        squares = [point.square for point in points]
        return squares, s.pair(cov), theta, error

    squares, pair = _identity(pairs, x, y)
    state = squares, pair, 0 * pair.gap, jnp.zeros((), x.dtype)
    first = 0
    for step, count in zip(steps[:-1], repeats, strict=False):
        state = (
            jax.lax.fori_loop(
                0, count, partial(layer, step, pairs, first), state
            )
            if count > 1
            else layer(step, pairs, first, 0, state)
        )
        pairs, first = step.pairs, first + count
    _, pair, theta, error = state
    nngp = ntk = None
    product = (pair.cogap - pair.gap) / 4
    if wanted != "ntk":
        nngp = bias + weight * _linked(steps[-1], product)
    if wanted != "nngp":
        change = rates[-1] * product + pair.slope * theta
        ntk = rates[-1] * bias + weight * _linked(steps[-1], change)
    kernels = Kernels(nngp, ntk)
    return jax.tree.map(lambda k: jnp.moveaxis(k, 0, -1), kernels), error


def _identity(pairs, x, y):
    """E[alpha^2] and pair moments of the inputs, for the first layer."""
    at_first = x[:, pairs[:, 0]].swapaxes(0, 1)
    at_second = y[:, pairs[:, 1]].swapaxes(0, 1)
    squares = [jnp.mean(z**2, axis=2).T for z in (x, y)]
    xx, yy = (point.square for point in _at(squares, pairs))
    angles = jax.vmap(half_angles)(at_first, at_second)
    return squares, Covariance(xx, yy, *angles).as_moments()[2]


def _at(squares, pairs):
    """E[alpha^2] at both positions of every pair, (R, N, 1) and (R, 1, M)."""
    x, y = squares
    both = x[pairs[:, 0], :, None], y[pairs[:, 1], None, :]
    return [PointMoments(None, square, None) for square in both]


def _over_parents(step: Step, square):
    """E[alpha^2] summed over the links of every position, over |P(p)|."""
    return _gathered(square, step.parents) / step.counts[:, None]


def _averaged(step: Step, squares, pair: PairMoments, pairs) -> PairMoments:
    r"""Gap and cogap of the sums over the links, without cancellation.

    To sum_k (m - K) over the shared taps, m = sqrt(E[s(u)^2] E[s(v)^2]), the
    gap adds what Cauchy and Schwarz leave, with a = E[s(u)^2], A its mean,

        2 sqrt(A B) - 2 sum sqrt(a b) = sum (sqrt a - sqrt b)^2
            - (sqrt A - sqrt B)^2 + (A + B - sum (a + b)),

    the last bracket being 0 where all taps are shared.
    """
    x, y = (point.square for point in _at(squares, pairs))
    means = [_over_parents(step, square) for square in squares]
    mean_x, mean_y = (point.square for point in _at(means, step.pairs))
    spread = (safe_sqrt(x) - safe_sqrt(y)) ** 2
    mean_spread = (safe_sqrt(mean_x) - safe_sqrt(mean_y)) ** 2
    rest = mean_x + mean_y - _linked(step, x + y)
    rest = jnp.where(step.complete[:, None, None], 0, rest)
    left = _linked(step, spread) - mean_spread + rest
    left = jnp.where(left < 0, 0, left)
    gap, cogap = _linked(step, pair.gap), _linked(step, pair.cogap)
    return PairMoments(gap + left, cogap + left, pair.slope)


def _linked(step: Step, values):
    """Sums over the shared taps, over sqrt(|P(p)| |P(p')|): (R', ..) -> R."""
    weights = step.weights.astype(values.dtype)
    return weights[:, None, None] * _gathered(values, step.rows)


def _gathered(values, rows):
    """sum_j values[rows[:, j]]; rows past the end count as 0."""

    def add(column, total):
        row = jax.lax.dynamic_index_in_dim(rows, column, 1, False)
        return total + values.at[row].get(mode="fill", fill_value=0)

    start = jnp.zeros((len(rows), *values.shape[1:]), values.dtype)
    return jax.lax.fori_loop(0, rows.shape[1], add, start)
