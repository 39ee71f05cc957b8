r"""The fully connected network: one architecture, two views.

With L = ``depth`` weight matrices, n_l units in layer l, W of shape
(n_{l+1}, n_l), all entries of W and b drawn from N(0, 1):

    alpha^(0)(x) = x
    pre^(l+1)(x) = sqrt(1-beta^2)/sqrt(n_l) W^(l) alpha^(l)(x) + beta b^(l)
    alpha^(l)(x) = s(pre^(l)(x)),        f(x) = pre^(L)(x).

The object describes the architecture; parameters are passed in. ``init``,
``apply`` and ``empirical_ntk`` are the network of finite ``width``; ``nngp``
and ``ntk`` its limit as the width grows. A normalization layer is a further
field, see :mod:`ntk_helpers.normalization`.
"""

from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp

from . import checks
from .activations import relu
from .architecture import Architecture, check_fields, settled
from .empirical import empirical_ntk
from .gram import gram
from .kernel_function import kernel_function
from .nonlinearity import Nonlinearity
from .normalization import BatchNorm, LayerNorm, Normalization, defined
from .precision import matmul
from .recursion import Kernels


@dataclass(frozen=True)
class FullyConnected(Architecture):
    """A fully connected architecture in the NTK parametrization.

    ``depth``: L >= 1, the number of weight matrices; ``width``: number of
    units of every hidden layer, used by the finite network only;
    ``nonlinearity``: a :class:`Nonlinearity`; ``beta`` in [0, 1]: share of
    the bias; ``n_out``: number of outputs; ``normalization``: None, a
    :class:`LayerNorm` or a :class:`BatchNorm`. Anything else raises
    ``ValueError``. Source: Jacot, Gabriel and Hongler (2019).
    """

    depth: int
    width: int = 1024
    nonlinearity: Nonlinearity = field(
        default_factory=lambda: relu.standardized()
    )
    beta: float = 0.1
    n_out: int = 1
    normalization: Normalization | None = None

    def __post_init__(self):
        """Check every field."""
        integers = "depth", "width", "n_out"
        check_fields(self, integers, (LayerNorm, BatchNorm))

    def kernels(self, x, y=None) -> Kernels:
        """NNGP and NTK of the infinitely wide network, in one pass.

        ``x`` (N, n_0) and ``y`` (M, n_0), by default ``x``; both results have
        shape (N, M) and hold for each output separately. With dS the
        derivative dual, Sigma^(1) = (1-beta^2) x.y/n_0 + beta^2 and

            Sigma^(l+1) = (1-beta^2) E[s(u)s(v)] + beta^2
            Theta^(1)   = Sigma^(1)
            Theta^(l+1) = Sigma^(l+1) + (1-beta^2) E[s'(u)s'(v)] Theta^(l),

        (u, v) ~ N(0, Sigma^(l)). Source: Jacot, Gabriel and Hongler (2018),
        proposition 1 and theorem 1. Layer normalization replaces s by the
        normalized layer. Where all rows have one norm, to rounding, both
        kernels are read off as functions of the angle, at a cost without L
        (:mod:`ntk_helpers.angle_function`); relative error below 1e-5 in
        float32 and 1e-9 in float64, of Sigma(x, x)/100 for smaller entries.
        If ``x`` or ``y`` lies on a mesh of devices, so do the rows of the
        results (:mod:`ntk_helpers.placement`). Raises ``ValueError`` on a
        wrong shape, non-finite input, overflow, batch normalization, or a
        dual not resolved at the variances that occur (inside a jit of your
        own: NaN).
        """
        return self._kernels(None, x, y)

    def nngp(self, x, y=None) -> jax.Array:
        """Covariance Sigma^(L) of the network at initialization, (N, M).

        Arguments and errors as in :meth:`kernels`.
        """
        return self._kernels("nngp", x, y).nngp

    def ntk(self, x, y=None) -> jax.Array:
        """Neural tangent kernel Theta^(L) of the limit, (N, M).

        Arguments and errors as in :meth:`kernels`.
        """
        return self._kernels("ntk", x, y).ntk

    def apply(self, params, x) -> jax.Array:
        """The network function f(x) = pre^(L)(x), (N, n_0) -> (N, n_out).

        With batch normalization it depends on ``x`` as a batch. Raises
        ``ValueError`` where ``params`` or ``x`` do not fit, and where a
        normalization divides by 0.
        """
        outputs = _outputs(self, params, self._check(params, x))
        return defined(outputs, self.normalization)

    def empirical_ntk(self, params, x, y=None) -> jax.Array:
        r"""Theta(x, y) at ``params``: (N, M), or (N, M, K, K) for K outputs.

        With A_l the activations (N, n_l) and Delta_l the gradients of the
        outputs with respect to pre^(l+1), the sum over parameters factorizes,

            Theta = sum_l ((1-beta^2)/n_l A_l A_l^T + beta^2)
                          o (Delta_l Delta_l^T),

        so no Jacobian is formed. Entry [i, j, k, l] belongs to outputs f_k at
        x_i and f_l at y_j. With batch normalization, where every output
        depends on every input, the sum does not factorize and the generic
        :func:`empirical_ntk` is used; ``y`` is then a batch of its own, with
        its own statistics. Errors as in :meth:`apply`.
        """
        x = self._check(params, x)
        y = None if y is None else self._check(params, y, "y")
        pointwise = self.normalization is None or self.normalization.pointwise
        kernel = (_layerwise if pointwise else _generic)(self, params, x, y)
        return defined(kernel, self.normalization)

    def _kernels(self, wanted: str | None, x, y) -> Kernels:
        x, y = self._sides(x, y)

        def compute(net):
            return gram(kernel_function(net, x, y), x, y, wanted)

        return settled(self, compute)[1]

    def _weight_shapes(self, n_in: int) -> tuple[tuple[int, int], ...]:
        """(n_{l+1}, n_l) for l = 0, ..., L-1."""
        hidden = [self.width] * (self.depth - 1)
        return tuple(zip([*hidden, self.n_out], [n_in, *hidden], strict=True))

    def _forward(self, params, x):
        """All pre-activations pre^(1..L) and activations alpha^(0..L-1)."""
        pres, activations = [], [x]
        for layer in params:
            alpha = activations[-1]
            scale = ((1 - self.beta**2) / alpha.shape[1]) ** 0.5
            pre = scale * matmul(alpha, layer.weights.T)
            pres.append(pre + self.beta * layer.bias)
            if len(pres) < self.depth:
                activations.append(self._activations(pres[-1], len(pres)))
        return pres, activations

    def _inputs(self, x, name: str, n_in: int | None = None):
        return checks.inputs(x, name, n_in)


@partial(jax.jit, static_argnums=0)
def _outputs(net: FullyConnected, params, x):
    return net._forward(params, x)[0][-1]


@partial(jax.jit, static_argnums=0)
def _generic(net: FullyConnected, params, x, y):
    return empirical_ntk(partial(_outputs, net), params, x, y)


@partial(jax.jit, static_argnums=0)
def _layerwise(net: FullyConnected, params, x, y):
    sides = [_gradients(net, params, z) for z in (x, y) if z is not None]
    (alpha_x, delta_x), (alpha_y, delta_y) = sides[0], sides[-1]
    kernel = 0
    for a_x, a_y, d_x, d_y in zip(
        alpha_x, alpha_y, delta_x, delta_y, strict=True
    ):
        weight = (1 - net.beta**2) / a_x.shape[1]
        forward = weight * matmul(a_x, a_y.T) + net.beta**2
        n, k, width = d_x.shape
        backward = matmul(d_x.reshape(n * k, width), d_y.reshape(-1, width).T)
        backward = backward.reshape(n, k, len(d_y), k).transpose(0, 2, 1, 3)
        kernel = kernel + forward[:, :, None, None] * backward
    return kernel[:, :, 0, 0] if net.n_out == 1 else kernel


def _gradients(net: FullyConnected, params, x):
    """Activations (N, n_l) and gradients d f_k / d pre^(l+1), (N, K, n)."""
    pres, activations = net._forward(params, x)
    identity = jnp.eye(net.n_out, dtype=pres[-1].dtype)
    deltas = [jnp.broadcast_to(identity, (len(x), *identity.shape))]
    for index in range(net.depth - 1, 0, -1):
        weights = params[index].weights
        scale = ((1 - net.beta**2) / weights.shape[1]) ** 0.5
        delta = scale * matmul(deltas[0], weights)
        activate = partial(net._activations, layer=index)
        _, pullback = jax.vjp(activate, pres[index - 1])
        along_outputs = jax.vmap(pullback, in_axes=1, out_axes=1)
        deltas.insert(0, along_outputs(delta)[0])
    return activations, deltas
