"""What the plots of a slider are made of: paths that move, inside axes.

A path is built by Python for the first frame and by the page's script for the
others, from the same integers.
"""

from dataclasses import dataclass
from html import escape

import numpy as np

from .axes import LEVELS, plot, stored


# The same paths as in slider.js.
def _line(x, y, base):
    return "M" + "L".join(f"{a} {h}" for a, h in zip(x, y, strict=True))


def _dots(x, y, base):
    return "".join(f"M{a} {h}h0" for a, h in zip(x, y, strict=True))


def _marks(x, y, base):
    return "".join(
        f"M{a} {h}H{b}" for a, b, h in zip(x[::2], x[1::2], y, strict=True)
    )


def _bars(x, y, base):
    return "".join(
        f"M{a} {base}V{h}H{b}V{base}z"
        for a, b, h in zip(x[::2], x[1::2], y, strict=True)
    )


PATHS = {"line": _line, "dots": _dots, "marks": _marks, "bars": _bars}


@dataclass(frozen=True)
class Path:
    """A path: ``y`` (frames, n), or (n,) if it stays, over ``x`` (n or 2n)."""

    kind: str
    style: str
    label: str
    x: np.ndarray
    y: np.ndarray
    base: int = LEVELS

    @property
    def moves(self) -> bool:
        """Whether the path differs between frames."""
        return self.y.ndim == 2

    def html(self, frame: int) -> str:
        """The path element of one frame."""
        y = self.y[frame] if self.moves else self.y
        path = PATHS[self.kind](self.x, y, self.base)
        moves = " data-moves" if self.moves else ""
        return f'<path class="ntk-{self.style}"{moves} d="{path}"/>'

    def sample(self) -> str:
        """The legend's entry."""
        shape = {"dots": "M16 6h0", "bars": "M10 1h12v10h-12z"}
        path = shape.get(self.kind, "M0 6h32")
        return (
            f'<span><svg viewBox="0 0 32 12"><path class="ntk-{self.style}" '
            f'd="{path}"/></svg>{escape(self.label)}</span>'
        )


class Plot:
    """What curves and bars share: axes, a legend, and their data."""

    def __repr__(self):
        return type(self).__name__

    @property
    def frames(self) -> int | None:
        """How many frames there are; None if nothing moves."""
        return next((len(p.y) for p in self.parts if p.moves), None)

    def data(self) -> list[dict]:
        """What the page's script needs, one entry for each moving part."""
        x, y = (
            (axis.low, axis.high, axis.scale)
            for axis in (self.x_axis, self.y_axis)
        )
        return [
            {
                "kind": part.kind,
                "axes": [x, y],
                "x": stored(part.x),
                "y": stored(part.y),
                "base": part.base,
            }
            for part in self.parts
            if part.moves
        ]

    def html(self, frame: int) -> str:
        """One frame as HTML, with labels and legend."""
        drawing = "".join(part.html(frame) for part in self.parts)
        samples = "".join(part.sample() for part in self.parts if part.label)
        legend = f'<div class="ntk-legend">{samples}</div>' if samples else ""
        return (
            f"{legend}<div>{escape(self.y_axis.label)}</div>"
            f"{plot(self.x_ticks(), self.y_axis.ticks(), drawing)}"
            f'<div class="ntk-across">{escape(self.x_axis.label)}</div>'
        )

    def x_ticks(self):
        """Position and text of each tick below the plot."""
        return self.x_axis.ticks()

    @property
    def title(self) -> str:
        """What is plotted, in words."""
        return f"{self.y_axis.label} by {self.x_axis.label}"
