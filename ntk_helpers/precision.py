"""Numerical ground rules: precision of products, of constants, of roots.

A GPU multiplies float32 matrices with ten-bit mantissas unless asked
otherwise, which is visible in every Gram matrix; and constants of the theory,
such as E[s(z)^2], must not depend on whether the caller runs in float32.
"""

from contextlib import contextmanager

import jax
import jax.numpy as jnp

HIGHEST = jax.lax.Precision.HIGHEST


@contextmanager
def float64():
    """Evaluate at once and in float64, whatever the caller's settings."""
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        yield


def matmul(a, b):
    """Matrix product at the highest precision the device has."""
    return jnp.matmul(a, b, precision=HIGHEST)


def safe_sqrt(value):
    """Square root whose derivative at 0 is 0 instead of infinite."""
    positive = value > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, value, 1)), 0)
