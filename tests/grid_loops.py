"""Grid networks tap by tap and position by position, in NumPy.

Shares no code with the package: links are dictionaries, kernels are computed
for all pairs of points and positions, with the textbook duals.
"""

from itertools import product
from types import SimpleNamespace

import numpy as np


def relu(kxx, kyy, kxy, same):
    """Arc-cosine kernels; ``same`` marks a variable with itself."""
    m = np.sqrt(kxx * kyy)
    t = np.arccos(np.where(same, 1, np.clip(kxy / m, -1, 1)))
    value = m * (np.sin(t) + (np.pi - t) * np.cos(t)) / (2 * np.pi)
    return value, (np.pi - t) / (2 * np.pi)


def erf(kxx, kyy, kxy, same):
    outer = (1 + 2 * kxx) * (1 + 2 * kyy)
    value = 2 / np.pi * np.arcsin(2 * kxy / np.sqrt(outer))
    return value, 4 / np.pi / np.sqrt(outer - 4 * kxy**2)


DUALS = {"relu": relu, "erf": erf}


def positions(shape):
    return list(product(*map(range, shape)))


def layer(source, target, linked, interior):
    """Links of every target, tap -> source, flattened; and the counts.

    ``linked(tap, p)`` gives a source position or None.
    """
    taps, links = interior.taps, []
    for p in positions(target):
        pairs = ((tap, linked(tap, p)) for tap in taps)
        links.append(
            {
                tap: int(np.ravel_multi_index(q, source))
                for tap, q in pairs
                if q is not None
            }
        )
    counts = [len(link) for link in links]
    if not interior.graph_based:
        counts = [interior.count(p) for p in positions(target)]
    return links, np.array(counts)


def inside(q, shape, cyclic):
    """``q`` on the grid of ``shape``, None outside."""
    if cyclic:
        return tuple(a % n for a, n in zip(q, shape, strict=True))
    good = all(0 <= a < n for a, n in zip(q, shape, strict=True))
    return q if good else None


def up(shape, w, s, cyclic, graph_based):
    """Tap k takes q to s q + k - offset: searched among all q."""
    offset, axes = (w - s) // 2, len(shape)
    target = tuple(s * n for n in shape)
    taps = list(product(range(w), repeat=axes))

    def linked(tap, p):
        for q in positions(shape):
            end = tuple(
                s * a + k - offset for a, k in zip(q, tap, strict=True)
            )
            if inside(end, target, cyclic) == p:
                return q
        return None

    def count(p):
        return np.prod(
            [sum((a + offset - k) % s == 0 for k in range(w)) for a in p]
        )

    rule = SimpleNamespace(taps=taps, graph_based=graph_based, count=count)
    return layer(shape, target, linked, rule)


def down(shape, w, s, cyclic, graph_based):
    """Tap k takes q = s p + k - offset to p."""
    offset, axes = (w - s) // 2, len(shape)
    target = tuple(int(np.ceil(n / s)) for n in shape)
    taps = list(product(range(w), repeat=axes))

    def linked(tap, p):
        q = tuple(s * a + k - offset for a, k in zip(p, tap, strict=True))
        return inside(q, shape, cyclic)

    rule = SimpleNamespace(
        taps=taps, graph_based=graph_based, count=lambda p: w**axes
    )
    return layer(shape, target, linked, rule)


def layers(net):
    """Links and counts of every layer; a string for the dense layer."""
    rule = net.window, net.stride, net.cyclic, net.graph_based
    if type(net).__name__ == "Deconvolutional":
        shapes = [
            tuple(net.stride**k * n for n in net.shape)
            for k in range(net.depth)
        ]
        return [up(shape, *rule) for shape in shapes]
    shape, result = net.shape, []
    for _ in range(net.depth - 1):
        result.append(down(shape, *rule))
        shape = tuple(int(np.ceil(n / net.stride)) for n in shape)
    size = int(np.prod(shape))
    if net.pooling:
        return [*result, ("pooling", None)]
    links = [{(position,): position for position in range(size)}]
    return [*result, (links, np.array([size]))]


def summed(links, counts, values):
    """Sums over shared taps, over the root of the counts, (.., Q, Q)."""
    if isinstance(links, str):
        return values.mean(axis=(-2, -1), keepdims=True)
    result = np.zeros((*values.shape[:-2], len(links), len(links)))
    for (i, a), (j, b) in product(enumerate(links), repeat=2):
        for tap in a.keys() & b.keys():
            result[..., i, j] += values[..., a[tap], b[tap]]
    return result / np.sqrt(np.outer(counts, counts))


def kernels(net, dual, x, y=None, scale=1.0):
    """Both kernels, (N, M, P, P); ``scale`` multiplies the nonlinearity."""
    z = x if y is None else np.concatenate([x, y])
    z = np.asarray(z, float).reshape(len(z), -1, z.shape[-1])
    weight, bias = 1 - net.beta**2, net.beta**2
    value = np.einsum("iqa,jpa->ijqp", z, z) / z.shape[-1]
    carried = 0 * value
    rates = net.learning_rates or (1,) * net.depth
    for rate, (links, counts) in zip(rates, layers(net), strict=True):
        sigma = bias + weight * summed(links, counts, value)
        theta = rate * sigma + weight * summed(links, counts, carried)
        variance = np.einsum("iipp->ip", sigma)
        n, p = variance.shape
        same = np.eye(n * p, dtype=bool).reshape(n, p, n, p).swapaxes(1, 2)
        value, slope = dual(
            variance[:, None, :, None],
            variance[None, :, None, :],
            sigma,
            same,
        )
        value, slope = scale**2 * value, scale**2 * slope
        carried = slope * theta
    rows, columns = slice(len(x)), slice(0 if y is None else len(x), None)
    return SimpleNamespace(nngp=sigma[rows, columns], ntk=theta[rows, columns])


def function(net, params, x, s):
    """The finite network, one link at a time, (N, P, n_out)."""
    alpha = np.asarray(x, float).reshape(len(x), -1, x.shape[-1])
    for (w, b), (links, counts) in zip(params, layers(net), strict=True):
        w, b = np.asarray(w, float), np.asarray(b, float)
        n = alpha.shape[-1]
        if isinstance(links, str):
            total = alpha.mean(axis=1, keepdims=True) @ w.T
            counts = np.ones(1)
        else:
            flat = w.reshape(*w.shape[:2], -1)
            total = np.zeros((len(x), len(links), len(w)))
            for p, link in enumerate(links):
                for tap, q in link.items():
                    # The dense layer's tap is a position of its grid.
                    grid = w.shape[2:] if len(tap) > 1 else flat.shape[2:]
                    k = int(np.ravel_multi_index(tap, grid))
                    total[:, p] += alpha[:, q] @ flat[:, :, k].T
        factor = np.sqrt((1 - net.beta**2) / (n * counts))[:, None]
        pre = factor * total + net.beta * b
        alpha = s(pre)
    return pre
