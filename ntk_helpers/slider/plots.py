"""Curves and bars that a slider moves.

Each holds its numbers for every frame, draws one frame by itself, and hands
the integers of all frames to the page's script.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from .axes import LETTER, LEVELS, WIDTH, Axis, numbers, text_of
from .paths import Path, Plot

CURVES = 5  # the style sheet's colours with contrast enough


def _same_frames(arrays, name):
    counts = {len(array) for array in arrays if array.ndim == 2}
    if len(counts) > 1:
        raise ValueError(
            f"{name} must have the same number of frames, got "
            f"{' and '.join(map(str, sorted(counts)))}"
        )


def _same_length(array, count, name, what):
    if array.shape[-1] != count:
        raise ValueError(
            f"{name} must have {count} {what}, got shape {array.shape}"
        )
    return array


@dataclass(frozen=True, eq=False, repr=False)
class Curves(Plot):
    """Curves over ``x``, some of which move with a :class:`Slider`.

    ``x`` (n,); ``curves`` maps a name in the legend to an array (frames, n),
    or (n,) for a curve that stays; at most five. ``points`` = (x, y) adds
    dots, x (m,) and y (m,) or (frames, m). Scales are "linear" or "log";
    limits default to all that is seen in any frame. A curve is cut off where
    it leaves the limits.

    Raises ``ValueError`` on shapes or numbers of frames that do not fit, on
    non-finite numbers, and on numbers <= 0 where a scale is "log".
    """

    x: Sequence
    curves: Mapping
    points: tuple | None = None
    points_label: str = "data"
    xlabel: str = ""
    ylabel: str = ""
    xscale: str = "linear"
    yscale: str = "linear"
    xlim: tuple | None = None
    ylim: tuple | None = None

    def __post_init__(self):
        if not 1 <= len(self.curves) <= CURVES:
            raise ValueError(
                f"curves must be 1 to {CURVES} by name, got {len(self.curves)}"
            )
        heights = list(self.arrays.values())
        if self.dots:
            heights.append(self.dots[1])
        _same_frames(heights, "curves")
        self.parts  # noqa: B018, an error must come now, not when it is shown

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The curves as checked arrays."""
        x = numbers(self.x, "x", "(n,)")
        arrays = {}
        for name, curve in self.curves.items():
            where = f"curves[{name!r}]"
            curve = numbers(curve, where, "(frames, n)", "(n,)")
            arrays[name] = _same_length(curve, len(x), where, "points")
        return arrays

    @cached_property
    def dots(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The points as checked arrays."""
        if self.points is None:
            return None
        x = numbers(self.points[0], "x of points", "(m,)")
        y = numbers(self.points[1], "y of points", "(frames, m)", "(m,)")
        return x, _same_length(y, len(x), "y of points", "points")

    @cached_property
    def x_axis(self) -> Axis:
        """The horizontal axis."""
        seen = [np.ravel(self.x)] + ([self.dots[0]] if self.dots else [])
        return Axis.around(
            np.concatenate(seen), "x", self.xlim, self.xscale, self.xlabel
        )

    @cached_property
    def y_axis(self) -> Axis:
        """The vertical axis, the same for all frames."""
        seen = [curve.ravel() for curve in self.arrays.values()]
        seen += [self.dots[1].ravel()] if self.dots else []
        return Axis.around(
            np.concatenate(seen), "curves", self.ylim, self.yscale, self.ylabel
        )

    @cached_property
    def parts(self) -> list[Path]:
        """One path for each curve, and one for the points."""
        parts = [
            Path("line", f"curve-{k}", name, *self._place(self.x, curve))
            for k, (name, curve) in enumerate(self.arrays.items())
        ]
        if self.dots:
            where = self._place(*self.dots)
            parts.append(Path("dots", "dots", self.points_label, *where))
        return parts

    def table(self, frames) -> dict[str, np.ndarray]:
        """Values of the moving curves at five points, for a few frames."""
        x = np.ravel(self.x)
        places = np.unique(np.linspace(0, len(x) - 1, 5).astype(int))
        return {
            f"{name} at {text_of(x[place], 3)}": curve[frames, place]
            for name, curve in self.arrays.items()
            if curve.ndim == 2
            for place in places
        }

    def _place(self, x, y):
        return self.x_axis.positions(x), LEVELS - self.y_axis.positions(y)


@dataclass(frozen=True, eq=False, repr=False)
class Bars(Plot):
    """One bar for each mode, moving with a :class:`Slider`.

    ``heights`` (frames, modes); ``reference`` (modes,) or (frames, modes) is
    a mark across each bar, such as the prediction. ``labels`` name the modes
    (default 1, 2, ...), as many of them as there is room for. ``legend`` names
    bars and reference. Bars begin at 0, on a log scale at the lower limit.

    Raises ``ValueError`` as :class:`Curves` does.
    """

    heights: Sequence
    labels: Sequence | None = None
    reference: Sequence | None = None
    legend: tuple[str, str] = ("", "reference")
    xlabel: str = "mode"
    ylabel: str = ""
    yscale: str = "linear"
    ylim: tuple | None = None

    def __post_init__(self):
        _same_frames(self.arrays, "heights and reference")
        if len(self.names) != self.modes:
            raise ValueError(
                f"labels must be one for each of {self.modes} modes, got "
                f"{len(self.names)}"
            )
        self.parts  # noqa: B018, an error must come now, not when it is shown

    @cached_property
    def arrays(self) -> list[np.ndarray]:
        """Heights, and the reference if there is one."""
        arrays = [numbers(self.heights, "heights", "(frames, modes)")]
        if self.reference is not None:
            shapes = "(frames, modes)", "(modes,)"
            reference = numbers(self.reference, "reference", *shapes)
            modes = arrays[0].shape[1]
            _same_length(reference, modes, "reference", "modes")
            arrays.append(reference)
        return arrays

    @property
    def modes(self) -> int:
        """The number of bars."""
        return self.arrays[0].shape[1]

    @property
    def names(self) -> list[str]:
        """The names of the modes."""
        names = (
            range(1, self.modes + 1) if self.labels is None else self.labels
        )
        return [str(name) for name in names]

    @cached_property
    def x_axis(self) -> Axis:
        """The horizontal axis, one unit for each mode."""
        return Axis(0, self.modes, "linear", self.xlabel)

    @cached_property
    def y_axis(self) -> Axis:
        """The vertical axis, the same for all frames."""
        seen = np.concatenate([array.ravel() for array in self.arrays])
        if self.yscale == "linear":
            seen = np.append(seen, 0)
        return Axis.around(
            seen, "heights", self.ylim, self.yscale, self.ylabel
        )

    def x_ticks(self):
        """As many modes as there is room for, each below its bar."""
        space = (WIDTH - 60) / self.modes / LETTER  # letters for each bar
        halves = [(len(name) + 0.5) / 2 for name in self.names]
        every = next(
            every
            for every in range(1, self.modes + 1)
            if all(
                left + right <= every * space
                for left, right in pairwise(halves[::every])
            )
        )
        shown = range(0, self.modes, every)
        centres = self.x_axis.positions([k + 0.5 for k in shown]).tolist()
        return [
            (c, self.names[k]) for c, k in zip(centres, shown, strict=True)
        ]

    @cached_property
    def parts(self) -> list[Path]:
        """One path for all bars, and one for all marks."""
        edges = np.arange(self.modes)[:, None] + [[0.12, 0.88]]
        x = self.x_axis.positions(edges.ravel())
        zero = self.y_axis.low if self.yscale == "log" else 0
        base = int(np.clip(LEVELS - self.y_axis.positions(zero), 0, LEVELS))
        kinds = ("bars", "bars"), ("marks", "marks")
        names = self.legend if len(self.arrays) > 1 else ("", "")
        return [
            Path(*kind, name, x, LEVELS - self.y_axis.positions(array), base)
            for kind, name, array in zip(
                kinds, names, self.arrays, strict=False
            )
        ]

    def table(self, frames) -> dict[str, np.ndarray]:
        """Heights of the first eight modes, for a few frames."""
        return {
            f"{self.xlabel} {name}": self.arrays[0][frames, k]
            for k, name in enumerate(self.names[:8])
        }
