"""Where a number lies in a slider's plot.

A plot is drawn twice: by Python for the frame that is seen without a script,
and by the page's script for all others. Both read the same integers, so that
the two drawings agree and a number costs three characters on the page.
"""

import math
from base64 import b64encode
from dataclasses import dataclass
from html import escape

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator

from .. import checks

# An axis is LEVELS steps long: an error of 1/20,000 of its length at most, a
# tenth of a pixel on the finest phone.
LEVELS = 10_000
# How far beyond its ends a curve may run, and what is added before storing.
REACH = 20_000
WIDTH, HEIGHT, TOP, RIGHT, BOTTOM = 340, 214, 8, 16, 24
LETTER = 7.3  # the widest digit at the style sheet's font size


def numbers(value, name: str, *shapes: str) -> np.ndarray:
    """Return ``value`` as float64; the rank must be that of one of ``shapes``.

    ``shapes`` are written as in messages: "(frames, modes)". Raises
    ``ValueError`` on another rank, an empty array, and entries that are not
    finite real numbers.
    """
    value = np.asarray(value)
    if value.dtype.kind in "cOSUM":
        raise ValueError(f"{name} must be real numbers, got {value.dtype}")
    ranks = {shape.count(",") + (not shape.endswith(",)")) for shape in shapes}
    if value.ndim not in ranks or 0 in value.shape:
        raise ValueError(
            f"{name} must have shape {' or '.join(shapes)} and not be empty, "
            f"got {value.shape}"
        )
    return checks.finite(value.astype(float), name)


def text_of(number: float, digits: int = 10) -> str:
    """A number as a tick or a table shows it, with a true minus sign."""
    return f"{number:.{digits}g}".replace("-", "\N{MINUS SIGN}")


def stored(positions) -> str:
    """Integers in [-REACH, LEVELS + REACH] as base64 of 16 bits each.

    Little-endian, as in every browser. The offset keeps the text from
    beginning with ``//``, which would look like an address.
    """
    return b64encode((positions + REACH).astype("<u2").tobytes()).decode()


@dataclass(frozen=True)
class Axis:
    """An axis from ``low`` to ``high``, ``scale`` "linear" or "log"."""

    low: float
    high: float
    scale: str = "linear"
    label: str = ""

    @classmethod
    def around(
        cls, values, name, limits=None, scale="linear", label="", margin=0.04
    ) -> "Axis":
        """The axis that shows all ``values``, or the one between ``limits``.

        On a log scale with limits, 0 lies below the axis: what decays ends
        there. Raises ``ValueError`` on an unknown scale, on limits that are
        not two increasing numbers, and where a log scale meets numbers < 0,
        or 0 without limits.
        """
        log = scale == "log"
        if scale not in ("linear", "log"):
            raise ValueError(f'scale must be "linear" or "log", got {scale!r}')
        lowest = np.min(values)
        if log and (lowest < 0 or lowest == 0 and limits is None):
            raise ValueError(
                f"{name} must be > 0 on a log scale, or >= 0 with limits, got "
                f"{lowest}"
            )
        if limits is not None:
            limits = numbers(limits, f"limits of {name}", "(2,)")
            if len(limits) != 2 or not limits[0] < limits[1]:
                raise ValueError(
                    f"limits of {name} must be two increasing numbers, got "
                    f"{limits.tolist()}"
                )
            if log and not limits[0] > 0:
                raise ValueError(
                    f"limits of {name} must be > 0 on a log scale, got "
                    f"{limits.tolist()}"
                )
            return cls(*limits.tolist(), scale, label)
        ends = np.array([np.min(values), np.max(values)])
        ends = np.log10(ends) if log else ends
        length = ends[1] - ends[0]
        if length <= 1e-9 * abs(ends).max():
            length = 0.1 * abs(ends).max() or 1.0
        ends = ends + margin * length * np.array([-1, 1])
        if not ends[0] < ends[1]:
            raise ValueError(f"{name} must have a range, got {ends.tolist()}")
        ends = 10**ends if log else ends
        return cls(*ends.tolist(), scale, label)

    def positions(self, values) -> np.ndarray:
        """Integers from 0 at ``low`` to LEVELS at ``high``.

        Off by 1/2 at most within the axis; cut at REACH beyond its ends.
        """
        low, high, values = self.low, self.high, np.asarray(values, float)
        if self.scale == "log":
            values = np.maximum(values, np.finfo(float).tiny)
            low, high, values = map(np.log10, (low, high, values))
        steps = np.rint((values - low) / (high - low) * LEVELS)
        return np.clip(steps, -REACH, LEVELS + REACH).astype(int)

    def ticks(self) -> list[tuple[int, str]]:
        """Position and text of each tick within the axis."""
        linear = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10])
        powers = LogLocator(numticks=6), LogLocator(subs=(1, 2, 5), numticks=6)
        for locator in powers if self.scale == "log" else ():
            marks = self._within(locator)
            if len(marks) > 1:
                texts = [_power_of_ten(mark) for mark in marks]
                break
        else:
            marks = self._within(linear)
            texts = [text_of(mark) for mark in marks]
        return list(zip(self.positions(marks).tolist(), texts, strict=True))

    def _within(self, locator):
        marks = locator.tick_values(self.low, self.high)
        marks = np.where(abs(marks) < 1e-12 * abs(marks).max(), 0, marks)
        return marks[(self.low <= marks) & (marks <= self.high)]


def _power_of_ten(number):
    exponent = round(math.log10(number))
    if not math.isclose(number, 10.0**exponent) or -1 < exponent < 3:
        return text_of(number)
    superscript = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    return "10" + str(exponent).translate(superscript)


def plot(across, up, drawing: str) -> str:
    """An SVG with ticks ``across`` and ``up`` around a ``drawing``.

    Ticks are (position, text); the drawing's coordinates are positions, those
    upwards counted down from LEVELS. No namespace is written: HTML needs none.
    """
    left = 10 + LETTER * max((len(text) for _, text in up), default=0)
    width, height = WIDTH - RIGHT - left, HEIGHT - TOP - BOTTOM
    floor = TOP + height
    grid, texts = "", ""
    for position, text in up:
        y = TOP + height * (1 - position / LEVELS)
        grid += f"M{left:.1f} {y:.1f}h{width:.1f}"
        texts += _text(left - 6, y + 4.5, "end", text)
    for position, text in across:
        x = left + width * position / LEVELS
        grid += f"M{x:.1f} {floor}v4"
        texts += _text(x, floor + 18, "middle", text)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" aria-hidden="true">'
        f'<path class="ntk-grid" d="{grid}"/>{texts}'
        f'<svg x="{left:.1f}" y="{TOP}" width="{width:.1f}" height="{height}" '
        f'viewBox="0 0 {LEVELS} {LEVELS}" preserveAspectRatio="none">'
        f"{drawing}</svg>"
        f'<path class="ntk-axis" d="M{left:.1f} {TOP}V{floor}h{width:.1f}"/>'
        "</svg>"
    )


def _text(x, y, anchor, text):
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )
