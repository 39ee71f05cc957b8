"""Input checks shared by the whole package.

A kernel evaluated on a wrong shape or on a NaN fails far from its cause. The
checks here stop it at the door with a ``ValueError`` that says what was
expected and what came. Values can only be inspected when they are concrete:
inside a caller's own ``jax.jit`` or ``jax.grad`` the shape checks still run
and the value checks are skipped.
"""

import operator

import jax
import jax.numpy as jnp
import numpy as np

LARGE = 2**20  # entries; below, a compilation would cost more than a copy


def is_concrete(*values) -> bool:
    """Whether every value can be inspected (none is being traced)."""
    leaves = jax.tree.leaves(values)
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)


def finite(value, name: str):
    """Return ``value``; raise ``ValueError`` unless all of it is finite."""
    if is_concrete(value) and not _all_finite(value):
        bad = int(np.size(value) - np.isfinite(value).sum())
        raise ValueError(
            f"{name} must be finite, got {bad} NaN or infinite entries out of "
            f"{np.size(value)}"
        )
    return value


def _all_finite(value) -> bool:
    """Whether all of ``value`` is finite; nothing large is copied."""
    if isinstance(value, jax.Array) and (
        value.size > LARGE or not value.is_fully_addressable
    ):
        return bool(_finite_where_it_lies(value))
    return bool(np.isfinite(value).all())


@jax.jit
def _finite_where_it_lies(value):
    # NaN is the largest of all. isfinite would store a truth value an entry.
    return jnp.abs(value).max() < jnp.inf


def inputs(
    x, name: str = "x", features: int | None = None, last: str = "n_0"
) -> jax.Array:
    """Return ``x`` as a floating array of shape (N, n_0), N >= 1.

    ``last`` names the second axis in messages. Raises ``ValueError`` on
    another rank, on an empty array, on a number of
    features other than ``features`` and on non-finite entries.
    """
    x = floating(x)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(
            f"{name} must have shape (N, {last}) with N, {last} >= 1, got "
            f"{x.shape}"
        )
    if features is not None and x.shape[1] != features:
        raise ValueError(
            f"{name} must have {features} features per row, got {x.shape[1]}"
        )
    return finite(x, name)


def grid_inputs(
    x, name: str, shape: tuple[int, ...], channels: int | None = None
) -> jax.Array:
    """Return ``x`` as a floating array of shape (N, *shape, n_0), N >= 1.

    Raises ``ValueError`` on another shape, on a number of channels n_0 other
    than ``channels`` and on non-finite entries.
    """
    x = floating(x)
    if x.shape[1:-1] != shape or x.ndim != len(shape) + 2 or 0 in x.shape:
        expected = ", ".join(("N", *map(str, shape), "n_0"))
        raise ValueError(f"{name} must have shape ({expected}), got {x.shape}")
    if channels is not None and x.shape[-1] != channels:
        raise ValueError(
            f"{name} must have {channels} channels, got {x.shape[-1]}"
        )
    return finite(x, name)


def targets(y, rows: int) -> jax.Array:
    """Return ``y`` as a floating array of shape (N, K) with N = ``rows``."""
    y = inputs(y, "y", last="K")
    if len(y) != rows:
        raise ValueError(
            f"y must have one row per row of x, {rows}, got {len(y)}"
        )
    return y


def floating(value) -> jax.Array:
    """Return ``value`` as a JAX array of a floating dtype."""
    value = jnp.asarray(value)
    if jnp.issubdtype(value.dtype, jnp.complexfloating):
        raise ValueError(f"expected real numbers, got dtype {value.dtype}")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        value = value.astype(jnp.result_type(float))
    return value


def positive_integer(value, name: str) -> int:
    """Return ``value`` as an int; raise ``ValueError`` unless it is >= 1."""
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1 or isinstance(value, bool):
        raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
    return number


def boolean(value, name: str) -> bool:
    """Return ``value`` as a bool; raise ``ValueError`` on anything else."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def unit_interval(value, name: str) -> float:
    """Return ``value`` as a float; raise ``ValueError`` outside [0, 1]."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 <= number <= 1:
        raise ValueError(f"{name} must lie in [0, 1], got {value!r}")
    return number


def on_sphere(x, name: str = "x") -> jax.Array:
    """Return ``x`` of shape (N, n_0) whose rows have norm sqrt(n_0).

    Raises ``ValueError`` when a norm is off by more than the rounding of the
    dtype, 32 units in the last place.
    """
    x = inputs(x, name)
    if is_concrete(x):
        norms = np.linalg.norm(np.asarray(x, float), axis=1)
        off = float(np.abs(norms / x.shape[1] ** 0.5 - 1).max())
        if off > 32 * jnp.finfo(x.dtype).eps:
            raise ValueError(
                f"{name} must lie on the sphere of radius sqrt(n_0) = "
                f"{x.shape[1] ** 0.5:.6g}, got norms from {norms.min():.6g} "
                f"to {norms.max():.6g}"
            )
    return x


def grid_shape(shape) -> tuple[int, ...]:
    """Return ``shape``, one or two integers >= 1, as a tuple of ints."""
    shape = tuple(np.ravel(shape).tolist())
    if len(shape) not in (1, 2):
        raise ValueError(f"shape must have one or two axes, got {shape}")
    return tuple(positive_integer(n, "shape") for n in shape)


def positive_numbers(values, size: int, name: str) -> tuple[float, ...]:
    """Return ``size`` finite numbers > 0 as a tuple of floats."""
    numbers = np.ravel(np.asarray(values, float))
    good = np.isfinite(numbers) & (numbers > 0)
    if len(numbers) != size or not good.all():
        raise ValueError(
            f"{name} must be {size} finite numbers > 0, got {values!r}"
        )
    return tuple(numbers.tolist())
