import doctest
import re
from importlib.resources import files

import numpy as np
import pytest
from bs4 import BeautifulSoup
from slider_samples import (
    BARS,
    FIXED,
    FRAMES,
    MOVING,
    POINTS,
    TIMES,
    X,
    curves,
    data_of,
    make,
    read,
)

import ntk_helpers as ntk
from ntk_helpers.slider import figure as module


def test_the_example():
    result = doctest.testmod(module)
    assert result.failed == 0 and result.attempted > 0


def test_size_of_a_typical_figure():
    """60 frames of two curves of 120 points and 20 bars: at most 100 KB."""
    rng = np.random.default_rng(0)
    x = np.linspace(0, 1, 120)
    a, b, heights = (rng.normal(size=(60, n)) for n in (120, 120, 20))
    slider = ntk.Slider(
        label="time t",
        values=np.arange(60),
        panels=[
            ntk.Curves(x, {"a": a, "b": b}, points=(x[::10], x[::10])),
            ntk.Bars(heights, reference=heights[0]),
        ],
        description="Noise, of which no compression makes less.",
        frame_text=["The error is now 0.123 and falling."] * 60,
    )
    assert len(slider.html.encode()) < 65_000


def test_too_large():
    noise = np.random.default_rng(0).normal(size=(FRAMES, 4000))
    panel = ntk.Curves(np.arange(4000), {"f": noise})
    message = r"at most 100 KB on the page, got 1\d\d KB \(Curves 1\d\d KB\)"
    with pytest.raises(ValueError, match=message + ".* fewer than 12 frames"):
        make(panel)


def test_determinism():
    assert make().html == make()._repr_html_()
    assert repr(make()) == "Slider(time t from 0.1 to 50 in 12 frames: " + (
        "Curves, Bars)"
    )


def test_several_on_one_page():
    """Nothing is named twice, and no two scripts are alike."""
    sliders = make(), make(start=1), make(curves()), make(label="t")
    keys = {read(slider).div["data-key"] for slider in sliders}
    assert len(keys) == len(sliders)
    for slider in sliders:
        page = read(slider)
        assert not page.select("[id]") and not page.select("[name]")
        # One expression: it leaves no name behind.
        assert page.script.string.startswith("((key, data) => {")


def test_nothing_is_fetched():
    images = np.random.default_rng(1).uniform(size=(FRAMES, 5, 5))
    html = make(curves(), ntk.Pictures(images)).html
    assert not re.search(r"http|url\(|@import|fetch\(|[\"'`(]//", html)
    for tag in BeautifulSoup(html, "html.parser").select("[src], [href]"):
        assert tag["href"].startswith("data:image/png;base64,")


NASTY = "<b>&\"'</script><!-- // {x} \\u003c é"


def test_words_reach_the_reader_as_they_are():
    slider = make(
        ntk.Curves(
            X, {NASTY: MOVING}, POINTS, NASTY, xlabel=NASTY, ylabel=NASTY
        ),
        ntk.Bars(BARS, [NASTY] * 3, BARS[0], (NASTY, NASTY), NASTY, NASTY),
        ntk.Pictures(
            MOVING.reshape(FRAMES, 2, 4, 5),
            titles=[NASTY] * 2,
            scale_label=NASTY,
            ylabel=NASTY,
        ),
        label=NASTY,
        description=NASTY,
        frame_text=[NASTY] * FRAMES,
        values=[NASTY] * FRAMES,
        format="{}",
    )
    page = read(slider)
    assert len(page.find_all("script")) == 1 and not page.find_all("b")
    assert page.select_one("[role=img]")["aria-label"] == NASTY
    assert page.label.text == page.output.text == NASTY
    assert page.select_one(".ntk-text").text == NASTY
    assert page.text.count(NASTY) > 20
    data = data_of(slider)
    assert data["values"] == data["text"] == [NASTY] * FRAMES


def test_keyboard_and_screen_reader():
    text = [f"t = {t:.2f}: nothing happens" for t in TIMES]
    page = read(make(frame_text=text, start=3))
    control = page.select_one('label input[type="range"]')
    assert control.parent.text == "time t"
    limits = [control[key] for key in ("min", "max", "step", "value")]
    assert limits == ["0", "11", "1", "3"]
    assert control["aria-valuetext"] == page.output.text == f"{TIMES[3]:.3g}"
    # Without a script the control would do nothing, and is not shown.
    assert control.has_attr("hidden")
    assert page.select_one("[aria-live=polite]").text == text[3]
    picture = page.select_one("[role=img]")
    assert picture["aria-label"] == "A wave decays; three bars shrink."
    assert not read(make()).select("[aria-live=polite]")


def test_numbers_as_a_table():
    page = read(make(start=4))
    first, second = page.details.find_all("table")
    rows = [
        [cell.text.replace("\N{MINUS SIGN}", "-") for cell in row]
        for row in second.find_all("tr")
    ]
    assert rows[0] == ["time t", "mode 1", "mode 2", "mode 3"]
    shown = {rows[k][0]: rows[k][1:] for k in range(1, len(rows))}
    for frame in (0, 4, 11):
        expected = [f"{b:.3g}" for b in BARS[frame]]
        assert shown[f"{TIMES[frame]:.3g}"] == expected
    # Two ends and the moving curve alone.
    heads = [head.text for head in first.tr]
    assert heads[1] == "f_t at \N{MINUS SIGN}2" and heads[-1] == "f_t at 3"
    last = [cell.text for cell in first.find_all("tr")[-1].find_all("td")]
    last = [float(text.replace("\N{MINUS SIGN}", "-")) for text in last]
    np.testing.assert_allclose(last, MOVING[-1, [0, 9, 19, 29, 39]], rtol=5e-3)


def test_style_and_script_travel_with_the_package():
    for name in ("slider.css", "slider.js"):
        text = files("ntk_helpers.slider").joinpath(name).read_text("utf-8")
        assert text.strip() in make().html
    assert "min-height: 44px" in make().html


BAD = {
    "panels must have 12 frames.*got 5": lambda: make(ntk.Bars(BARS[:5])),
    "panels must have 12 frames.*got none": lambda: make(
        curves(curves={"f": FIXED})
    ),
    "panels must have 2 frames.*got 12": lambda: make(values=[1, 2]),
    "values must have shape .frames,. with at least 2": lambda: make(
        values=[1]
    ),
    "values must be finite": lambda: make(values=[np.inf] * FRAMES),
    "frame_text must have 12 sentences.*got 1": lambda: make(frame_text=["a"]),
    "start must be an integer in 0, ..., 11, got 12": lambda: make(start=12),
    "start must be .* got 0.5": lambda: make(start=0.5),
    "label must be words": lambda: make(label=""),
    "description must be words": lambda: make(description=" "),
}


@pytest.mark.parametrize("message", BAD)
def test_what_does_not_fit_is_refused(message):
    with pytest.raises(ValueError, match=message):
        BAD[message]()
