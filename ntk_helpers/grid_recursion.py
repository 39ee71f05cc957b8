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

import jax
import jax.numpy as jnp

from .angles import unit
from .covariance import Covariance, PairMoments, PointMoments, affine
from .grid_plan import Plan, Step
from .nonlinearity import Nonlinearity
from .precision import safe_sqrt
from .recursion import Kernels


@partial(jax.jit, static_argnums=(0, 1))
def recursion(s: Nonlinearity, wanted: str | None, beta, rates, plan, x, y):
    """Kernels of the planned pairs and the duals' largest error.

    ``x`` (N, Q, n_0) and ``y`` (M, Q, n_0); ``plan``, a :class:`Plan`;
    ``rates`` (L,), the learning rates of the layers. Results have shape
    (N, M, R). ``wanted`` names the only kernel to compute; None stands for
    both.
    """
    weight, bias = 1 - beta**2, beta**2

    def layer(state, rule):
        pairs, square, pair, theta, error = state
        number, rate = rule
        step = jax.tree.map(lambda table: table[number], plan.hidden)
        below = _at(square, pairs, len(x))
        square = _over_parents(step, square)
        above = _at(square, step.pairs, len(x))
        pair, carried = _averaged(step, below, above, pair, theta)
        cov = affine(*map(_point, above), pair, beta)
        theta = rate * cov.xy + weight * carried
        points = s.point(weight * square + bias)
        latest = jnp.max(jnp.asarray(points.error, x.dtype))
        error = jnp.maximum(error, latest)
        return (step.pairs, points.square, s.pair(cov), theta, error), None

    square, pair = _identity(plan.inputs, x, y)
    state = square, pair, 0 * pair.gap, jnp.zeros((), x.dtype)
    if plan.hidden is not None:
        state = _enlarged(plan, *state)
        state = jax.lax.scan(layer, state, (plan.order, rates[:-1]))[0][1:]
    _, pair, theta, error = state
    nngp = ntk = None
    product = (pair.cogap - pair.gap) / 4
    if wanted != "ntk":
        nngp = _read_out(plan, product, weight, bias)
    if wanted != "nngp":
        change = rates[-1] * product + pair.slope * theta
        ntk = _read_out(plan, change, weight, rates[-1] * bias)
    return Kernels(nngp, ntk), error


def _identity(pairs, x, y):
    """E[alpha^2], (Q, N + M), and the moments of pairs, of the inputs."""
    square = jnp.concatenate([jnp.mean(z**2, axis=2) for z in (x, y)]).T
    angles = _half_angles(unit(x)[:, pairs[:, 0]], unit(y)[:, pairs[:, 1]])
    cov = Covariance(*_at(square, pairs, len(x)), *angles)
    return square, cov.as_moments()[2]


def _enlarged(plan: Plan, square, pair: PairMoments, theta, error):
    """The state of the inputs with as many rows as the hidden layers have."""
    size, positions = len(plan.hidden.pairs[0]), len(plan.hidden.counts[0])
    pair = jax.tree.map(lambda moment: _filled(moment, size), pair)
    theta, square = _filled(theta, size), _filled(square, positions)
    return _filled(plan.inputs, size), square, pair, theta, error


def _filled(values, size: int):
    """``values`` with the last row repeated up to ``size`` rows."""
    return values[jnp.minimum(jnp.arange(size), len(values) - 1)]


def _half_angles(x, y):
    """sin^2 and cos^2 of half the angle, (N, R, n), (M, R, n) -> (R, N, M).

    From differences and sums of unit vectors: pairs of positions have no
    matrix product to save.
    """
    x, y = x.swapaxes(0, 1)[:, :, None], y.swapaxes(0, 1)[:, None]
    apart, along = (jnp.sum((x + z) ** 2, axis=-1) for z in (-y, y))
    total = apart + along
    safe = jnp.where(total > 0, total, 1)
    return tuple(
        jnp.where(total > 0, part / safe, 0.5) for part in (apart, along)
    )


def _at(square, pairs, rows: int):
    """E[alpha^2] at both positions of every pair, (R, N, 1) and (R, 1, M).

    ``square`` (Q, N + M): of x in the first ``rows`` = N columns, then of y.
    """
    x, y = square[:, :rows], square[:, rows:]
    return x[pairs[:, 0], :, None], y[pairs[:, 1], None, :]


def _point(square) -> PointMoments:
    """What :func:`affine` reads of the moments of single inputs."""
    return PointMoments(0 * square, square, square)


def _over_parents(step: Step, square):
    """E[alpha^2] summed over the links of every position, over |P(p)|."""
    return _gathered(square, step.parents) / step.counts[:, None]


def _averaged(step: Step, below, above, pair: PairMoments, theta):
    r"""Moments of the sums over the links, and the sum of slope Theta.

    To sum_k (m - K) over the shared taps, m = sqrt(E[s(u)^2] E[s(v)^2]), the
    gap adds what Cauchy and Schwarz leave, with a = E[s(u)^2], A its mean,

        2 sqrt(A B) - 2 sum sqrt(a b) = sum (sqrt a - sqrt b)^2
            - (sqrt A - sqrt B)^2 + (A + B - sum (a + b)),

    the last bracket being 0 where all taps are shared. Nothing cancels.
    """
    spread, mean_spread = (
        (safe_sqrt(x) - safe_sqrt(y)) ** 2 for x, y in (below, above)
    )
    values = pair.gap, pair.cogap, pair.slope * theta, spread, sum(below)
    gap, cogap, carried, spread, both = (
        _linked(step, value) for value in values
    )
    rest = jnp.where(step.complete[:, None, None], 0, sum(above) - both)
    left = spread - mean_spread + rest
    left = jnp.where(left < 0, 0, left)
    return PairMoments(gap + left, cogap + left, pair.slope), carried


def _linked(step: Step, values):
    """Sums over the shared taps, over sqrt(|P(p)| |P(p')|): (R', ..) -> R."""
    weights = step.weights.astype(values.dtype)
    return weights[:, None, None] * _gathered(values, step.rows)


def _read_out(plan: Plan, values, weight, bias):
    """bias + weight times the sums of the last layer, (N, M, R)."""
    total = _gathered(values, plan.rows)
    weights = weight * plan.weights.astype(values.dtype)
    return jnp.moveaxis(bias + weights[:, None, None] * total, 0, -1)


def _gathered(values, rows):
    """sum_j values[rows[:, j]]; rows past the end count as 0.

    Column by column: all of them at once would take J times the memory.
    """

    def add(column, total):
        row = jax.lax.dynamic_index_in_dim(rows, column, 1, False)
        return total + values.at[row].get(mode="fill", fill_value=0)

    total = jnp.zeros((len(rows), *values.shape[1:]), values.dtype)
    return jax.lax.fori_loop(0, rows.shape[1], add, total)
