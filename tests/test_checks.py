import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk_helpers import checks


def test_inputs_become_floats(dtype):
    for x in ([[1, 2]], np.array([[True, False]]), np.eye(2, dtype=dtype)):
        got = checks.inputs(x)
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, np.asarray(x, dtype))


def test_inputs_names_what_is_wrong():
    with pytest.raises(ValueError, match=r"^z must have shape .* got \(2,\)"):
        checks.inputs(np.ones(2), "z")
    with pytest.raises(ValueError, match="^z must have 3 features .* got 2"):
        checks.inputs(np.ones((1, 2)), "z", features=3)
    with pytest.raises(
        ValueError, match="^z must be finite, got 1 NaN .* out of 2"
    ):
        checks.inputs([[1, np.nan]], "z")


def test_values_are_skipped_under_a_trace_and_shapes_are_not():
    jax.jit(checks.inputs)(np.array([[np.nan]], np.float32))
    assert not jax.jit(lambda x: jnp.array(checks.is_concrete(x)))(1.0)
    assert checks.is_concrete(1.0, np.ones(2))
    with pytest.raises(ValueError, match="must have shape"):
        jax.jit(checks.inputs)(np.ones(2, np.float32))


def test_positive_integer():
    assert checks.positive_integer(np.int64(3), "n") == 3
    for value in (0, -1, 2.0, "2", True, None):
        with pytest.raises(ValueError, match="n must be an integer >= 1, got"):
            checks.positive_integer(value, "n")


def test_unit_interval():
    assert checks.unit_interval(np.float32(0.5), "beta") == 0.5
    assert [checks.unit_interval(v, "beta") for v in (0, 1)] == [0, 1]
    for value in (-1e-9, 1.000001, np.nan, "x", None, [0.1, 0.2]):
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\], got"):
            checks.unit_interval(value, "beta")


def test_on_sphere(dtype):
    x = np.random.default_rng(0).normal(size=(50, 30))
    x *= 30**0.5 / np.linalg.norm(x, axis=1, keepdims=True)
    x = x.astype(dtype)
    np.testing.assert_array_equal(checks.on_sphere(x), x)
    off = 100 * np.finfo(dtype).eps
    for wrong in (x * (1 + off), x * (1 - off), x / 30**0.5):
        with pytest.raises(ValueError, match="z must lie on the sphere of r"):
            checks.on_sphere(wrong.astype(dtype), "z")
    with pytest.raises(ValueError, match=r"sqrt\(n_0\) = 2, got norms from 4"):
        checks.on_sphere(np.array([[2, 2, 2, 2]], dtype))


def test_boolean():
    assert checks.boolean(np.True_, "cyclic") is True
    for value in (1, 0.0, "yes", None):
        with pytest.raises(ValueError, match="cyclic must be True or False"):
            checks.boolean(value, "cyclic")


def test_grid_shape():
    assert checks.grid_shape(3) == (3,)
    assert checks.grid_shape([np.int64(2), 5]) == (2, 5)
    with pytest.raises(ValueError, match=r"one or two axes, got \(1, 1, 1\)"):
        checks.grid_shape((1, 1, 1))
    for shape in ((0, 2), (2.0, 2), (True,)):
        with pytest.raises(ValueError, match="shape must be an integer >= 1"):
            checks.grid_shape(shape)


def test_positive_numbers():
    assert checks.positive_numbers([1, 0.5], 2, "rates") == (1.0, 0.5)
    for values in ([1], [1, 0], [1, np.inf], [1, np.nan], [1, -1]):
        with pytest.raises(ValueError, match="rates must be 2 finite numbers"):
            checks.positive_numbers(values, 2, "rates")


def test_grid_inputs(dtype):
    x = np.zeros((2, 3, 4, 1), dtype)
    assert checks.grid_inputs(x, "x", (3, 4), 1).dtype == dtype
    with pytest.raises(ValueError, match=r"\(N, 4, 3, n_0\), got \(2, 3, 4"):
        checks.grid_inputs(x, "x", (4, 3))
    with pytest.raises(ValueError, match="x must have 2 channels, got 1"):
        checks.grid_inputs(x, "x", (3, 4), 2)
    with pytest.raises(ValueError, match="x must be finite"):
        checks.grid_inputs(x + np.nan, "x", (3, 4))


@pytest.mark.parametrize("bad", (jnp.nan, jnp.inf, -jnp.inf))
def test_large_arrays_are_checked_where_they_lie(bad, monkeypatch):
    monkeypatch.setattr(checks, "LARGE", 3)
    assert checks.finite(jnp.ones(5), "x").shape == (5,)
    with pytest.raises(ValueError, match="x must be finite, got 1 NaN"):
        checks.finite(jnp.ones(5).at[2].set(bad), "x")
