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
from .convolutional import Convolutional, Deconvolutional
from .depth_profile import DepthProfile, depth_profile
from .diagnosis import Diagnosis, diagnose
from .dynamics import LinearModel, best_step, linearized, step_limit
from .empirical import empirical_ntk
from .flows import GradientDescent, GradientFlow, Momentum
from .fully_connected import FullyConnected
from .inference import Posterior, posterior, posterior_mean
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
    "GradientDescent",
    "GradientFlow",
    "Kernels",
    "LayerNorm",
    "LinearModel",
    "MeanField",
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
    "empirical_ntk",
    "erf",
    "exp",
    "fixed_point",
    "freeze_bound",
    "gelu",
    "gradient_descent",
    "identity",
    "leaky_relu",
    "linearized",
    "mean_field",
    "monomial",
    "posterior",
    "posterior_mean",
    "regime",
    "relu",
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
