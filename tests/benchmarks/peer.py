"""Comparison with neural-tangents 0.6.5, the archived library of this field.

It runs in an environment and a process of its own; points and kernels are
exchanged as files. The kernels must be equal before anything is timed. Each
round then times, one after the other, a product and a kernel here and a
product and a kernel there.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import NamedTuple

import jax
import numpy as np

import ntk_helpers as ntk

from . import peer_environment
from .kernels import points
from .timing import Group, comparison, gram, seconds

OURS = Group("Beside neural-tangents, ours", "kernels / x @ x.T")
THEIRS = Group("Beside neural-tangents, theirs", "kernels / x @ x.T")
RATIO = Group("Beside neural-tangents", "their time / our time", speedup=True)
WORKER = pathlib.Path(__file__).with_name("peer_worker.py")
BETA = 0.1
ROUNDS = 5


class Case(NamedTuple):
    """Standardized nonlinearity, depth L and number of points N.

    Dense, or for ``window`` > 0 convolutional with a dense last layer.
    """

    nonlinearity: str
    depth: int
    count: int
    sphere: bool = True
    window: int = 0
    dtype: str = "float32"

    @property
    def name(self) -> str:
        """What the table shows."""
        kind = "conv." if self.window else "on" if self.sphere else "off"
        bits = self.dtype.removeprefix("float")
        sizes = f"N = {self.count}, L = {self.depth}"
        return f"{self.nonlinearity} {kind}, {sizes}, {bits} bit"

    @property
    def net(self):
        """The network here."""
        s = getattr(ntk, self.nonlinearity).standardized()
        common = {"depth": self.depth, "nonlinearity": s, "beta": BETA}
        if not self.window:
            return ntk.FullyConnected(**common)
        grid = {"shape": (14, 14), "window": self.window, "stride": 1}
        # A convolution there divides by the window's size at the border too.
        return ntk.Convolutional(**common, **grid, graph_based=False)

    @property
    def points(self):
        """(N, 784), or as images (N, 14, 14, 4)."""
        x = points(self.count, self.dtype, self.sphere)
        return x.reshape(-1, 14, 14, 4) if self.window else x

    @property
    def theirs(self) -> dict:
        """Arguments of ``kernel_function`` of the worker."""
        names = "nonlinearity", "depth", "window"
        return {"beta": BETA, **{n: getattr(self, n) for n in names}}

    @property
    def tolerances(self) -> tuple[float, float]:
        """Of the entries and of the diagonal, relative to the largest entry.

        The derivative dual of relu has a kink at angle 0: there, an error
        eps of a cosine is one of sqrt(eps) in the angle, once in every layer.
        """
        entries = {"float32": 1e-5, "float64": 1e-8}[self.dtype]
        root = float(np.finfo(self.dtype).eps) ** 0.5
        kink = self.depth * root if self.nonlinearity == "relu" else 0
        return entries, max(entries, kink)


CASES = (
    Case("relu", 6, 1024),
    Case("relu", 6, 1024, sphere=False),
    Case("erf", 6, 1024),
    Case("erf", 6, 1024, sphere=False),
    Case("relu", 64, 512),
    Case("relu", 3, 64, sphere=False, window=3),
    Case("relu", 6, 1024, dtype="float64"),
    Case("erf", 6, 1024, sphere=False, dtype="float64"),
)


class Worker:
    """The process there, for cases of one dtype."""

    def __init__(self, python: str, cases, points, folder: str):
        inputs, outputs = (f"{folder}/{n}.npz" for n in ("points", "kernels"))
        np.savez(inputs, **{f"x{i}": np.asarray(x) for i, x in points})
        wide = str(int(cases[0].dtype == "float64"))
        specification = json.dumps([case.theirs for case in cases])
        self.process = subprocess.Popen(
            [python, str(WORKER), inputs, outputs, specification],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "JAX_ENABLE_X64": wide, "JAX_PLATFORMS": "cpu"},
        )
        versions = self.answer()
        expected = [
            peer_environment.PEER.split("==")[1],
            peer_environment.PINS["jax"],
        ]
        if versions != expected:
            sys.exit(f"expected versions {expected} there, got {versions}")
        self.kernels = np.load(outputs)

    def answer(self):
        """The next line of the process, decoded."""
        line = self.process.stdout.readline()
        if not line:
            sys.exit("the worker of the peer ended; see its error above")
        return json.loads(line)

    def times(self, index: int) -> list[float]:
        """Seconds of a product and of a kernel there."""
        self.process.stdin.write(f"{index}\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self):
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


def check(case: Case, ours, theirs) -> None:
    """Exit unless NNGP and NTK are equal on both sides."""
    entries, diagonal = case.tolerances
    same = np.eye(case.count, dtype=bool)
    for name, value in ours._asdict().items():
        error = np.abs(np.asarray(value) - theirs[name]) / abs(value).max()
        for part, where, bound in (
            ("entries", ~same, entries),
            ("diagonal", same, diagonal),
        ):
            worst = error[where].max()
            if not worst < bound:
                sys.exit(
                    f"{case.name}: the {part} of the {name} differ by "
                    f"{worst:.1e} from neural-tangents, allowed {bound:.1e}"
                )


def timed(case: Case, index: int, x, worker: Worker):
    """The rows of one case: ours, theirs and their ratio."""
    flat, net = x.reshape(len(x), -1), case.net
    jax.block_until_ready((gram(flat), net.kernels(x)))
    rounds = [
        (
            seconds(lambda: gram(flat)),
            seconds(lambda: net.kernels(x)),
            *worker.times(index),
        )
        for _ in range(ROUNDS)
    ]
    facts = {**case._asdict(), "n_in": flat.shape[1], "beta": BETA}
    return tuple(
        comparison(group, case.name, [(r[a], r[b]) for r in rounds], **facts)
        for group, a, b in ((OURS, 0, 1), (THEIRS, 2, 3), (RATIO, 3, 1))
    )


def compared(python: str, cases):
    """The rows of ``cases``, all of one dtype."""
    with (
        jax.enable_x64(cases[0].dtype == "float64"),
        tempfile.TemporaryDirectory() as folder,
    ):
        inputs = [case.points for case in cases]
        worker = Worker(python, cases, enumerate(inputs), folder)
        try:
            for index, (case, x) in enumerate(zip(cases, inputs, strict=True)):
                names = "nngp", "ntk"
                theirs = {n: worker.kernels[f"{n}{index}"] for n in names}
                check(case, case.net.kernels(x), theirs)
                yield timed(case, index, x, worker)
        finally:
            worker.close()


def rows(options):
    """All rows; ``options.small`` divides the numbers of points by 8."""
    if jax.default_backend() != "cpu":
        sys.exit("the peer runs on a CPU: set JAX_PLATFORMS=cpu")
    python = peer_environment.python()
    shrink = 8 if options.small else 1
    cases = [case._replace(count=case.count // shrink) for case in CASES]
    found = []
    for dtype in ("float32", "float64"):
        selected = [case for case in cases if case.dtype == dtype]
        found += compared(python, selected)
    return [row for group in zip(*found, strict=True) for row in group]
