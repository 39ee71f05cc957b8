r"""Normalization layers without trainable parameters, as values.

They are part of an architecture as its nonlinearity is: the finite network
divides by statistics of its units or of its batch, and differentiates through
them; the limit of infinite width, where there is one, sees Gaussian moments.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from . import checks
from .covariance import Covariance
from .nonlinearity import Nonlinearity
from .normalized_moments import Moments, moments_after, moments_before


@dataclass(frozen=True)
class LayerNorm:
    r"""Each point's units in every hidden layer at mean 0 and variance 1.

    alpha_i <- (alpha_i - m)/sqrt(v + epsilon), m and v the mean and variance
    of alpha(x) over the units, after the nonlinearity or, with ``before``, of
    its argument. No trainable scale or shift. ``epsilon`` >= 0 is absolute.
    Source: Ba, Kiros and Hinton (2016), eq. 3.

    At infinite width m and v are constants for each point, and so are their
    derivatives 0: with u ~ N(0, q), the layer is u -> s(u/sqrt(q + epsilon))
    before the nonlinearity, and u -> (s(u) - E[s(u)])/sqrt(Var[s(u)] +
    epsilon) after it. On the sphere and for epsilon = 0 the first changes
    nothing if s is standardized; the second is the normalized nonlinearity.
    """

    before: bool = False
    epsilon: float = 0.0
    pointwise = True  # rows of a batch do not depend on each other

    def __post_init__(self):
        """Check the fields."""
        _check_fields(self)

    def check_architecture(self, depth: int, width: int):
        """Raise ``ValueError`` without hidden layers or with one unit."""
        _check_depth(self, depth)
        if width < 2:
            raise ValueError(
                f"layer normalization needs a width >= 2, got {width}"
            )

    def check_batch(self, x, name: str):
        """Any batch will do."""

    def check_limit(self, x, name: str, beta: float):
        """Raise ``ValueError`` where the limit divides by 0."""
        if self.epsilon or beta or not checks.is_concrete(x):
            return
        if not x.any(axis=1).all():
            raise ValueError(
                f"{name} must have no row of zeros for beta = 0 and {self}, "
                "which divides by the variance there"
            )

    def layers(self, last: int) -> range:
        """The hidden layers it acts on: 1, ..., ``last``."""
        return range(1, last + 1)

    def activations(self, s: Nonlinearity, pre) -> jax.Array:
        """alpha of a layer from its pre-activations, (N, n) -> (N, n)."""
        return _activations(self, s, pre, axis=1)

    def moments(self, s: Nonlinearity, cov: Covariance) -> Moments:
        """Gaussian moments of the normalized layer as a function of u.

        In place of those of s itself.
        """
        moments = moments_before if self.before else moments_after
        return moments(s, cov, self.epsilon)


@dataclass(frozen=True)
class BatchNorm:
    r"""Each unit of one hidden layer at mean 0 and variance 1 on a batch.

    alpha(x) <- (alpha(x) - m)/sqrt(v + epsilon), m and v the mean and
    variance of each unit over the batch that is passed to the network, after
    the nonlinearity of hidden layer ``layer`` in 1, ..., L-1 (None: the last)
    or, with ``before``, of its argument; ``everywhere``: of every hidden
    layer. No trainable scale or shift.
    Gradients go through m and v. Source: Ioffe and Szegedy (2015), algorithm
    1.

    After the last nonlinearity the mean of f over the batch is beta b for all
    parameters, hence the sum of each row of Theta over the batch of N points
    is N beta^2 at any width. The limit of infinite width is a matrix for
    each batch, without a closed form in general, and is refused.
    """

    layer: int | None = None
    before: bool = False
    epsilon: float = 1e-5
    everywhere: bool = False
    pointwise = False

    def __post_init__(self):
        """Check the fields."""
        _check_fields(self)
        checks.boolean(self.everywhere, "everywhere")
        if self.layer is not None:
            if self.everywhere:
                raise ValueError(
                    "layer must be None with everywhere=True, got "
                    f"{self.layer!r}"
                )
            layer = checks.positive_integer(self.layer, "layer")
            object.__setattr__(self, "layer", layer)

    def check_architecture(self, depth: int, width: int):
        """Raise ``ValueError`` where there is no such hidden layer."""
        _check_depth(self, depth)
        if self.layer is not None and self.layer >= depth:
            raise ValueError(
                f"layer must be one of the hidden layers 1 to {depth - 1}, "
                f"got {self.layer}"
            )

    def check_batch(self, x, name: str):
        """Raise ``ValueError`` on a single point: it has no variance."""
        if len(x) < 2:
            raise ValueError(
                f"batch normalization needs at least 2 points in {name}, got 1"
            )

    def check_limit(self, x, name: str, beta: float):
        """Raise ``ValueError``: pairs of points do not determine the limit."""
        raise ValueError(
            "batch normalization has no infinite-width kernel of pairs of "
            "points: its limit depends on the whole batch. Use "
            "empirical_ntk(params, x) of the finite network; with BatchNorm() "
            "after the last nonlinearity its rows sum to N beta^2 at any width"
        )

    def layers(self, last: int) -> range:
        """The hidden layers it acts on."""
        if self.everywhere:
            return range(1, last + 1)
        layer = self.layer or last
        return range(layer, layer + 1)

    def activations(self, s: Nonlinearity, pre) -> jax.Array:
        """alpha of a layer from its pre-activations, (N, n) -> (N, n)."""
        return _activations(self, s, pre, axis=0)


Normalization = LayerNorm | BatchNorm


def defined(values, normalization: Normalization | None):
    """``values``; ``ValueError`` where a division by a variance of 0 shows."""
    if normalization is None or normalization.epsilon > 0:
        return values
    for value in jax.tree.leaves(values):
        if checks.is_concrete(value) and not jnp.isfinite(value).all():
            raise ValueError(
                "results must be finite, got NaN or infinite ones: "
                f"{normalization} divides by 0 where a variance is 0, that of "
                "a unit of relu that is dead on the batch, for example, and "
                "then needs epsilon > 0"
            )
    return values


def _activations(normalization, s: Nonlinearity, pre, axis: int):
    epsilon = normalization.epsilon
    if normalization.before:
        return s(_standard(pre, axis, epsilon))
    return _standard(s(pre), axis, epsilon)


def _standard(values, axis: int, epsilon: float):
    """``values`` at mean 0 and variance 1 along ``axis``."""
    mean = jnp.mean(values, axis, keepdims=True)
    centred = values - mean
    variance = jnp.mean(centred**2, axis, keepdims=True)
    if not epsilon:  # equal numbers differ from their mean by rounding
        rounding = 8 * jnp.finfo(values.dtype).eps * mean
        variance = jnp.where(variance > rounding**2, variance, jnp.nan)
    return centred / jnp.sqrt(variance + epsilon)


def _check_fields(normalization: Normalization):
    checks.boolean(normalization.before, "before")
    try:
        epsilon = float(normalization.epsilon)
    except (TypeError, ValueError):
        epsilon = float("nan")
    if not 0 <= epsilon < float("inf"):
        raise ValueError(
            f"epsilon must be a number >= 0, got {normalization.epsilon!r}"
        )
    object.__setattr__(normalization, "epsilon", epsilon)


def _check_depth(normalization: Normalization, depth: int):
    if depth < 2:
        raise ValueError(
            f"{normalization} needs a hidden layer: expected depth >= 2, got "
            f"{depth}"
        )
