"""Products with a kernel matrix that is never stored."""

import importlib
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_helpers as ntk
from ntk_helpers import kernel_function, tiles
from ntk_helpers.kernel_function import LayerFunction, SphereFunction
from ntk_helpers.recursion import Kernels

# The package exports a function of the module's name.
module = importlib.import_module("ntk_helpers.kernel_matrix")

rng = np.random.default_rng(29)
TILE = 8
NET = ntk.FullyConnected(3, beta=0.2)


@pytest.fixture(scope="module", autouse=True)
def small_tiles():
    """8 rows and columns; a compiled program has them for good."""
    jax.clear_caches()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE", TILE)
        yield


@pytest.fixture
def exact(monkeypatch):
    """Matrices of Products, whatever the network."""

    def products(net, x, y=None):
        return Products(jnp.asarray(3, x.dtype))

    monkeypatch.setattr(module, "kernel_function", products)


@partial(
    jax.tree_util.register_dataclass, data_fields=["scale"], meta_fields=[]
)
@dataclass(frozen=True)
class Products:
    """x.y and scale x.y, and 1000 on pairs marked as the ``same`` row."""

    scale: jax.Array

    def __call__(self, x, y=None, same=None, wanted=None):
        product = x @ y.T
        if same is not None:
            product = jnp.where(same, 1000, product)
        kernels = Kernels(product, self.scale * product)
        alone = Kernels(
            *(
                kernel if name in (wanted, None) else None
                for name, kernel in zip(Kernels._fields, kernels, strict=True)
            )
        )
        return alone, jnp.zeros((), x.dtype)

    def diagonal(self, x):
        square = jnp.sum(x**2, axis=1)
        return Kernels(square, self.scale * square), jnp.zeros((), x.dtype)


def rows(count, dtype, spread=0.0):
    x = rng.normal(size=(count, 5))
    x *= 5**0.5 / np.linalg.norm(x, axis=1, keepdims=True)
    return jnp.asarray(x * np.exp(spread * rng.normal(size=(count, 1))), dtype)


def integers(*shape):
    return rng.integers(-9, 10, shape)


@pytest.mark.parametrize(
    "count, kernel", ((5, "nngp"), (16, "ntk"), (19, "nngp"), (25, "ntk"))
)
def test_every_entry_counts_once(exact, count, kernel):
    """Small integers: products are exact, mirrored tiles or not.

    Rows of filled-up tiles repeat the last row, and must not count.
    """
    x = integers(count, 3).astype(np.float32)
    entries = x @ x.T
    np.fill_diagonal(entries, 1000)
    entries = entries * {"nngp": 1, "ntk": 3}[kernel]
    matrix = ntk.kernel_matrix(NET, x, kernel=kernel)
    vectors = integers(count, 2).astype(np.float32)
    product = matrix @ vectors
    np.testing.assert_array_equal(product, entries @ vectors)
    assert matrix.shape == (count, count) and matrix.dtype == np.float32
    assert matrix.symmetric and matrix.kernel == kernel


@pytest.mark.parametrize("shape", ((19, 13), (5, 21), (16, 8), (1, 1)))
def test_every_entry_of_two_sets(exact, shape):
    """Equal rows of x and y are no more the same than others."""
    x = integers(shape[0], 3).astype(np.float32)
    y = integers(shape[1], 3).astype(np.float32)
    y[0] = x[0]
    matrix = ntk.kernel_matrix(NET, x, y)
    vectors = integers(shape[1]).astype(np.float32)
    product = matrix @ vectors
    np.testing.assert_array_equal(product, 3 * x @ (y.T @ vectors))
    assert matrix.shape == shape and not matrix.symmetric


def test_symmetric_entries_are_computed_once(exact, monkeypatch):
    """Half of the tiles, where the matrix is symmetric."""
    mirrored, visited = [], tiles.visited

    def recorded(*arguments):
        mirrored.append(arguments[7])
        return visited(*arguments)

    monkeypatch.setattr(tiles, "visited", recorded)
    x = np.ones((17, 2), np.float32)
    ntk.kernel_matrix(NET, x) @ np.ones(17)
    ntk.kernel_matrix(NET, x, x) @ np.ones(17)
    assert set(mirrored) == {True, False} and mirrored[0]


def relu_ntk(x, y, depth, beta):
    """Theta^(L) of relu, arc-cosine by arc-cosine, in NumPy's float64."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    weight, bias = 1 - beta**2, beta**2
    first = weight * np.mean(x**2, 1) + bias, weight * np.mean(y**2, 1) + bias
    value = weight * x @ y.T / x.shape[1] + bias
    xx, yy, theta = first[0][:, None], first[1], value
    for _ in range(depth - 1):
        norm = np.sqrt(xx * yy)
        c = value / norm
        c = np.where(c > 1 - 1e-13, 1, c)  # repeated rows
        t = np.arccos(c)
        value = weight * norm * (np.sin(t) + c * (np.pi - t)) / np.pi + bias
        theta = value + weight * (np.pi - t) / np.pi * theta
        xx, yy = weight * xx + bias, weight * yy + bias
    return theta


@pytest.mark.parametrize(
    "name, sphere",
    (("float32", True), ("float64", True), ("float64", False)),
)
def test_products_of_relu(name, sphere, monkeypatch):
    """Against NumPy, relatively to the sum of the sizes of the terms.

    The function of the angle is good to 3e-7 and to 2e-11.
    """
    monkeypatch.setattr(kernel_function, "WORTHWHILE", 1 if sphere else 2**40)
    form = SphereFunction if sphere else LayerFunction
    bound = 2e-6 if name == "float32" else 1e-10 if sphere else 1e-13
    with jax.enable_x64(name == "float64"):
        x, y = (rows(n, name, 0 if sphere else 0.5) for n in (19, 13))
        x = x.at[17].set(x[1]).at[4].set(x[3])  # in other tiles, in the same
        y = y.at[11].set(x[2])
        for columns in (None, y):
            matrix = ntk.kernel_matrix(NET, x, columns)
            assert isinstance(matrix.function, form)
            entries = relu_ntk(x, x if columns is None else columns, 3, 0.2)
            vectors = rng.normal(size=(len(matrix.columns), 2)).astype(name)
            vectors = vectors[: matrix.shape[1]]
            scale = np.abs(entries) @ np.abs(vectors)
            product = matrix @ vectors
            error = np.abs(product - entries @ vectors) / scale
            assert error.max() < bound and product.dtype == name
        matrix = ntk.kernel_matrix(NET, x)
        diagonal = np.diag(relu_ntk(x, x, 3, 0.2))
        np.testing.assert_allclose(matrix.diagonal(), diagonal, rtol=bound)


@jax.jit
def whole(form, x, y=None):
    """The matrices in one piece."""
    return form(x, y)[0]


@pytest.mark.parametrize(
    "net, name, pair",
    (
        (ntk.FullyConnected(1, beta=0.3), "nngp", False),
        (ntk.FullyConnected(2, nonlinearity=ntk.tanh), "ntk", False),
        (ntk.FullyConnected(3, normalization=ntk.LayerNorm()), "ntk", True),
        (ntk.FullyConnected(3, normalization=ntk.LayerNorm()), "nngp", False),
    ),
    ids=("linear", "tanh", "layer norm", "layer norm, mirrored"),
)
def test_products_of_the_stored_matrix(net, name, pair):
    """Rounding in another order: 64 units."""
    x, y = rows(19, np.float32, 0.2), rows(13, np.float32, 0.2)
    columns = y if pair else None
    matrix = ntk.kernel_matrix(net, x, columns, name)
    stored = np.asarray(
        getattr(whole(matrix.function, x, columns), name), float
    )
    vectors = rng.normal(size=stored.shape[1]).astype(np.float32)
    bound = 64 * np.finfo(np.float32).eps
    error = np.abs(matrix @ vectors - stored @ vectors)
    assert error.max() < bound * np.max(np.abs(stored) @ abs(vectors))
    if not pair:
        np.testing.assert_allclose(
            matrix.diagonal(), np.diag(stored), rtol=bound
        )


def test_tiles_of_the_real_size(monkeypatch):
    """N = 300 is more than one tile of 256 and less than two."""
    jax.clear_caches()
    monkeypatch.setattr(tiles, "TILE", 256)
    x = rows(300, np.float32, 0.1)
    vectors = rng.normal(size=(300, 2)).astype(np.float32)
    product = ntk.kernel_matrix(NET, x) @ vectors
    entries = relu_ntk(x, x, 3, 0.2)
    scale = np.abs(entries) @ np.abs(vectors)
    assert (np.abs(product - entries @ vectors) / scale).max() < 2e-6
    jax.clear_caches()


def test_no_entries_are_stored():
    """Temporaries of a product: far less than the 4 MB of 1024^2 entries."""
    x = rows(1024, np.float32, 0.1)
    vectors = jnp.zeros((1024, 1))
    for columns in (None, x + 0):
        matrix = ntk.kernel_matrix(NET, x, columns)
        compiled = module._product.lower(matrix, vectors).compile()
        used = compiled.memory_analysis().temp_size_in_bytes
        assert used < 1024**2 * 4 / 8


def test_inside_a_trace(exact, x64):
    """The matrix is an argument like any other; products are linear."""
    x, vectors = integers(19, 3).astype(float), integers(19, 2).astype(float)
    entries = x @ x.T
    np.fill_diagonal(entries, 1000)
    matrix, expected = ntk.kernel_matrix(NET, x), 3 * entries @ vectors
    whole = jax.jit(lambda matrix, v: matrix @ v)(matrix, vectors)
    np.testing.assert_array_equal(whole, expected)
    _, tangent = jax.jvp(lambda v: matrix @ v, (vectors,), (vectors,))
    np.testing.assert_array_equal(tangent, expected)
    each = jax.vmap(lambda v: matrix @ v, 1, 1)(vectors)
    np.testing.assert_array_equal(each, expected)


def test_built_inside_a_trace():
    x = rows(19, np.float32, 0.2)
    vectors = rng.normal(size=19).astype(np.float32)
    got = jax.jit(lambda x: ntk.kernel_matrix(NET, x) @ vectors)(x)
    entries = relu_ntk(x, x, 3, 0.2)
    error = np.abs(got - entries @ vectors) / (entries @ np.abs(vectors))
    assert error.max() < 2e-6


def test_gradient_of_a_product(exact, x64):
    """Of x against y: the transpose, here of two sets of points."""
    x, y = integers(19, 3).astype(float), integers(13, 3).astype(float)
    left, right = integers(19).astype(float), integers(13).astype(float)
    matrix = ntk.kernel_matrix(NET, x, y)
    got = jax.grad(lambda v: left @ (matrix @ v))(right)
    np.testing.assert_array_equal(got, 3 * y @ (x.T @ left))


def test_dtypes_of_vectors(exact, x64):
    """Whole numbers, and either precision with either."""
    x, y = integers(19, 3), integers(13, 3)
    vectors = integers(13)
    for dtype in (np.float32, np.float64):
        matrix = ntk.kernel_matrix(NET, x.astype(dtype), y.astype(dtype))
        for kind in (int, np.float32, np.float64):
            product = matrix @ vectors.astype(kind)
            np.testing.assert_array_equal(product, 3 * x @ (y.T @ vectors))
            lower = {dtype, kind} == {np.float32}
            assert product.dtype == (np.float32 if lower else np.float64)


def test_dual_refined_where_one_point_needs_it(x64):
    """tanh at 4 times the variance, wherever it is among x and y."""
    s = ntk.tanh
    net = ntk.FullyConnected(2, nonlinearity=s)
    x, y = rows(19, np.float64), rows(13, np.float64)
    large = x.at[9].multiply(2)
    assert ntk.kernel_matrix(net, x).function.nonlinearity is s
    vectors = rng.normal(size=19)
    for sides in ((large,), (large, y), (y, large)):
        matrix = ntk.kernel_matrix(net, *sides)
        finer = matrix.function.nonlinearity.dual_form
        assert finer.order > s.dual_form.order
    part = vectors[:19]
    stored = net.ntk(y, large) @ part
    np.testing.assert_allclose(matrix @ part, stored, rtol=1e-12)


@pytest.mark.parametrize("side", range(3))
def test_dual_never_resolved(x64, side):
    """Too steep for any series at the variance of one point."""
    net = ntk.FullyConnected(2, nonlinearity=ntk.tanh)
    y = rows(13, np.float64)
    large = rows(19, np.float64).at[9].multiply(100)
    sides = ((large,), (large, y), (y, large))[side]
    with pytest.raises(ValueError, match="tanh is not resolved at the var"):
        ntk.kernel_matrix(net, *sides)


def test_dual_not_resolved_inside_a_trace(x64):
    """NaN, where nothing can be raised, and where it is not known yet."""
    net = ntk.FullyConnected(2, nonlinearity=ntk.tanh)
    x, y = rows(19, np.float64), rows(13, np.float64)
    large = x.at[9].multiply(2)

    @jax.jit
    def products(x, y):
        matrices = ntk.kernel_matrix(net, x), ntk.kernel_matrix(net, x, y)
        diagonal = matrices[0].diagonal()
        return diagonal, [m @ jnp.ones(m.shape[1]) for m in matrices]

    for value in jax.tree.leaves(products(x, y)):
        assert np.isfinite(value).all()
    for value in jax.tree.leaves(products(large, y)):
        assert np.isnan(value).all()


def test_overflow():
    """On the diagonal, where a kernel is largest."""
    net = ntk.FullyConnected(3, nonlinearity=ntk.exp)
    x = rows(19, np.float32).at[3].multiply(20)
    with pytest.raises(ValueError, match="at depth 3 must be finite"):
        ntk.kernel_matrix(net, x)


def test_arguments_refused():
    x, y = rows(19, np.float32), rows(13, np.float32)
    with pytest.raises(ValueError, match="'nngp' or 'ntk', got 'rbf'"):
        ntk.kernel_matrix(NET, x, kernel="rbf")
    with pytest.raises(ValueError, match=r"x must have shape \(N, n_0\)"):
        ntk.kernel_matrix(NET, x[0])
    with pytest.raises(ValueError, match="y must have 5 features"):
        ntk.kernel_matrix(NET, x, y[:, :4])
    with pytest.raises(ValueError, match="x must be finite, got 1 NaN"):
        ntk.kernel_matrix(NET, x.at[0, 0].set(jnp.nan))
    batch = ntk.FullyConnected(3, normalization=ntk.BatchNorm())
    with pytest.raises(ValueError, match="[Bb]atch"):
        ntk.kernel_matrix(batch, x)


def test_vectors_refused():
    matrix = ntk.kernel_matrix(NET, rows(19, np.float32), rows(13, np.float32))
    shapes = (19,), (14,), (19, 2), (13, 2, 1), ()
    for shape in shapes:
        with pytest.raises(ValueError, match=r"\(13,\) or \(13, K\), got"):
            matrix @ np.zeros(shape)
    vectors = np.zeros(13)
    vectors[3] = np.inf
    with pytest.raises(ValueError, match="vectors must be finite, got 1 NaN"):
        matrix @ vectors


def test_two_sets_have_no_diagonal():
    """Nor a solution, equal sets included: nothing tells that they are."""
    x, y = rows(19, np.float32), np.zeros((19, 1))
    matrix = ntk.kernel_matrix(NET, x, x)
    for ask in (matrix.diagonal, partial(matrix.solve, y, jax.random.key(0))):
        with pytest.raises(ValueError, match="x with itself, got one of x an"):
            ask()


def test_other_architectures_are_refused():
    net = ntk.Convolutional(shape=(4, 4), depth=3)
    with pytest.raises(ValueError, match="net must be a FullyConnected"):
        ntk.kernel_matrix(net, jnp.ones((2, 4, 4, 1)))
