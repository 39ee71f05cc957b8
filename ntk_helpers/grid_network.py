r"""Convolutional and deconvolutional networks: what both families share.

A layer has n_l units, its channels, at every position of a grid of one or two
axes. With the links of :mod:`ntk_helpers.links`, P(p) those of position p, and
all entries of W_k and b drawn from N(0, 1),

    alpha^(0) = x
    pre^(l+1)_p = sqrt(1-beta^2)/sqrt(n_l |P(p)|) sum_k W^(l)_k alpha^(l)_q
                  + beta b^(l),      q = q(k, p) the position tap k links to p
    alpha^(l)_p = s(pre^(l)_p),      f(x)_p = pre^(L)_p.

A subclass says what the links are and how the finite network sums over them.
"""

from dataclasses import dataclass, field
from functools import partial
from math import prod

import jax
import jax.numpy as jnp
import numpy as np

from . import checks
from .activations import relu
from .architecture import Architecture, check_fields, settled
from .empirical import empirical_ntk, rated
from .grid_plan import full_plan, plan
from .grid_recursion import recursion
from .links import Links, Pooling, Shape, flat_pairs
from .nonlinearity import Nonlinearity
from .normalization import BatchNorm, defined
from .recursion import Kernels


@dataclass(frozen=True)
class GridNetwork(Architecture):
    """Fields and verbs of :class:`Convolutional` and :class:`Deconvolutional`.

    ``shape``: positions of the input on each of one or two axes; ``depth``:
    L >= 1, the number of weight matrices; ``window`` w >= ``stride`` s >= 1;
    ``width``: channels of every hidden layer, used by the finite network
    only; ``nonlinearity``: a :class:`Nonlinearity`; ``beta`` in [0, 1];
    ``n_out``: output channels; ``cyclic``: whether the grid is a torus, else
    it is surrounded by zeros; ``graph_based``: whether |P(p)| is the true
    number of links of p, else that of a position away from the border;
    ``normalization``: None or a :class:`BatchNorm`, whose statistics are
    over the batch and the positions of each channel; ``learning_rates``: None
    or L factors > 0, those of the layers in both kernels. Anything else
    raises ``ValueError``. Source: Jacot, Gabriel and Hongler (2019).
    """

    shape: Shape
    depth: int
    window: int = 4
    stride: int = 2
    width: int = 64
    nonlinearity: Nonlinearity = field(
        default_factory=lambda: relu.standardized()
    )
    beta: float = 0.1
    n_out: int = 1
    cyclic: bool = False
    graph_based: bool = True
    normalization: BatchNorm | None = None
    learning_rates: tuple[float, ...] | None = None

    def __post_init__(self):
        """Check every field."""
        integers = "depth", "window", "stride", "width", "n_out"
        check_fields(self, integers, (BatchNorm,))
        object.__setattr__(self, "shape", checks.grid_shape(self.shape))
        checks.boolean(self.cyclic, "cyclic")
        checks.boolean(self.graph_based, "graph_based")
        if self.window < self.stride:
            raise ValueError(
                "window must be at least the stride, else positions have no "
                f"link: got window {self.window} and stride {self.stride}"
            )
        if self.learning_rates is not None:
            rates = checks.positive_numbers(
                self.learning_rates, self.depth, "learning_rates"
            )
            object.__setattr__(self, "learning_rates", rates)

    @property
    def output_shape(self) -> Shape:
        """Positions of the output on each axis."""
        raise NotImplementedError

    @property
    def diagonal(self) -> np.ndarray:
        """Every output position with itself, as ``pairs``, (P, 2, axes)."""
        positions = np.indices(self.output_shape)
        positions = positions.reshape(len(self.output_shape), -1).T
        return np.stack([positions, positions], axis=1)

    def kernels(self, x, y=None, pairs=None) -> Kernels:
        r"""NNGP and NTK of the network with infinitely many channels.

        ``x`` (N, *shape, n_0) and ``y`` (M, *shape, n_0), by default ``x``.
        Both results hold for each output channel and have shape (N, M, P, P),
        P the number of output positions, in row-major order; or, for
        ``pairs`` (R, 2, axes) of output positions, (N, M, R): only what those
        need is computed. With w = 1-beta^2, the sums running over the taps
        that p and p' share, and eta_l the learning rates (1 by default),

            Sigma'_{pp'} = beta^2 + w/sqrt(|P(p)||P(p')|) sum E[ss](q, q')
            Theta'_{pp'} = eta_l Sigma'_{pp'}
                + w/sqrt(|P(p)||P(p')|) sum E[s's'](q, q') Theta_{qq'}.

        Source: Jacot, Gabriel and Hongler (2019), section on deconvolutional
        networks; Arora et al. (2019) for convolutions. Raises ``ValueError``
        on a wrong shape, non-finite input, overflow, batch normalization, or
        a dual not resolved at the variances that occur.
        """
        return self._kernels(None, x, y, pairs)

    def nngp(self, x, y=None, pairs=None) -> jax.Array:
        """Covariance Sigma^(L) of the network at initialization.

        Arguments, shape and errors as in :meth:`kernels`.
        """
        return self._kernels("nngp", x, y, pairs).nngp

    def ntk(self, x, y=None, pairs=None) -> jax.Array:
        """Neural tangent kernel Theta^(L) of the limit.

        Arguments, shape and errors as in :meth:`kernels`.
        """
        return self._kernels("ntk", x, y, pairs).ntk

    def apply(self, params, x) -> jax.Array:
        """f(x), (N, *shape, n_0) -> (N, *output_shape, n_out).

        Batch normalization and errors as in :meth:`FullyConnected.apply`.
        """
        outputs = _outputs(self, params, self._check(params, x))
        return defined(outputs, self.normalization)

    def empirical_ntk(self, params, x, y=None) -> jax.Array:
        """Theta(x, y) at ``params``, (N, M, P, P), or (N, M, P, P, K, K).

        The second form is that of K = ``n_out`` > 1 output channels. With
        ``learning_rates`` each layer's part has its factor. ``y`` is a batch
        of its own for batch normalization. Errors as in :meth:`apply`.
        """
        x = self._check(params, x)
        y = None if y is None else self._check(params, y, "y")
        kernel = empirical_ntk(self._flat, params, x, y)
        size, k = prod(self.output_shape), self.n_out
        kernel = kernel.reshape(*kernel.shape[:2], size, k, size, k)
        channels = (k, k) if k > 1 else ()
        full = (*kernel.shape[:2], *self._positions, *channels)
        kernel = kernel.swapaxes(3, 4).reshape(full)
        return defined(kernel, self.normalization)

    def _flat(self, params, x):
        """Outputs (N, P K), the layers' derivatives at their rates."""
        if self.learning_rates is not None:
            params = rated(params, self.learning_rates)
        return self._forward(params, x).reshape(len(x), -1)

    def _kernels(self, wanted, x, y, pairs) -> Kernels:
        x, y = self._sides(x, y)
        y = x if y is None else y
        planned = self._plan(pairs)
        flat = [z.reshape(len(z), -1, z.shape[-1]) for z in (x, y)]
        rates = jnp.asarray(self.learning_rates or (1,) * self.depth, x.dtype)
        rest = self.beta, rates, planned, *flat
        _, kernels = settled(
            self, lambda net: recursion(net.nonlinearity, wanted, *rest)
        )
        if pairs is not None:
            return kernels
        full = (len(x), len(y), *self._positions)
        return jax.tree.map(lambda value: value.reshape(full), kernels)

    @property
    def _positions(self):
        """Axes of pairs of positions: (P, P), none after a dense layer."""
        return (prod(self.output_shape),) * 2 if self.output_shape else ()

    def _plan(self, pairs):
        links, grid = self._links(), self.output_shape
        if pairs is None:
            return full_plan(links, prod(grid))
        return plan(links, flat_pairs(pairs, grid))

    def _links(self) -> tuple[Links | Pooling, ...]:
        """Of every layer, from the first to the last."""
        raise NotImplementedError

    def _sum(self, weights, alpha, layer: int):
        """Sum over the links of layer + 1, (N, *grid, n_l) -> n_{l+1}."""
        raise NotImplementedError

    def _forward(self, params, x):
        """pre^(L) from the input."""
        alpha = x
        layers = zip(params, self._links(), strict=True)
        for index, (layer, links) in enumerate(layers):
            total = self._sum(layer.weights, alpha, index)
            scale = ((1 - self.beta**2) / alpha.shape[-1]) ** 0.5
            scale = scale / np.sqrt(links.counts).astype(alpha.dtype)
            scale = scale.reshape(*total.shape[1:-1], 1)
            pre = scale * total + self.beta * layer.bias
            if index + 1 < self.depth:
                alpha = self._activations(pre, index + 1)
        return pre

    def _inputs(self, x, name: str, n_in: int | None = None):
        return checks.grid_inputs(x, name, self.shape, n_in)


@partial(jax.jit, static_argnums=0)
def _outputs(net: GridNetwork, params, x):
    return net._forward(params, x)
