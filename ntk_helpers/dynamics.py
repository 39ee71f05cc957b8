r"""Training of a model that is linear in its parameters, in closed form.

The infinitely wide network, and the linearization of a finite one, keep their
kernel Theta while they are trained on C = (1/N) ||f(X) - Y||^2. Training is
then a function of the matrix Theta(X, X), and only its spectrum matters.
"""

import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from . import checks
from .flows import GradientDescent, GradientFlow, Momentum, cast
from .inference import Posterior
from .matrix_functions import stopped, trained
from .precision import matmul
from .spectra import Spectrum, spectrum
from .training import as_pytree

Flow = GradientFlow | GradientDescent | Momentum


class LinearModel:
    r"""A model with a constant kernel, trained on inputs x and targets y.

    ``kernel(x, y=None)`` is a method such as ``net.ntk``, or the empirical
    kernel of one network with one output, ``lambda x, y=None:
    net.empirical_ntk(params, x, y)``. ``x`` (N, ...), ``y`` (N, K). The
    kernel on ``x`` is evaluated and decomposed once; ``gram`` and
    ``spectrum`` hold the result. Raises ``ValueError`` on shapes that do not
    fit and where :func:`spectrum` does.

    Everything it returns has a derivative with respect to the kernel, the
    data and the flow, also where eigenvalues coincide: that of a function of
    a matrix (Higham 2008, theorem 3.11, after Daleckii and Krein). Second
    derivatives need distinct eigenvalues and are NaN without.

    Eigenvalues that are not resolved (``spectrum.resolved``) are never
    inverted. Once rounding would decide what happens along their eigenvectors
    (2 duration rounding/N > 1, an infinite time included) nothing is learnt
    there: the limit of the pseudo-inverse, in which the residual stays. Two
    copies of a point with different labels converge to the mean of these.
    """

    def __init__(self, kernel: Callable, x, y):
        self.kernel, self.x = kernel, x
        self.gram = self._evaluated(kernel, x)
        self.y = checks.targets(y, len(x)).astype(self.gram.dtype)
        self.spectrum = spectrum(self.gram)

    def outputs(self, flow: Flow, f_0, z=None, f_0_z=None) -> jax.Array:
        r"""Outputs after training, started from the outputs ``f_0`` (N, K).

        On the training set, (N, K), and at ``z`` (M, ...), where the outputs
        at the start are ``f_0_z`` (M, K). With d the decay of the flow, a
        function of the matrix 2 Theta(X, X)/N,

            f_t(X) = Y - d (Y - f_0)
            f_t(z) = f_0(z) + Theta(z, X) Theta^{-1} (I - d) (Y - f_0).

        Source: Jacot, Gabriel and Hongler (2018), section 5; Lee et al.
        (2019), section 2.2. For an array of times use ``jax.vmap``.
        Raises ``ValueError`` on shapes that do not fit, non-finite input, and
        outputs that overflow because the step is too large. Warns in float32
        if a part of the residual that matters, more than sqrt(eps) of its
        norm, stays only because its eigenvalues are not resolved.
        """
        residual = self.y - _outputs(f_0, "f_0", self.y.shape)
        flow = self._ready(flow, residual)
        if z is None and f_0_z is None:
            result = _on_training_set(flow, *self._matrix, self.y, residual)
            return _bounded(result, flow)
        if z is None or f_0_z is None:
            raise ValueError("z and f_0_z must be given together, got one")
        cross = self._evaluated(self.kernel, self.x, z)
        f_0_z = _outputs(f_0_z, "f_0_z", (len(z), self.y.shape[1]))
        change = _elsewhere(flow, *self._matrix, cross, residual)
        return _bounded(f_0_z + change, flow)

    def distribution(self, flow: Flow, nngp: Callable, z) -> Posterior:
        r"""Mean (M, K) and covariance (M, M) at ``z`` over initializations.

        If f_0 ~ GP(0, K) with K = ``nngp``, the same for each output, then
        f_t(z) = f_0(z) + A (Y - f_0(X)) is Gaussian too, with mean A Y and

            A = Theta(z, X) Theta^{-1} (I - d)
            covariance = K(z, z) - A K(X, z) - K(z, X) A^T + A K(X, X) A^T.

        Source: Lee et al. (2019), section 2.3. If K is Theta and the time
        infinite this is the posterior of the Gaussian process. Errors and
        warnings as in :meth:`outputs`.
        """
        flow = self._ready(flow, self.y)
        cross = self._evaluated(self.kernel, self.x, z)
        prior = [
            self._evaluated(nngp, *points, name="nngp")
            for points in ((self.x,), (self.x, z), (z,))
        ]
        result = _distribution(flow, *self._matrix, cross, self.y, *prior)
        return Posterior(*(_bounded(part, flow) for part in result))

    @property
    def _matrix(self):
        return self.gram, self.spectrum

    def _evaluated(self, kernel, x, z=None, name="kernel"):
        """kernel(x), (N, N), or kernel(z, x), (M, N), checked."""
        value = checks.floating(kernel(x) if z is None else kernel(z, x))
        shape = (len(x if z is None else z), len(x))
        if value.shape != shape:
            raise ValueError(
                f"{name} must return one number for each pair of points, "
                f"expected shape {shape}, got {value.shape}; of a network "
                "with several outputs take the kernel of one"
            )
        return checks.finite(value, name)

    def _ready(self, flow, residual):
        """The flow in the dtype of the kernel, checked against the model."""
        if not isinstance(flow, Flow):
            raise ValueError(
                "flow must be a GradientFlow, a GradientDescent or a "
                f"Momentum, got {flow!r}"
            )
        if any(jnp.ndim(leaf) for leaf in jax.tree.leaves(flow)):
            raise ValueError(
                f"flow must hold single numbers, got {flow}; map over arrays "
                "with jax.vmap"
            )
        flow = cast(flow, self.gram.dtype)
        if self.gram.dtype.itemsize < 8 and checks.is_concrete(
            flow, self.spectrum, residual
        ):
            self._warn(flow, residual)
        return flow

    def _warn(self, flow, residual):
        """Say what float32 hides, if it matters."""
        values, dtype = self.spectrum.values, self.gram.dtype
        still = np.asarray(stopped(flow, self.spectrum))
        coefficients = np.asarray(self.spectrum.coefficients(residual))
        norm = np.linalg.norm(coefficients)
        part = np.linalg.norm(coefficients[still])
        if part > jnp.finfo(dtype).eps ** 0.5 * norm:
            warnings.warn(
                f"{still.sum()} of {len(values)} eigenvalues are not "
                f"resolved in {dtype}; the part of the residual along their "
                f"eigenvectors, {part / norm:.1e} of its norm, is not "
                "learnt; use float64 (jax.enable_x64), which resolves them "
                "unless the kernel is singular",
                stacklevel=4,
            )


def step_limit(spectrum: Spectrum, momentum: float = 0.0) -> jax.Array:
    """N (1 + momentum)/lambda_max: steps below it converge, above diverge.

    For gradient descent and the heavy ball on a quadratic cost; momentum in
    [0, 1). Source: Polyak (1964).
    """
    return len(spectrum.values) * (1 + momentum) / spectrum.values[0]


def best_step(spectrum: Spectrum) -> jax.Array:
    """N/(lambda_max + lambda_min): the fastest step of gradient descent.

    The residual contracts by (kappa - 1)/(kappa + 1) in each step, kappa
    being the condition number; no other step does better in the worst case.
    """
    return len(spectrum.values) / (spectrum.values[0] + spectrum.values[-1])


def linearized(f: Callable, params) -> Callable:
    """The linearization of ``f(params, x)`` in its parameters.

    g(params', x) = f(params, x) + (df/dparams)(params, x) (params' - params),
    to be called, trained and compiled like ``f`` itself. It is a pytree whose
    leaves are ``params``: functions compiled for one are not compiled again
    for another. Source: Lee et al. (2019), section 2.2.
    """
    return Partial(_linearized, as_pytree(f), params)


def _linearized(f, params, moved, x):
    change = jax.tree.map(jnp.subtract, moved, params)
    outputs, slope = jax.jvp(lambda p: f(p, x), (params,), (change,))
    return outputs + slope


def _outputs(value, name, shape):
    value = checks.inputs(value, name, last="K")
    if value.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {value.shape}")
    return value


def _bounded(value, flow):
    if checks.is_concrete(value) and not np.isfinite(value).all():
        raise ValueError(
            f"training diverges beyond the range of {value.dtype}: expected a "
            f"step below step_limit(spectrum), got {flow}"
        )
    return value


@jax.jit
def _on_training_set(flow, gram, spectrum, y, residual):
    return y - trained(flow, gram, spectrum, residual).remaining


@jax.jit
def _elsewhere(flow, gram, spectrum, cross, residual):
    learnt = trained(flow, gram, spectrum, residual).learnt
    return 2 / len(gram) * matmul(cross, learnt)


@jax.jit
def _distribution(flow, gram, spectrum, cross, y, k_xx, k_zx, k_zz):
    learnt = trained(flow, gram, spectrum, cross.T).learnt
    a = 2 / len(gram) * learnt.T
    both = matmul(a, k_zx.T)
    covariance = k_zz - both - both.T + matmul(a, matmul(k_xx, a.T))
    return matmul(a, y), covariance
