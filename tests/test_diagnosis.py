"""Diagnoses against NumPy, and advice that is applied."""

import warnings

import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot
import numpy as np
import pytest

import ntk_helpers as ntk

matplotlib.use("agg")
rng = np.random.default_rng(6)
X = rng.normal(size=(10, 6)) + 0.5
X *= np.sqrt(6) / np.linalg.norm(X, axis=1, keepdims=True)
FROZEN = ntk.FullyConnected(6, 64, ntk.erf.standardized(), 0.8)
EDGE = ntk.FullyConnected(5, 16, ntk.relu.standardized(), 0)
CHAOTIC = ntk.FullyConnected(40, 16, ntk.erf.standardized(), 0.1)
R_ERF = 1.225700004


def erf_dual(c):
    scale = np.arcsin(2 / 3)
    return np.arcsin(2 * c / 3) / scale, 2 / np.sqrt(9 - 4 * c**2) / scale


def relu_dual(c):
    t = np.arccos(c)
    return (np.sin(t) + c * (np.pi - t)) / np.pi, (np.pi - t) / np.pi


def gram(dual, beta, depth):
    """Theta^(L) on the sphere, the dual being standardized."""
    weight, bias = 1 - beta**2, beta**2
    sigma = weight * X @ X.T / 6 + bias
    np.fill_diagonal(sigma, 1)
    theta = sigma
    for _ in range(depth - 1):
        value, slope = dual(np.clip(sigma, -1, 1))
        sigma = weight * value + bias
        np.fill_diagonal(sigma, 1)
        theta = sigma + weight * slope * theta
    return theta


def numbers(theta):
    """Constant mode, bulk, steps, similarity: another route to each."""
    n = len(theta)
    mean_free = np.eye(n) - 1 / n
    # The projection adds one eigenvalue 0, the smallest.
    bulk = np.sort(np.linalg.eigvalsh(mean_free @ theta @ mean_free))[:0:-1]
    values = np.linalg.eigvalsh(theta)
    # What gradient descent does to the worst residual, at the best of many
    # step sizes.
    steps = n / values[-1] * np.linspace(0.5, 1, 100001)
    worst = np.abs(1 - 2 * np.outer(steps, values[[0, -1]]) / n).max(axis=1)
    root = np.sqrt(np.diag(theta))
    cosine = np.abs(theta / np.outer(root, root))
    return {
        "constant": theta.mean() * n,
        "bulk": bulk,
        "steps": -1 / np.log(worst.min()),
        "similarity": cosine[~np.eye(n, dtype=bool)].mean(),
        "condition_number": np.linalg.cond(theta),
        "bulk_condition_number": bulk[0] / bulk[-1],
        "constant_share": theta.mean() * n / np.trace(theta),
        "constant_share_of_largest": theta.mean() * n / values[-1],
    }


def check(report, theta, rtol=1e-8):
    for name, expected in numbers(theta).items():
        # The scan of step sizes is that coarse: 1/(2e5) of kappa/2.
        tolerance = 2e-2 if name == "steps" else rtol
        got = getattr(report, name)
        np.testing.assert_allclose(got, expected, rtol=tolerance)
    n = len(theta)
    values, vectors = np.linalg.eigh(theta)
    overlap = abs(vectors[:, -1].sum()) / np.sqrt(n)
    np.testing.assert_allclose(report.constant_overlap, overlap, rtol=1e-6)
    step = n / (values[0] + values[-1])
    np.testing.assert_allclose(report.step, step, rtol=rtol)
    rates = [theta.mean() * n, np.median(numbers(theta)["bulk"])]
    times = [n / (2 * rate) / step for rate in rates]
    np.testing.assert_allclose(report.learning_times, times, rtol=rtol)


def test_freeze_and_its_remedies(x64):
    """Applied, each lowers the number of steps to what was promised."""
    report = ntk.diagnose(FROZEN, X)
    before = gram(erf_dual, 0.8, 6)
    check(report, before)
    assert report.regime == "freeze" and not report.notes
    np.testing.assert_allclose(
        report.characteristic_value, 0.36 * R_ERF, rtol=1e-8
    )
    critical = np.sqrt(1 - 1 / R_ERF)
    np.testing.assert_allclose(report.critical_beta, critical, rtol=1e-8)
    best, last = report.advice  # erf is normalized already: nothing gained
    np.testing.assert_allclose(best.net.beta, critical, rtol=1e-8)
    after = gram(erf_dual, critical, 6)
    assert 100 * best.steps < report.steps
    np.testing.assert_allclose(best.steps, numbers(after)["steps"], rtol=1e-3)
    assert last.net.normalization == ntk.BatchNorm()
    assert last.steps is None and "N beta^2 = 6.4" in last.description
    text = str(report)
    for part in (
        "Freeze: inputs look alike",
        "regime         freeze, r = 0.441, critical beta 0.429",
        "10 points",
        f"beta = 0.429: r = 1, {report.steps:.2g} steps -> {best.steps:.2g}",
        f"BatchNorm(): the constant mode at N beta^2 = 6.4 instead of "
        f"{before.mean() * 10:.3g}",
    ):
        assert part in text
    assert repr(report) == text


def test_remedies_by_normalization(x64):
    """relu: from pi/(pi-1); without its standardization this is said."""
    net = ntk.FullyConnected(4, 16, ntk.relu, 0.6)
    report = ntk.diagnose(net, 1.1 * X)
    by_name = {remedy.description: remedy for remedy in report.advice}
    r = 0.64 * np.pi / (np.pi - 1)
    layer = by_name[f"LayerNorm() after the nonlinearity: r = {r:.3g}"]
    normal = by_name[f"the nonlinearity normalized: r = {r:.3g}"]
    both = by_name["beta = 0, nonlinearity standardized: r = 1"]
    assert layer.net.normalization == ntk.LayerNorm()
    assert both.net.nonlinearity == ntk.relu.standardized()
    for remedy in (layer, normal, both):
        assert remedy.steps < 0.5 * report.steps
        values = np.linalg.eigvalsh(remedy.net.ntk(1.1 * X))
        kappa = values[-1] / values[0]
        steps = 1 / np.log((kappa + 1) / (kappa - 1))
        np.testing.assert_allclose(remedy.steps, steps, rtol=1e-8)
    counts = [remedy.steps for remedy in report.advice[:-1]]
    assert counts == sorted(counts)
    assert "not standardized" in report.notes[0]
    assert "|x|/sqrt(n_0) from 1.1 to 1.1" in report.notes[1]


def test_the_edge_needs_nothing(x64):
    report = ntk.diagnose(EDGE, X)
    check(report, gram(relu_dual, 0, 5), rtol=1e-7)
    assert report.regime == "edge" and report.advice == ()
    assert str(report).startswith("At the edge: nothing to change.")


def test_chaos(x64):
    """Deep: the edge and fewer layers bring the similarity back."""
    report = ntk.diagnose(CHAOTIC, X)
    check(report, gram(erf_dual, 0.1, 40), rtol=1e-6)
    assert report.regime == "chaos" and report.deep_chaos
    assert str(report).startswith("Deep chaos: ")
    edge, shallow = sorted(report.advice, key=lambda r: r.net.beta)[::-1]
    np.testing.assert_allclose(edge.net.beta, 0.42911499, rtol=1e-7)
    depth = shallow.net.depth
    similarity = [
        numbers(gram(erf_dual, 0.1, d))["similarity"]
        for d in (depth, depth + 1)
    ]
    assert similarity[0] >= 0.1 > similarity[1]
    np.testing.assert_allclose(shallow.similarity, similarity[0], rtol=1e-8)
    again = ntk.diagnose(shallow.net, X)
    assert again.regime == "chaos" and again.advice == ()
    assert str(again).startswith("Chaos, but at this depth points still")
    assert f"depth = {depth}, similarity 0.00 -> 0.1" in str(report)


def test_empirical(x64):
    """Batch normalization is measured where there are parameters."""
    params = FROZEN.init(jax.random.key(0), 6)
    report = ntk.diagnose(FROZEN, X, params)
    check(report, np.asarray(FROZEN.empirical_ntk(params, X)), rtol=1e-7)
    assert any(abs(r.net.beta - 0.42911499) < 1e-7 for r in report.advice)
    (batch,) = (
        remedy
        for remedy in report.advice
        if remedy.net.normalization == ntk.BatchNorm()
    )
    for remedy in report.advice:
        values = np.linalg.eigvalsh(remedy.net.empirical_ntk(params, X))
        kappa = values[-1] / values[0]
        steps = 1 / np.log((kappa + 1) / (kappa - 1))
        np.testing.assert_allclose(remedy.steps, steps, rtol=1e-6)
        assert remedy.steps < report.steps
    pinned = ntk.diagnose(batch.net, X, params=params)
    np.testing.assert_allclose(pinned.constant, 10 * 0.64, rtol=1e-9)
    assert "without batch normalization" in pinned.notes[-1]


def function(params, x):
    """Two outputs: sums of tanh, and the same times the input's mean."""
    weights, bias = params
    values = jnp.tanh(x @ weights).sum(axis=1) + 9 * bias
    return jnp.stack([values, 2 * values], axis=1)


def test_a_function_of_the_user(x64):
    weights = rng.normal(size=(6, 4))
    params = jnp.asarray(weights), jnp.zeros(())
    slope = 1 - np.tanh(X @ weights) ** 2
    jacobian = np.einsum("ij,ik->ijk", X, slope).reshape(10, -1)
    theta = jacobian @ jacobian.T + 81
    report = ntk.diagnose(function, X, params=params)
    check(report, 2.5 * theta)  # (1 + 4)/2: the mean over outputs
    assert report.regime is report.critical_beta is None
    assert report.characteristic_value is None
    (remedy,) = report.advice
    kappa = numbers(theta)["bulk_condition_number"]
    np.testing.assert_allclose(
        remedy.steps, 1 / np.log((kappa + 1) / (kappa - 1)), rtol=1e-8
    )
    assert remedy.net is None and remedy.steps < report.steps
    assert str(report).startswith("The constant mode is the top one")
    assert "regime" not in str(report)


def test_what_is_not_resolved_is_said(x64):
    """Not as a number, and without a warning."""
    repeated = np.concatenate([X, X[:2]])
    with warnings.catch_warnings(action="error"):
        report = ntk.diagnose(EDGE, repeated)
        text = str(report)
    assert report.condition_number == report.steps == np.inf
    assert np.isfinite(report.learning_times).all()
    bound = 1 / (12 * np.finfo(float).eps)
    assert f"above {bound:.2g}, not resolved (bulk not resolved)" in text
    assert "2 of 12 eigenvalues are not resolved in float64" in text
    axes = report.plot()
    assert axes.get_legend_handles_labels()[1] == [
        "eigenvalues",
        "rounding: 2 below",
        "constant mode",
    ]
    assert len(axes.lines[0].get_ydata()) == 10
    matplotlib.pyplot.close("all")


def test_plot(x64):
    report = ntk.diagnose(EDGE, X)
    _, axes = matplotlib.pyplot.subplots()
    assert report.plot(axes) is axes
    points, line = axes.lines
    expected = np.linalg.eigvalsh(gram(relu_dual, 0, 5))[::-1]
    np.testing.assert_allclose(points.get_ydata(), expected, rtol=1e-7)
    np.testing.assert_allclose(line.get_ydata(), report.constant)
    assert axes.get_xlabel() == "rank" and axes.get_yscale() == "log"
    assert axes.get_ylabel() == "eigenvalue of the NTK"
    matplotlib.pyplot.close("all")


def test_errors():
    with pytest.raises(ValueError, match=r"at least 2 points, got .*\(1, 6\)"):
        ntk.diagnose(EDGE, X[:1])
    with pytest.raises(ValueError, match="function .* with its params"):
        ntk.diagnose(function, X)
    with pytest.raises(ValueError, match="must be a FullyConnected, or a f"):
        ntk.diagnose("net", X, params=())
    net = ntk.FullyConnected(3, 8, normalization=ntk.BatchNorm())
    with pytest.raises(ValueError, match="BatchNorm.* pass params"):
        ntk.diagnose(net, X)
    with pytest.raises(ValueError, match="x must be finite"):
        ntk.diagnose(EDGE, np.nan * X)
