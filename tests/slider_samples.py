"""What the tests of the slider share: a small figure, and how to read it."""

import json
import re

import numpy as np
from bs4 import BeautifulSoup

import ntk_helpers as ntk

FRAMES = 12
TIMES = np.geomspace(0.1, 50, FRAMES)
X = np.linspace(-2.0, 3.0, 40)
MOVING = np.exp(-TIMES / 20)[:, None] * np.sin(3 * X)
FIXED = np.cos(X)
POINTS = np.linspace(-1.5, 2.5, 7), np.linspace(-1.3, 0.9, 7)
BARS = np.exp(-np.outer(TIMES, [1.0, 0.1, 0.01]))
CURVES = {"f_t": MOVING, "limit": FIXED}


def curves(**changes):
    given = {"x": X, "curves": CURVES, "points": POINTS} | changes
    return ntk.Curves(**given)


def make(*panels, **changes):
    given = {
        "label": "time t",
        "values": TIMES,
        "panels": panels or [curves(), ntk.Bars(BARS)],
        "description": "A wave decays; three bars shrink.",
    }
    return ntk.Slider(**given | changes)


def read(slider):
    return BeautifulSoup(slider.html, "html.parser")


def data_of(slider):
    """The object that the page's script is called with."""
    script = read(slider).script.string
    start = script.rindex('("')
    key, text = re.fullmatch(
        r'\("([0-9a-f]{12})",(\{.*\})\);', script[start:], re.DOTALL
    ).groups()
    assert read(slider).div["data-key"] == key
    return json.loads(text)
