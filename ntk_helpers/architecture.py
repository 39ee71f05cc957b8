r"""What all architectures share: parameters, checks, and trust in kernels.

Families of networks differ in their recursion and in how a layer sums, not in
what a valid beta is, how parameters are drawn, or when a kernel is resolved.
"""

from collections.abc import Callable
from dataclasses import replace

import jax.numpy as jnp

from . import checks
from .nonlinearity import Nonlinearity
from .parameters import Layer, drawn, input_dimension
from .recursion import Kernels


class Architecture:
    """What the finite networks of all families have in common.

    A family has the fields that :func:`check_fields` checks, and says which
    shapes its weights and its inputs have.
    """

    def init(self, key, n_in: int, dtype=None) -> tuple[Layer, ...]:
        """Parameters, every entry drawn from N(0, 1) with ``key``.

        ``n_in`` = n_0, features or channels of the input; ``dtype`` defaults
        to JAX's float. Returns a tuple of L layers; weights have shape
        (n_{l+1}, n_l), followed by that of the window, if any.
        """
        n_in = checks.positive_integer(n_in, "n_in")
        dtype = jnp.result_type(float) if dtype is None else dtype
        return drawn(self._weight_shapes(n_in), jnp.dtype(dtype), key)

    def _weight_shapes(self, n_in: int):
        """Shapes of W^(0), ..., W^(L-1)."""
        raise NotImplementedError

    def _inputs(self, x, name: str, n_in: int | None = None):
        """``x`` as a floating array, its shape and values checked."""
        raise NotImplementedError

    def _sides(self, x, y):
        """Inputs of a kernel of the limit, checked; ``y`` may be None."""
        x = self._inputs(x, "x")
        y = None if y is None else self._inputs(y, "y", x.shape[-1])
        if self.normalization is not None:
            for z, name in ((x, "x"), (y, "y")):
                if z is not None:
                    self.normalization.check_limit(z, name, self.beta)
        return x, y

    def _check(self, params, x, name: str = "x"):
        """``x``, checked against ``params``."""
        n_in = input_dimension(params, self._weight_shapes)
        x = self._inputs(x, name, n_in)
        if self.normalization is not None:
            self.normalization.check_batch(x, name)
        return x

    def _activations(self, pre, layer: int):
        """alpha^(layer) from pre^(layer), units last, for a hidden layer."""
        s, normalization = self.nonlinearity, self.normalization
        if normalization and layer in normalization.layers(self.depth - 1):
            flat = pre.reshape(-1, pre.shape[-1])
            return normalization.activations(s, flat).reshape(pre.shape)
        return s(pre)


def check_fields(net, integers: tuple[str, ...], normalizations) -> None:
    """Check the fields that all architectures have, in place.

    ``integers`` names those that are integers >= 1; ``normalizations`` are
    the types allowed. Raises ``ValueError`` on anything else.
    """
    for name in integers:
        number = checks.positive_integer(getattr(net, name), name)
        object.__setattr__(net, name, number)
    beta = checks.unit_interval(net.beta, "beta")
    object.__setattr__(net, "beta", beta)
    if not isinstance(net.nonlinearity, Nonlinearity):
        raise ValueError(
            "nonlinearity must be a Nonlinearity, got "
            f"{net.nonlinearity!r}; wrap a function with "
            "Nonlinearity.from_function"
        )
    if net.normalization is not None:
        if not isinstance(net.normalization, normalizations):
            *others, last = [
                "None",
                *(f"a {t.__name__}" for t in normalizations),
            ]
            raise ValueError(
                f"normalization must be {', '.join(others)} or {last}, got "
                f"{net.normalization!r}"
            )
        net.normalization.check_architecture(net.depth, net.width)


def settled(net, compute: Callable) -> tuple["Architecture", Kernels]:
    """``net`` with a dual as fine as it needs, and its ``compute(net)``.

    ``compute`` returns kernels, None for one that is not wanted, and the
    largest relative error of a dual. Raises ``ValueError`` where they are not
    finite or not resolved; inside a jit of the caller's they are NaN.
    """
    kernels, error = compute(net)
    s = net.nonlinearity
    finer = s.resolved(error)
    if finer is not s:
        return settled(replace(net, nonlinearity=finer), compute)
    for value, name in zip(kernels, Kernels._fields, strict=True):
        if value is not None:
            checks.finite(value, f"the {name} at depth {net.depth}")
    return net, s.guarded(kernels, error)
