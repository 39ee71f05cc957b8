"""Tiles of a Gram matrix against the matrix in one piece."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_helpers as ntk
from ntk_helpers import kernel_function, tiles
from ntk_helpers.gram import gram
from ntk_helpers.kernel_function import LayerFunction, SphereFunction
from ntk_helpers.recursion import Kernels

rng = np.random.default_rng(13)
TILE = 8
NET = ntk.FullyConnected(3, beta=0.2)
DEEP = ntk.FullyConnected(24, 8, ntk.relu.normalized(), 0.1)


def rows(count, dtype, spread=0.0):
    x = rng.normal(size=(count, 5))
    x *= 5**0.5 / np.linalg.norm(x, axis=1, keepdims=True)
    return jnp.asarray(x * np.exp(spread * rng.normal(size=(count, 1))), dtype)


@pytest.fixture(scope="module", autouse=True)
def small_tiles():
    """8 rows and columns; a compiled program has them for good."""
    jax.clear_caches()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE", TILE)
        patch.setattr(kernel_function, "WORTHWHILE", 1)
        yield


@jax.jit
def whole(form, x, y=None):
    """The matrix in one piece."""
    return form(x, y)


@partial(
    jax.tree_util.register_dataclass, data_fields=["scale"], meta_fields=[]
)
@dataclass(frozen=True)
class Products:
    """x.y and scale x.y; the error is the largest entry of the first column.

    ``same`` pairs are marked by 1000 in both, unless it is None.
    """

    scale: jax.Array

    def __call__(self, x, y=None, same=None, wanted=None):
        error = jnp.max(x[:, 0])
        if y is not None:
            error = jnp.maximum(error, jnp.max(y[:, 0]))
        product = x @ (x if y is None else y).T
        if same is not None:
            product = jnp.where(same, 1000, product)
        kernels = Kernels(product, self.scale * product)
        if wanted:
            kernels = Kernels(
                *(
                    kernel if name == wanted else None
                    for name, kernel in zip(
                        Kernels._fields, kernels, strict=True
                    )
                )
            )
        return kernels, error


SHAPES = (
    (19, 13),
    (5, 21),
    (21, 5),
    (16, 24),
    (8, 9),
    (1, 12),
    (3, 4),
    (1, 1),
)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_entry_of_products(dtype, shape):
    """Small integers: products are exact, so every entry must be equal."""
    x = rng.integers(-9, 9, (shape[0], 3)).astype(dtype)
    y = rng.integers(-9, 9, (shape[1], 3)).astype(dtype)
    function = Products(jnp.asarray(3, dtype))
    kernels, error = gram(function, jnp.asarray(x), jnp.asarray(y))
    for kernel, factor in zip(kernels, (1, 3), strict=True):
        assert kernel.dtype == dtype and kernel.shape == shape
        np.testing.assert_array_equal(kernel, factor * x @ y.T)
    assert error == max(x[:, 0].max(), y[:, 0].max())


@pytest.mark.parametrize("count", (9, 16, 19, 31))
def test_every_entry_without_y(dtype, count):
    """The same rows are marked where they meet, on the diagonal alone."""
    x = rng.integers(-9, 9, (count, 3)).astype(dtype)
    function = Products(jnp.asarray(3, dtype))
    expected = x @ x.T
    np.fill_diagonal(expected, 1000)
    (nngp, kernel), _ = gram(function, jnp.asarray(x))
    np.testing.assert_array_equal(nngp, expected)
    np.testing.assert_array_equal(kernel, 3 * expected)


@pytest.mark.parametrize("place", (0, 5, 12, 18))
def test_error_is_the_largest(place):
    """Whichever tile it comes from, of the rows or of the columns."""
    x = np.zeros((19, 3), np.float32)
    y = np.zeros((13, 3), np.float32)
    x[place, 0] = 7
    function = Products(jnp.float32(1))
    x, y = jnp.asarray(x), jnp.asarray(y)
    for pair in ((x, y), (y, x), (x, None)):
        assert gram(function, *pair)[1] == 7
    assert gram(function, y, -jnp.ones_like(x))[1] == 0


def sphere_form(x, y=None):
    form = kernel_function.kernel_function(DEEP, x, y)
    assert isinstance(form, SphereFunction)
    return form


LAYERS = LayerFunction(DEEP.nonlinearity, None, DEEP.depth, DEEP.beta)


def assert_tiles_are_the_whole(form, x, y, bound):
    for columns in (None, y):
        got, error = gram(form, x, columns)
        expected, _ = whole(form, x, columns)
        assert error == 0 and error.dtype == x.dtype
        for a, b in zip(got, expected, strict=True):
            assert a.dtype == x.dtype
            np.testing.assert_allclose(a, b, atol=bound * np.max(b))


def test_on_the_sphere(dtype):
    """In chaos, where rounding of the angles is enlarged 2^6 times."""
    x, y = rows(19, dtype), rows(13, dtype)
    y = y.at[11].set(x[2]).at[4].set(-x[9])
    bound = 1e3 * np.finfo(dtype).eps
    assert_tiles_are_the_whole(sphere_form(x, y), x, y, bound)


def test_off_the_sphere():
    """Norms of all sizes, and a row of zeros, without y and with it."""
    x, y = rows(19, np.float32, 0.5).at[4].set(0), rows(13, np.float32, 0.5)
    form = LayerFunction(LAYERS.nonlinearity, None, 4, 0.2)
    assert_tiles_are_the_whole(form, x, y, 1e-5)


@pytest.mark.parametrize("layers", (True, False))
def test_symmetric_with_an_exact_diagonal(layers):
    """Repeated rows in other tiles have the diagonal's value, too."""
    x = rows(19, np.float32)
    x = x.at[17].set(x[1]).at[12].set(x[3])
    r = (1 - DEEP.beta**2) * DEEP.nonlinearity.moments.slope
    total = (r**DEEP.depth - 1) / (r - 1)
    (nngp, theta), _ = gram(LAYERS if layers else sphere_form(x), x)
    for kernel in (nngp, theta):
        np.testing.assert_array_equal(kernel, kernel.T)
    np.testing.assert_allclose(np.diag(nngp), 1, rtol=1e-5)
    np.testing.assert_allclose(np.diag(theta), total, rtol=1e-5)
    np.testing.assert_allclose(theta[17, 1], total, rtol=1e-5)
    np.testing.assert_allclose(theta[3, 12], total, rtol=1e-5)


@pytest.mark.parametrize("shape", ((19, 13), (3, 4)))
def test_one_kernel_alone(shape):
    x, y = rows(shape[0], np.float32), rows(shape[1], np.float32)
    function = Products(jnp.float32(3))
    for columns in (None, y):
        both, _ = gram(function, x, columns)
        for name in Kernels._fields:
            alone, _ = gram(function, x, columns, name)
            assert sum(kernel is None for kernel in alone) == 1
            np.testing.assert_allclose(
                getattr(alone, name), getattr(both, name), rtol=1e-5
            )


def test_series_not_resolved_for_one_row(x64):
    """tanh at a large variance needs more terms: one row tells it."""
    s = ntk.tanh
    x = rows(19, np.float64)
    large = x.at[9].multiply(3)
    form = LayerFunction(s, None, 2, 0.1)
    error = whole(form, large)[1]
    assert error > 10 * whole(form, x)[1] and s.resolved(error) is not s
    for pair in ((large, None), (large, x), (x, large)):
        np.testing.assert_allclose(gram(form, *pair)[1], error, rtol=1e-9)


def test_traced_inputs():
    """In one piece, and symmetric."""
    x = rows(9 * TILE + 1, np.float32, 0.1)
    got = jax.jit(NET.ntk)(x)
    np.testing.assert_array_equal(got, got.T)
    np.testing.assert_allclose(got, NET.ntk(x), rtol=1e-5)


def test_inside_a_trace():
    """Closed-over inputs fill many rows of tiles inside a caller's jit."""
    x = rows(9 * TILE + 1, np.float32, 0.1)
    got = jax.jit(lambda t: t * NET.ntk(x))(jnp.float32(2))
    np.testing.assert_allclose(got, 2 * NET.ntk(x), rtol=1e-5)


def test_tiles_of_the_real_size(monkeypatch):
    """N = 300 is more than one tile: equal to blocks on their own."""
    monkeypatch.setattr(tiles, "TILE", 256)
    x = rows(300, np.float32)
    for limit in (1, 2**22):  # both forms
        monkeypatch.setattr(kernel_function, "WORTHWHILE", limit)
        kernels = NET.kernels(x)
        blocks = NET.kernels(x[:100], x[200:])
        for kernel, block in zip(kernels, blocks, strict=True):
            assert kernel.shape == (300, 300)
            np.testing.assert_array_equal(kernel, kernel.T)
            bound = 1e-5 * np.max(block)
            np.testing.assert_allclose(kernel[:100, 200:], block, atol=bound)
            np.testing.assert_allclose(kernel[200:, :100], block.T, atol=bound)
