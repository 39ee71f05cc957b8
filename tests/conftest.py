"""Precision fixtures, and oracles that share no code with the package.

An oracle knows E[s(u)] for u ~ N(0, k) and the dual activation of s, and
nothing of how the package computes them: textbook formulas in mpmath with 40
digits, one-dimensional integrals of conditional expectations, and a plain
product rule for smooth functions without a closed form.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import jax
import mpmath as mp
import numpy as np
import pytest

import ntk_helpers as ntk

mp.mp.dps = 40


@pytest.fixture
def x64():
    """Run the test in float64."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module", autouse=True)
def release():
    """Forget compiled code between files: it adds up to gigabytes."""
    yield
    jax.clear_caches()


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    """Run the test in each precision; the value is the NumPy dtype."""
    with jax.enable_x64(request.param == "float64"):
        yield np.dtype(request.param)


def angle(kxx, kyy, kxy):
    """sqrt(kxx kyy) and the angle whose cosine is the correlation."""
    m = mp.sqrt(mp.mpf(kxx) * kyy)
    c = kxy / m if m else mp.mpf(0)
    return m, mp.acos(max(-1, min(1, c)))


def relu(kxx, kyy, kxy):
    m, t = angle(kxx, kyy, kxy)
    value = m * (mp.sin(t) + (mp.pi - t) * mp.cos(t)) / (2 * mp.pi)
    return value, (mp.pi - t) / (2 * mp.pi)


def leaky_relu(a):
    """From a u + (1 - a) relu(u) and E[u relu(v)] = kxy / 2."""

    def dual(kxx, kyy, kxy):
        value, slope = relu(kxx, kyy, kxy)
        mixed = a * a + a * (1 - a)
        return (
            mixed * kxy + (1 - a) ** 2 * value,
            mixed + (1 - a) ** 2 * slope,
        )

    return dual


def absolute(kxx, kyy, kxy):
    """From |u| = relu(u) + relu(-u); E[sign sign] by Sheppard."""
    same, _ = relu(kxx, kyy, kxy)
    opposite, _ = relu(kxx, kyy, -kxy)
    _, t = angle(kxx, kyy, kxy)
    return 2 * same + 2 * opposite, 1 - 2 * t / mp.pi


def identity(kxx, kyy, kxy):
    return mp.mpf(kxy), mp.mpf(1)


def power_moment(p, kxx, kyy, kxy):
    """E[u^p v^p] by Isserlis: j factors of u are paired with factors of v."""
    return mp.fsum(
        mp.binomial(p, j) ** 2
        * mp.factorial(j)
        * mp.mpf(kxy) ** j
        * mp.fac2(p - j - 1) ** 2
        * (mp.mpf(kxx) * kyy) ** ((p - j) // 2)
        for j in range(p % 2, p + 1, 2)
    )


def monomial(p):
    def dual(*k):
        return power_moment(p, *k), p**2 * power_moment(p - 1, *k)

    return dual


def erf(kxx, kyy, kxy):
    outer = (1 + 2 * kxx) * (1 + 2 * kyy)
    value = 2 / mp.pi * mp.asin(2 * kxy / mp.sqrt(outer))
    return value, 4 / mp.pi / mp.sqrt(outer - 4 * kxy**2)


def sin(kxx, kyy, kxy):
    front = mp.exp(-(kxx + kyy) / 2)
    return front * mp.sinh(kxy), front * mp.cosh(kxy)


def cos(kxx, kyy, kxy):
    return sin(kxx, kyy, kxy)[::-1]


def exp(kxx, kyy, kxy):
    value = mp.exp((kxx + kyy) / 2 + kxy)
    return value, value


def gelu_value(kxx, kyy, kxy):
    """E[u v 1(p > 0) 1(q > 0)], p = u - a, q = v - b, a, b ~ N(0, 1).

    Given (p, q) the pair (u, v) is Gaussian, so the moments of (p, q) on the
    positive quadrant (arc-cosine kernels) give the rest.
    """
    p, q, r = 1 + kxx, 1 + kyy, kxy
    determinant = p * q - r * r
    # Rows of K S^{-1}, K the covariance of (u, v) and S that of (p, q).
    u_p = (kxx * q - kxy * r) / determinant
    u_q = (kxy * p - kxx * r) / determinant
    v_p = (kxy * q - kyy * r) / determinant
    v_q = (kyy * p - kxy * r) / determinant
    m, t = angle(p, q, r)
    quadrant = (mp.pi - t) / (2 * mp.pi)
    square = quadrant + mp.sin(t) * mp.cos(t) / (2 * mp.pi)
    product = m * (mp.sin(t) + (mp.pi - t) * mp.cos(t)) / (2 * mp.pi)
    conditional = kxy - (u_p * kxy + u_q * kyy)
    return (
        conditional * quadrant
        + u_p * v_p * p * square
        + u_q * v_q * q * square
        + (u_p * v_q + u_q * v_p) * product
    )


def gelu(kxx, kyy, kxy):
    """The derivative is that of the value in kxy (Price)."""
    slope = mp.diff(lambda k: gelu_value(kxx, kyy, k), kxy)
    return gelu_value(kxx, kyy, kxy), slope


GRID = np.arange(-9, 9, 0.06)  # the density is 1e-18 of its peak beyond
DENSITY = 0.06 * np.exp(-(GRID**2) / 2) / np.sqrt(2 * np.pi)


def product_rule(s, slope):
    """Mean and dual of a function analytic in |Im u| < pi/2, up to k = 20.

    The trapezoidal rule's error is exp(-2 pi d / 0.06), d = pi / 2 sqrt(k).
    """

    def mean(k):
        return float(DENSITY @ s(np.sqrt(float(k)) * GRID))

    def dual(kxx, kyy, kxy):
        kxx, kyy, kxy = float(kxx), float(kyy), float(kxy)
        m = np.sqrt(kxx * kyy)
        c = min(1, max(-1, kxy / m)) if m else 0.0
        u = np.sqrt(kxx) * GRID[:, None]
        v = np.sqrt(kyy) * (c * GRID[:, None] + np.sqrt(1 - c * c) * GRID)
        weights = DENSITY[:, None] * DENSITY
        return (
            float(np.sum(weights * s(u) * s(v))),
            float(np.sum(weights * slope(u) * slope(v))),
        )

    return mean, dual


def logistic(u):
    return 0.5 + 0.5 * np.tanh(u / 2)


def logistic_slope(u):
    return 0.25 / np.cosh(u / 2) ** 2


def softplus(u):
    return np.maximum(u, 0) + np.log1p(np.exp(-np.abs(u)))


def zero(k):
    return mp.mpf(0)


@dataclass(frozen=True)
class Oracle:
    """E[s(u)] at variance k and (E[s(u)s(v)], E[s'(u)s'(v)])."""

    mean: Callable
    plain: Callable
    scale: float = 1
    shift: float = 0

    def dual(self, kxx, kyy, kxy):
        value, slope = self.plain(kxx, kyy, kxy)
        value = value - self.shift * (self.mean(kxx) + self.mean(kyy))
        scale = self.scale**2
        return scale * (value + self.shift**2), scale * slope

    def standardized(self):
        one = mp.mpf(1)
        scale = 1 / mp.sqrt(self.plain(one, one, one)[0])
        return Oracle(self.mean, self.plain, scale)

    def normalized(self):
        one, shift = mp.mpf(1), self.mean(mp.mpf(1))
        scale = 1 / mp.sqrt(self.plain(one, one, one)[0] - shift**2)
        return Oracle(self.mean, self.plain, scale, shift)


ORACLES = {
    "relu": Oracle(lambda k: mp.sqrt(k / (2 * mp.pi)), relu),
    "leaky_relu": Oracle(
        lambda k: mp.mpf("0.7") * mp.sqrt(k / (2 * mp.pi)),
        leaky_relu(mp.mpf("0.3")),
    ),
    "abs": Oracle(lambda k: mp.sqrt(2 * k / mp.pi), absolute),
    "identity": Oracle(zero, identity),
    "square": Oracle(lambda k: mp.mpf(k), monomial(2)),
    "cube": Oracle(zero, monomial(3)),
    "erf": Oracle(zero, erf),
    "sin": Oracle(zero, sin),
    "cos": Oracle(lambda k: mp.exp(-k / 2), cos),
    "exp": Oracle(lambda k: mp.exp(k / 2), exp),
    "gelu": Oracle(lambda k: k / mp.sqrt(2 * mp.pi * (1 + k)), gelu),
    "tanh": Oracle(*product_rule(np.tanh, lambda u: np.cosh(u) ** -2.0)),
    "sigmoid": Oracle(*product_rule(logistic, logistic_slope)),
    "softplus": Oracle(*product_rule(softplus, logistic)),
    "silu": Oracle(
        *product_rule(
            lambda u: u * logistic(u),
            lambda u: logistic(u) + u * logistic_slope(u),
        )
    ),
}


def cdf(z):
    return mp.erfc(-z / mp.sqrt(2)) / 2


def pdf(z):
    return mp.exp(-z * z / 2) / mp.sqrt(2 * mp.pi)


def ramp(kink):
    """max(u - kink, 0), its slope, and their means under N(mu, tau^2)."""

    def mean(mu, tau):
        z = (mu - kink) / tau
        return tau * (z * cdf(z) + pdf(z))

    return (
        lambda u: max(u - kink, mp.mpf(0)),
        lambda u: mp.mpf(u > kink),
        mean,
        lambda mu, tau: cdf((mu - kink) / tau),
        (kink,),
    )


def hard_tanh():
    """min(max(u, -1), 1) as a difference of two ramps."""
    up, down = ramp(-1), ramp(1)
    return (
        lambda u: up[0](u) - down[0](u) - 1,
        lambda u: up[1](u) - down[1](u),
        lambda *v: up[2](*v) - down[2](*v) - 1,
        lambda *v: up[3](*v) - down[3](*v),
        (-1, 1),
    )


def elu():
    """u for u > 0, exp(u) - 1 below."""
    up = ramp(0)

    def below(mu, tau):
        return mp.exp(mu + tau**2 / 2) * cdf(-(mu + tau**2) / tau)

    return (
        lambda u: u if u > 0 else mp.expm1(u),
        lambda u: mp.mpf(1) if u > 0 else mp.exp(u),
        lambda mu, tau: up[2](mu, tau) + below(mu, tau) - cdf(-mu / tau),
        lambda mu, tau: up[3](mu, tau) + below(mu, tau),
        (0,),
    )


def gelu_mean(mu, tau):
    root = mp.sqrt(1 + tau**2)
    return mu * cdf(mu / root) + tau**2 / root * pdf(mu / root)


def gelu_slope_mean(mu, tau):
    """Derivative of the mean in mu."""
    root = mp.sqrt(1 + tau**2)
    z = mu / root
    return cdf(z) + (mu - tau**2 * z / root) / root * pdf(z)


# s, s', E[s(v)] and E[s'(v)] for v ~ N(mu, tau^2), and the kinks of s.
CONDITIONALS = {
    "relu": ramp(0),
    "ramp": ramp(mp.mpf("0.7")),
    "hard_tanh": hard_tanh(),
    "elu": elu(),
    "leaky_relu": (
        lambda u: u if u > 0 else mp.mpf("0.3") * u,
        lambda u: 1 if u > 0 else mp.mpf("0.3"),
        lambda mu, tau: (
            mp.mpf("0.3") * mu + mp.mpf("0.7") * ramp(0)[2](mu, tau)
        ),
        lambda mu, tau: mp.mpf("0.3") + mp.mpf("0.7") * cdf(mu / tau),
        (0,),
    ),
    "abs": (
        abs,
        lambda u: mp.sign(u),
        lambda mu, tau: 2 * ramp(0)[2](mu, tau) - mu,
        lambda mu, tau: 2 * cdf(mu / tau) - 1,
        (0,),
    ),
    "identity": (
        lambda u: u,
        lambda u: 1,
        lambda mu, tau: mu,
        lambda mu, tau: 1,
        (),
    ),
    "square": (
        lambda u: u**2,
        lambda u: 2 * u,
        lambda mu, tau: mu**2 + tau**2,
        lambda mu, tau: 2 * mu,
        (),
    ),
    "cube": (
        lambda u: u**3,
        lambda u: 3 * u**2,
        lambda mu, tau: mu**3 + 3 * mu * tau**2,
        lambda mu, tau: 3 * (mu**2 + tau**2),
        (),
    ),
    "erf": (
        mp.erf,
        lambda u: 2 / mp.sqrt(mp.pi) * mp.exp(-(u**2)),
        lambda mu, tau: mp.erf(mu / mp.sqrt(1 + 2 * tau**2)),
        lambda mu, tau: (
            2
            / mp.sqrt(mp.pi * (1 + 2 * tau**2))
            * mp.exp(-(mu**2) / (1 + 2 * tau**2))
        ),
        (),
    ),
    "sin": (
        mp.sin,
        mp.cos,
        lambda mu, tau: mp.sin(mu) * mp.exp(-(tau**2) / 2),
        lambda mu, tau: mp.cos(mu) * mp.exp(-(tau**2) / 2),
        (),
    ),
    "cos": (
        mp.cos,
        lambda u: -mp.sin(u),
        lambda mu, tau: mp.cos(mu) * mp.exp(-(tau**2) / 2),
        lambda mu, tau: -mp.sin(mu) * mp.exp(-(tau**2) / 2),
        (),
    ),
    "exp": (
        mp.exp,
        mp.exp,
        lambda mu, tau: mp.exp(mu + tau**2 / 2),
        lambda mu, tau: mp.exp(mu + tau**2 / 2),
        (),
    ),
    "gelu": (
        lambda u: u * cdf(u),
        lambda u: cdf(u) + u * pdf(u),
        gelu_mean,
        gelu_slope_mean,
        (),
    ),
}


LAYERS = (-9, -5, -2, 0, 2, 5, 9)


def integral(name, kxx, kyy, kxy):
    """(E[s(u)s(v)], E[s'(u)s'(v)]) as integrals over u, to 14 digits.

    The inner integral over v given u is a closed form; the outer one is cut
    where s has a kink and where its conditional mean turns quickly.
    """
    s, slope, s_mean, slope_mean, kinks = CONDITIONALS[name]
    with mp.workdps(15):
        kxx, kyy, kxy = mp.mpf(kxx), mp.mpf(kyy), mp.mpf(kxy)
        a, regression = mp.sqrt(kxx), kxy / kxx
        tau = mp.sqrt(kyy - kxy * regression)
        if not tau:
            s_mean, slope_mean = (lambda v, _, f=f: f(v) for f in (s, slope))
        cuts = {mp.mpf(cut) for cut in (-20, -11, -5, -2, 0, 2, 5, 11, 20)}
        for kink in kinks:
            cuts.add(kink / a)
            if kxy:
                centre, width = kink / regression / a, tau / regression / a
                cuts.update(centre + t * width for t in LAYERS)
        cuts = sorted(max(-20, min(20, cut)) for cut in cuts)

        def outer(inside, conditional):
            return mp.quad(
                lambda z: (
                    pdf(z)
                    * inside(a * z)
                    * conditional(regression * a * z, tau)
                ),
                cuts,
                method="gauss-legendre",
            )

        return outer(s, s_mean), outer(slope, slope_mean)


def recursion(dual, x, y, depth, beta):
    """Sigma^(L) and Theta^(L) pair by pair, as the lecture writes them."""
    weight, bias = 1 - mp.mpf(beta) ** 2, mp.mpf(beta) ** 2

    def first(a, b):
        dot = mp.fdot(map(float, a), map(float, b))
        return weight * dot / len(a) + bias

    def pair(a, b):
        kxx, kyy, kxy = first(a, a), first(b, b), first(a, b)
        theta = kxy
        for _ in range(depth - 1):
            value, slope = dual(kxx, kyy, kxy)
            kxx, kyy = (weight * dual(k, k, k)[0] + bias for k in (kxx, kyy))
            kxy = weight * value + bias
            theta = kxy + weight * slope * theta
        return float(kxy), float(theta)

    pairs = np.array([[pair(a, b) for b in y] for a in x])
    return SimpleNamespace(nngp=pairs[..., 0], ntk=pairs[..., 1])


@pytest.fixture(scope="session")
def named():
    """The package's nonlinearities under the oracles' names."""
    special = {
        "leaky_relu": ntk.leaky_relu(0.3),
        "square": ntk.monomial(2),
        "cube": ntk.monomial(3),
    }
    return {name: special.get(name) or getattr(ntk, name) for name in ORACLES}


@pytest.fixture(scope="session")
def oracle():
    """The oracles of this file."""
    return SimpleNamespace(
        duals=ORACLES, integral=integral, recursion=recursion
    )
