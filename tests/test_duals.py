import jax.numpy as jnp
import numpy as np
import pytest

import ntk_helpers as ntk
from ntk_helpers.duals import Dual, Shifted, derivative


def test_derivative(dtype):
    u = jnp.asarray([-1.0, 0.5, 2.0], dtype)
    got = derivative(lambda u: u**3, u)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, [3, 0.75, 12], rtol=1e-6)


def test_shifted_functions_compare_by_what_they_are():
    assert Shifted(jnp.tanh, 0.5) == Shifted(jnp.tanh, 0.5)
    assert hash(Shifted(jnp.tanh, 0.5)) == hash(Shifted(jnp.tanh, 0.5))
    assert Shifted(jnp.tanh, 0.5) != Shifted(jnp.tanh, 0.4)
    assert float(Shifted(abs, 0.5)(-2.0)) == 1.5


@pytest.mark.parametrize("name", ("relu", "cos", "exp", "square", "softplus"))
def test_shifting_the_dual(x64, named, oracle, name):
    """E[(s(u) - t)(s(v) - t)] for any t and any variances."""
    shift, reference = 0.3, oracle.duals[name]
    dual = named[name].dual_form.shifted(shift)
    s = ntk.Nonlinearity("shifted", Shifted(named[name].function, shift), dual)
    for a, b, c in ((1, 1, 0.2), (0.2, 3, -0.5), (1.5, 1.5, 1)):
        k = c * np.sqrt(a * b)
        value, slope = map(float, reference.dual(a, b, k))
        means = float(reference.mean(a)) + float(reference.mean(b))
        expected = value - shift * means + shift**2
        np.testing.assert_allclose(
            s.dual(float(a), float(b), k), (expected, slope), rtol=1e-10
        )
        assert (
            abs(
                float(s.point(jnp.array([1.0 * a])).mean[0])
                + shift
                - (float(reference.mean(a)))
            )
            < 1e-10
        )


def test_a_dual_has_no_finer_form_by_default():
    assert Dual().refined() is None
