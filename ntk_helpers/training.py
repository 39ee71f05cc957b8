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

    ``f(params, x)`` (N, n_0) -> (N, K), ``y`` (N, K). Returns the final
    parameters and the records: ``record(params)`` at steps 0, ``every``,
    2 ``every``, ..., stacked along a new first axis of length
    steps // every + 1 (by default the cost is recorded). Time is step times
    the number of steps. ``progress`` shows a bar.

    Raises ``ValueError`` when ``y`` does not have the shape of the outputs,
    when ``steps`` is not a multiple of ``every``, or when ``step`` is not a
    positive number.
    """
    x, y = checks.inputs(x), checks.inputs(y, "y", last="K")
    outputs = jax.eval_shape(f, params, x).shape
    if outputs != y.shape:
        raise ValueError(
            f"y must have the shape of f, {outputs}, got {y.shape}"
        )
    steps = checks.positive_integer(steps, "steps")
    every = checks.positive_integer(every, "every")
    if steps % every:
        raise ValueError(
            f"steps must be a multiple of every = {every}, got {steps}"
        )
    if checks.is_concrete(step) and not 0 < step < float("inf"):
        raise ValueError(f"step must be a positive number, got {step}")
    record = record or partial(_cost_of, f, x, y)
    records = [record(params)]
    # To stdout: a notebook shows stderr as an error.
    rounds = tqdm(range(steps // every), disable=not progress, file=sys.stdout)
    for _ in rounds:
        params = _descend(f, params, x, y, step, every)
        records.append(record(params))
    return params, jax.tree.map(lambda *r: jnp.stack(r), *records)


def _cost_of(f, x, y, params):
    return cost(f, params, x, y)


@partial(jax.jit, static_argnums=(0, 5))
def _descend(f, params, x, y, step, steps):
    def update(_, params):
        gradient = jax.grad(cost, argnums=1)(f, params, x, y)
        return jax.tree.map(
            lambda p, g: p - jnp.asarray(step, p.dtype) * g, params, gradient
        )

    return jax.lax.fori_loop(0, steps, update, params)
