r"""Flows applied to a Gram matrix, with a derivative that always exists.

An eigendecomposition has no derivative where eigenvalues coincide, and they
always do for points placed symmetrically. A function of the matrix has one.
"""

import jax
import jax.numpy as jnp

from .factors import Factors
from .precision import matmul
from .spectra import Spectrum


@jax.jit
def stopped(flow, spectrum: Spectrum) -> jax.Array:
    """Directions in which rounding would decide what is learnt, (N,).

    Those with an eigenvalue that is not resolved, once the flow lasts so long
    that an eigenvalue of the size of the rounding would matter.
    """
    effect = flow.duration * (2 / len(spectrum.values)) * spectrum.rounding
    # Written so that inf * 0 counts as long.
    return ~spectrum.resolved & ~(effect <= 1)


@jax.custom_jvp
def trained(flow, gram, spectrum: Spectrum, b) -> Factors:
    r"""d(G) b and G^{-1}(I - d(G)) b for the matrix of rates G = 2 gram/N.

    ``spectrum`` is that of ``gram``, ``b`` (N, K). Along stopped directions
    d = 1 and the second factor is 0. The derivative along a matrix E is

        V (D o (V^T E V)) V^T b,    D_ij = g[rate_i, rate_j],

    with g either factor and V the eigenvectors (Higham 2008, theorem 3.11),
    at constant rank if there are stopped directions. The second derivative
    needs eigenvalues that differ by sqrt(eps) lambda_max, and is NaN if not.
    """
    _, factors, _ = _factors(flow, spectrum)
    coefficients = matmul(spectrum.vectors.T, b)
    return Factors(
        *(matmul(spectrum.vectors, f[:, None] * coefficients) for f in factors)
    )


@trained.defjvp
def _trained_jvp(primals, tangents):
    flow, gram, spectrum, b = primals
    flow_dot, gram_dot, _, b_dot = tangents
    spectrum = _simple(spectrum)
    vectors = spectrum.vectors
    c, c_dot = (matmul(vectors.T, side) for side in (b, b_dot))
    # The symmetric part of 2/N V^T (d gram) V.
    rates_dot = matmul(vectors.T, matmul(gram_dot + gram_dot.T, vectors))
    rates_dot = rates_dot / len(gram)
    rates, factors, moving = _factors(flow, spectrum)
    differences = _differences(flow, rates, factors, moving)
    slopes = {
        name: Factors(*(jnp.where(moving, g, 0) for g in slope))
        for name, slope in flow.slopes(rates).items()
    }
    results_dot = []
    for i in range(2):
        factor_dot = sum(
            slope[i] * getattr(flow_dot, name)
            for name, slope in slopes.items()
        )
        change = factor_dot[:, None] * c + factors[i][:, None] * c_dot
        change = change + matmul(differences[i] * rates_dot, c)
        results_dot.append(matmul(vectors, change))
    return trained(*primals), Factors(*results_dot)


@jax.custom_jvp
def _simple(spectrum):
    """The spectrum; its derivative is NaN where eigenvalues coincide.

    That of eigh would be noise there, since they coincide up to rounding.
    Only second derivatives of :func:`trained` come this way.
    """
    return spectrum


@_simple.defjvp
def _simple_jvp(primals, tangents):
    (spectrum,), (spectrum_dot,) = primals, tangents
    values = spectrum.values
    tolerance = jnp.finfo(values.dtype).eps ** 0.5 * values[0]
    simple = (values[:-1] - values[1:] > tolerance).all()
    scale = jnp.where(simple, 1, jnp.nan)
    return spectrum, jax.tree.map(lambda dot: scale * dot, spectrum_dot)


def _factors(flow, spectrum):
    """Rates, both factors at each, and which directions are not stopped.

    The rate of a stopped direction is replaced by one at which no factor
    overflows.
    """
    moving = ~stopped(flow, spectrum)
    values = jnp.where(moving, spectrum.values, spectrum.values[0])
    rates = 2 / len(values) * jnp.maximum(values, 0)
    remaining, learnt = flow.factors(rates)
    factors = jnp.where(moving, remaining, 1), jnp.where(moving, learnt, 0)
    return rates, Factors(*factors), moving


def _differences(flow, rates, factors, moving):
    """Divided differences of both factors, (N, N); stopped rates are 0."""
    both = moving[:, None] & moving
    one = moving[:, None] ^ moving
    rates_0 = jnp.where(moving, rates, 0)
    gaps = jnp.where(one, rates_0[:, None] - rates_0, 1)
    inner = flow.differences(*jnp.broadcast_arrays(rates[:, None], rates))
    outer = (jnp.where(one, (g[:, None] - g) / gaps, 0) for g in factors)
    return Factors(
        *(jnp.where(both, i, o) for i, o in zip(inner, outer, strict=True))
    )
