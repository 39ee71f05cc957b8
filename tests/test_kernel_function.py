"""Which form of a kernel is chosen, and that both are the same kernel."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_helpers as ntk
from ntk_helpers import kernel_function as module
from ntk_helpers.kernel_function import (
    UNEVEN,
    LayerFunction,
    SphereFunction,
    common_square,
    kernel_function,
)

rng = np.random.default_rng(12)
NET = ntk.FullyConnected(4, beta=0.2)
CHAOS = ntk.FullyConnected(12, 8, ntk.relu.normalized(), 0.0)
FREEZE = ntk.FullyConnected(12, 8, ntk.relu.normalized(), 0.7)


def sphere(count, norm=5**0.5, dtype=np.float32):
    x = rng.normal(size=(count, 5))
    x *= norm / np.linalg.norm(x, axis=1, keepdims=True)
    return jnp.asarray(x, dtype)


@partial(jax.jit, static_argnums=4)
def evaluated(form, x, y=None, same=None, wanted=None):
    return form(x, y, same, wanted)


@pytest.fixture
def cheap(monkeypatch):
    """Building the function of the angle pays for any number of entries."""
    monkeypatch.setattr(module, "WORTHWHILE", 1)


@pytest.mark.parametrize("norm", (1e-3, 1.0, 5**0.5, 400.0))
def test_any_sphere(cheap, dtype, norm):
    """The points share a norm to rounding; the function knows its square."""
    x, y = sphere(40, norm, dtype), sphere(30, norm, dtype)
    for columns in (None, y):
        form = kernel_function(NET, x, columns)
        assert isinstance(form, SphereFunction)
        assert form.square.dtype == dtype
        # The square is rounded to 8 units at most.
        bound = 8 * np.finfo(dtype).eps
        np.testing.assert_allclose(form.square, norm**2, rtol=bound)
    nngp = evaluated(form, x)[0].nngp
    weight = 0.96**4  # Sigma(x, x) = w^4 |x|^2 / n_0 + 1 - w^4
    expected = weight * norm**2 / 5 + 1 - weight
    np.testing.assert_allclose(np.diag(nngp), expected, rtol=2 * bound)


def test_not_one_sphere(cheap, dtype):
    """Norms that differ, within x or between x and y."""
    x, y = sphere(40, dtype=dtype), sphere(30, 2.25, dtype)
    assert isinstance(kernel_function(NET, x, y), LayerFunction)
    for factor in (1 + 1e-3, 1 - 1e-3, 0):
        uneven = x.at[7].multiply(factor)
        assert isinstance(kernel_function(NET, uneven), LayerFunction)
        assert isinstance(kernel_function(NET, x, uneven), LayerFunction)
        assert isinstance(kernel_function(NET, uneven, x), LayerFunction)


def test_zeros(cheap, dtype):
    """Nothing is divided by their norm."""
    x = jnp.zeros((40, 5), dtype)
    form = kernel_function(NET, x)
    assert isinstance(form, LayerFunction)
    nngp = evaluated(form, x)[0].nngp
    np.testing.assert_allclose(nngp, 1 - 0.96**4, rtol=1e-6)
    assert common_square(x) == (0.0, np.inf)


def test_norms_beyond_the_precision(cheap, dtype):
    """|x|^2 that overflows or underflows, though |x|^2 / n_0 need not.

    It used to be a finite kernel, that of orthogonal inputs.
    """
    layout = np.finfo(dtype)
    unit = np.asarray(sphere(12, 1.0, dtype))
    for square, outwards in ((layout.max, 1.01), (layout.tiny, 1e-12)):
        root = float(square) ** 0.5
        inside = jnp.asarray(unit * dtype.type(root / outwards))
        outside = jnp.asarray(unit * dtype.type(root * outwards))
        assert common_square(inside)[0] > 0
        assert common_square(outside)[0] == 0
        assert isinstance(kernel_function(NET, outside), LayerFunction)
    large = jnp.asarray(unit * dtype.type(1.1 * float(layout.max) ** 0.5))
    with pytest.raises(ValueError, match="must be finite"):
        NET.nngp(large)


def test_entries_must_be_worth_it(x64, monkeypatch):
    """Entries times layers after the first, with y and without."""
    x, y = (sphere(count, dtype=np.float64) for count in (40, 30))
    assert isinstance(kernel_function(NET, x), LayerFunction)
    for columns in (None, y):
        entries = 40 * (30 if columns is not None else 40) * 3
        for limit, form in (
            (entries, SphereFunction),
            (entries + 1, LayerFunction),
        ):
            monkeypatch.setattr(module, "WORTHWHILE", limit)
            assert isinstance(kernel_function(NET, x, columns), form)
    monkeypatch.setattr(module, "WORTHWHILE", 1)
    linear = ntk.FullyConnected(1)
    assert isinstance(kernel_function(linear, x), LayerFunction)


def test_float32_layers_are_few():
    """Two weight matrices at most layer by layer, with few entries."""
    x = sphere(4)
    for depth, form in ((2, LayerFunction), (3, SphereFunction)):
        net = ntk.FullyConnected(depth, beta=0.2)
        assert isinstance(kernel_function(net, x), form)


def test_few_points_in_chaos_and_float32():
    """Errors below 1e-5 of each entry, which layers do not reach."""
    net = ntk.FullyConnected(64, 8, ntk.relu.normalized(), 0.1)
    x = np.array(sphere(9))
    x[8] = x[7] * np.float32(1 + 1e-3) - 1e-3 * x[6]
    x[8] *= 5**0.5 / np.linalg.norm(x[8])
    with jax.enable_x64(True):
        exact = x.astype(float)
        exact *= 5**0.5 / np.linalg.norm(exact, axis=1, keepdims=True)
        reference = np.asarray(net.ntk(exact))
    error = np.abs(np.asarray(net.ntk(x), float) / reference - 1)
    assert error.max() < 1e-5
    layers, _ = evaluated(
        LayerFunction(net.nonlinearity, None, 64, 0.1), jnp.asarray(x)
    )
    assert np.abs(np.asarray(layers.ntk) / reference - 1).max() > 1e-5


def test_traced_inputs(cheap):
    """Their norms are unknown: layer by layer, with derivatives."""
    x, y = sphere(6), sphere(5)
    forms = []

    def total(a, b):
        forms.append(kernel_function(NET, a, b))
        forms.append(kernel_function(NET, a))
        forms.append(kernel_function(NET, y, b))
        return jnp.sum(forms[0](a, b)[0].ntk)

    jax.eval_shape(total, x, y)
    jax.eval_shape(lambda b: total(x, b), y)
    jax.eval_shape(lambda a: total(a, y), x)
    kinds = [isinstance(form, LayerFunction) for form in forms]
    # Concrete are x alone in the second case, (y, y) in the third.
    assert kinds == [*[True] * 3, True, False, True, True, True, False]


def test_precisions(cheap, x64):
    """Two precisions, or one below float32, go layer by layer."""
    x = sphere(40)
    single, double = x[:30], x[:30].astype(float)
    assert isinstance(kernel_function(NET, x, single), SphereFunction)
    assert isinstance(kernel_function(NET, x, double), LayerFunction)
    assert isinstance(kernel_function(NET, double, x), LayerFunction)
    for low in (jnp.float16, jnp.bfloat16):
        assert isinstance(kernel_function(NET, x.astype(low)), LayerFunction)
        assert common_square(x.astype(low)) == (0.0, np.inf)


def test_kernels_that_enlarge_rounding(cheap):
    """Unit variance is unstable for gelu: the norms' rounding would show."""
    x = sphere(40)
    for depth, form in ((3, SphereFunction), (64, LayerFunction)):
        net = ntk.FullyConnected(depth, 8, ntk.gelu.standardized(), 0.0)
        assert isinstance(kernel_function(net, x), form)


def test_sensitivity_times_unevenness(cheap, dtype, monkeypatch):
    """Accepted up to UNEVEN, neither more nor less."""
    x = sphere(40, dtype=dtype)
    square, unevenness = common_square(x)
    border = UNEVEN[dtype.name] / unevenness
    asked = []

    def found(sensitivity):
        def angle_function(*rule):
            asked.append(rule)
            return None if sensitivity is None else ("function", sensitivity)

        return angle_function

    cases = (0.99 * border, SphereFunction), (1.01 * border, LayerFunction)
    for sensitivity, form in (*cases, (None, LayerFunction)):
        monkeypatch.setattr(module, "angle_function", found(sensitivity))
        assert isinstance(kernel_function(NET, x), form)
    expected = NET.nonlinearity, None, 4, 0.2, square, dtype.name
    assert asked == [expected] * 3


def test_common_square(dtype):
    """The rows' value rounded, and their largest relative deviation."""
    eps = float(np.finfo(dtype).eps)
    x = np.ones((4, 5)) * np.array([[1.0], [-1], [1], [1]])
    x = jnp.asarray(x, dtype)
    assert common_square(x) == common_square(x, x[:1]) == (1.0, 0.0)
    for units in (1, -1, 4, -4, 12, -12):
        root = 1 + units / 2 * eps if units > 0 else 1 + units / 2 * eps / 2
        last = x.at[2].set(jnp.asarray(root, dtype))
        exact = float(last[2, 0]) ** 2
        for pair in ((last,), (x, last), (last, x)):
            square, deviation = common_square(*pair)
            assert abs(square - (1 + exact) / 2) <= 8 * eps
            expected = max(abs(1 / square - 1), abs(exact / square - 1))
            bound = 1e-3 * eps + 3e-16  # the quotients' rounding
            np.testing.assert_allclose(deviation, expected, atol=bound)
    for units in (40, -80):
        last = x.at[2].set(jnp.asarray(1 + units / 2 * eps, dtype))
        for pair in ((last,), (x, last), (last, x)):
            square, deviation = common_square(*pair)
            assert square == 0 and deviation > 16 * eps


def test_samples_of_one_sphere_share_a_function(cheap, dtype):
    """What is left of the norms' rounding is rounded away."""
    x, y = sphere(40, dtype=dtype), sphere(30, dtype=dtype)
    squares = {common_square(*pair)[0] for pair in ((x,), (y,), (x, y))}
    assert squares == {1.0}
    forms = [kernel_function(NET, *pair) for pair in ((x,), (y,), (x, y))]
    assert len({id(form.function) for form in forms}) == 1


def pairs(dtype):
    """40 and 30 rows, some coinciding, nearly so, opposite and nearly so."""
    x, y = np.array(sphere(40, dtype=dtype)), np.array(sphere(30, dtype=dtype))
    x[11], x[30], y[:3] = x[5], -x[6], [x[0], -x[1], x[2]]
    near = x[3] + 2.0 ** -np.arange(2, 10)[:, None] * rng.normal(size=5)
    near *= 5**0.5 / np.linalg.norm(near, axis=1, keepdims=True)
    y[3:11] = near
    y[7:11] *= -1
    return jnp.asarray(x), jnp.asarray(y)


@pytest.mark.parametrize("net", (FREEZE, CHAOS), ids=("freeze", "chaos"))
def test_both_forms_agree(cheap, dtype, net):
    """Rounding of an angle, 8 eps / angle, is multiplied by r^(L/2) = 8.

    float32 layers alone are off by 1e-5 of the diagonal in chaos.
    """
    x, y = pairs(dtype)
    rule = net.nonlinearity, None, net.depth, net.beta
    layers = LayerFunction(*rule)
    for columns in (None, y):
        form = kernel_function(net, x, columns)
        assert isinstance(form, SphereFunction)
        got, error = evaluated(form, x, columns)
        expected, layer_error = evaluated(layers, x, columns)
        assert error == layer_error == 0
        for a, b in zip(got, expected, strict=True):
            assert a.dtype == dtype
            assert a.shape == b.shape == (40, 40 if columns is None else 30)
            bound = (100 if net is FREEZE else 1000) * np.finfo(dtype).eps
            bound = max(bound, 2e-11)  # that of the function of the angle
            np.testing.assert_allclose(a, b, atol=bound * np.max(b))
        if columns is None:
            np.testing.assert_array_equal(got.ntk[5, 11], got.ntk[5, 5])
            np.testing.assert_array_equal(got.ntk, got.ntk.T)


def test_one_kernel_alone(cheap):
    x, _ = pairs(np.float32)
    form = LayerFunction(*rule_of(CHAOS))
    both, _ = evaluated(form, x)
    for name in ("nngp", "ntk"):
        alone, _ = evaluated(form, x, None, None, name)
        largest = np.max(getattr(both, name))
        np.testing.assert_allclose(
            getattr(alone, name), getattr(both, name), atol=1e-5 * largest
        )
        assert sum(kernel is None for kernel in alone) == 1


def rule_of(net):
    return net.nonlinearity, net.normalization, net.depth, net.beta


def test_same_rows(cheap):
    """A tile off the diagonal says which of its pairs are one row."""
    x, _ = pairs(np.float32)
    moved = x[10:] + 1e-3 * rng.normal(size=(30, 5)).astype(np.float32)
    moved *= 5**0.5 / jnp.linalg.norm(moved, axis=1, keepdims=True)
    same = np.arange(40)[:, None] == 10 + np.arange(30)
    for form in (kernel_function(CHAOS, x), LayerFunction(*rule_of(CHAOS))):
        got, _ = evaluated(form, x, moved, same)
        free, _ = evaluated(form, x, moved)
        whole, _ = evaluated(form, x)
        diagonal = np.diag(whole.ntk)[10:]
        np.testing.assert_allclose(got.ntk[same], diagonal, rtol=1e-5)
        assert (free.ntk[same] < 0.999 * got.ntk[same]).all()
        bound = 1e-5 * np.max(whole.ntk)
        np.testing.assert_allclose(got.ntk[~same], free.ntk[~same], atol=bound)


def test_depth_and_beta_share_a_compilation():
    """They are data of the function, not constants of the program."""
    x = sphere(6)
    counted = []

    @jax.jit
    def kernel(form):
        counted.append(form)
        return form(x)[0].ntk

    s = ntk.relu.standardized()
    deep = kernel(LayerFunction(s, None, 9, 0.3))
    shallow = kernel(LayerFunction(s, None, 2, 0.1))
    assert len(counted) == 1
    assert float(deep[0, 0]) > 2 * float(shallow[0, 0])
