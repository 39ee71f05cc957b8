r"""What all architectures share: the checks of their fields, of their kernels.

Families of networks differ in their recursion and in their finite network,
not in what a valid beta is or in when a kernel can be trusted.
"""

from collections.abc import Callable
from dataclasses import replace

from . import checks
from .nonlinearity import Nonlinearity
from .recursion import Kernels


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


def settled(net, compute: Callable) -> Kernels:
    """Kernels from ``compute(net)``, with a dual as fine as they need.

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
    return s.guarded(kernels, error)
