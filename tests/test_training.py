import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ntk_helpers as ntk

rng = np.random.default_rng(4)
X, Y = rng.normal(size=(6, 3)), rng.normal(size=(6, 2))


def linear(params, x):
    return x @ params["w"] + params["b"]


def start(dtype=float):
    draws = np.random.default_rng(5)
    return {
        "w": jnp.asarray(draws.normal(size=(3, 2)), dtype),
        "b": jnp.asarray(draws.normal(size=2), dtype),
    }


def loop(steps, step):
    """Gradient of C = (1/N) sum |x w + b - y|^2 written out in NumPy."""
    w, b = (np.asarray(start()[name], float) for name in ("w", "b"))
    costs = []
    for _ in range(steps + 1):
        residual = X @ w + b - Y
        costs.append(np.sum(residual**2) / 6)
        w_last, b_last = w, b
        w = w - step * 2 / 6 * X.T @ residual
        b = b - step * 2 / 6 * residual.sum(axis=0)
    return w_last, b_last, np.array(costs)


def test_cost(dtype):
    got = ntk.cost(linear, start(dtype), X.astype(dtype), Y.astype(dtype))
    assert got.dtype == dtype
    expected = loop(0, 0)[2][0]
    np.testing.assert_allclose(got, expected, rtol=32 * np.finfo(dtype).eps)


def test_gradient_descent_is_the_loop(dtype):
    x, y = X.astype(dtype), Y.astype(dtype)
    params, costs = ntk.gradient_descent(
        linear, start(dtype), x, y, step=0.1, steps=12, every=4
    )
    w, b, expected = loop(12, 0.1)
    rtol = 1e-12 if dtype == np.float64 else 1e-5
    np.testing.assert_allclose(params["w"], w, rtol=rtol)
    np.testing.assert_allclose(params["b"], b, rtol=rtol)
    assert costs.shape == (4,) and params["w"].dtype == dtype
    np.testing.assert_allclose(costs, expected[::4], rtol=rtol)


def test_residual_contracts_with_the_kernel(x64):
    """residual_k = (I - (2 eta/N) Theta)^k residual_0 for a linear model."""
    theta = ntk.empirical_ntk(lambda p, x: linear(p, x)[:, 0], start(), X)
    np.testing.assert_allclose(theta, X @ X.T + 1, atol=1e-13)
    step, steps = 0.05, 30

    def residual(params):
        return linear(params, X) - Y

    _, records = ntk.gradient_descent(
        linear, start(), X, Y, step, steps, record=residual, every=10
    )
    assert records.shape == (4, 6, 2)
    factor = np.eye(6) - 2 * step / 6 * (X @ X.T + 1)
    expected = [
        np.linalg.matrix_power(factor, k) @ np.asarray(records[0])
        for k in (0, 10, 20, 30)
    ]
    np.testing.assert_allclose(records, expected, atol=1e-12)


def test_network(x64):
    """A network, its records a tree, against jax.grad step by step."""
    net = ntk.FullyConnected(2, 5, ntk.tanh, 0.2, n_out=2)
    first = params = net.init(jax.random.key(0), 3)

    def record(params):
        return {"f": net.apply(params, X), "w": params[0].weights}

    got, records = ntk.gradient_descent(
        net.apply, first, X, Y, 0.3, 3, record=record, progress=False
    )

    def mean_square(params):
        return jnp.mean(jnp.sum((net.apply(params, X) - Y) ** 2, axis=1))

    for k in range(4):
        np.testing.assert_allclose(
            records["f"][k], net.apply(params, X), atol=1e-12
        )
        last = params
        gradient = jax.grad(mean_square)(params)
        params = jax.tree.map(lambda p, g: p - 0.3 * g, params, gradient)
    assert records["w"].shape == (4, 5, 3)
    for a, b in zip(*map(jax.tree.leaves, (got, last)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


def quadratic(update, steps):
    """Parameters of the linear model in NumPy, ``update`` on its gradient."""
    w, b = (np.asarray(start()[name], float) for name in ("w", "b"))
    theta, features = np.vstack([w, b]), np.c_[X, np.ones(6)]
    state, thetas = None, [theta]
    for k in range(steps):
        gradient = 2 / 6 * features.T @ (features @ theta - Y)
        change, state = update(gradient, state, k)
        theta = theta + change
        thetas.append(theta)
    return thetas


def heavy_ball(gradient, velocity, k):
    velocity = -0.1 * gradient + (0.8 * velocity if k else 0)
    return velocity, velocity


def adam(gradient, state, k):
    """Kingma and Ba (2015), algorithm 1."""
    mean, square = state if k else (0, 0)
    mean = 0.9 * mean + 0.1 * gradient
    square = 0.999 * square + 0.001 * gradient**2
    corrected = mean / (1 - 0.9 ** (k + 1))
    scale = np.sqrt(square / (1 - 0.999 ** (k + 1))) + 1e-8
    return -0.1 * corrected / scale, (mean, square)


@pytest.mark.parametrize(
    ("optimizer", "update"),
    (
        (optax.sgd(0.1, momentum=0.8), heavy_ball),
        (optax.adam(0.1), adam),
    ),
    ids=("heavy ball", "adam"),
)
def test_train_is_the_loop(x64, optimizer, update):
    """State and parameters go on from one record to the next."""
    params, records = ntk.train(
        linear, start(), X, Y, optimizer, 9, record=lambda p: p, every=3
    )
    expected = quadratic(update, 9)
    got = np.concatenate([records["w"], records["b"][:, None]], axis=1)
    np.testing.assert_allclose(got, expected[::3], atol=1e-12)
    np.testing.assert_array_equal(params["w"], records["w"][-1])


def test_train_needs_no_optax(x64):
    """Any object with init and update will do; parameters keep their dtype."""

    class Descent:
        def init(self, params):
            return jnp.zeros((), int)

        def update(self, gradient, state, params):
            scale = jnp.asarray(-0.1, "float64")
            return jax.tree.map(lambda g: scale * g, gradient), state + 1

    x, y = X.astype("float32"), Y.astype("float32")
    params, costs = ntk.train(linear, start("float32"), x, y, Descent(), 5)
    expected, _ = ntk.gradient_descent(linear, start(), X, Y, 0.1, 5)
    assert params["w"].dtype == np.float32 and costs.shape == (6,)
    np.testing.assert_allclose(params["w"], expected["w"], rtol=1e-5)


def test_another_step_is_not_compiled_again(x64, caplog):
    with jax.log_compiles(), caplog.at_level("DEBUG"):
        jax.clear_caches()
        for step, text in ((0.1, "_advance"), (0.2, ""), (1, "")):
            caplog.clear()
            ntk.gradient_descent(linear, start(), X, Y, step, 4, every=2)
            compiled = caplog.text.split("Compiling ")[1:]
            assert len(compiled) == 0 if not text else text in str(compiled)


def test_progress_shows_a_bar(capsys):
    ntk.gradient_descent(linear, start(), X, Y, 0.1, steps=2, progress=True)
    assert "2/2" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("changed", "message"),
    (
        ({"y": Y[:, :1]}, r"shape of f, \(6, 2\), got \(6, 1\)"),
        ({"y": Y[:, 0]}, r"y must have shape .* got \(6,\)"),
        ({"y": Y[:5]}, r"shape of f, \(6, 2\), got \(5, 2\)"),
        ({"y": Y * np.nan}, "y must be finite, got 12 NaN"),
        ({"x": X * np.inf}, "x must be finite"),
        ({"steps": 0}, "steps must be an integer >= 1, got 0"),
        ({"every": 0}, "every must be an integer >= 1, got 0"),
        ({"every": 3}, "steps must be a multiple of every = 3, got 10"),
        ({"step": 0}, "step must be a positive number, got 0"),
        ({"step": float("nan")}, "step must be a positive number, got nan"),
        ({"step": float("inf")}, "step must be a positive number, got inf"),
    ),
)
def test_errors(changed, message):
    arguments = {"x": X, "y": Y, "step": 0.1, "steps": 10} | changed
    with pytest.raises(ValueError, match=message):
        ntk.gradient_descent(linear, start(), **arguments)


def test_errors_of_train():
    with pytest.raises(ValueError, match="init and update .* got 0.1"):
        ntk.train(linear, start(), X, Y, 0.1, 5)
    with pytest.raises(ValueError, match=r"shape of f, \(6, 2\), got"):
        ntk.train(linear, start(), X, Y[:, :1], optax.sgd(0.1), 5)
    with pytest.raises(ValueError, match="a multiple of every = 2, got 5"):
        ntk.train(linear, start(), X, Y, optax.sgd(0.1), 5, every=2)
