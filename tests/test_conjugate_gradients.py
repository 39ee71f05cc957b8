"""Linear systems by products alone, against dense linear algebra."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

import ntk_helpers as ntk
from ntk_helpers import conjugate_gradients as module
from ntk_helpers.conjugate_gradients import Nystrom, nystrom, solution

rng = np.random.default_rng(41)
KEY = jax.random.key(5)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["entries"],
    meta_fields=["mesh"],
)
@dataclass(frozen=True)
class Dense:
    """A matrix whose entries are at hand."""

    entries: jax.Array
    mesh: None = None

    @property
    def shape(self):
        return self.entries.shape

    @property
    def dtype(self):
        return self.entries.dtype

    def __matmul__(self, vectors):
        return jnp.matmul(self.entries, vectors, precision="highest")


def symmetric(eigenvalues):
    """A matrix with these eigenvalues and random eigenvectors."""
    size = len(eigenvalues)
    vectors = np.linalg.qr(rng.normal(size=(size, size)))[0]
    return (vectors * eigenvalues) @ vectors.T


def solved(matrix, y, noise=0.0, rank=0, tolerance=1e-10, **rest):
    rest = {"key": KEY, "max_steps": 1000, "progress": False} | rest
    matrix = Dense(jnp.asarray(matrix))
    y = jnp.asarray(y, matrix.dtype)
    return solution(
        matrix,
        y,
        noise=noise,
        rank=rank,
        tolerance=tolerance,
        **rest,
    )


def relative(got, expected):
    """Error of each column, 0 / 0 being 0."""
    size = np.linalg.norm(expected, axis=0)
    error = np.linalg.norm(np.asarray(got) - expected, axis=0)
    return error / np.where(size > 0, size, 1)


SPECTRUM = np.concatenate([[1e3, 300, 100], np.geomspace(10, 0.01, 37)])
MATRIX = symmetric(SPECTRUM)
RIGHT = rng.normal(size=(40, 3)) * [1, 0, 3]


@pytest.mark.parametrize("rank", (0, 6, 40, 100))
def test_against_dense_algebra(x64, rank):
    """The error is below the residual times the condition number.

    The default ends at ten times the tolerance at the latest.
    """
    noise = 0.05
    found = solved(MATRIX, RIGHT, noise, rank)
    shifted = MATRIX + noise * np.eye(40)
    exact = np.linalg.solve(shifted, RIGHT)
    condition = np.linalg.cond(shifted)
    assert relative(found.value, exact).max() < 1e-9 * condition
    assert relative(found.value, exact).max() < 1e-6
    np.testing.assert_array_equal(found.value[:, 1], 0)
    residual = relative(shifted @ np.asarray(found.value), RIGHT)
    # A residual of 1e-11 is known up to rounding, 1e-16 times 1e4.
    np.testing.assert_allclose(found.residual, residual, atol=1e-12)
    assert found.residual.shape == (3,) and found.residual[1] == 0
    assert 0 < found.residual.max() < 1e-9
    assert isinstance(found.steps, int)
    if rank >= 40:  # the preconditioner is the inverse, up to rounding
        assert found.steps <= 4


def test_float32():
    """Condition 2e4: 1e-5 times that bounds nothing, so noise is larger."""
    matrix = MATRIX.astype(np.float32)
    shifted = MATRIX + 10 * np.eye(40)
    found = solved(matrix, RIGHT, 10.0, 6, 1e-5)
    exact = np.linalg.solve(shifted, RIGHT)
    bound = 1e-4 * np.linalg.cond(shifted)
    assert found.value.dtype == np.float32
    assert relative(found.value, exact).max() < min(bound, 1e-3)
    assert found.residual.max() < 1e-4


def test_columns_of_very_different_size(x64):
    """Each is solved to the tolerance of its own."""
    found = solved(MATRIX, RIGHT * [1, 1, 1e-8], 0.05)
    assert found.residual.max() < 1e-9


def test_all_zero(x64):
    found = solved(MATRIX, 0 * RIGHT, 0.05)
    np.testing.assert_array_equal(found.value, 0)
    assert found.steps == 0 and found.residual.max() == 0


@pytest.mark.parametrize("condition", (10, 1000))
def test_steps_without_preconditioner(x64, condition):
    """2 (1 - 2/(sqrt(kappa) + 1))^k bounds the error in the norm of K.

    In the norm of the residual by sqrt(kappa) times that.
    """
    size, tolerance = 400, 1e-8
    entries = np.diag(np.linspace(1, condition, size))
    found = solved(entries, np.ones((size, 1)), 0.0, 0, tolerance)
    root = np.sqrt(condition)
    rate = -np.log1p(-2 / (root + 1))
    enough = np.log(2 * root / tolerance) / rate
    # A spectrum that is even needs about as many; a tenth would be wrong.
    assert enough / 4 < found.steps <= enough + 1


def test_preconditioner_on_digits(x64):
    """Frozen: a few eigenvalues stand out. 203 steps become 58.

    How many exactly is a matter of the key; half would be a failure.
    """
    x = ntk.datasets.to_sphere(ntk.datasets.digits().x[:300])
    net = ntk.FullyConnected(6, nonlinearity=ntk.erf.standardized(), beta=0.7)
    kernel = np.asarray(net.ntk(x))
    noise = 1e-4 * np.trace(kernel) / len(x)
    y = np.sin(x[:, :2])
    plain = solved(kernel, y, noise, 0, 1e-6)
    helped = solved(kernel, y, noise, 60, 1e-6)
    assert 5 / 2 * helped.steps < plain.steps
    exact = np.linalg.solve(kernel + noise * np.eye(300), y)
    bound = 1e-5 * np.linalg.cond(kernel + noise * np.eye(300))
    assert relative(helped.value, exact).max() < bound


def test_nystrom_is_exact_at_low_rank(dtype):
    """Where the rank is at most that of the approximation."""
    values = np.array([9, 5, 2, 1.0, *[0] * 26])
    entries = symmetric(values)
    for rank in (8, 12):
        matrix = Dense(jnp.asarray(entries, dtype))
        found = nystrom(matrix, KEY, rank)
        vectors = np.asarray(found.vectors, float)
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(
            vectors.T @ vectors, np.eye(rank), atol=100 * eps
        )
        # The shift is eps times the norm of the product with the tests.
        close = partial(np.testing.assert_allclose, atol=300 * eps)
        close(found.eigenvalues, values[:rank])
        assert (found.eigenvalues > 0).all()
        close((vectors * found.eigenvalues) @ vectors.T, entries)


def test_nystrom_never_exceeds_the_matrix(x64):
    """Part of the matrix is seen: K minus the approximation is >= 0."""
    found = nystrom(Dense(jnp.asarray(MATRIX)), KEY, 10)
    vectors = np.asarray(found.vectors)
    rest = MATRIX - (vectors * found.eigenvalues) @ vectors.T
    lowest, highest = np.linalg.eigvalsh(rest)[[0, -1]]
    assert lowest > -1e-12 * 1e3
    assert highest < SPECTRUM[3:].sum()
    np.testing.assert_allclose(found.eigenvalues[:3], SPECTRUM[:3], rtol=0.05)


def test_inverse_is_that_of_the_formula(dtype):
    """P = (U (l + noise)^{-1} (L + noise) U^T + I - U U^T), inverted."""
    vectors = np.linalg.qr(rng.normal(size=(12, 4)))[0]
    values, noise = np.array([50, 8, 3, 0.5]), 0.2
    weights = (values + noise) / (values[-1] + noise)
    dense = (vectors * weights) @ vectors.T
    dense += np.eye(12) - vectors @ vectors.T
    right = rng.normal(size=(12, 3))
    form = Nystrom(jnp.asarray(vectors, dtype), jnp.asarray(values, dtype))
    got = form.inverse(jnp.asarray(noise, dtype), jnp.asarray(right, dtype))
    bound = 200 * np.finfo(dtype).eps  # condition 70
    np.testing.assert_allclose(got, np.linalg.solve(dense, right), atol=bound)


def test_key():
    """Draws the test vectors, and nothing else does."""
    matrix = Dense(jnp.asarray(MATRIX, jnp.float32))
    one, same = (nystrom(matrix, KEY, 6) for _ in range(2))
    other = nystrom(matrix, jax.random.key(6), 6)
    np.testing.assert_array_equal(one.vectors, same.vectors)
    assert abs(one.vectors - other.vectors).max() > 1e-3
    first, second = (
        solved(MATRIX.astype(np.float32), RIGHT, 10.0, 6, 1e-5, key=key)
        for key in (KEY, KEY)
    )
    np.testing.assert_array_equal(first.value, second.value)


@pytest.mark.parametrize("steps", (3, 25))
def test_too_few_steps(x64, steps):
    """Far from the solution, and a little."""
    match = f"residual of about 1.0e-10, got .* after {steps} steps; raise"
    with pytest.raises(ValueError, match=match):
        solved(MATRIX, RIGHT, 0.05, 0 if steps == 3 else 6, max_steps=steps)


def test_indefinite_or_singular(x64):
    """No number comes out where there is no solution."""
    entries = np.diag([1.0, 0, 2])
    with pytest.raises(ValueError, match="expected a relative residual"):
        solved(entries, np.ones((3, 1)))


def test_arguments_refused(x64):
    x = jnp.asarray(rng.normal(size=(9, 3)))
    matrix = ntk.kernel_matrix(ntk.FullyConnected(1), x)
    y = np.ones((9, 1))
    for arguments, match in (
        ({"noise": -1.0}, "noise must be >= 0, got -1.0"),
        ({"noise": np.nan}, "noise must be >= 0, got nan"),
        ({"rank": -1}, "rank must be an integer >= 1, got -1"),
        ({"rank": 2.5}, "rank must be an integer >= 1, got 2.5"),
        ({"tolerance": 0}, r"tolerance must lie in \(0, 1\), got 0"),
        ({"tolerance": 1}, r"tolerance must lie in \(0, 1\), got 1"),
        ({"max_steps": 0}, "max_steps must be an integer >= 1, got 0"),
    ):
        with pytest.raises(ValueError, match=match):
            matrix.solve(y, KEY, **arguments)
    with pytest.raises(ValueError, match="one row per row of x, 9, got 8"):
        matrix.solve(y[:8], KEY)
    with pytest.raises(ValueError, match=r"y must have shape \(N, K\)"):
        matrix.solve(y[:, 0], KEY)
    with pytest.raises(ValueError, match="y must be finite"):
        matrix.solve(y * np.nan, KEY)


def test_kernel_matrix_solves(x64):
    """The method of a kernel matrix, with its defaults."""
    x = jnp.asarray(rng.normal(size=(21, 3)))
    net = ntk.FullyConnected(2, beta=0.3)
    y = rng.normal(size=(21, 2)).astype(np.float32)
    found = ntk.kernel_matrix(net, x).solve(y, KEY, noise=0.1)
    shifted = np.asarray(net.ntk(x)) + 0.1 * np.eye(21)
    exact = np.linalg.solve(shifted, y)
    assert found.value.dtype == np.float64
    assert relative(found.value, exact).max() < 1e-4 * np.linalg.cond(shifted)
    assert relative(shifted @ found.value, y).max() < 1e-4


class Bar(module.tqdm):
    """Shown at once, and remembered."""

    made = []

    def __init__(self, *args, **kwargs):
        self.delayed = kwargs["delay"]
        super().__init__(*args, **kwargs | {"delay": 0, "mininterval": 0})
        self.made.append(self)


def test_progress(monkeypatch, capsys):
    """One tick for each product with the matrix, on a bar that is closed."""
    matrix = MATRIX.astype(np.float32)
    monkeypatch.setattr(Bar, "made", [])
    monkeypatch.setattr(module, "tqdm", Bar)
    solved(matrix, RIGHT, 10.0, 0, 1e-5, progress=False)
    assert not Bar.made and capsys.readouterr() == ("", "")
    found = solved(matrix, RIGHT, 10.0, 0, 1e-5, progress=True)
    (bar,) = Bar.made
    out, err = capsys.readouterr()
    assert "conjugate gradients" in out and not err
    assert bar.delayed >= 1 and not module._bars
    # One in a step, one for the first residual, one for every tenth.
    assert found.steps < bar.n <= 1.1 * found.steps + 2


def test_quick_solves_print_nothing(capsys):
    solved(MATRIX.astype(np.float32), RIGHT, 10.0, 0, 1e-5, progress=True)
    assert "products" not in capsys.readouterr().out


@pytest.mark.parametrize("rank, mesh", ((8, False), (0, True), (8, True)))
def test_no_entries_are_stored(rank, mesh):
    """Temporaries of the solve: far less than the 16 MB of 2048^2 entries.

    On a mesh, here of one device, tiles are not mirrored: another program.
    """
    x = jnp.asarray(rng.normal(size=(2048, 3)), jnp.float32)
    matrix = ntk.kernel_matrix(ntk.FullyConnected(2, beta=0.3), x)
    if mesh:
        matrix = replace(matrix, mesh=Mesh(jax.devices()[:1], ("rows",)))
    y, noise = jnp.zeros((2048, 1)), jnp.float32(0.1)
    vectors = jnp.zeros((2048, rank)), jnp.zeros(rank)
    approximation = Nystrom(*vectors) if rank else None
    lowered = module._iterated.lower(
        matrix, y, noise, approximation, None, 1e-5, 10
    )
    used = lowered.compile().memory_analysis().temp_size_in_bytes
    assert used < 2048**2 * 4 / 4
