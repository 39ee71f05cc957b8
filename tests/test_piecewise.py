"""The difference t - sin(t) where it cancels."""

import jax.numpy as jnp
import mpmath as mp
import numpy as np

from ntk_helpers.piecewise import _excess


def test_excess(dtype):
    """t - sin(t) against 40 digits, both sides of the switch at 0.1^(1/2).

    Above it half of the digits of t^2/6 are lost, a factor of 60 at most.
    """
    t = np.concatenate(
        [np.logspace(-10, -0.5, 40), 0.1**0.5 + np.linspace(-0.02, 1.25, 41)]
    ).astype(dtype)
    exact = [float(mp.mpf(float(v)) - mp.sin(mp.mpf(float(v)))) for v in t]
    got = _excess(jnp.asarray(t), jnp.sin(t))
    eps = np.finfo(dtype).eps
    # The truncated series leaves 0.1^6 6/15! * 2^12 = 5e-15.
    np.testing.assert_allclose(got, exact, rtol=128 * eps)
    series = t**2 < 0.099
    np.testing.assert_allclose(
        np.asarray(got)[series], np.array(exact)[series], rtol=16 * eps
    )
    assert float(_excess(jnp.zeros(()), jnp.zeros(()))) == 0
