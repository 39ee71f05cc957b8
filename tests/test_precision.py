import jax
import jax.numpy as jnp
import numpy as np

from ntk_helpers import precision


def test_safe_sqrt(dtype):
    x = jnp.array([0, 0.25, 4], dtype)
    np.testing.assert_array_equal(precision.safe_sqrt(x), [0, 0.5, 2])
    slopes = jax.vmap(jax.grad(precision.safe_sqrt))(x)
    np.testing.assert_array_equal(slopes, [0, 1, 0.25])
    assert precision.safe_sqrt(x).dtype == dtype
    assert precision.safe_sqrt(jnp.array(-1.0)) == 0


def test_float64_holds_inside_and_is_undone():
    def constant(x):
        with precision.float64():
            third = float(jnp.ones((), jnp.float64) / 3)
        assert third == 1 / 3
        return x * third

    with jax.enable_x64(False):
        assert jax.jit(constant)(jnp.ones(2)).dtype == jnp.float32
        assert jnp.ones(1).dtype == jnp.float32


def test_matmul(dtype):
    """The full precision of the dtype, also where ten bits are the default."""
    a = np.random.default_rng(0).normal(size=(8, 64)).astype(dtype)
    got = precision.matmul(a, a.T)
    exact = a.astype(np.longdouble) @ a.T.astype(np.longdouble)
    atol = 64 * np.finfo(dtype).eps * 4
    np.testing.assert_allclose(got, exact.astype(float), atol=atol)
    product = jax.make_jaxpr(precision.matmul)(a, a.T).eqns[-1]
    assert product.params["precision"] == (jax.lax.Precision.HIGHEST,) * 2
