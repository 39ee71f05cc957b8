"""Wide neural networks and their kernels: the helpers of the NTK book.

>>> import jax, ntk_helpers as ntk
>>> net = ntk.FullyConnected(depth=3, width=64, nonlinearity=ntk.erf)
>>> x = jax.random.normal(jax.random.key(0), (5, 10))
>>> params = net.init(jax.random.key(1), n_in=10)
>>> net.ntk(x).shape, net.empirical_ntk(params, x).shape
((5, 5), (5, 5))
"""

from . import datasets
from .activations import absolute as abs
from .activations import (
    cos,
    erf,
    exp,
    gelu,
    identity,
    leaky_relu,
    monomial,
    relu,
    sigmoid,
    silu,
    sin,
    softplus,
    tanh,
)
from .adversarial import Gan, GanState, load_state, save_state
from .convolutional import Convolutional, Deconvolutional
from .depth_profile import DepthProfile, depth_profile
from .diagnosis import Diagnosis, diagnose
from .dynamics import LinearModel, best_step, linearized, step_limit
from .empirical import empirical_ntk
from .flows import GradientDescent, GradientFlow, Momentum
from .fully_connected import FullyConnected
from .inference import Posterior, posterior, posterior_mean
from .kernel_matrix import KernelMatrix, kernel_matrix
from .modes import (
    ModeShares,
    gram_matrix,
    harmonic_energy,
    mode_shares,
    periodic_directions,
)
from .nonlinearity import Nonlinearity
from .normalization import BatchNorm, LayerNorm
from .recursion import Kernels
from .regimes import (
    MeanField,
    characteristic_value,
    correlation_map,
    critical_beta,
    depth_scale,
    fixed_point,
    freeze_bound,
    mean_field,
    regime,
)
from .remedies import Remedy
from .samples import effective_classes, frechet_distance, relative_variance
from .slider import Bars, Curves, Pictures, Slider
from .spectra import Spectrum, spectrum, trace_share
from .training import cost, gradient_descent, train

__all__ = [
    "Bars",
    "BatchNorm",
    "Convolutional",
    "Curves",
    "Deconvolutional",
    "DepthProfile",
    "Diagnosis",
    "FullyConnected",
    "Gan",
    "GanState",
    "GradientDescent",
    "GradientFlow",
    "KernelMatrix",
    "Kernels",
    "LayerNorm",
    "LinearModel",
    "MeanField",
    "ModeShares",
    "Momentum",
    "Nonlinearity",
    "Pictures",
    "Posterior",
    "Remedy",
    "Slider",
    "Spectrum",
    "abs",
    "best_step",
    "characteristic_value",
    "correlation_map",
    "cos",
    "cost",
    "critical_beta",
    "datasets",
    "depth_profile",
    "depth_scale",
    "diagnose",
    "effective_classes",
    "empirical_ntk",
    "erf",
    "exp",
    "fixed_point",
    "frechet_distance",
    "freeze_bound",
    "gelu",
    "gradient_descent",
    "gram_matrix",
    "harmonic_energy",
    "identity",
    "kernel_matrix",
    "leaky_relu",
    "linearized",
    "load_state",
    "mean_field",
    "mode_shares",
    "monomial",
    "periodic_directions",
    "posterior",
    "posterior_mean",
    "regime",
    "relative_variance",
    "relu",
    "save_state",
    "sigmoid",
    "silu",
    "sin",
    "softplus",
    "spectrum",
    "step_limit",
    "tanh",
    "trace_share",
    "train",
]
