"""Cost of the NTK of deconvolutional generators, by the size of the image.

K codes at one pixel become images of P pixels, so the kernel has (P K)^2
entries. The unit is the Gram matrix of as many entries: ``z @ z.T`` for P K
points with 784 features, as for fully connected networks.
"""

import sys

import jax
import numpy as np

import ntk_helpers as ntk

from .timing import FEATURES, Group, compare, gram

GROUP = Group("Deconvolutional NTK", "kernel / z @ z.T of as many entries")
BETA, CODES, CHANNELS = 0.3, 4, 16


def check(name: str, theta, depth: int):
    """Exit unless Theta_pp(x, x) = (1-r^L)/(1-r), r = 1-beta^2.

    That is the value for relu, standardized, at codes of norm sqrt(n_0).
    """
    r = 1 - BETA**2
    expected = (1 - r**depth) / (1 - r)
    diagonal = np.einsum("iipp->ip", np.asarray(theta, np.float64))
    error = np.abs(diagonal / expected - 1).max()
    if not error < 1e-5:
        sys.exit(f"{name}: the diagonal is wrong by {error:.1e}")


def row(depth: int):
    """From 1 x 1 to 2^depth x 2^depth pixels."""
    size = 2**depth
    name = f"{size} x {size} pixels, K = {CODES}, float32"
    net = ntk.Deconvolutional(shape=(1, 1), depth=depth, beta=BETA)
    key_codes, key_points = jax.random.split(jax.random.key(0))
    codes = jax.random.normal(key_codes, (CODES, 1, 1, CHANNELS))
    codes *= (CHANNELS / (codes**2).sum(-1, keepdims=True)) ** 0.5
    z = jax.random.normal(key_points, (CODES * size**2, FEATURES))
    check(name, net.ntk(codes), depth)
    facts = {"pixels": size**2, "codes": CODES, "depth": depth}
    return compare(
        GROUP,
        name,
        lambda: gram(z),
        lambda: net.ntk(codes),
        **facts,
        dtype="float32",
    )


def rows(options):
    """8 x 8, 16 x 16 and, unless ``options.small``, 32 x 32 pixels."""
    for depth in (3, 4) if options.small else (3, 4, 5):
        yield row(depth)
