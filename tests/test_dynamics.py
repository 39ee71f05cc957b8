import warnings
from functools import cache
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import ntk_helpers as ntk

rng = np.random.default_rng(9)
X, Y = rng.normal(size=(5, 2)), rng.normal(size=(5, 2))
Z = rng.normal(size=(3, 2))
F_0, F_0_Z = rng.normal(size=(5, 2)), rng.normal(size=(3, 2))


@jax.jit
def kernel(x, y=None, scale=0.3):
    """A kernel of its own: linear plus exponential."""
    y = x if y is None else y
    distances = ((x[:, None] - y[None]) ** 2).sum(-1)
    return x @ y.T + jnp.exp(-scale * distances)


def covariance(x, y=None):
    """Another one, for the outputs at the start."""
    return kernel(x, y, 1.0) / 2


@cache
def matrices():
    with jax.enable_x64(True):
        return SimpleNamespace(
            xx=np.array(kernel(X)), zx=np.array(kernel(Z, X))
        )


def descent(flow):
    """Outputs on X and Z after the steps, from the gradient of the cost.

    The parameters are the coefficients of the features of the kernel, so
    that outputs move by -(2/N) Theta(., X) (f(X) - Y) in each step.
    """
    theta = np.concatenate([matrices().xx, matrices().zx])
    now = last = np.concatenate([F_0, F_0_Z])
    momentum = getattr(flow, "momentum", 0)
    for _ in range(flow.steps):
        force = -flow.step * 2 / 5 * theta @ (now[:5] - Y)
        last, now = now, now + force + momentum * (now - last)
    return now[:5], now[5:]


def ode(time):
    """The training ODE, solved numerically."""
    theta = np.concatenate([matrices().xx, matrices().zx])

    def velocity(_, f):
        f = f.reshape(8, 2)
        return (-2 / 5 * theta @ (f[:5] - Y)).ravel()

    start = np.concatenate([F_0, F_0_Z]).ravel()
    solution = solve_ivp(
        velocity, (0, time), start, "DOP853", rtol=1e-12, atol=1e-12
    )
    end = solution.y[:, -1].reshape(8, 2)
    return end[:5], end[5:]


def model_in(dtype, kernel=kernel):
    return ntk.LinearModel(kernel, X.astype(dtype), Y.astype(dtype))


@pytest.mark.parametrize(
    ("flow", "expected"),
    (
        (ntk.GradientFlow(0), lambda: (F_0, F_0_Z)),
        (ntk.GradientFlow(2.3), lambda: ode(2.3)),
        (ntk.GradientDescent(0.4, 7), None),
        (ntk.Momentum(0.3, 0.7, 11), None),
    ),
    ids=("start", "flow", "descent", "momentum"),
)
def test_outputs(dtype, flow, expected):
    model = model_in(dtype)
    at_x, at_z = expected() if expected else descent(flow)
    start = F_0.astype(dtype), Z.astype(dtype), F_0_Z.astype(dtype)
    # Condition number 100; the solver of the ODE is good to 1e-11.
    atol = 1e-10 if dtype == np.float64 else 2e-5
    got = model.outputs(flow, start[0])
    assert got.dtype == dtype
    np.testing.assert_allclose(got, at_x, atol=atol)
    got = model.outputs(flow, *start)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, at_z, atol=atol)


def test_infinite_time_interpolates(dtype):
    model = model_in(dtype)
    flow, atol = ntk.GradientFlow(jnp.inf), 1e3 * np.finfo(dtype).eps
    np.testing.assert_array_equal(model.outputs(flow, F_0), model.y)
    got = model.outputs(flow, F_0, Z.astype(dtype), F_0_Z)
    weights = np.linalg.solve(matrices().xx, Y - F_0)
    expected = F_0_Z + matrices().zx @ weights
    np.testing.assert_allclose(got, expected, atol=atol)


def test_network_of_finite_width(x64):
    """Gradient descent on the linearized network, with its own kernel."""
    net = ntk.FullyConnected(2, 16, ntk.erf, 0.2)
    params = net.init(jax.random.key(0), 2)
    model = ntk.LinearModel(
        lambda x, y=None: net.empirical_ntk(params, x, y), X, Y[:, :1]
    )
    step = float(ntk.step_limit(model.spectrum)) / 2
    f = ntk.linearized(net.apply, params)
    trained, _ = ntk.gradient_descent(f, params, X, Y[:, :1], step, 40)
    flow = ntk.GradientDescent(step, 40)
    f_0, f_0_z = net.apply(params, X), net.apply(params, Z)
    for z, got in (
        (X, model.outputs(flow, f_0)),
        (Z, model.outputs(flow, f_0, Z, f_0_z)),
    ):
        np.testing.assert_allclose(got, f(trained, z), atol=1e-11)


def test_distribution_against_samples(x64):
    """Train 4000 draws of f_0 on X and Z, each as a network of its own."""
    model = model_in(float)
    flow, draws = ntk.GradientFlow(1.5), 4000
    got = model.distribution(flow, covariance, Z)
    joint = np.array(covariance(np.concatenate([X, Z])))
    root = np.linalg.cholesky(joint)
    f_0 = root @ np.random.default_rng(0).normal(size=(8, 2 * draws))
    f_0 = f_0.reshape(8, draws, 2).transpose(1, 0, 2)
    outputs = jax.vmap(lambda f: model.outputs(flow, f[:5], Z, f[5:]))(f_0)
    deviations = np.array(outputs - got.mean)
    variances = np.diag(got.covariance)
    standard = np.sqrt(variances / draws)[:, None]
    assert (abs(deviations.mean(0)) < 4 * standard).all()
    sampled = np.einsum("sik,sjk->ij", deviations, deviations) / (2 * draws)
    standard = np.sqrt(np.outer(variances, variances) / draws)
    assert (abs(sampled - got.covariance) < 4 * standard).all()


@pytest.mark.parametrize("time", (0.0, 1.5, np.inf))
def test_distribution_by_blocks(x64, time):
    """f_t(z) = f_0(z) + A (Y - f_0(X)): the law of a linear map."""
    got = model_in(float).distribution(ntk.GradientFlow(time), covariance, Z)
    values, vectors = np.linalg.eigh(matrices().xx)
    decay = np.exp(-2 * time * values / 5)
    a = matrices().zx @ vectors * ((1 - decay) / values) @ vectors.T
    both = np.concatenate([-a, np.eye(3)], axis=1)
    prior = np.array(covariance(np.concatenate([X, Z])))
    np.testing.assert_allclose(got.mean, a @ Y, atol=1e-12)
    np.testing.assert_allclose(
        got.covariance, both @ prior @ both.T, atol=1e-12
    )


def test_distribution_at_infinity_is_the_posterior(dtype):
    x, y, z = (a.astype(dtype) for a in (X, Y, Z))
    model = model_in(dtype, covariance)
    got = model.distribution(ntk.GradientFlow(np.inf), covariance, z)
    expected = ntk.posterior(covariance, x, y, z)
    atol = 1e3 * np.finfo(dtype).eps
    np.testing.assert_allclose(got.mean, expected.mean, atol=atol)
    np.testing.assert_allclose(got.covariance, expected.covariance, atol=atol)


CIRCLE = 2 * np.pi * np.arange(6) / 6
CIRCLE = np.stack([np.cos(CIRCLE), np.sin(CIRCLE)], 1)


@pytest.mark.parametrize("flow", ("flow", "infinite", "momentum"))
def test_gradients_with_repeated_eigenvalues(x64, flow):
    """With respect to the kernel, the data, the targets and the step."""
    targets = rng.normal(size=(6, 1))
    weights = rng.normal(size=(3, 1))
    build = {
        "flow": lambda s: ntk.GradientFlow(1.3 * s),
        "infinite": lambda s: ntk.GradientFlow(jnp.inf),
        "momentum": lambda s: ntk.Momentum(0.4 * s, 0.5 * s, 9),
    }[flow]

    def value(scale, x, y, speed):
        model = ntk.LinearModel(lambda *p: kernel(*p, scale=scale), x, y)
        flow, f_0 = build(speed), jnp.zeros((6, 1))
        at_z = model.outputs(flow, f_0, Z, jnp.zeros((3, 1)))
        mean, spread = model.distribution(flow, covariance, Z)
        return jnp.sum(weights * (at_z + mean)) + jnp.trace(spread)

    arguments = 0.7, CIRCLE, targets, 1.0
    moves = 1.0, rng.normal(size=(6, 2)), rng.normal(size=(6, 1)), 1.0
    compiled = jax.jit(value)
    gradients = jax.jit(jax.grad(value, argnums=(0, 1, 2, 3)))(*arguments)
    for i, move in enumerate(moves):
        h = 1e-5
        above, below = (
            compiled(
                *arguments[:i], arguments[i] + s * move, *arguments[i + 1 :]
            )
            for s in (h, -h)
        )
        np.testing.assert_allclose(
            np.vdot(gradients[i], move),
            (above - below) / (2 * h),
            rtol=1e-7,
            atol=1e-8,
        )


def test_gradient_of_an_eager_model(x64):
    """Without a jit around the whole, in both modes."""
    gram, e = kernel(CIRCLE), np.ones((6, 6))
    targets = np.arange(6.0)[:, None]

    def value(s):
        model = ntk.LinearModel(lambda _: gram + s * e, CIRCLE, targets)
        outputs = model.outputs(ntk.GradientFlow(2.0), jnp.zeros((6, 1)))
        return jnp.sum(outputs**2)

    h = 1e-5
    expected = (value(h) - value(-h)) / (2 * h)
    np.testing.assert_allclose(jax.grad(value)(0.0), expected, rtol=1e-8)
    _, got = jax.jvp(value, (0.0,), (1.0,))
    np.testing.assert_allclose(got, expected, rtol=1e-8)


def test_times_in_one_call(x64):
    model = model_in(float)
    times = jnp.array([0.0, 0.7, 30.0, jnp.inf])
    got = jax.vmap(
        lambda t: model.outputs(ntk.GradientFlow(t), F_0, Z, F_0_Z)
    )(times)
    for time, outputs in zip(times, got, strict=True):
        one = model.outputs(ntk.GradientFlow(float(time)), F_0, Z, F_0_Z)
        np.testing.assert_allclose(outputs, one, atol=1e-13)


def test_nothing_is_compiled_again(x64, caplog):
    """Neither for another time, number of steps, or parameters."""
    model = model_in(float)
    net = ntk.FullyConnected(2, 4, ntk.erf)
    inits = [net.init(jax.random.key(seed), 2) for seed in (0, 1)]

    def run(time, steps, params, step):
        model.outputs(ntk.GradientFlow(time), F_0, Z, F_0_Z)
        model.outputs(ntk.GradientDescent(step, steps), F_0)
        f = ntk.linearized(net.apply, params)
        ntk.gradient_descent(f, params, X, Y[:, :1], step, 4)

    with jax.log_compiles(), caplog.at_level("DEBUG"):
        run(1.0, 3, inits[0], 0.1)
        assert "Compiling" in caplog.text
        caplog.clear()
        run(2, 30, inits[1], 1)
        assert "Compiling" not in caplog.text


def repeated(dtype):
    """Two copies of three points, with different labels."""
    x = np.tile(X[:3], (2, 1)).astype(dtype)
    return x, rng.normal(size=(6, 2)).astype(dtype)


def test_copies_with_different_labels_converge_to_the_mean(x64):
    x, y = repeated(float)
    model, flow = ntk.LinearModel(kernel, x, y), ntk.GradientFlow(np.inf)
    mean = (y[:3] + y[3:]) / 2
    got = model.outputs(flow, np.zeros((6, 2)))
    np.testing.assert_allclose(got, np.tile(mean, (2, 1)), atol=1e-12)
    # As if it had been trained on the means alone, at other points too.
    alone = ntk.LinearModel(kernel, x[:3], mean)
    start = np.zeros((3, 2))
    np.testing.assert_allclose(
        model.outputs(flow, np.zeros((6, 2)), Z, start),
        alone.outputs(flow, start, Z, start),
        atol=1e-12,
    )
    got = model.distribution(flow, covariance, Z)
    expected = alone.distribution(flow, covariance, Z)
    np.testing.assert_allclose(got.mean, expected.mean, atol=1e-12)
    np.testing.assert_allclose(got.covariance, expected.covariance, atol=1e-12)


def test_warns_in_float32_if_it_matters():
    x, y = repeated("float32")
    model = ntk.LinearModel(kernel, x, y)
    message = (
        "3 of 6 eigenvalues are not resolved in float32; .* 1.0e.00 of its "
        "norm, is not learnt; use float64"
    )
    zero = np.zeros((6, 2))
    difference = np.concatenate([y[3:] - y[:3], y[:3] - y[3:]])
    with pytest.warns(UserWarning, match=message):
        model.outputs(ntk.GradientFlow(np.inf), y + difference)
    with pytest.warns(UserWarning, match="3 of 6 eigenvalues"):
        model.distribution(ntk.GradientFlow(np.inf), covariance, Z)
    # No warning: before rounding decides, or if there is nothing to learn.
    model.outputs(ntk.GradientFlow(1e3), zero)
    same = np.concatenate([y[:3], y[:3]])
    model = ntk.LinearModel(kernel, x, same)
    np.testing.assert_allclose(
        model.outputs(ntk.GradientFlow(np.inf), zero), same, atol=1e-5
    )
    # Nor inside a jit, where values are not known.
    jax.jit(lambda t: model.outputs(ntk.GradientFlow(t), y))(np.inf)


def test_no_warning_in_float64(x64):
    x, y = repeated(float)
    with warnings.catch_warnings(action="error"):
        model = ntk.LinearModel(kernel, x, y)
        model.outputs(ntk.GradientFlow(np.inf), np.zeros((6, 2)))


def test_step_limit_and_best_step(x64):
    """On the linear model the limit is sharp, and no step beats the best."""
    model = model_in(float)
    spectrum = model.spectrum
    values = np.linalg.eigvalsh(matrices().xx)
    limit, best = ntk.step_limit(spectrum), ntk.best_step(spectrum)
    np.testing.assert_allclose(limit, 5 / values[-1], rtol=1e-13)
    np.testing.assert_allclose(best, 5 / (values[-1] + values[0]), rtol=1e-13)

    def error(flow):
        return float(jnp.abs(model.outputs(flow, F_0) - Y).max())

    def after(share):
        return error(ntk.GradientDescent(share * limit, 5000))

    assert after(0.99) < 1e-3 < 1e3 < after(1.01)
    limit = ntk.step_limit(spectrum, 0.5)
    np.testing.assert_allclose(limit, 5 * 1.5 / values[-1], rtol=1e-13)

    def after(share):
        return error(ntk.Momentum(share * limit, 0.5, 5000))

    assert after(0.99) < 1e-3 < 1e3 < after(1.01)
    # Contraction by (kappa - 1)/(kappa + 1) in both extreme directions.
    kappa = values[-1] / values[0]
    factor = ntk.GradientDescent(best, 1).factors(2 * spectrum.values / 5)[0]
    np.testing.assert_allclose(
        factor[jnp.array([0, -1])],
        np.array([-1, 1]) * (kappa - 1) / (kappa + 1),
        rtol=1e-11,
    )
    assert (abs(factor) <= (kappa - 1) / (kappa + 1) + 1e-12).all()


def test_best_step_of_a_singular_matrix(x64):
    """The smallest eigenvalue counts as 0, whatever its rounding."""
    spectrum = ntk.spectrum(np.diag([2.0, -1e-16]))
    np.testing.assert_array_equal(ntk.best_step(spectrum), 1)


def test_linearized(x64):
    """Against the quadratic remainder, and as an ordinary function."""
    net = ntk.FullyConnected(2, 8, ntk.tanh, 0.1, n_out=2)
    params, far = (net.init(jax.random.key(seed), 2) for seed in (0, 1))
    f = ntk.linearized(net.apply, params)
    np.testing.assert_allclose(f(params, X), net.apply(params, X), rtol=1e-14)

    def between(s):
        return jax.tree.map(lambda p, q: p + s * (q - p), params, far)

    # Affine in the parameters, with the slope of the network.
    value = f(params, X)
    np.testing.assert_allclose(
        f(between(0.3), X), value + 0.3 * (f(far, X) - value), atol=1e-13
    )
    h = 1e-5
    slope = (net.apply(between(h), X) - net.apply(between(-h), X)) / (2 * h)
    np.testing.assert_allclose(f(far, X) - value, slope, atol=1e-8)
    kernel = ntk.empirical_ntk(f, far, X)
    np.testing.assert_allclose(
        kernel, net.empirical_ntk(params, X), atol=1e-12
    )


def several(x, y=None):
    return jnp.zeros((5, 5 if y is None else len(y), 2, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    (
        ({"y": Y[:, 0]}, r"y must have shape .* got \(5,\)"),
        ({"y": Y[:4]}, "one row per row of x, 5, got 4"),
        ({"y": Y * np.nan}, "y must be finite"),
        ({"kernel": several}, r"shape \(5, 5\), got \(5, 5, 2, 2\); of a net"),
        ({"kernel": lambda x: -x @ x.T}, "gram must be positive semidef"),
        ({"kernel": lambda x: x @ x.T * np.nan}, "kernel must be finite"),
    ),
)
def test_errors_of_the_model(change, message):
    arguments = {"kernel": kernel, "x": X, "y": Y} | change
    with pytest.raises(ValueError, match=message):
        ntk.LinearModel(**arguments)


def test_errors(x64):
    model = model_in(float)
    flow = ntk.GradientFlow(1)
    for f_0, message in (
        (F_0[:, :1], r"f_0 must have shape \(5, 2\), got \(5, 1\)"),
        (F_0[:, 0], r"f_0 must have shape .* got \(5,\)"),
        (F_0 * np.inf, "f_0 must be finite, got 10"),
    ):
        with pytest.raises(ValueError, match=message):
            model.outputs(flow, f_0)
    with pytest.raises(ValueError, match="given together"):
        model.outputs(flow, F_0, Z)
    with pytest.raises(ValueError, match="given together"):
        model.outputs(flow, F_0, f_0_z=F_0_Z)
    with pytest.raises(ValueError, match=r"f_0_z must have shape \(3, 2\)"):
        model.outputs(flow, F_0, Z, F_0)
    with pytest.raises(ValueError, match="flow must be a GradientFlow, .* 1"):
        model.outputs(1, F_0)
    with pytest.raises(ValueError, match="single numbers, .* with jax.vmap"):
        model.outputs(ntk.GradientFlow(np.ones(3)), F_0)
    with pytest.raises(ValueError, match=r"nngp .* expected shape \(5, 5\)"):
        model.distribution(flow, several, Z)
    diverging = ntk.GradientDescent(100.0, 10**4)
    with pytest.raises(ValueError, match="step below step_limit.*100"):
        model.outputs(diverging, F_0)
    with pytest.raises(ValueError, match="step below step_limit.*100"):
        model.distribution(diverging, covariance, Z)
