"""Angles against 40 digits, and their derivatives against the plain formula.

The inputs are rounded; what is tested is the loss beyond that.
"""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from ntk_helpers.angles import CHUNK, half_angles, unit

rng = np.random.default_rng(6)
halves = jax.jit(half_angles)  # one compilation for each pair of shapes


def sin2_half(a, b):
    """sin^2 of half the angle, (1 - cos)/2 in 40 digits."""
    a, b = ([mp.mpf(float(v)) for v in row] for row in (a, b))
    dot = mp.fdot(a, b) / mp.sqrt(mp.fdot(a, a) * mp.fdot(b, b))
    return (1 - dot) / 2


def plain(x, y):
    """sin^2 of half the angle by (1 - cos)/2 in NumPy's float64."""
    x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
    return (1 - x @ y.T) / 2


def on_sphere(x, square):
    return x * np.sqrt(square / (x**2).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("distance", (1e-6, 1e-4, 1e-2, 0.1, 0.3, 1))
@pytest.mark.parametrize("sign", (1, -1))
def test_near_pairs(dtype, distance, sign):
    """The small half is as accurate as rounding of the unit vectors allows.

    Their error eps is amplified by 1 / distance where they are subtracted.
    """
    x = rng.normal(size=(4, 8)).astype(dtype)
    y = (sign * (x + distance * rng.normal(size=x.shape))).astype(dtype)
    y[0] = sign * 2 * x[0]
    sin2, cos2 = (np.asarray(half) for half in halves(x, y))
    assert sin2.dtype == dtype
    eps = np.finfo(dtype).eps
    near = sin2 if sign > 0 else cos2
    for i in range(4):
        exact = float(sin2_half(x[i], sign * y[i]))
        root = exact**0.5
        assert abs(near[i, i] - exact) <= 8 * eps * root + 8 * eps**2
    np.testing.assert_allclose(sin2 + cos2, 1, atol=2 * eps)


def test_one_array(dtype):
    """Exact on the diagonal, symmetric, and 0 for a repeated row."""
    x = rng.normal(size=(5, 9)).astype(dtype)
    x[3] = x[1]
    x[4] = -x[1]
    sin2, cos2 = halves(jnp.asarray(x))
    assert (np.diag(sin2) == 0).all() and (np.diag(cos2) == 1).all()
    assert (sin2[1, 3], cos2[1, 4], sin2[1, 4]) == (0, 0, 1)
    np.testing.assert_array_equal(sin2, sin2.T)
    same = halves(jnp.asarray(x), jnp.asarray(x))
    np.testing.assert_allclose(same[0], sin2, atol=4 * np.finfo(dtype).eps)
    assert (np.diag(same[0]) == 0).all()


@pytest.mark.parametrize("square", (4.0, 1e-6, 3e6))
def test_common_square(dtype, square):
    """On a sphere of any radius rows need not be brought to norm 1."""
    x = on_sphere(rng.normal(size=(6, 9)), square)
    y = on_sphere(x[:5] + 1e-3 * rng.normal(size=(5, 9)) * square**0.5, square)
    y[1], y[3] = -y[1], x[3]
    x, y = x.astype(dtype), y.astype(dtype)
    sin2, cos2 = halves(x, y, jnp.asarray(square, dtype))
    eps = np.finfo(dtype).eps
    assert sin2.dtype == dtype
    np.testing.assert_allclose(sin2 + cos2, 1, atol=2 * eps)
    for i in range(5):
        small = (cos2 if i == 1 else sin2)[i, i]
        exact = float(sin2_half(x[i], -y[i] if i == 1 else y[i]))
        # Rounded rows leave the sphere by eps, which adds to the difference.
        assert abs(small - exact) <= 8 * eps * exact**0.5 + 8 * eps**2
    assert sin2[3, 3] == 0
    exact = plain(x.astype(float), y.astype(float))
    np.testing.assert_allclose(sin2, exact, atol=8 * eps)


def test_same_rows_have_angle_zero(dtype):
    """Rows known to be the same, though rounding tells them apart."""
    x = on_sphere(rng.normal(size=(6, 9)), 9).astype(dtype)
    y = (x[[2, 0, 1]] * (1 + 4 * np.finfo(dtype).eps)).astype(dtype)
    same = np.zeros((6, 3), bool)
    same[[2, 0], [0, 1]] = True
    square = jnp.asarray(9, dtype)
    sin2, cos2 = halves(x, y, square, same)
    assert (sin2[same] == 0).all() and (cos2[same] == 1).all()
    free = halves(x, y, square)
    assert (free[0][same] > 0).all()
    np.testing.assert_array_equal(sin2[~same], free[0][~same])
    assert 0 < sin2[1, 2] < 1e-10
    # Without y it replaces the diagonal that is the default.
    x[2] = on_sphere(x[1:2] + 0.01, 9)[0]
    pair = np.zeros((6, 6), bool)
    pair[1, 2] = True
    sin2, cos2 = halves(x, None, square, pair)
    assert (sin2[1, 2], cos2[1, 2]) == (0, 1)
    assert 1e-7 < sin2[2, 1] < 1e-3


@pytest.mark.parametrize("count", (CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK))
def test_many_near_pairs_in_a_row(count):
    """Near pairs are redone CHUNK at a time; none of them is left out."""
    others = 2 * CHUNK + 10
    centre = rng.normal(size=9)
    y = rng.normal(size=(others, 9))
    near = rng.permutation(others)[:count]
    y[near] = centre + 1e-4 * rng.normal(size=(count, 9))
    y[near[::3]] *= -1
    x = np.stack([rng.normal(size=9), centre, -centre]).astype(np.float32)
    y = y.astype(np.float32)
    sin2, cos2 = halves(x, y)
    # cos(theta) in float32 would leave 6e-8 of 1e-8; float64 leaves 1e-16.
    exact = plain(x.astype(float), y.astype(float))
    np.testing.assert_allclose(sin2, exact, rtol=2e-3, atol=1e-14)
    np.testing.assert_allclose(cos2, 1 - exact, rtol=2e-3, atol=1e-14)


def test_near_pairs_within_one_array():
    """70 nearly coinciding rows: more than CHUNK near pairs in every row."""
    x = rng.normal(size=9) + 1e-4 * rng.normal(size=(CHUNK + 6, 9))
    x[::2] *= -1
    x = x.astype(np.float32)
    sin2, cos2 = halves(x)
    exact = plain(x.astype(float), x.astype(float))
    small = np.minimum(exact, 1 - exact)
    np.testing.assert_allclose(
        np.minimum(sin2, cos2), small, rtol=2e-3, atol=1e-14
    )
    assert (np.asarray(sin2 < cos2) == (exact < 0.5)).all()


def test_gradients_are_those_of_the_plain_formula(x64):
    """Near, far and opposite pairs, with and without a common norm."""
    x = on_sphere(rng.normal(size=(4, 5)), 5)
    y = on_sphere(x[:3] + np.array([[0.05], [0.1], [2]]), 5)
    y[1] *= -1
    weights = rng.normal(size=(2, 4, 3))

    def ours(x, y, square):
        sin2, cos2 = half_angles(x, y, square)
        return jnp.sum(weights[0] * sin2 + weights[1] * cos2)

    def formula(x, y, square):
        if square is None:
            x, y, square = unit(x), unit(y), 1
        cosine = jnp.sum(x[:, None] * y, axis=2) / square
        sin2, cos2 = (1 - cosine) / 2, (1 + cosine) / 2
        return jnp.sum(weights[0] * sin2 + weights[1] * cos2)

    for square in (None, 5.0):
        rows = jnp.asarray(x), jnp.asarray(y)
        got = jax.jit(jax.grad(ours, (0, 1)))(*rows, square)
        expected = jax.grad(formula, (0, 1))(*rows, square)
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-14)


def test_gradients_at_coinciding_and_opposite_points(dtype):
    """sin^2(theta/2) is smooth there, with derivative 0."""
    x = rng.normal(size=(3, 5)).astype(dtype)
    x[1], x[2] = x[0], -x[0]

    def total(x, y=None):
        sin2, cos2 = half_angles(x, y)
        return jnp.sum(sin2) - 3 * jnp.sum(cos2)

    eps = np.finfo(dtype).eps
    x = jnp.asarray(x)
    pair = jax.jit(jax.grad(total, (0, 1)))(x, x)
    for slope in (jax.jit(jax.grad(total))(x), *pair):
        np.testing.assert_allclose(slope, 0, atol=40 * eps)


def test_rows_of_zeros(dtype):
    """They have no angle: a right one, and finite derivatives."""
    x = np.zeros((3, 5), dtype)
    x[0] = 1
    sin2, cos2 = half_angles(jnp.asarray(x))
    assert (sin2[0, 1], cos2[1, 0], sin2[1, 2]) == (0.5, 0.5, 0.5)
    slope = jax.jit(jax.grad(lambda x: jnp.sum(half_angles(x)[0])))(x)
    assert np.isfinite(slope).all()


def test_unit(dtype):
    x = rng.normal(size=(3, 5)).astype(dtype)
    x[1] = 0
    norms = np.linalg.norm(unit(x), axis=1)
    np.testing.assert_allclose(norms, [1, 0, 1], rtol=4 * np.finfo(dtype).eps)
