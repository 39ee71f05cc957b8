r"""The empirical NTK of any JAX function, without its Jacobian.

Theta(x, y) = J(x) J(y)^T with J the Jacobian of the outputs with respect to
all parameters. J has one row of p numbers per output: at width 4096 one row
is hundreds of megabytes. A column of Theta needs only one gradient and one
directional derivative.
"""

from collections.abc import Callable
from functools import partial
from math import prod

import jax
import jax.numpy as jnp

from . import checks


def empirical_ntk(f: Callable, params, x, y=None, batch_size: int = 16):
    r"""Theta(x, y) = (d f(x)/d params) (d f(y)/d params)^T of ``f``.

    ``f(params, x)`` takes inputs (N, ...) to outputs (N,) or (N, K); rows may
    depend on each other, as they do under batch normalization, and are then
    differentiated as the batches ``x`` and ``y`` stand. ``y=None`` means
    ``x``. Returns (N, M) for K = 1 or outputs (N,), else (N, M, K, K) with
    entry [i, j, k, l] = <grad f_k(x_i), grad f_l(y_j)>.

    For each output of ``y`` one reverse pass gives its gradient and one
    forward pass its product with J(x); ``batch_size`` of them run at a time.
    Source: Novak, Sohl-Dickstein and Schoenholz (2022), section 3.3.

    Raises ``ValueError`` on non-finite inputs, outputs of another rank and a
    ``y`` whose rows are not shaped like those of ``x``.
    """
    x = checks.finite(checks.floating(x), "x")
    y = x if y is None else checks.finite(checks.floating(y), "y")
    if x.ndim < 1 or x.shape[1:] != y.shape[1:]:
        raise ValueError(
            f"x and y must agree in all axes but the first, got {x.shape} "
            f"and {y.shape}"
        )
    outputs = [jax.eval_shape(f, params, z) for z in (x, y)]
    shape_x, shape_y = (output.shape for output in outputs)
    for shape, z, name in ((shape_x, x, "x"), (shape_y, y, "y")):
        if len(shape) not in (1, 2) or shape[0] != len(z):
            raise ValueError(
                f"f(params, {name}) must have shape (N,) or (N, K) with N = "
                f"{len(z)}, got {shape}"
            )
    size = prod(shape_y)
    batch_size = min(batch_size, size)
    columns = _columns(f, params, x, y, size, batch_size)
    kernel = columns.reshape(*_two(shape_y), *_two(shape_x))
    kernel = kernel.transpose(2, 0, 3, 1)
    return kernel[:, :, 0, 0] if kernel.shape[2:] == (1, 1) else kernel


def rated(params, rates):
    """``params``, whose derivatives in layer l are sqrt(``rates[l]``) times.

    A function of them has the empirical NTK sum_l rates[l] Theta_l, with
    Theta_l the part of layer l in its own.
    """

    def slowed(rate):
        fixed = jax.lax.stop_gradient
        return lambda p: fixed(p) + rate**0.5 * (p - fixed(p))

    return tuple(
        jax.tree.map(slowed(rate), layer)
        for layer, rate in zip(params, rates, strict=True)
    )


def _columns(f, params, x, y, size, batch_size):
    """Theta, one row for each of the ``size`` outputs of ``y``."""
    if not checks.is_concrete(params, x, y):
        return _looped(f, params, x, y, size, batch_size)
    # A loop of its own calls: on a CPU, XLA's convolutions are a hundred
    # times slower within a compiled loop.
    starts = range(0, size, batch_size)
    parts = [_batch(f, params, x, y, start, batch_size) for start in starts]
    return jnp.concatenate(parts)[:size]


def _looped(f, params, x, y, size, batch_size):
    column = _column(f, params, x, y)
    return jax.lax.map(column, jnp.arange(size), batch_size=batch_size)


@partial(jax.jit, static_argnums=(0, 5))
def _batch(f, params, x, y, start, batch_size):
    """Rows ``start``, ..., ``start`` + ``batch_size`` - 1; 0 past the end."""
    column = _column(f, params, x, y)
    return jax.vmap(column)(start + jnp.arange(batch_size))


def _column(f, params, x, y):
    """The function from the number of an output of ``y`` to its row."""
    precision = partial(jax.default_matmul_precision, "highest")
    with precision():
        outputs, pullback = jax.vjp(lambda p: f(p, y), params)

    def column(index):
        one_hot = jax.nn.one_hot(index, outputs.size, dtype=outputs.dtype)
        with precision():
            (gradient,) = pullback(one_hot.reshape(outputs.shape))
            return jax.jvp(lambda p: f(p, x), (params,), (gradient,))[1]

    return column


def _two(shape):
    return shape if len(shape) == 2 else (*shape, 1)
