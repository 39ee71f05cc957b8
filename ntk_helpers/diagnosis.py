r"""What the NTK says about training a network on given points, and what to do.

The lecture ends on using the NTK to identify problems of an architecture and
fix them. A practitioner has an architecture, or any JAX function, and a batch
of data: their Gram matrix holds the answer, and this is how it is read.
"""

from dataclasses import dataclass, replace
from math import atanh, inf
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy.linalg import helmert

from . import checks
from .dynamics import best_step
from .empirical import empirical_ntk
from .fully_connected import FullyConnected
from .normalization import BatchNorm
from .regimes import characteristic_value, critical_beta, regime
from .remedies import FAINT, Remedy, advice, effective, notes
from .report import drawn, text
from .spectra import Spectrum, spectrum


class LearningTimes(NamedTuple):
    """Of the constant mode, and the median of the bulk, in best steps."""

    constant: float
    bulk: float


@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis:
    r"""What :func:`diagnose` found; ``str`` and ``plot`` show it.

    With Theta the Gram matrix on N points and 1 the constant vector:
    ``constant`` = 1^T Theta 1/N, the eigenvalue of the constant mode where it
    is an eigenvector; ``bulk``, (N-1,), the eigenvalues of Theta on vectors
    of mean 0, descending; ``similarity``, the mean of |Theta_ij| /
    sqrt(Theta_ii Theta_jj) over i != j. ``regime``, ``characteristic_value``
    and ``critical_beta`` are those of the nonlinearity, None for a function.
    ``advice`` holds :class:`Remedy` entries, the best first, and ``notes``
    what limits the conclusions.
    """

    kernel: str
    spectrum: Spectrum
    constant: float
    bulk: np.ndarray
    similarity: float
    regime: str | None = None
    characteristic_value: float | None = None
    critical_beta: float | None = None
    advice: tuple[Remedy, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def constant_share(self) -> float:
        """Share of the trace in the constant mode, in [0, 1]."""
        return self.constant / float(jnp.sum(self.spectrum.values))

    @property
    def constant_share_of_largest(self) -> float:
        """1^T Theta 1/(N lambda_max), in [0, 1]."""
        return self.constant / float(self.spectrum.values[0])

    @property
    def constant_overlap(self) -> float:
        """Absolute cosine of the top eigenvector and the constant vector."""
        top = self.spectrum.vectors[:, 0]
        return abs(float(jnp.sum(top))) / len(top) ** 0.5

    @property
    def condition_number(self) -> float:
        """lambda_max/lambda_min, inf where lambda_min is not resolved."""
        return self._ratio(self.spectrum.values)

    @property
    def bulk_condition_number(self) -> float:
        """The same of the bulk: what is left without the constant mode."""
        return self._ratio(self.bulk)

    @property
    def deep_chaos(self) -> bool:
        """Whether r > 1 and the points' mean ``similarity`` is below 0.1."""
        return self.regime == "chaos" and self.similarity < FAINT

    @property
    def step(self) -> float:
        """The best step size of gradient descent, N/(l_max + l_min)."""
        return float(best_step(self.spectrum))

    @property
    def steps(self) -> float:
        """Steps of the best size that divide any residual by e, at least.

        1/log((kappa+1)/(kappa-1)), about kappa/2; inf if not resolved.
        """
        return steps_of(self.condition_number)

    @property
    def learning_times(self) -> LearningTimes:
        """N/(2 lambda), the time of gradient flow, over the best step size.

        In discrete steps of exactly that size the top direction, often the
        constant mode, changes sign at each and takes ``steps`` of them too.
        inf where an eigenvalue is not resolved.
        """
        rates = np.array([self.constant, np.median(self.bulk)])
        resolved = rates > self.spectrum.rounding
        times = len(self.spectrum.values) / (2 * np.where(resolved, rates, 1))
        times = np.where(resolved, times / self.step, inf)
        return LearningTimes(*map(float, times))

    def __str__(self):
        return text(self)

    __repr__ = __str__

    def plot(self, axes=None):
        """The spectrum on a logarithmic scale, the constant mode marked.

        Draws into ``axes`` of matplotlib, by default new ones; returns them.
        """
        return drawn(self, axes)

    def _ratio(self, values) -> float:
        if not values[-1] > self.spectrum.rounding:
            return inf
        return float(values[0] / values[-1])


def diagnose(net, x, params=None) -> Diagnosis:
    r"""What dominates the NTK of ``net`` on ``x``, how slow it is, what helps.

    ``net``: a :class:`FullyConnected`, by its infinite-width kernel or, given
    ``params``, its empirical one; or any function f(params, x) -> (N,) or
    (N, K) with its ``params``. ``x`` (N, ...), N >= 2. Of several outputs the
    kernel is averaged: (1/K) sum_k Theta_kk.

    The regime is that of :func:`regime`. In the freeze (r < 1) the changes
    that lower ``steps`` are listed: the critical beta, the normalized
    nonlinearity, normalization layers. In the chaos (r > 1) advice is given
    if the mean ``similarity`` is below 0.1: little is then carried from one
    point to another; what raises it is the critical beta, or fewer layers.
    Every number is measured on ``x`` with the change applied; the exception
    is batch normalization at infinite width, where only the identity
    Theta 1 = N beta^2 1 is known. ``params`` are kept for changed networks.

    Raises ``ValueError`` on a single point, a function without ``params``,
    batch normalization without ``params``, and where the kernels do.
    """
    x = checks.finite(checks.floating(x), "x")
    if x.ndim < 1 or len(x) < 2:
        raise ValueError(f"x must hold at least 2 points, got shape {x.shape}")
    if isinstance(net, FullyConnected):
        return _of_architecture(net, x, params)
    if not callable(net) or params is None:
        raise ValueError(
            "net must be a FullyConnected, or a function f(params, x) with "
            f"its params, got {net!r} and params={params!r}"
        )
    found = _read("empirical", empirical_ntk(net, params, x))
    steps = steps_of(found.bulk_condition_number)
    if not steps < found.steps:
        return found
    description = "the mean over the batch taken out of the last features"
    return replace(found, advice=(Remedy(description, None, steps, None),))


def _of_architecture(net: FullyConnected, x, params) -> Diagnosis:
    if isinstance(net.normalization, BatchNorm) and params is None:
        raise ValueError(
            f"{net.normalization} has no infinite-width kernel: pass params "
            "for the empirical one"
        )

    def diagnosed(changed):
        if params is None:
            return _read("infinite-width", changed.ntk(x))
        return _read("empirical", changed.empirical_ntk(params, x))

    found, s = diagnosed(net), effective(net)
    found = replace(
        found,
        regime=regime(s, net.beta),
        characteristic_value=characteristic_value(s, net.beta),
        critical_beta=critical_beta(s),
    )
    return replace(
        found,
        advice=tuple(advice(net, found, diagnosed, params is not None)),
        notes=(*found.notes, *notes(net, x)),
    )


def _read(kernel: str, gram) -> Diagnosis:
    """The numbers of a Gram matrix (N, N), or (N, N, K, K)."""
    if gram.ndim == 4:
        gram = jnp.trace(gram, axis1=2, axis2=3) / gram.shape[-1]
    values = spectrum(gram)
    theta = np.asarray((gram + gram.T) / 2, float)
    n = len(theta)
    basis = helmert(n)  # orthonormal rows, orthogonal to the constant
    bulk = np.linalg.eigvalsh(basis @ theta @ basis.T)[::-1]
    root = np.sqrt(np.diag(theta))
    cosine = np.abs(theta) / np.where(root > 0, root, 1)
    cosine = cosine / np.where(root > 0, root, 1)[:, None]
    similarity = (cosine.sum() - np.trace(cosine)) / (n * (n - 1))
    lost = n - int(values.resolved.sum())
    limits = ()
    if lost:
        limits = (
            f"{lost} of {n} eigenvalues are not resolved in {gram.dtype}: "
            "points coincide, or are too close for it",
        )
    return Diagnosis(
        kernel, values, theta.sum() / n, bulk, similarity, notes=limits
    )


def steps_of(condition_number: float) -> float:
    """Steps of gradient descent of the best size: 1/(2 artanh(1/kappa))."""
    if condition_number <= 1 or condition_number == inf:
        return 0.0 if condition_number <= 1 else inf
    return 0.5 / atanh(1 / condition_number)
