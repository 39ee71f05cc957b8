import numpy as np
import pytest
from scipy.linalg import sqrtm

import ntk_helpers as ntk

RNG = np.random.default_rng(1)
MIXING = RNG.normal(size=(6, 6))
REAL = RNG.normal(size=(400, 6)) @ MIXING + 1
FAKE = RNG.normal(size=(300, 6)) @ (0.5 * MIXING[::-1])


def test_relative_variance(dtype):
    images = np.array([[3.0, 0], [3, 2]], dtype).reshape(2, 2, 1)
    reference = np.array([[0.0, 0], [2, 4]], dtype).reshape(2, 2, 1)
    got = ntk.relative_variance(images, reference)
    np.testing.assert_allclose(got, 1 / 5, rtol=1e-6)  # 1 over 1 + 4
    same = np.repeat(images[:1], 3, axis=0)  # one image, not a flat one
    assert ntk.relative_variance(same, reference) == 0


def test_effective_classes():
    assert ntk.effective_classes([7, 7, 7]) == 1
    np.testing.assert_allclose(ntk.effective_classes(range(10)), 10)
    half = ntk.effective_classes([0, 0, 1, 1, 2, 2, 2, 2])
    np.testing.assert_allclose(half, 2**1.5)  # entropy 1.5 bits


@pytest.mark.parametrize("components", [2, 6])
def test_frechet_distance(x64, components):
    """SciPy's matrix root, singular vectors instead of eigenvectors."""
    centre = REAL.mean(axis=0)
    axes = np.linalg.svd(REAL - centre, full_matrices=False)[2][:components]
    a, b = ((z - centre) @ axes.T for z in (FAKE, REAL))
    s, t = (np.cov(z.T, bias=True) for z in (a, b))
    gap = a.mean(axis=0) - b.mean(axis=0)
    expected = gap @ gap + np.trace(s + t - 2 * sqrtm(s @ t).real)
    got = ntk.frechet_distance(FAKE, REAL, components)
    np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_frechet_distance_of_a_shift_and_of_a_scale(x64):
    """|shift|^2, and (1 - c)^2 tr S for c times the fluctuation."""
    shift = np.arange(6.0)
    got = ntk.frechet_distance(REAL + shift, REAL, 6)
    np.testing.assert_allclose(got, shift @ shift, rtol=1e-9)
    mean = REAL.mean(axis=0)
    shrunk = mean + 0.25 * (REAL - mean)
    trace = np.var(REAL, axis=0).sum()
    got = ntk.frechet_distance(shrunk, REAL, 6)
    np.testing.assert_allclose(got, 0.75**2 * trace, rtol=1e-9)
    np.testing.assert_allclose(
        ntk.frechet_distance(REAL, REAL, 6), 0, atol=1e-9
    )


def test_errors():
    with pytest.raises(ValueError, match="must vary, got equal"):
        ntk.relative_variance(FAKE, 0 * REAL)
    with pytest.raises(ValueError, match="as many pixels, got 5 and 6"):
        ntk.relative_variance(FAKE[:, :5], REAL)
    with pytest.raises(ValueError, match=r"n >= 2, got \(1, 6\)"):
        ntk.frechet_distance(FAKE[:1], REAL)
    with pytest.raises(ValueError, match="at most the 6 pixels, got 7"):
        ntk.frechet_distance(FAKE, REAL, 7)
    with pytest.raises(ValueError, match="images must be finite"):
        ntk.frechet_distance(np.nan * FAKE, REAL)
    for labels in ([0.5], [], [[1]]):
        with pytest.raises(ValueError, match="integers of shape"):
            ntk.effective_classes(labels)
