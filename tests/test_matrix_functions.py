"""Oracles: matrix exponentials and matrix loops, no eigendecomposition.

For any matrix function g, the upper right block of g([[G, E], [0, G]]) is the
derivative of g at G along E.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

import ntk_helpers as ntk
from ntk_helpers.matrix_functions import stopped, trained

rng = np.random.default_rng(8)
ANGLES = 2 * np.pi * np.arange(6) / 6
# Evenly spaced on a circle: the eigenvalues come in exact pairs.
GRAM = 3 * np.exp(2 * np.cos(ANGLES[:, None] - ANGLES) - 2)
B = rng.normal(size=(6, 2))
DIRECTIONS = rng.normal(size=(3, 6, 6))
DIRECTIONS = DIRECTIONS + DIRECTIONS.transpose(0, 2, 1)
FLOWS = (
    ntk.GradientFlow(0.7),
    ntk.GradientFlow(300.0),
    ntk.GradientDescent(0.3, 9),
    ntk.GradientDescent(0.01, 3),
    ntk.Momentum(0.3, 0.8, 12),
)


def functions(flow, g):
    """r(G) and G^{-1}(1 - r(G)) = the sum of all that was learnt."""
    eye, zero = np.eye(len(g)), np.zeros_like(g)
    if isinstance(flow, ntk.GradientFlow):
        t = flow.time
        both = expm(np.block([[-t * g, t * eye], [zero, zero]]))
        return both[: len(g), : len(g)], both[: len(g), len(g) :]
    momentum = getattr(flow, "momentum", 0)
    residual, parameters, velocity = eye, zero, zero
    for _ in range(flow.steps):
        velocity = momentum * velocity + flow.step * residual
        parameters = parameters + velocity
        residual = eye - g @ parameters
    return residual, parameters


def applied(flow, gram):
    return trained(flow, gram, ntk.spectrum(gram), jnp.asarray(B))


def test_the_points_repeat_eigenvalues(x64):
    values = ntk.spectrum(GRAM).values
    np.testing.assert_allclose(values[1:5:2], values[2:5:2], rtol=1e-14)


@pytest.mark.parametrize("flow", FLOWS, ids=str)
def test_values_and_derivatives(x64, flow):
    rates = 2 / 6 * GRAM
    expected = functions(flow, rates)
    blocks = [
        functions(flow, np.block([[rates, e / 3], [0 * rates, rates]]))
        for e in DIRECTIONS
    ]

    @jax.jit
    def forward(flow, gram, directions):
        return jax.vmap(
            lambda e: jax.jvp(lambda g: applied(flow, g), (gram,), (e,))
        )(directions)

    values, slopes = forward(flow, GRAM, DIRECTIONS)
    for i in range(2):
        scale = np.abs(expected[i]).max()
        np.testing.assert_allclose(
            values[i][0], expected[i] @ B, atol=1e-13 * scale
        )
        exact = np.array([block[i][:6, 6:] @ B for block in blocks])
        np.testing.assert_allclose(
            slopes[i], exact, atol=1e-12 * np.abs(exact).max()
        )
    weights = rng.normal(size=B.shape)

    @jax.jit
    @jax.grad
    def reverse(gram):
        return sum(jnp.sum(weights * part) for part in applied(flow, gram))

    exact = [np.vdot(weights, (b[0] + b[1])[:6, 6:] @ B) for b in blocks]
    gradient = reverse(GRAM)
    np.testing.assert_allclose(
        np.tensordot(DIRECTIONS, gradient, 2),
        exact,
        atol=1e-12 * np.abs(exact).max(),
    )


def test_derivative_in_time_and_in_b(x64):
    """d r(G) b/dt = -G r(G) b, and both functions are linear in b."""
    flow = ntk.GradientFlow(0.7)
    remaining, learnt = functions(flow, 2 / 6 * GRAM)

    def of(time, b):
        flow = ntk.GradientFlow(time)
        return trained(flow, GRAM, ntk.spectrum(GRAM), b)

    slope = jax.jit(lambda: jax.jvp(of, (0.7, B), (1.0, 2 * B))[1])()
    exact = -2 / 6 * GRAM @ remaining @ B + 2 * remaining @ B
    np.testing.assert_allclose(slope.remaining, exact, atol=1e-13)
    exact = remaining @ B + 2 * learnt @ B
    np.testing.assert_allclose(slope.learnt, exact, atol=1e-13)


def test_second_derivatives(x64):
    """Exact where eigenvalues differ, NaN, not noise, where not."""
    distinct = GRAM + np.diag(np.arange(6.0))

    def along(gram, e):
        def slope(s):
            flow = ntk.GradientFlow(0.7)
            return jax.jvp(lambda s: applied(flow, gram + s * e), (s,), (1.0,))

        return jax.jvp(lambda s: slope(s)[1], (0.0,), (1.0,))[1]

    e = DIRECTIONS[0]
    step = 1e-3
    second = [
        (above - 2 * middle + below) / step**2
        for above, middle, below in zip(
            *(
                functions(FLOWS[0], (distinct + s * e) / 3)
                for s in (step, 0, -step)
            ),
            strict=True,
        )
    ]
    got = jax.jit(along)(distinct, e)
    for i in range(2):
        # Of the quotient: step^2 times a fourth derivative of order 1.
        np.testing.assert_allclose(got[i], second[i] @ B, atol=2e-6)
    assert all(np.isnan(part).all() for part in jax.jit(along)(GRAM, e))


@pytest.mark.parametrize("time", (np.inf, 1e25))
def test_singular_matrix(dtype, time):
    """The pseudo-inverse and its derivative at constant rank."""
    points, move = rng.normal(size=(2, 6, 4))
    b = jnp.asarray(B, dtype)

    def gram(s):
        factor = points + s * move
        return factor @ factor.T

    def of(s):
        matrix = jnp.asarray(gram(s), dtype)
        flow = ntk.GradientFlow(jnp.asarray(time, dtype))
        return trained(flow, matrix, ntk.spectrum(matrix), b)

    def exact(s):
        inverse = np.linalg.pinv(gram(s) / 3, rcond=1e-10)
        return (np.eye(6) - inverse @ gram(s) / 3) @ B, inverse @ B

    step = 1e-6
    values, slopes = jax.jit(lambda: jax.jvp(of, (0.0,), (1.0,)))()
    for i in range(2):
        scale = np.abs(exact(0)[i]).max()
        atol = scale * (1e-11 if dtype == np.float64 else 1e-3)
        np.testing.assert_allclose(values[i], exact(0)[i], atol=atol)
        slope = (exact(step)[i] - exact(-step)[i]) / (2 * step)
        atol = np.abs(slope).max() * (1e-7 if dtype == np.float64 else 1e-2)
        np.testing.assert_allclose(slopes[i], slope, atol=atol)


def test_stopped_once_rounding_decides(x64):
    """Unresolved directions move as long as 2 duration rounding/N <= 1."""
    gram = np.diag([4.0, 1.0, 0.0, -1e-15])
    spectrum = ntk.spectrum(gram)
    unresolved = [False, False, True, True]
    limit = 4 / (2 * spectrum.rounding)  # N/(2 rounding)
    np.testing.assert_allclose(spectrum.rounding, 4 * 2**-52 * 4)
    flows = (
        lambda t: ntk.GradientFlow(t),
        lambda t: ntk.GradientDescent(t / 2**51, 2**51),
        lambda t: ntk.Momentum(t / 16, 0.5, 8),
    )
    for flow in flows:
        assert not stopped(flow(0.99 * limit), spectrum).any()
        now = stopped(flow(1.01 * limit), spectrum)
        np.testing.assert_array_equal(now, unresolved)
    # What is learnt at eigenvalue 0 is 2 t/N while it moves, then nothing.
    # What rounding made negative counts as 0.
    for factor, total in ((0.99, 0.99 * limit), (1.01, 0.0)):
        for flow in flows[:2]:
            flow = flow(factor * limit)
            got = trained(flow, gram, spectrum, jnp.ones((4, 1)))
            np.testing.assert_allclose(got.learnt[2:], total)
            np.testing.assert_array_equal(got.remaining[2:], 1)
            np.testing.assert_allclose(got.learnt[:2, 0], [0.5, 2])


def test_what_has_stopped_has_no_derivative(x64):
    """Not even where the step makes the fastest direction oscillate."""
    gram = np.diag([4.0, 1.0, 0.0, 0.0])

    def of(step):
        flow = ntk.GradientDescent(step, 2**50)
        return trained(flow, gram, ntk.spectrum(gram), jnp.ones((4, 1)))

    slope = jax.jit(lambda: jax.jvp(of, (1.0,), (1.0,))[1])()
    assert slope.remaining[0] != 0
    np.testing.assert_array_equal(slope.remaining[2:], 0)
    np.testing.assert_array_equal(slope.learnt[2:], 0)
