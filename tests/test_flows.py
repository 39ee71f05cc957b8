from functools import cache

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

import ntk_helpers as ntk

# Rates from far below to the top of what a step of 0.5 contracts; 2 and 4
# are where step * rate is 1 and 2, and repeated ones are next to each other.
RATES = [0, 1e-14, 1e-7, 1e-3, 0.3, 0.3 + 1e-6, 1.7, 2, 2.5, 3.9, 4]
FLOWS = (
    ntk.GradientFlow(0),
    ntk.GradientFlow(0.7),
    ntk.GradientFlow(1e5),
    ntk.GradientDescent(0.5, 0),
    ntk.GradientDescent(0.5, 1),
    ntk.GradientDescent(0.5, 2),
    ntk.GradientDescent(0.5, 7),
    ntk.GradientDescent(0.5, 10**6),
    ntk.GradientDescent(0.75, 5),  # diverges at the largest rates
    ntk.Momentum(0.5, 0.9, 0),
    ntk.Momentum(0.5, 0, 3),
    ntk.Momentum(0.5, 0.9, 13),
    ntk.Momentum(0.5, 0.3, 200),
)


@jax.jit
def everything(flow, rates):
    """Factors at the rates and divided differences between all of them."""
    return *flow.factors(rates), *flow.differences(rates[:, None], rates)


def remaining(flow, rate):
    """r, by the definition of each method with 120 digits."""
    if isinstance(flow, ntk.GradientFlow):
        return mp.exp(-mp.mpf(flow.time) * rate)
    step, momentum = mp.mpf(flow.step), mp.mpf(0)
    if isinstance(flow, ntk.GradientDescent):
        return (1 - step * rate) ** flow.steps
    momentum = mp.mpf(flow.momentum)
    now, velocity = mp.mpf(1), mp.mpf(0)
    for _ in range(flow.steps):
        velocity = momentum * velocity - step * rate * now
        now = now + velocity
    return now


def learnt(flow, rate):
    """(1 - r)/rate; at 0 a point so near that the digits suffice."""
    rate = rate or mp.mpf("1e-60")
    return (1 - remaining(flow, rate)) / rate


def quotient(function, a, b):
    """A divided difference, equal points pulled apart by 1e-25."""
    if a == b:
        b = a + mp.mpf("1e-25")
    return (function(a) - function(b)) / (a - b)


@cache
def expected(flow, dtype):
    """Factors at the rates and divided differences between all of them."""
    with mp.workdps(120):
        rates = [mp.mpf(float(dtype.type(rate))) for rate in RATES]
        singles, pairs = [], []
        for function in (remaining, learnt):
            at = {rate: function(flow, rate) for rate in rates}
            singles.append([float(at[rate]) for rate in rates])
            pairs.append(
                [
                    [
                        float(quotient(at.get, a, b))
                        if a != b
                        else float(
                            quotient(lambda r, f=function: f(flow, r), a, b)
                        )
                        for b in rates
                    ]
                    for a in rates
                ]
            )
    return *singles, *pairs


@pytest.mark.parametrize("flow", FLOWS, ids=str)
def test_against_mpmath(dtype, flow):
    # What is representable in the dtype.
    exactly = {
        name: float(dtype.type(value)) if name != "steps" else value
        for name, value in vars(flow).items()
    }
    flow = type(flow)(**exactly)
    rates = jnp.asarray(RATES, dtype)
    got = everything(flow, rates)
    assert {value.dtype for value in got} == {dtype}
    # Rounding of a few operations, or of every step of the recursion.
    steps = flow.steps if isinstance(flow, ntk.Momentum) else 0
    rtol = (16 + steps) * np.finfo(dtype).eps
    exact = [np.array(value) for value in expected(flow, dtype)]
    scales = 1, 0, 0, flow.duration**2
    for value, true, scale in zip(got, exact, scales, strict=True):
        scale = max(scale, np.abs(true).max())
        np.testing.assert_allclose(value, true, rtol=0, atol=rtol * scale)
    # At no rate, however small, does (1 - r)/rate lose digits.
    np.testing.assert_allclose(got[1], exact[1], rtol=rtol)


@pytest.mark.parametrize(
    ("flow", "name"),
    (
        (ntk.GradientFlow(0.8), "time"),
        (ntk.GradientDescent(0.5, 6), "step"),
        (ntk.Momentum(0.4, 0.6, 9), "step"),
        (ntk.Momentum(0.4, 0.6, 9), "momentum"),
    ),
)
def test_slopes_are_derivatives(x64, flow, name):
    rates = jnp.array(RATES)
    slopes = flow.slopes(rates)[name]
    h = 1e-6
    above, below = (
        type(flow)(**(vars(flow) | {name: getattr(flow, name) + move}))
        for move in (h, -h)
    )
    for i in range(2):
        # Central differences: h^2 times a third derivative of order 100.
        quotient = above.factors(rates)[i] - below.factors(rates)[i]
        np.testing.assert_allclose(slopes[i], quotient / (2 * h), atol=2e-9)


def test_infinite_time(dtype):
    """Everything is learnt, and the derivatives are those of 1/rate."""
    rates = jnp.asarray([1e-6, 0.5, 0.5, 3], dtype)
    remaining, learnt, dr, ds = everything(ntk.GradientFlow(np.inf), rates)
    np.testing.assert_array_equal(remaining, 0)
    np.testing.assert_allclose(learnt, 1 / rates, rtol=1e-6)
    np.testing.assert_array_equal(dr, 0)
    np.testing.assert_allclose(ds, -1 / np.outer(rates, rates), rtol=1e-6)
    slope = ntk.GradientFlow(jnp.inf).slopes(rates)["time"]
    np.testing.assert_array_equal(slope, 0)


def test_long_times_do_not_overflow(dtype):
    rates = jnp.asarray([0, 1e-3, 0.5, 1], dtype)
    for flow in (ntk.GradientFlow(1e30), ntk.GradientDescent(1.0, 2**31 - 1)):
        values = everything(flow, rates)
        assert all(np.isfinite(v[..., 1:]).all() for v in values)
        np.testing.assert_allclose(values[1][1:], 1 / rates[1:], rtol=1e-6)


def test_the_sign_follows_the_parity(dtype):
    """Step * rate = 2: the residual changes its sign for ever."""
    rate = jnp.full(4, 2.0, dtype)
    for steps, sign in ((2**31 - 1, -1), (2**31 - 2, 1)):
        got = everything(ntk.GradientDescent(1.0, steps), rate)
        np.testing.assert_array_equal(got[0], sign)
        np.testing.assert_array_equal(got[1], (1 - sign) / 2)


def test_momentum_stays_at_rate_0(dtype):
    rate = jnp.zeros(1, dtype)
    remaining, learnt = ntk.Momentum(0.1, 0.9, 10**4).factors(rate)
    assert remaining == 1
    # Sum over steps of step (1 - momentum^j)/(1 - momentum).
    exact = 0.1 / 0.1 * (10**4 - 9)
    np.testing.assert_allclose(learnt, exact, rtol=1e4 * np.finfo(dtype).eps)


def test_flows_are_pytrees(x64):
    rates = jnp.array(RATES)
    times = jnp.array([0.0, 1.0, jnp.inf])
    steps = jnp.arange(5)
    for build, values in (
        (ntk.GradientFlow, times),
        (lambda k: ntk.GradientDescent(0.5, k), steps),
        (lambda k: ntk.Momentum(0.5, 0.2, k), steps),
    ):
        mapped = jax.jit(
            jax.vmap(lambda value, build=build: build(value).factors(rates))
        )(values)
        for i, value in enumerate(values.tolist()):
            single = everything(build(value), rates)
            for j in range(2):
                np.testing.assert_allclose(
                    mapped[j][i, 1:], single[j][1:], rtol=1e-13, atol=1e-15
                )


@pytest.mark.parametrize(
    ("build", "message"),
    (
        (lambda: ntk.GradientFlow(-1), "time must be a number >= 0, got -1"),
        (lambda: ntk.GradientFlow(np.nan), "time must be .* got nan"),
        (lambda: ntk.GradientFlow("1"), "time must be .* got 1"),
        (lambda: ntk.GradientFlow(np.array([0, -1])), "time must be .* -1"),
        (lambda: ntk.GradientDescent(0, 1), "step must be a positive .* 0"),
        (lambda: ntk.GradientDescent(np.inf, 1), "step must be .* got inf"),
        (lambda: ntk.GradientDescent(1, -1), "steps must be an integer .* -1"),
        (lambda: ntk.GradientDescent(1, 1.5), "steps must be .* got 1.5"),
        (lambda: ntk.Momentum(-1, 0, 1), "step must be .* got -1"),
        (lambda: ntk.Momentum(1, 1, 1), r"momentum must .* \[0, 1\), got 1"),
        (lambda: ntk.Momentum(1, -0.1, 1), "momentum must be .* got -0.1"),
        (lambda: ntk.Momentum(1, 0, None), "steps must be .* got None"),
    ),
)
def test_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_more_steps_than_an_integer_holds():
    with pytest.raises(ValueError, match="from 0 to 2147483647, got 3000"):
        ntk.GradientDescent(1, 3000000000)
