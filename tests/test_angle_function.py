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
from ntk_helpers.angle_function import Grid, angle_function

rng = np.random.default_rng(11)
RELU_GAIN = np.pi / (np.pi - 1)  # normalized relu: 1/(2 Var[relu(z)])
# Errors relative to max(|kernel|, 1e-2 Sigma(x, x)): the interpolation's
# estimate in RULES, which leaves out a few terms, and rounding.
BOUNDS = {"float32": 2e-6, "float64": 1e-10}


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


def relu_kernels(small, depth, beta, gain=1.0, square=1.0):
    """Sigma and Theta of sqrt(2 gain) relu (shifted if gain > 1), NumPy.

    In the angle t with sums of positive terms: 1 - K/q is
    gain ((pi - t)(1 - cos t) + t - sin t)/pi, and E[s's'] is
    gain (1 - t/pi). Above gain 1 the variance q must be 1.
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
        slope = gain * (1 - t / np.pi)
        new = weight * q + bias
        half = np.clip(weight * q * gap / new / 2, 0, 1)
        q, t = new, 2 * np.arcsin(np.sqrt(half))
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


def assert_accurate(got, expected, sigma, dtype, factor=1):
    assert got.dtype == dtype
    size = np.maximum(np.abs(expected), 1e-2 * sigma)
    error = np.abs(got - expected) / size
    assert error.max() <= factor * BOUNDS[dtype.name], error.max(axis=1)


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
    # Angles of rounding size are multiplied by gain^depth in float64, too.
    factor = 4 if depth == 200 and dtype == np.float64 else 1
    assert_accurate(evaluated(function, small), expected, 1, dtype, factor)
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
