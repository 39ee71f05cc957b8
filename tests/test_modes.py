import numpy as np
import pytest

import ntk_helpers as ntk

RNG = np.random.default_rng(0)


def kernel(n, size):
    """A random positive definite kernel (n, n, P, P)."""
    factor = RNG.normal(size=(n * size, n * size))
    gram = factor @ factor.T + n * size * np.eye(n * size)
    return gram.reshape(n, size, n, size).swapaxes(1, 2)


def test_gram_matrix():
    k = kernel(2, 3)
    gram = np.asarray(ntk.gram_matrix(k))
    assert gram.shape == (6, 6)
    assert gram[3 * 1 + 2, 3 * 0 + 1] == np.float32(k[1, 0, 2, 1])


@pytest.mark.parametrize(("shape", "period"), [((6,), 3), ((4, 6), 2)])
def test_periodic_directions(shape, period):
    basis = ntk.periodic_directions(shape, period)
    size, count = np.prod(shape), period ** len(shape)
    assert basis.shape == (size, count)
    np.testing.assert_allclose(basis.T @ basis, np.eye(count), atol=1e-14)
    for column in basis.T:
        image = column.reshape(shape)
        for axis in range(len(shape)):
            np.testing.assert_array_equal(np.roll(image, period, axis), image)


@pytest.mark.parametrize("shape", [(8,), (4, 8)])
def test_mode_shares_are_those_of_explicit_projections(x64, shape):
    n, size = 3, int(np.prod(shape))
    k = kernel(n, size)
    gram = k.swapaxes(1, 2).reshape(n * size, n * size)
    got = ntk.mode_shares(k, shape, 2)
    ones = np.ones((n, 1)) / n**0.5
    highest = 4 if shape == (8,) else 3  # periods 1, 2, 4, and 8 on a line
    assert got.periods.shape == (highest,)
    for power in range(highest):
        basis = np.kron(ones, ntk.periodic_directions(shape, 2**power))
        share = np.trace(basis @ basis.T @ gram) / np.trace(gram)
        np.testing.assert_allclose(got.periods[power], share, rtol=1e-12)
    everything = np.kron(ones, np.eye(size))
    share = np.trace(everything @ everything.T @ gram) / np.trace(gram)
    np.testing.assert_allclose(got.constant_in_input, share, rtol=1e-12)


@pytest.mark.parametrize("shape", [(12,), (6, 12)])
@pytest.mark.parametrize("period", [1, 2, 3])
def test_harmonic_energy_is_that_of_the_fourier_transform(x64, shape, period):
    images = RNG.normal(size=(4, *shape)) + 3
    energy = np.abs(np.fft.fftn(images, axes=range(1, images.ndim))) ** 2
    inside = np.ones(shape, bool)
    for axis, n in enumerate(shape):
        line = np.arange(n) % (n // period) == 0
        inside &= np.expand_dims(
            line, [a for a in range(len(shape)) if a != axis]
        )
    inside.flat[0] = False
    total = energy.reshape(4, -1).sum(axis=1) - energy.reshape(4, -1)[:, 0]
    got = ntk.harmonic_energy(images, period)
    np.testing.assert_allclose(
        got, (energy * inside).reshape(4, -1).sum(axis=1) / total, atol=1e-13
    )


def test_harmonic_energy_of_a_checkerboard_and_of_a_constant(dtype):
    board = np.indices((8, 8)).sum(axis=0) % 2
    images = np.stack([board, np.full((8, 8), 0.3)]).astype(dtype)
    got = ntk.harmonic_energy(images, 2)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, [1, 0], atol=10 * np.finfo(dtype).eps)


def test_errors():
    k = kernel(2, 4)
    with pytest.raises(ValueError, match=r"\(N, N, 5, 5\), got"):
        ntk.mode_shares(k, (5,), 2)
    with pytest.raises(ValueError, match="at least 2, got 1"):
        ntk.mode_shares(k, (4,), 1)
    with pytest.raises(ValueError, match="positive trace"):
        ntk.mode_shares(0 * k, (4,), 2)
    with pytest.raises(ValueError, match="must be finite"):
        ntk.mode_shares(np.nan * k, (4,), 2)
    with pytest.raises(ValueError, match=r"divide every axis .* got 3"):
        ntk.periodic_directions((4, 6), 3)
    with pytest.raises(ValueError, match="one or two axes"):
        ntk.periodic_directions((2, 2, 2), 2)
    with pytest.raises(ValueError, match=r"\(N, M, P, P\), got \(2, 2\)"):
        ntk.gram_matrix(np.eye(2))
    with pytest.raises(ValueError, match=r"\(N, P\) or .* got \(3,\)"):
        ntk.harmonic_energy(np.ones(3), 1)
