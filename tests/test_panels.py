import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_helpers as ntk

KINKED = {
    "relu": (jax.nn.relu, (0.0,)),
    "ramp": (lambda u: jax.nn.relu(u - 0.7), (0.7,)),
    "hard_tanh": (lambda u: jnp.clip(u, -1, 1), (-1.0, 1.0)),
    "elu": (jax.nn.elu, (0.0,)),
}


def kinked(name):
    function, kinks = KINKED[name]
    return ntk.Nonlinearity.from_function(function, kinks=kinks)


@pytest.mark.parametrize("name", KINKED)
def test_dual(x64, oracle, name):
    """Right to 1e-8 of the moments at correlation 1, for every covariance."""
    points = [
        (a, b, c * np.sqrt(a * b) if abs(c) < 1 else c * a)
        for a, b in ((1, 1), (20, 20), (0.1, 20), (0.01, 0.01))
        for c in (-1, -1 + 1e-9, -0.6, 0.8, 0.9999, 1)
        if abs(c) < 1 or a == b
    ]
    got = np.stack(kinked(name).dual(*np.array(points).T), -1)
    ends = {
        k: np.array(oracle.integral(name, k, k, k), float)
        for k in (0.01, 0.1, 1, 20)
    }
    for (a, b, k), pair in zip(points, got, strict=True):
        expected = np.array(oracle.integral(name, a, b, k), float)
        scale = np.sqrt(ends[a] * ends[b])
        # A kink 7 deviations out: below 1e-16 of E[uv] nothing is resolved.
        scale = np.maximum(scale, 1e-8 * np.array([np.sqrt(a * b), 1]))
        assert (np.abs(pair - expected) <= 1e-8 * scale).all(), (a, b, k)


def test_agrees_with_the_closed_form_in_float32():
    """relu by its kink and relu in closed form: 10^4 rounded terms a pair."""
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    closed, split = (
        ntk.FullyConnected(3, nonlinearity=s.standardized(), beta=0.2)
        for s in (ntk.relu, kinked("relu"))
    )
    for a, b in zip(closed.kernels(x), split.kernels(x), strict=True):
        assert b.dtype == np.float32
        np.testing.assert_allclose(a, b, atol=4e-6 * float(a.max()))


def test_other_breaks_than_the_named_ones_are_found_at_other_variances(x64):
    """clip at 8 splits at 0, passes at variance 1 and is refused at 9."""
    s = ntk.Nonlinearity.from_function(lambda u: jnp.clip(u, -8, 8), (0.0,))
    with pytest.raises(ValueError, match="is not resolved at the variances"):
        s.dual(9.0, 9.0, 4.0)


UNRESOLVED = "Hermite terms leave a relative error|splitting at kinks="


@pytest.mark.parametrize(
    ("function", "kinks"),
    (
        (jax.nn.relu, ()),
        (jax.nn.elu, ()),
        (jnp.sign, ()),
        (lambda u: jnp.clip(u, -1, 1), ()),
        (lambda u: jax.nn.relu(u - 4), ()),
        (lambda u: jnp.abs(u) ** 3, ()),
        (jax.nn.relu, (1.0,)),
        (jax.nn.relu, (1e-5,)),
        (jax.nn.elu, (0.01,)),
        (jax.nn.elu, (0.73,)),
        (lambda u: jnp.clip(u, -1, 1), (1.0,)),
        (lambda u: jnp.clip(u, -1, 1), (0.0,)),
        (lambda u: jnp.where(u > 0.3, u + 1, u), (0.0,)),
        (lambda u: jnp.sqrt(jnp.abs(u)), (0.0,)),
        (lambda u: jnp.tanh(50 * u), (0.0,)),
    ),
    ids=lambda v: None if callable(v) else str(v),
)
def test_what_is_not_resolved_is_refused(function, kinks):
    with pytest.raises(ValueError, match=UNRESOLVED):
        ntk.Nonlinearity.from_function(function, kinks=kinks)


@pytest.mark.parametrize(
    ("function", "kink", "ends"),
    (
        (jnp.sign, 0.0, "from -1 to 1 at 0"),
        (lambda u: jnp.where(u > 0.3, u + 1, u), 0.3, "from 0.3 to 1.3"),
    ),
)
def test_a_jump_is_refused(function, kink, ends):
    with pytest.raises(ValueError, match=f"got a jump {ends}"):
        ntk.Nonlinearity.from_function(function, kinks=(kink,))


@pytest.mark.parametrize("kink", (np.nan, np.inf))
def test_kinks_are_finite(kink):
    with pytest.raises(ValueError, match="kinks? must be finite"):
        ntk.Nonlinearity.from_function(jax.nn.relu, kinks=(kink,))


def test_a_kink_far_out_matters_only_where_it_is_reached(x64):
    """clip(u, -8, 8) is the identity at variance 1 and refused at 9."""
    s = ntk.Nonlinearity.from_function(lambda u: jnp.clip(u, -8, 8))
    np.testing.assert_allclose(s.dual(1.0, 1.0, 0.5), (0.5, 1), atol=1e-9)
    with pytest.raises(ValueError, match="is not resolved at the variances"):
        s.dual(9.0, 9.0, 4.0)
