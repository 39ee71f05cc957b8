r"""Training a finite network with the lecture's cost.

C(params) = (1/N) ||f(params, X) - Y||^2, summed over outputs. Gradient flow
on C moves the outputs on the training set by (2/N) Theta (Y - f): the factors
2/N of the theory come from here.
"""

import sys
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from tqdm import tqdm

from . import checks


def cost(f: Callable, params, x, y) -> jax.Array:
    """C = (1/N) ||f(params, x) - y||^2 for outputs and ``y`` (N, K).

    Raises ``ValueError`` when ``y`` does not have the shape of the outputs.
    """
    outputs = f(params, x)
    if outputs.shape != jnp.shape(y):
        raise ValueError(
            f"y must have the shape of f, {outputs.shape}, got {jnp.shape(y)}"
        )
    return jnp.sum((outputs - y) ** 2) / len(x)


def gradient_descent(
    f: Callable,
    params,
    x,
    y,
    step: float,
    steps: int,
    record: Callable | None = None,
    every: int = 1,
    progress: bool = False,
):
    """Full-batch gradient descent params <- params - step * grad C.

    Arguments and results as in :func:`train`. Time is step times the number
    of steps. Raises ``ValueError`` where :func:`train` does, or when ``step``
    is not a positive number.
    """
    if checks.is_concrete(step) and not 0 < step < float("inf"):
        raise ValueError(f"step must be a positive number, got {step}")
    step = jnp.asarray(step, float)
    plan = x, y, steps, record, every, progress
    return _train(f, params, _descent, step, *plan)


def train(
    f: Callable,
    params,
    x,
    y,
    optimizer,
    steps: int,
    record: Callable | None = None,
    every: int = 1,
    progress: bool = False,
):
    """Full-batch training on C with any gradient transformation.

    ``f(params, x)`` (N, n_0) -> (N, K), ``y`` (N, K). ``optimizer`` has the
    interface of optax: ``init(params)`` returns a state and
    ``update(gradient, state, params)`` what is added to ``params``, and the
    next state. Build it once: what is compiled is kept for each optimizer.

    Returns the final parameters and the records: ``record(params)`` at steps
    0, ``every``, 2 ``every``, ..., stacked along a new first axis of length
    steps // every + 1 (by default the cost is recorded). ``progress`` shows a
    bar.

    Raises ``ValueError`` when ``y`` does not have the shape of the outputs,
    when ``steps`` is not a multiple of ``every``, or when ``optimizer`` lacks
    a method.
    """
    if not all(hasattr(optimizer, name) for name in ("init", "update")):
        raise ValueError(
            "optimizer must have the methods init and update of an optax "
            f"transformation, got {optimizer!r}"
        )
    plan = x, y, steps, record, every, progress
    return _train(f, params, optimizer.update, optimizer.init(params), *plan)


def _train(f, params, update, state, x, y, steps, record, every, progress):
    """The loop of every method: ``update`` is static, ``state`` is traced."""
    x, y = checks.inputs(x), checks.inputs(y, "y", last="K")
    outputs = jax.eval_shape(f, params, x).shape
    if outputs != y.shape:
        raise ValueError(
            f"y must have the shape of f, {outputs}, got {y.shape}"
        )
    every = checks.positive_integer(every, "every")
    rounds = whole_rounds(steps, every)
    # As a pytree f may hold arrays, those of a linearization, say, without a
    # compilation for each.
    f = as_pytree(f)
    record = record or (lambda params: _recorded_cost(f, params, x, y))
    (params, _), records = recorded(
        lambda now: _advance(update, every, f, *now, x, y),
        (params, state),
        rounds,
        lambda now: record(now[0]),
        progress,
    )
    return params, records


def whole_rounds(steps: int, every: int) -> int:
    """steps/every; raises ``ValueError`` unless it is an integer >= 1."""
    steps = checks.positive_integer(steps, "steps")
    if steps % every:
        raise ValueError(
            f"steps must be a multiple of every = {every}, got {steps}"
        )
    return steps // every


def recorded(advance, state, rounds: int, record, progress: bool):
    """``state`` after so many calls of ``advance``, and the records.

    ``record(state)`` is taken before the first and after each, and stacked
    along a new first axis.
    """
    records = [record(state)]
    # To stdout: a notebook shows stderr as an error.
    for _ in tqdm(range(rounds), disable=not progress, file=sys.stdout):
        state = advance(state)
        records.append(record(state))
    return state, jax.tree.map(lambda *r: jnp.stack(r), *records)


_recorded_cost = jax.jit(cost)


@partial(jax.jit, static_argnums=0)
def _advance(update, steps, f, params, state, x, y):
    def advance(_, now):
        params, state = now
        gradient = jax.grad(cost, argnums=1)(f, params, x, y)
        change, state = update(gradient, state, params)
        params = jax.tree.map(
            lambda p, c: p + jnp.asarray(c, p.dtype), params, change
        )
        return params, state

    return jax.lax.fori_loop(0, steps, advance, (params, state))


def _descent(gradient, step, params):
    change = jax.tree.map(lambda g: -step.astype(g.dtype) * g, gradient)
    return change, step


def as_pytree(f: Callable) -> Partial:
    """``f`` as a pytree; one that is a ``Partial`` keeps its own leaves."""
    return f if isinstance(f, Partial) else Partial(f)
