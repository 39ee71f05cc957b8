import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_helpers as ntk

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(4, 5)), rng.normal(size=(3, 5))


def theta(f, params, x, y):
    """Contraction of full Jacobians, for outputs (N, K)."""

    def rows(z):
        leaves = jax.tree.leaves(jax.jit(jax.jacobian(f))(params, z))
        flat = [np.reshape(leaf, (*leaf.shape[:2], -1)) for leaf in leaves]
        return np.concatenate(flat, axis=-1).astype(float)

    return np.einsum("ikp,jlp->ijkl", rows(x), rows(y))


def convolution(params, x):
    """A filter of three taps along the features, then a read-out."""
    hidden = jax.vmap(
        lambda row: jnp.convolve(row, params["taps"], mode="same")
    )(x)
    return jnp.tanh(hidden) @ params["out"]


def batch_centred(params, x):
    """Rows depend on each other through the mean over the batch."""
    pre = jnp.sin(x @ params["w"])
    return (pre - pre.mean(axis=0)) @ params["out"] + params["b"]


def parameters(dtype, outputs):
    draws = np.random.default_rng(1)
    shapes = {"taps": (3,), "out": (5, outputs), "w": (5, 5), "b": (outputs,)}
    return {
        name: jnp.asarray(draws.normal(size=shape), dtype)
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize("f", (convolution, batch_centred))
@pytest.mark.parametrize("y", (None, Y), ids=("x", "y"))
def test_against_the_jacobian(dtype, f, y):
    params = parameters(dtype, 3)
    x = jnp.asarray(X, dtype)
    y = None if y is None else jnp.asarray(y, dtype)
    expected = theta(f, params, x, x if y is None else y)
    got = ntk.empirical_ntk(f, params, x, y)
    assert got.shape == expected.shape and got.dtype == dtype
    tolerance = 1e-12 if dtype == np.float64 else 4e-6
    np.testing.assert_allclose(
        got, expected, atol=tolerance * np.abs(expected).max()
    )


@pytest.mark.parametrize("batch_size", (1, 3, 100))
def test_scalar_outputs_and_batch_sizes(x64, batch_size):
    """(N, 1) and (N,) give (N, M), for any batch size."""
    params = parameters(float, 1)
    expected = theta(batch_centred, params, X, Y)[..., 0, 0]

    def flat(params, x):
        return batch_centred(params, x)[:, 0]

    for f in (batch_centred, flat):
        got = ntk.empirical_ntk(f, params, X, Y, batch_size=batch_size)
        np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-13)


def test_inputs_of_any_rank(x64):
    """Images (N, h, w), and a function linear in its parameters."""
    images = rng.normal(size=(3, 2, 4))

    def f(params, x):
        return jnp.einsum("nhw,hw->n", x, params)

    got = ntk.empirical_ntk(f, jnp.ones((2, 4)), images)
    flat = images.reshape(3, -1)
    np.testing.assert_allclose(got, flat @ flat.T, rtol=1e-13)


def test_errors():
    params = parameters(np.float32, 2)
    with pytest.raises(ValueError, match=r"agree in all axes .* \(3, 4\)"):
        ntk.empirical_ntk(batch_centred, params, X, np.ones((3, 4)))
    with pytest.raises(ValueError, match="x must be finite, got 20 NaN"):
        ntk.empirical_ntk(batch_centred, params, X * np.nan)
    with pytest.raises(ValueError, match="y must be finite, got 15 NaN"):
        ntk.empirical_ntk(batch_centred, params, X, Y * np.inf)
    for f, shape in (
        (lambda p, x: x.sum() * p["b"][0], r"\(\)"),
        (lambda p, x: x[:1] * p["b"][0], r"\(1, 5\)"),
        (lambda p, x: x[:, :, None] * p["b"][0], r"\(4, 5, 1\)"),
    ):
        with pytest.raises(ValueError, match=f"N = 4, got {shape}"):
            ntk.empirical_ntk(f, params, X)
