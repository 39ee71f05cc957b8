import warnings

import jax
import numpy as np
import pytest
from scipy.linalg import circulant, hilbert, subspace_angles

import ntk_helpers as ntk

VALUES = np.array([5.0, 2.0, 2.0, 0.5, 0.01])
# An orthogonal matrix from reflections, so that nothing decomposes it.
ROTATION = np.eye(5)
for axis in np.random.default_rng(3).normal(size=(3, 5)):
    ROTATION = ROTATION - 2 * np.outer(ROTATION @ axis, axis) / (axis @ axis)
GRAM = ROTATION * VALUES @ ROTATION.T


def test_values_and_vectors(dtype):
    got = ntk.spectrum(GRAM.astype(dtype))
    eps = np.finfo(dtype).eps
    assert got.values.dtype == got.vectors.dtype == dtype
    atol = 5 * 5 * eps  # N eps lambda_max
    np.testing.assert_allclose(got.values, VALUES, atol=atol)
    np.testing.assert_allclose(got.rounding, 5 * eps * 5, rtol=1e-4)
    assert got.resolved.all()
    for i in (0, 3, 4):  # columns, up to a sign
        overlap = abs(got.vectors[:, i] @ ROTATION[:, i].astype(dtype))
        np.testing.assert_allclose(overlap, 1, atol=10 * eps)
    angles = subspace_angles(got.vectors[:, 1:3], ROTATION[:, 1:3])
    np.testing.assert_allclose(angles, 0, atol=100 * eps)


def test_derived_numbers(x64):
    got = ntk.spectrum(GRAM)
    np.testing.assert_allclose(got.condition_number, 500, rtol=1e-12)
    np.testing.assert_allclose(got.shares, VALUES / 9.51, rtol=1e-12)
    # exp(-2 t lambda/N) = 1/e.
    np.testing.assert_allclose(
        got.learning_times, [0.5, 1.25, 1.25, 5, 250], rtol=1e-12
    )
    y = np.random.default_rng(0).normal(size=(5, 2))
    coefficients = got.coefficients(y)
    assert coefficients.shape == (5, 2)
    np.testing.assert_allclose(
        coefficients[0] ** 2, (ROTATION[:, 0] @ y) ** 2, rtol=1e-12
    )
    np.testing.assert_allclose(
        coefficients[4] ** 2, (ROTATION[:, 4] @ y) ** 2, rtol=1e-12
    )


def test_circle_has_fourier_modes(x64):
    """A circulant matrix: eigenvalues are the Fourier transform of a row."""
    row = np.exp(np.cos(2 * np.pi * np.arange(8) / 8))
    expected = np.sort(np.fft.fft(row).real)[::-1]
    got = ntk.spectrum(circulant(row)).values
    np.testing.assert_allclose(got, expected, atol=1e-14 * expected[0] * 8)


def test_unresolved_eigenvalues_are_reported(dtype):
    """The Hilbert matrix, whose eigenvalues fall from 1.8 to 3e-18."""
    got = ntk.spectrum(hilbert(13).astype(dtype))
    # From mpmath: eigenvalues 6 and 7 are 1.6e-5 and 6.5e-7, 11 and 12 are
    # 1.1e-13 and 8.9e-16; 13 eps lambda_max is 2.8e-6 or 5.1e-15.
    resolved = 11 if dtype == np.float64 else 6
    assert got.resolved.sum() == resolved
    np.testing.assert_array_equal(got.learning_times[resolved:], np.inf)
    assert np.isfinite(got.learning_times[:resolved]).all()
    bound = 1 / (13 * np.finfo(dtype).eps)
    advice = "; use float64" if dtype == np.float32 else "$"
    message = rf"in {dtype}: .* lambda_max/rounding = {bound:.2g}{advice}"
    message = message.replace("+", r"\+")
    with pytest.warns(UserWarning, match=message):
        assert got.condition_number == np.inf


def test_condition_number_inside_jit(x64):
    with warnings.catch_warnings(action="error"):
        condition = jax.jit(lambda gram: ntk.spectrum(gram).condition_number)
        np.testing.assert_allclose(condition(GRAM), 500, rtol=1e-12)
        assert condition(np.ones((5, 5))) == np.inf


def test_rounding_is_not_an_error(dtype):
    """Repeated points: exact zeros come out on either side of 0."""
    x = np.tile(np.random.default_rng(1).normal(size=(10, 3)), (2, 1))
    gram = np.exp(-np.sum((x[:, None] - x) ** 2, -1)).astype(dtype)
    got = ntk.spectrum(gram)
    assert got.resolved.sum() == 10 and got.values[-1] < got.rounding


def test_asymmetry_from_rounding_is_averaged(x64):
    moved = GRAM.copy()
    moved[0, 1] += 2e-9
    got = ntk.spectrum(moved).values
    expected = np.linalg.eigvalsh((moved + moved.T) / 2)[::-1]
    np.testing.assert_allclose(got, expected, atol=1e-14)


def test_derivatives_of_eigenvalues(x64):
    """Of a simple eigenvalue v^T E v, of the condition number by the chain."""
    direction = np.random.default_rng(5).normal(size=(5, 5))
    direction = direction + direction.T
    expected = np.diag(ROTATION.T @ direction @ ROTATION)
    _, got = jax.jvp(lambda g: ntk.spectrum(g).values, (GRAM,), (direction,))
    simple = np.array([0, 3, 4])
    np.testing.assert_allclose(got[simple], expected[simple], rtol=1e-10)
    gradient = jax.grad(lambda g: ntk.spectrum(g).condition_number)(GRAM)
    slope = expected[0] / 0.01 - 5 / 0.01**2 * expected[4]
    np.testing.assert_allclose(np.vdot(gradient, direction), slope, rtol=1e-9)


def test_trace_share(dtype):
    gram, eps = GRAM.astype(dtype), np.finfo(dtype).eps
    # The span does not change with the basis.
    mixed = ROTATION[:, [0, 3]] @ np.array([[1.0, 2.0], [0.5, -3.0]])
    got = ntk.trace_share(gram, mixed.astype(dtype))
    np.testing.assert_allclose(got, 5.5 / 9.51, atol=20 * eps)
    ones = np.ones((5, 1), dtype)
    np.testing.assert_allclose(
        ntk.trace_share(gram, ones), GRAM.mean() * 5 / 9.51, atol=20 * eps
    )
    everything = ntk.trace_share(gram, np.eye(5, dtype=dtype))
    np.testing.assert_allclose(everything, 1, atol=10 * eps)


def test_trace_share_is_differentiable(x64):
    directions = np.random.default_rng(6).normal(size=(5, 2))
    move = np.random.default_rng(7).normal(size=(5, 2))

    def share(s):
        return ntk.trace_share(GRAM, directions + s * move)

    step = 1e-6
    expected = (share(step) - share(-step)) / (2 * step)
    got = jax.jit(jax.grad(share))(0.0)
    np.testing.assert_allclose(got, expected, rtol=1e-7)


@pytest.mark.parametrize("function", (ntk.spectrum, ntk.trace_share))
@pytest.mark.parametrize(
    ("gram", "message"),
    (
        (np.ones((2, 3)), r"gram must have shape \(N, N\), got \(2, 3\)"),
        (np.ones(3), r"gram must have shape \(N, N\) .* got \(3,\)"),
        (np.array([[1, np.nan], [0, 1]]), "gram must be finite, got 1 NaN"),
        (np.array([[1.0, 0.1], [0.2, 1.0]]), "symmetric, .* differ by 0.1"),
        (np.zeros((2, 2)), "gram must not be zero"),
    ),
)
def test_errors_of_the_matrix(function, gram, message):
    arguments = (np.ones((2, 1)),) if function is ntk.trace_share else ()
    with pytest.raises(ValueError, match=message):
        function(gram, *arguments)


def test_errors(dtype):
    indefinite = np.array([[1, 2], [2, 1]], dtype)
    advice = "; try float64" if dtype == np.float32 else "$"
    message = f"semidefinite, got an eigenvalue -1, .* of {dtype}{advice}"
    with pytest.raises(ValueError, match=message):
        ntk.spectrum(indefinite)
    # Just below the rounding, on both sides.
    eps = np.finfo(dtype).eps
    ntk.spectrum(np.diag([1, -1.9 * eps]).astype(dtype))
    with pytest.raises(ValueError, match="must be positive semidefinite"):
        ntk.spectrum(np.diag([1, -2.1 * eps]).astype(dtype))
    with pytest.raises(ValueError, match="one row per row of x, 2, got 3"):
        ntk.spectrum(np.eye(2)).coefficients(np.ones((3, 1)))
    with pytest.raises(ValueError, match="linearly independent"):
        ntk.trace_share(np.eye(3), np.array([[1, 2], [1, 2], [3, 6]]))
    for shape in ((2, 1), (3, 4)):
        with pytest.raises(ValueError, match="with N = 3 and k <= N, got"):
            ntk.trace_share(np.eye(3), np.ones(shape))
