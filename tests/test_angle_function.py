"""Kernels as a function of the angle, against recursions written here.

The angle is given by sin^2(theta/2) or cos^2(theta/2), a number of the
kernel's own precision, so that the reference starts from the same angle.
"""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

import ntk_helpers as ntk
from ntk_helpers import kernel_function
from ntk_helpers.angle_function import (
    RULES,
    Grid,
    _fitted,
    _size,
    angle_function,
)

rng = np.random.default_rng(11)
RELU_GAIN = np.pi / (np.pi - 1)  # normalized relu: 1/(2 Var[relu(z)])
# Errors relative to max(|kernel|, 1e-2 Sigma(x, x)): the interpolation's, 3e-7
# and 2e-11 by its own estimate, and two units of rounding.
BOUNDS = {"float32": 5e-7, "float64": 2e-11}


def numbers(dtype, count):
    """sin^2 of half of angles from 1e-12 to pi/2, spread evenly in log."""
    angles = np.logspace(-12, np.log10(np.pi / 2), count)
    angles = np.concatenate([angles, rng.uniform(0, np.pi / 2, count)])
    small = (np.sin(angles / 2) ** 2).astype(dtype)
    return np.minimum(small, dtype.type(0.5))


@jax.jit
def values(function, sin2, cos2):
    return jnp.stack(function(sin2, cos2))


def evaluated(function, small):
    """Kernels (2, 2 n): at acute angles, then at obtuse ones."""
    large = (1 - small).astype(small.dtype)
    halves = np.concatenate([small, large]), np.concatenate([large, small])
    return np.asarray(values(function, *halves))


def relu_kernels(small, depth, beta, gain=1.0, square=1.0, layer_norm=False):
    """Sigma and Theta of sqrt(2 gain) relu (shifted if gain > 1), NumPy.

    In the angle t with sums of positive terms: 1 - K/K(0) is
    gain ((pi - t)(1 - cos t) + t - sin t)/pi, and E[s's'] is
    gain (1 - t/pi) K(0)/q. K(0) is the variance q, or 1 with layer
    normalization. Above gain 1 the variance q must be 1 without it.
    """
    small = small.astype(float)
    half = np.concatenate([small, 1 - small])  # sin^2(t/2)
    t = 2 * np.arcsin(np.sqrt(small))
    t = np.concatenate([t, np.pi - t])
    weight, bias = 1 - beta**2, beta**2
    q = weight * square + bias
    half = weight * square * half / q
    t = np.where(bias == 0, t, 2 * np.arcsin(np.sqrt(half)))
    sigma = theta = q * (1 - 2 * half)
    for _ in range(depth - 1):
        terms = [t]
        for power in range(3, 17, 2):
            terms.append(terms[-1] * -(t**2) / (power * (power - 1)))
        excess = np.where(t < 0.5, -sum(terms[1:]), t - np.sin(t))
        gap = gain * ((np.pi - t) * 2 * half + excess) / np.pi
        largest = 1 if layer_norm else q
        slope = gain * (1 - t / np.pi) * largest / q
        q = weight * largest + bias
        half = np.clip(weight * largest * gap / q / 2, 0, 1)
        t = 2 * np.arcsin(np.sqrt(half))
        sigma = q * (1 - 2 * half)
        theta = sigma + weight * slope * theta
    return np.stack([sigma, theta])


def exact_kernels(dual, small, depth, beta, square=1.0):
    """The recursion of the lecture at every angle, in 60 digits."""
    weight, bias = 1 - mp.mpf(beta) ** 2, mp.mpf(beta) ** 2
    with mp.workdps(60):
        cosines = [1 - 2 * mp.mpf(float(v)) for v in small]
        cosines += [-c for c in cosines]
        k = weight * mp.mpf(square) + bias
        sigma = [weight * mp.mpf(square) * c + bias for c in cosines]
        theta = list(sigma)
        for _ in range(depth - 1):
            duals = [dual(k, k, c) for c in sigma]
            k = weight * dual(k, k, k)[0] + bias
            sigma = [weight * value + bias for value, _ in duals]
            theta = [
                new + weight * slope * old
                for new, (_, slope), old in zip(
                    sigma, duals, theta, strict=True
                )
            ]
    return np.array([sigma, theta], float), float(k)


def assert_accurate(got, expected, sigma, dtype):
    assert got.dtype == dtype
    size = np.maximum(np.abs(expected), 1e-2 * sigma)
    error = np.abs(got - expected) / size
    assert error.max() <= BOUNDS[dtype.name], error.max(axis=1)


def bits_grid(dtype, lowest=(-9, -4), fineness=4):
    return Grid(dtype.name, lowest, fineness, 3)


def test_places_and_numbers_are_inverse(dtype):
    """Random places of all panels, on both sides, and their edges."""
    grid = bits_grid(dtype)
    places = np.array([-1, -0.5, 0.25, 0.875])  # exact in both precisions
    sides = grid.numbers(places)
    assert grid.panels == (1 + 8 * 16, 1 + 3 * 16)
    for obtuse, numbers in enumerate(sides):
        assert numbers.shape == (grid.panels[obtuse] - 1, 4)
        assert numbers[0, 0] == 2.0 ** grid.lowest[obtuse]
        first = 1 + obtuse * grid.panels[0]
        panel, place = grid.places(numbers.astype(dtype), bool(obtuse))
        expected = first + np.arange(len(numbers))[:, None]
        np.testing.assert_array_equal(panel, expected + 0 * panel)
        np.testing.assert_array_equal(place, places + 0 * place)
        # The last number of a panel lies before the edge of the next one.
        last = np.nextafter(numbers[1:, 0].astype(dtype), dtype.type(0))
        panel, place = grid.places(last, bool(obtuse))
        np.testing.assert_array_equal(panel, expected[:-1, 0])
        np.testing.assert_allclose(place, 1, rtol=1e-4)
        assert (np.asarray(place) < 1).all()
        # One half is the end of the last panel, not the start of another.
        half = grid.places(jnp.asarray(0.5, dtype), bool(obtuse))
        assert half == (first + len(numbers) - 1, 1)


def test_random_places(dtype):
    grid = bits_grid(dtype)
    small = rng.uniform(2.0**-4, 0.5, 200).astype(dtype)
    obtuse = rng.uniform(size=200) < 0.5
    panel, place = (
        np.asarray(v) for v in grid.places(jnp.asarray(small), obtuse)
    )
    assert place.dtype == dtype and (np.abs(place) <= 1).all()
    index = panel - np.where(obtuse, grid.panels[0] + 1, 1)
    octave, part = np.divmod(index, 16)
    lowest = np.where(obtuse, -4, -9)
    back = 2.0 ** (octave + lowest) * (1 + (part + (place + 1) / 2) / 16)
    np.testing.assert_allclose(back, small, rtol=np.finfo(dtype).eps)


def test_numbers_below_the_lowest_share_a_panel(dtype):
    """Down to 0 and to the smallest number there is."""
    grid = bits_grid(dtype)
    for obtuse, lowest in enumerate(grid.lowest):
        below = np.nextafter(dtype.type(2.0**lowest), dtype.type(0))
        tiny = np.finfo(dtype).tiny
        small = np.array([0, tiny, 2.0**-100, below], dtype)
        panel, _ = grid.places(jnp.asarray(small), bool(obtuse))
        assert (panel == obtuse * grid.panels[0]).all()
        above = grid.places(jnp.asarray(2.0**lowest, dtype), bool(obtuse))
        assert above == (obtuse * grid.panels[0] + 1, -1)


RELU = (
    ("standardized", 64, 0.5),  # freeze
    ("standardized", 1000, 0.5),
    ("standardized", 2, 0),  # edge; Sigma vanishes at the opposite point
    ("standardized", 64, 0),
    ("standardized", 64, 0.1),
    ("standardized", 1000, 0.1),
    ("normalized", 3, 0.1),  # chaos
    ("normalized", 64, 0),
    ("normalized", 200, 0),
)


@pytest.mark.parametrize(("form", "depth", "beta"), RELU)
def test_relu(dtype, form, depth, beta):
    s = getattr(ntk.relu, form)()
    gain = RELU_GAIN if form == "normalized" else 1
    function, _ = angle_function(s, None, depth, beta, 1.0, dtype.name)
    small = numbers(dtype, 100)
    expected = relu_kernels(small, depth, beta, gain)
    assert_accurate(evaluated(function, small), expected, 1, dtype)
    assert float(function.error) == 0


@pytest.mark.parametrize("square", (0.0, 1e-4, 3.0, 400.0))
def test_relu_on_spheres(dtype, square):
    """Any radius: the bias weighs differently in every layer."""
    s = ntk.relu.standardized()
    function, _ = angle_function(s, None, 9, 0.3, square, dtype.name)
    small = numbers(dtype, 30)
    expected = relu_kernels(small, 9, 0.3, square=square)
    sigma = 1 + 0.91**9 * (square - 1)
    assert_accurate(evaluated(function, small), expected, sigma, dtype)


CASES = (
    ("relu", "standardized", 4, 0.3, 2.0),
    ("relu", "normalized", 5, 0.2, 0.5),
    ("erf", "plain", 8, 0.3, 1.0),
    ("erf", "standardized", 64, 0.1, 1.0),  # chaos
    ("gelu", "standardized", 4, 0.2, 1.0),
)


@pytest.mark.parametrize(("name", "form", "depth", "beta", "square"), CASES)
def test_other_nonlinearities(
    dtype, named, oracle, name, form, depth, beta, square
):
    s, reference = named[name], oracle.duals[name]
    if form != "plain":
        s, reference = (getattr(v, form)() for v in (s, reference))
    function, _ = angle_function(s, None, depth, beta, square, dtype.name)
    small = numbers(dtype, 5 if name == "gelu" else 12)
    expected, sigma = exact_kernels(reference.dual, small, depth, beta, square)
    assert_accurate(evaluated(function, small), expected, sigma, dtype)


def test_tanh(dtype, named, oracle):
    """A Hermite series; the oracle's duals are good to 1e-15."""
    s = named["tanh"].normalized()
    reference = oracle.duals["tanh"].normalized()
    function, _ = angle_function(s, None, 6, 0.1, 1.0, dtype.name)
    small = np.array([0, 1e-3, 0.02, 0.2, 0.5], dtype)
    expected, sigma = exact_kernels(reference.dual, small, 6, 0.1)
    assert_accurate(evaluated(function, small), expected, sigma, dtype)
    assert 0 < float(function.error) < 1e-9


@pytest.mark.parametrize("square", (1.0, 2.5))
def test_layer_normalization(dtype, square):
    """Normalized at the variance of every layer, that of the first too."""
    rule = ntk.relu, ntk.LayerNorm(), 5, 0.4, square, dtype.name
    function, _ = angle_function(*rule)
    small = numbers(dtype, 30)
    expected = relu_kernels(small, 5, 0.4, RELU_GAIN, square, True)
    assert_accurate(evaluated(function, small), expected, 1, dtype)


@pytest.mark.parametrize("beta", (0, 0.1, 0.5))
@pytest.mark.parametrize(
    ("form", "depth"),
    (("standardized", 6), ("standardized", 1000), ("normalized", 64)),
)
def test_diagonal(dtype, form, depth, beta):
    """Sigma = 1 and Theta = (1 - r^L)/(1 - r), rounded once.

    The sum of L terms in float64 leaves 1e-13.
    """
    s = getattr(ntk.relu, form)()
    r = (1 - beta**2) * float(s.moments.slope)
    total = sum(r**power for power in range(depth))
    function, _ = angle_function(s, None, depth, beta, 1.0, dtype.name)
    got = evaluated(function, np.zeros(1, dtype))[:, 0]
    bound = max(np.finfo(dtype).eps, 1e-12)
    np.testing.assert_allclose(got, [1, total], rtol=bound)


def test_opposite_points(dtype):
    """At pi, too, the value is exact: here Sigma = 0 for two layers."""
    s = ntk.relu.standardized()
    function, _ = angle_function(s, None, 2, 0.0, 1.0, dtype.name)
    assert (
        np.abs(evaluated(function, np.zeros(1, dtype))[:, 1]) < 1e-15
    ).all()


def test_one_kernel_alone(dtype):
    s = ntk.relu.standardized()
    function, _ = angle_function(s, None, 64, 0.1, 1.0, dtype.name)
    small = jnp.asarray(numbers(dtype, 5))
    both = function(small, 1 - small)
    for name in ("nngp", "ntk"):
        alone = function(small, 1 - small, name)
        np.testing.assert_array_equal(
            getattr(alone, name), getattr(both, name)
        )
        assert sum(kernel is None for kernel in alone) == 1


def test_refines_until_the_estimate_is_met():
    """Deep chaos needs more panels than freeze; the estimate is the error."""
    deep = ntk.relu.normalized(), None, 64, 0.0, 1.0, "float32"
    shallow = ntk.relu.standardized(), None, 64, 0.5, 1.0, "float32"
    assert angle_function(*deep)[0].grid.fineness == 5
    assert angle_function(*shallow)[0].grid.fineness == 4

    def rule(square, acute, obtuse):
        return relu_both(acute, obtuse), 0.0

    def relu_both(acute, obtuse):
        acute = relu_kernels(acute, 64, 0, RELU_GAIN)[:, : len(acute)]
        obtuse = relu_kernels(obtuse, 64, 0, RELU_GAIN)[:, len(obtuse) :]
        return np.concatenate([acute, obtuse], axis=1)

    limits = relu_both(np.zeros(1), np.zeros(1))
    lowest = angle_function(*deep)[0].grid.lowest
    estimates, errors = [], []
    for fineness in (2, 3, 4, 5):
        grid = Grid("float32", lowest, fineness, 3)
        table, left_out, _ = _fitted(rule, 1.0, limits, grid)
        sides = [v[:, 7].copy() for v in grid.numbers(np.linspace(-1, 1, 17))]
        expected = rule(1.0, *sides)[0]
        starts = 1, grid.panels[0] + 1
        values = np.concatenate(
            [
                np.polynomial.polynomial.polyval(
                    -1 / 8,
                    table[:, :, start : start + len(side)].swapaxes(0, 1),
                )
                for start, side in zip(starts, sides, strict=True)
            ],
            axis=1,
        )
        size = np.maximum(np.abs(expected), 1e-3 * limits[0, 0])
        errors.append((np.abs(values - expected) / size).max())
        estimates.append(left_out)
    # A cubic: 16 times better with panels half as wide, once they resolve.
    assert estimates[2] > RULES["float32"][0] > estimates[3]
    for estimate, error in zip(estimates, errors, strict=True):
        assert estimate / 8 < error < 2 * estimate
    assert 8 < estimates[2] / estimates[3] < 32


def test_size_has_a_floor():
    """Small kernels are measured by 1e-3 Sigma(x, x), for Theta too."""
    limits = np.array([[2.0, -1.0], [50.0, 0.0]])
    values = np.array([[1e-9, -1.0], [-1e-3, 3.0]])
    np.testing.assert_allclose(
        _size(values, limits), [[2e-3, 1], [2e-3, 3]], rtol=1e-15
    )


@pytest.fixture
def forgotten():
    """A cache of its own for the test."""
    angle_function.cache_clear()
    yield
    angle_function.cache_clear()


def test_unreachable_accuracy(forgotten, monkeypatch):
    """None, and the kernels come layer by layer, as right as ever."""
    monkeypatch.setattr(kernel_function, "WORTHWHILE", 1)
    monkeypatch.setitem(RULES, "float32", (1e-13, 3, 4, 5))
    s = ntk.relu.standardized()
    assert angle_function(s, None, 5, 0.2, 1.0, "float32") is None
    x = points(np.float32)
    net = ntk.FullyConnected(5, 8, s, 0.2)
    form = kernel_function.kernel_function(net, x)
    assert isinstance(form, kernel_function.LayerFunction)
    check_network(net, x, 1e-6)


def test_overflow_is_refused(forgotten, monkeypatch):
    """Infinite in float64: None. In float32 only: an error that says so."""
    assert angle_function(ntk.exp, None, 4, 0.1, 900.0, "float64") is None
    monkeypatch.setattr(kernel_function, "WORTHWHILE", 1)
    net = ntk.FullyConnected(4, 8, ntk.monomial(3), 0.1)
    with pytest.raises(ValueError, match="must be finite"):
        net.ntk(100 * points(np.float32))


def test_sensitivity(dtype):
    """Relative change of a kernel for one of |x|^2, by the chain rule."""
    s, depth, beta, square = ntk.relu.standardized(), 7, 0.3, 2.0
    weight, bias = 1 - beta**2, beta**2
    sigma = theta = weight * square + bias
    d_sigma = d_theta = weight * square
    for _ in range(depth - 1):
        sigma, d_sigma = weight * sigma + bias, weight * d_sigma
        theta, d_theta = sigma + weight * theta, d_sigma + weight * d_theta
    _, got = angle_function(s, None, depth, beta, square, dtype.name)
    expected = max(d_sigma / sigma, d_theta / theta)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    # Unit variance is unstable for gelu: slope 1.144 a layer.
    gelu = ntk.gelu.standardized(), None, 64, 0.0, 1.0, dtype.name
    assert angle_function(*gelu)[1] > 100


def points(dtype):
    """Rows of norm sqrt(5), one of them twice, one opposite."""
    x = np.random.default_rng(4).normal(size=(12, 5))
    x *= np.sqrt(5 / (x**2).sum(axis=1, keepdims=True))
    x[7], x[9] = x[2], -x[4]
    return jnp.asarray(x, dtype)


def check_network(net, x, tolerance):
    """Kernels of standardized relu against the recursion in NumPy."""
    got = np.stack(net.kernels(x)).reshape(2, -1)
    x = np.array(x, float)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    near = np.sum((x[:, None] - x) ** 2, axis=2) / 4
    far = np.sum((x[:, None] + x) ** 2, axis=2) / 4
    small = np.minimum(near, far).ravel()
    pair = relu_kernels(small, net.depth, net.beta)
    pair = np.split(pair, 2, axis=1)
    expected = np.where(near.ravel() <= far.ravel(), *pair)
    scale = np.abs(expected).max(axis=1, keepdims=True)
    assert (np.abs(got - expected) / scale).max() < tolerance


def test_computed_once():
    rule = ntk.relu.standardized(), None, 9, 0.3, 1.0, "float32"
    first = angle_function(*rule)
    # An equal nonlinearity, built again, is the same key.
    again = angle_function(ntk.relu.standardized(), *rule[1:])
    assert again is first
    assert angle_function(*rule[:4], 2.0, "float32") is not first


def test_settings_of_the_caller_do_not_matter(forgotten):
    """The same table in both modes and inside a trace of the caller's."""
    s = ntk.relu.standardized()
    tables = []

    def build(name):
        function, sensitivity = angle_function(s, None, 9, 0.2, 1.5, name)
        assert not isinstance(function.coefficients, jax.core.Tracer)
        assert function.coefficients.dtype == function.error.dtype == name
        tables.append(function.coefficients)
        angle_function.cache_clear()
        return sensitivity

    for name in ("float32", "float64"):
        tables.clear()
        for mode in (True, False):
            with jax.enable_x64(mode):
                build(name)
                jax.jit(lambda t, name=name: t * build(name))(1.0)
        assert len(tables) == 4
        for table in tables[1:]:
            np.testing.assert_array_equal(table, tables[0])


def test_inside_a_trace(dtype, monkeypatch):
    """Closed-over inputs are concrete: the same kernel as outside."""
    monkeypatch.setattr(kernel_function, "WORTHWHILE", 1)
    net, x = ntk.FullyConnected(9, beta=0.2), points(dtype)
    form = []

    def scaled(t):
        form.append(kernel_function.kernel_function(net, x))
        return t * net.ntk(x)

    got = jax.jit(scaled)(jnp.asarray(2, dtype))
    assert isinstance(form[0], kernel_function.SphereFunction)
    bound = 8 * np.finfo(dtype).eps
    np.testing.assert_allclose(got, 2 * net.ntk(x), rtol=bound)
    check_network(net, x, 2 * BOUNDS[dtype.name])
    slope = jax.jit(jax.grad(lambda t: jnp.sum(t * net.ntk(x))))(1.0)
    np.testing.assert_allclose(slope, np.sum(net.ntk(x)), rtol=1e-5)
