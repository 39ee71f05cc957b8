"""Pictures that a slider moves: Gram matrices, or a row of images.

A picture is a PNG of one byte a pixel, written here because that is what a
browser unpacks by itself. All pictures of a panel share their first part, the
size and the colours, which is kept once.
"""

import struct
import zlib
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape

import matplotlib
import numpy as np

from .. import checks
from .axes import WIDTH, numbers, text_of

TALLEST = 250  # of a picture on the page, in the units of WIDTH
GAP, LINE = 6, 17


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + check.to_bytes(4)


def png_head(rows: int, columns: int, palette) -> str:
    """The first part of a PNG with ``palette`` (levels, 3), as an address.

    Its 45 + 3 levels bytes are a multiple of three, so that base64 text of
    the rest can be appended. Source: W3C, PNG specification (2003).
    """
    size = struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)
    colours = _chunk(b"PLTE", np.asarray(palette, np.uint8).tobytes())
    head = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", size) + colours
    return "data:image/png;base64," + b64encode(head).decode()


def png_rest(levels) -> str:
    """The rest of a PNG: ``levels`` (rows, columns) of bytes, compressed.

    Rows are stored as they are, or as differences to the left or upwards,
    whichever is shortest.
    """
    levels = np.asarray(levels, np.uint8)
    left, up = (np.diff(levels, axis=a, prepend=0) for a in (1, 0))
    packed = []
    for code, filtered in enumerate((levels, left.astype(np.uint8), up)):
        rows = np.insert(filtered.astype(np.uint8), 0, code, axis=1)
        packed.append(zlib.compress(rows.tobytes(), 9))
    body = _chunk(b"IDAT", min(packed, key=len)) + _chunk(b"IEND", b"")
    return b64encode(body).decode()


@dataclass(frozen=True, eq=False, repr=False)
class Pictures:
    """One picture or a row of them, moving with a :class:`Slider`.

    ``images`` (frames, rows, columns), or (frames, count, rows, columns) for
    ``count`` pictures, ``per_row`` of them side by side, with ``titles``
    below each. All share one scale of ``colours`` (the name of a matplotlib
    colour map: "gray", "viridis", "RdBu_r") between ``limits``, which default
    to the extremes over all frames. ``centre`` makes them symmetric about a
    number, as a diverging colour map needs. Numbers beyond the limits get the
    colour at the end. ``scale_label`` names the scale, ``xlabel`` and
    ``ylabel`` the sides. ``levels`` colours are kept, 2 to 256; fewer take
    less room. A panel whose frames are all equal takes the room of one.

    Raises ``ValueError`` on a wrong shape, non-finite numbers, an unknown
    colour map, and limits that are not two increasing numbers.
    """

    images: Sequence
    colours: str = "viridis"
    limits: tuple | None = None
    centre: float | None = None
    titles: Sequence | None = None
    per_row: int | None = None
    xlabel: str = ""
    ylabel: str = ""
    scale_label: str = ""
    levels: int = 256

    def __post_init__(self):
        if self.colours not in matplotlib.colormaps:
            raise ValueError(
                "colours must be a matplotlib colour map, got "
                f"{self.colours!r}"
            )
        if not 2 <= checks.positive_integer(self.levels, "levels") <= 256:
            raise ValueError(f"levels must be 2 to 256, got {self.levels}")
        count = self.array.shape[1]
        if self.titles is not None and len(self.titles) != count:
            raise ValueError(
                f"titles must be one for each of {count} pictures, got "
                f"{len(self.titles)}"
            )
        checks.positive_integer(self.beside, "per_row")
        self.indices  # noqa: B018, an error must come now, not when it is shown

    def __repr__(self):
        return type(self).__name__

    @cached_property
    def array(self) -> np.ndarray:
        """The pictures, (frames, count, rows, columns)."""
        shapes = "(frames, rows, columns)", "(frames, count, rows, columns)"
        array = numbers(self.images, "images", *shapes)
        return array[:, None] if array.ndim == 3 else array

    @property
    def beside(self) -> int:
        """How many pictures stand side by side."""
        count = min(self.array.shape[1], 8)
        return count if self.per_row is None else self.per_row

    @cached_property
    def ends(self) -> tuple[float, float]:
        """The numbers at the ends of the scale of colours."""
        if self.limits is not None and self.centre is not None:
            raise ValueError("limits and centre exclude each other, got both")
        low, high = float(self.array.min()), float(self.array.max())
        if self.centre is not None:
            centre = float(checks.finite(self.centre, "centre"))
            reach = max(high - centre, centre - low)
            low, high = centre - reach, centre + reach
        if self.limits is not None:
            low, high = map(float, self.limits)
            if not -np.inf < low < high < np.inf:
                raise ValueError(
                    f"limits must be two increasing numbers, got {self.limits}"
                )
        return (low, high) if low < high else (low - 0.5, high + 0.5)

    @cached_property
    def indices(self) -> np.ndarray:
        """The level of each pixel, 0 to levels - 1, shaped like ``array``."""
        low, high = self.ends
        steps = (self.array - low) / (high - low) * (self.levels - 1)
        return np.clip(np.rint(steps), 0, self.levels - 1).astype(np.uint8)

    @cached_property
    def palette(self) -> np.ndarray:
        """The colour of each level, (levels, 3) bytes."""
        shades = np.linspace(0, 1, self.levels)
        colours = matplotlib.colormaps[self.colours](shades)[:, :3]
        return np.rint(255 * colours).astype(np.uint8)

    @property
    def frames(self) -> int:
        """How many frames there are."""
        return len(self.array)

    @property
    def moves(self) -> bool:
        """Whether any two frames differ."""
        return bool((self.indices != self.indices[0]).any())

    @cached_property
    def head(self) -> str:
        """What all pictures begin with."""
        return png_head(*self.array.shape[2:], self.palette)

    def data(self) -> list[dict]:
        """What the page's script needs."""
        frames = [[png_rest(one) for one in frame] for frame in self.indices]
        entry = {"kind": "pictures", "head": self.head, "frames": frames}
        return [entry] if self.moves else []

    def html(self, frame: int) -> str:
        """One frame as HTML, with titles and the scale of colours."""
        count, rows, columns = self.array.shape[1:]
        per_row = self.beside
        line = LINE if self.titles is not None else 0
        cell = (WIDTH - GAP * (per_row - 1)) / per_row
        width = min(cell, TALLEST * columns / rows)
        height = width * rows / columns
        images, frames, texts = "", "", ""
        shown = min(count, per_row)
        for k in range(count):
            down, across = divmod(k, per_row)
            x = (WIDTH - shown * (width + GAP) + GAP) / 2
            x += across * (width + GAP)
            y = 1 + down * (height + line + GAP)
            place = (
                f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
                f'height="{height:.1f}"'
            )
            address = self.head + png_rest(self.indices[frame, k])
            images += (
                f'<image {place} preserveAspectRatio="none" href="{address}"/>'
            )
            frames += f'<rect class="ntk-frame" {place}/>'
            if line:
                texts += (
                    f'<text x="{x + width / 2:.1f}" '
                    f'y="{y + height + 14:.1f}" text-anchor="middle">'
                    f"{escape(str(self.titles[k]))}</text>"
                )
        total = -(-count // per_row) * (height + line + GAP)
        moves = " data-moves" if self.moves else ""
        return (
            f"<div>{escape(self.ylabel)}</div>"
            f'<svg viewBox="0 0 {WIDTH} {total:.1f}" aria-hidden="true">'
            f"<g{moves}>{images}</g>{frames}{texts}</svg>"
            f'<div class="ntk-across">{escape(self.xlabel)}</div>'
            f"{self._scale()}"
        )

    @property
    def title(self) -> str:
        """What is shown, in words."""
        return self.scale_label or self.ylabel or "pictures"

    def table(self, frames) -> dict[str, np.ndarray]:
        """Extremes and mean over all pixels, for a few frames."""
        pixels = self.array[frames].reshape(len(frames), -1)
        return {
            "smallest": pixels.min(1),
            "mean": pixels.mean(1),
            "largest": pixels.max(1),
        }

    def _scale(self):
        picked = self.palette[np.linspace(0, self.levels - 1, 9).astype(int)]
        colours = ",".join(f"#{bytes(c.tolist()).hex()}" for c in picked)
        low, high = (text_of(end, 3) for end in self.ends)
        return (
            f'<div class="ntk-scale"><span>{low}</span>'
            f'<i style="background:linear-gradient(90deg,{colours})"></i>'
            f"<span>{high}</span><span>{escape(self.scale_label)}</span></div>"
        )
