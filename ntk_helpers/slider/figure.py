"""A figure that a reader moves with a slider, in a page without a kernel.

The page must work offline, from a file, with a keyboard and with a screen
reader, and show a figure where no script runs. So the frame at the start is
drawn by Python as SVG, and a short script written into the page redraws it
from the numbers beside it: no library, no request.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from importlib.resources import files

import numpy as np

from .. import checks
from .axes import REACH, text_of

LARGEST = 100_000  # bytes on the page


@dataclass(frozen=True, eq=False, repr=False)
class Slider:
    """Panels that move together, one frame for each of ``values``.

    ``values`` is what the slider moves over (numbers, or names), written by
    ``format`` and named by ``label``. ``panels`` are :class:`Curves`,
    :class:`Bars` and :class:`Pictures` with ``len(values)`` frames each.
    ``description`` says in words what is seen and how it changes: it is read
    to those who do not see the figure. ``frame_text`` has one sentence for
    each frame, shown below the panels. ``start`` is the frame seen first, and
    the only one where scripts do not run.

    >>> import numpy as np, ntk_helpers as ntk
    >>> x, times = np.linspace(-3, 3, 50), np.arange(10) / 3
    >>> decay = np.exp(-times)[:, None]
    >>> ntk.Slider(
    ...     label="time t",
    ...     values=times,
    ...     panels=[ntk.Curves(x, {"f": decay * np.sin(x), "0": 0 * x})],
    ...     description="A sine wave decays to zero as time goes on.",
    ...     frame_text=[f"amplitude {a:.2f}" for a in decay[:, 0]],
    ... )
    Slider(time t from 0 to 3 in 10 frames: Curves)

    A notebook shows it as HTML when a cell ends with it. In the book, the
    cell's metadata give it a number, a caption and a name for ``{numref}``,
    as for an image: ``mystnb: {figure: {name: fig-..., caption: ...}}``. The
    cell also needs the tag ``nbval-ignore-output``, since its HTML is not
    stored with the notebook.

    Raises ``ValueError`` on panels with another number of frames, when no
    panel moves, on fewer than two values, a missing label or description, and
    when the HTML is larger than 100 KB.
    """

    label: str
    values: Sequence
    panels: Sequence
    description: str
    frame_text: Sequence[str] | None = None
    start: int = 0
    format: str = "{:.3g}"

    def __post_init__(self):
        for name in ("label", "description"):
            if not getattr(self, name).strip():
                raise ValueError(f"{name} must be words, got an empty text")
        count = len(self.texts)
        frames = {panel.frames for panel in self.panels} - {None}
        if frames != {count}:
            raise ValueError(
                f"panels must have {count} frames, one for each of values, "
                f"got {' and '.join(map(str, sorted(frames))) or 'none'}"
            )
        if self.frame_text is not None and len(self.frame_text) != count:
            raise ValueError(
                f"frame_text must have {count} sentences, one for each of "
                f"values, got {len(self.frame_text)}"
            )
        if self.start not in range(count):
            raise ValueError(
                f"start must be an integer in 0, ..., {count - 1}, got "
                f"{self.start!r}"
            )
        self.html  # noqa: B018, an error must come now, not when it is shown

    @cached_property
    def texts(self) -> list[str]:
        """The values as the reader sees them."""
        values = np.asarray(self.values)
        if values.ndim != 1 or len(values) < 2:
            raise ValueError(
                "values must have shape (frames,) with at least 2 frames, got "
                f"{values.shape}"
            )
        if values.dtype.kind in "fc":
            checks.finite(values, "values")
        return [self.format.format(value) for value in values.tolist()]

    @cached_property
    def html(self) -> str:
        """The whole figure, the same text for the same input."""
        panels = [panel.html(self.start) for panel in self.panels]
        data = [panel.data() for panel in self.panels]
        script, key = self._script(sum(data, []), "".join(panels))
        html = "".join(
            (
                f'<div class="ntk-slider" data-key="{key}" role="group" '
                f'aria-label="Figure with a slider: {escape(self.label)}">',
                f"<style>{_part('slider.css')}</style>",
                f'<div class="ntk-panels" role="img" '
                f'aria-label="{escape(self.description)}">',
                *(f'<div class="ntk-panel">{panel}</div>' for panel in panels),
                "</div>",
                self._control(),
                self._tables(),
                f"<script>{script}</script></div>",
            )
        )
        self._check_size(html, panels, data)
        return html

    def _repr_html_(self):
        return self.html

    def __repr__(self):
        names = ", ".join(map(repr, self.panels))
        return (
            f"Slider({self.label} from {self.texts[0]} to {self.texts[-1]} in "
            f"{len(self.texts)} frames: {names})"
        )

    def _script(self, parts, drawing):
        data = {"offset": REACH, "values": self.texts, "parts": parts}
        if self.frame_text is not None:
            data["text"] = list(map(str, self.frame_text))
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        text = text.replace("<", "\\u003c")  # no tag, no comment begins
        seen = self.label + self.description + drawing + text
        key = hashlib.sha256(seen.encode()).hexdigest()[:12]
        return f'{_part("slider.js").rstrip()}("{key}",{text});', key

    def _control(self):
        last, text = len(self.texts) - 1, escape(self.texts[self.start])
        room = max(map(len, self.texts))
        line = ""
        if self.frame_text is not None:
            sentence = escape(str(self.frame_text[self.start]))
            line = f'<p class="ntk-text" aria-live="polite">{sentence}</p>'
        # Screen readers say aria-valuetext; the same in the output is silent.
        return (
            f'<div class="ntk-control"><label><span>{escape(self.label)}'
            f'</span><input type="range" min="0" max="{last}" step="1" '
            f'value="{self.start}" aria-valuetext="{text}" autocomplete="off" '
            f'hidden></label><output aria-live="off" style="min-width:'
            f'{room}ch">{text}</output></div>{line}'
        )

    def _tables(self):
        last = len(self.texts) - 1
        frames = {*np.linspace(0, last, 7).astype(int).tolist(), self.start}
        frames = sorted(frames)
        tables = ""
        for panel in self.panels:
            columns = panel.table(frames)
            if not columns:
                continue
            title = escape(panel.title)
            heads = "".join(f"<th>{escape(name)}</th>" for name in columns)
            rows = ""
            for k, frame in enumerate(frames):
                cells = (text_of(c[k], 3) for c in columns.values())
                cells = "".join(f"<td>{cell}</td>" for cell in cells)
                head = f"<th>{escape(self.texts[frame])}</th>"
                rows += f"<tr>{head}{cells}</tr>"
            tables += (
                f'<div class="ntk-table" role="group" tabindex="0" '
                f'aria-label="Numbers: {title}"><table><caption>{title}'
                f"</caption><tr><th>{escape(self.label)}</th>{heads}</tr>"
                f"{rows}</table></div>"
            )
        return f"<details><summary>Numbers</summary>{tables}</details>"

    def _check_size(self, html, panels, data):
        size = len(html.encode())
        if size <= LARGEST:
            return
        shares = (
            f"{panel!r} {(len(drawn) + len(json.dumps(moved))) / 1000:.0f} KB"
            for panel, drawn, moved in zip(
                self.panels, panels, data, strict=True
            )
        )
        raise ValueError(
            f"a slider must take at most {LARGEST // 1000} KB on the page, "
            f"got {size / 1000:.0f} KB ({', '.join(shares)}): take fewer than "
            f"{len(self.texts)} frames, fewer points of a curve, or smaller "
            "pictures or fewer levels"
        )


def _part(name):
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
