import re
import struct
from base64 import b64decode

import jax.numpy as jnp
import numpy as np
import pytest
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


def integers(text):
    """Two bytes a number, the low one first, 20,000 too large."""
    packed = b64decode(text)
    numbers = struct.unpack(f"<{len(packed) // 2}H", packed)
    return np.array(numbers) - 20_000


def padded(*arrays):
    """The ends of an axis: 4 % beyond the extremes."""
    low = min(np.min(array) for array in arrays)
    high = max(np.max(array) for array in arrays)
    return low - 0.04 * (high - low), high + 0.04 * (high - low)


def path_numbers(path):
    return np.array(re.findall(r"-?\d+", path["d"]), float)


@pytest.mark.parametrize("start", (0, 5))
def test_the_frame_without_a_script(start):
    """Coordinates are tenths of a thousandth of an axis, rounded."""
    page = read(make(start=start))
    moving, fixed, dots, bars = page.select("svg svg path")
    across = padded(X)
    up = padded(MOVING, FIXED, POINTS[1])

    def place(values, ends):
        return (values - ends[0]) / (ends[1] - ends[0]) * 10_000

    for path, x, y in (
        (moving, X, MOVING[start]),
        (fixed, X, FIXED),
        (dots, *POINTS),
    ):
        got = path_numbers(path)
        if path is dots:
            assert (got[2::3] == 0).all()
            got = np.delete(got, np.s_[2::3])
        got = got.reshape(-1, 2)
        assert np.abs(got[:, 0] - place(x, across)).max() <= 0.5 + 1e-9
        y = 10_000 - place(y, up)
        assert np.abs(got[:, 1] - y).max() <= 0.5 + 1e-9
    left, base, top, right, back = path_numbers(bars).reshape(-1, 5).T
    ends = padded(BARS, 0)
    bottom = 10_000 - place(0, ends)
    assert (back == base).all() and np.abs(base - bottom).max() <= 0.5
    heights = (bottom - top) / 10_000 * (ends[1] - ends[0])
    # Base and top are rounded once each.
    assert np.abs(heights - BARS[start]).max() <= (ends[1] - ends[0]) / 1e4
    centres = 10_000 * (np.arange(3) + 0.5) / 3
    assert np.abs((left + right) / 2 - centres).max() <= 0.5
    assert page.output.text == f"{TIMES[start]:.3g}"


@pytest.mark.parametrize("scale", ("linear", "log"))
def test_the_numbers_for_the_script(scale):
    """Every frame comes back, up to half a step of the axis."""
    heights = MOVING if scale == "linear" else np.exp(3 * MOVING)
    reference = BARS[::-1]
    slider = make(
        curves(curves={"f": heights}, points=None, yscale=scale),
        ntk.Bars(BARS, reference=reference, yscale=scale, ylim=(1e-25, 2)),
        ntk.Curves(np.exp(X), {"f": heights, "0": X**2}, xscale="log"),
    )
    data = data_of(slider)
    assert data["values"] == [f"{t:.3g}" for t in TIMES]
    assert [p["kind"] for p in data["parts"]] == [
        *("line", "bars", "marks", "line")
    ]
    arrays = heights, BARS, reference, heights
    for part, array in zip(data["parts"], arrays, strict=True):
        low, high, kind = part["axes"][1]
        assert low < array.min() and high > array.max()
        got = integers(part["y"]).reshape(array.shape)
        warp = np.log if kind == "log" else np.asarray
        share = (warp(array) - warp(low)) / (warp(high) - warp(low))
        assert np.abs(1 - got / 1e4 - share).max() <= 0.5e-4 + 1e-9
    part = data["parts"][-1]
    low, high, kind = part["axes"][0]
    assert kind == "log"
    x = low * (high / low) ** (integers(part["x"]) / 1e4)
    half = np.log(high / low) / 2e4
    assert np.abs(np.log(x) - X).max() <= half * (1 + 1e-6)


def test_all_that_moves_is_marked_in_the_order_of_the_data():
    images = np.random.default_rng(0).uniform(size=(FRAMES, 2, 3, 3))
    moving_points = POINTS[0], np.outer(TIMES, POINTS[1])
    slider = make(
        curves(curves={"fixed": FIXED, "f": MOVING}, points=moving_points),
        ntk.Curves(X, {"fixed": FIXED}),
        ntk.Pictures(images),
        ntk.Pictures(np.ones((FRAMES, 4, 4))),
        ntk.Bars(BARS, reference=BARS[0]),
    )
    marked = read(slider).select("[data-moves]")
    kinds = [part["kind"] for part in data_of(slider)["parts"]]
    assert kinds == ["line", "dots", "pictures", "bars"]
    assert [tag.name for tag in marked] == ["path", "path", "g", "path"]
    assert len(marked[2].find_all("image")) == 2


@pytest.mark.parametrize("scale", ("linear", "log"))
@pytest.mark.parametrize("low", (1e-12, 0.3, 40.0))
@pytest.mark.parametrize("ratio", (1.5, 1e4))
def test_ticks_stand_where_they_say(scale, low, ratio):
    """Their texts, read as numbers, give their places to a tenth of a unit."""
    high = low * ratio
    y = np.broadcast_to(np.linspace(low, high, 40), (FRAMES, 40))
    panel = ntk.Curves(X, {"f": y}, yscale=scale, ylim=(low, high))
    svg = read(make(panel)).select_one(".ntk-panel > svg")
    ticks = svg.select('text[text-anchor="end"]')
    assert len(ticks) >= 2
    inner = svg.svg
    top, height = float(inner["y"]), float(inner["height"])
    plain = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    for tick in ticks:
        text = tick.text.replace("\N{MINUS SIGN}", "-")
        power = re.fullmatch("10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)", text)
        number = (
            10.0 ** int(power[1].translate(plain)) if power else float(text)
        )
        warp = np.log if scale == "log" else np.asarray
        share = (warp(number) - warp(low)) / (warp(high) - warp(low))
        assert 0 <= share <= 1
        # Text is 4.5 below its line, coordinates have one decimal.
        y = top + height * (1 - share) + 4.5
        assert abs(float(tick["y"]) - y) < 0.1 + height / 2e4


def test_what_leaves_the_axis_keeps_its_slope():
    """Right up to two axes beyond; then cut, so that 16 bits are enough."""
    y = np.linspace(-4.0, 5.0, 10)
    panel = ntk.Curves(np.arange(10), {"f": np.tile(y, (FRAMES, 1))})
    panel = ntk.Curves(panel.x, panel.curves, ylim=(0, 1))
    got = integers(data_of(make(panel))["parts"][0]["y"])[:10]
    assert (got == np.clip(10_000 * (1 - y), -20_000, 30_000)).all()


def test_what_has_decayed_lies_below_a_log_axis():
    heights = np.where(BARS < 1e-9, 0, BARS)
    part = data_of(make(ntk.Bars(heights, yscale="log", ylim=(1e-6, 1))))
    got = integers(part["parts"][0]["y"]).reshape(heights.shape)
    assert (got[heights == 0] == 30_000).all()


@pytest.mark.parametrize(
    "array", (np.zeros((FRAMES, 40)), np.full((FRAMES, 40), -7e8))
)
def test_a_constant_has_an_axis(array):
    low, high, _ = data_of(make(ntk.Curves(X, {"f": array})))["parts"][0][
        "axes"
    ][1]
    assert low < array[0, 0] < high


def test_bars_begin_at_zero_and_stand_on_their_names():
    """Also where all heights are far from 0; names are 0.1 of a unit off."""
    slider = make(ntk.Bars(BARS + 10, labels=("a", "b", "c")))
    part = data_of(slider)["parts"][0]
    low, high, _ = part["axes"][1]
    assert abs(10_000 * (1 + low / (high - low)) - part["base"]) <= 0.5
    assert -1 < low < 0 and high > 11
    svg = read(slider).select_one(".ntk-panel > svg")
    names = svg.select('text[text-anchor="middle"]')
    assert [name.text for name in names] == ["a", "b", "c"]
    left, width = float(svg.svg["x"]), float(svg.svg["width"])
    for k, name in enumerate(names):
        x = left + width * (k + 0.5) / 3
        assert abs(float(name["x"]) - x) < 0.1 + width / 1e4
    many = read(make(ntk.Bars(np.tile(BARS, 40))))
    names = [t.text for t in many.select('text[text-anchor="middle"]')]
    assert names[0] == "1" and 4 < len(names) < 20


def test_jax_arrays_and_integers():
    slider = make(
        ntk.Curves(jnp.asarray(X), {"f": jnp.asarray(MOVING)}),
        ntk.Bars(jnp.arange(FRAMES * 3).reshape(FRAMES, 3)),
        values=jnp.arange(FRAMES),
        format="{:d}",
    )
    assert data_of(slider)["values"] == [str(k) for k in range(FRAMES)]


BAD = {
    "shape .frames, n. or .n,.": lambda: curves(curves={"f": X[None, None]}),
    "'f'. must have 40 points, got shape .12, 3": lambda: curves(
        curves={"f": BARS}
    ),
    "'f'. must be finite, got 1 NaN": lambda: curves(
        curves={"f": np.where(X == X[3], np.nan, X)}
    ),
    "same number of frames, got 3 and 12": lambda: curves(
        curves={"f": MOVING, "g": MOVING[:3]}
    ),
    "x must have shape .n,. and not be empty, got .0,": lambda: curves(x=[]),
    "x must be real numbers, got complex": lambda: curves(x=X + 1j),
    "curves must be 1 to 5 by name, got 0": lambda: curves(curves={}),
    "curves must be 1 to 5 by name, got 6": lambda: curves(
        curves=dict.fromkeys("abcdef", X)
    ),
    "y of points must have 7 points": lambda: curves(points=(POINTS[0], X)),
    'scale must be "linear" or "log", got': lambda: curves(yscale="symlog"),
    "x must be > 0 on a log scale, or .* got -2": lambda: curves(xscale="log"),
    "limits of curves must be > 0": lambda: curves(
        curves={"f": X**2}, points=None, yscale="log", ylim=(0, 1)
    ),
    "limits of x must be two increasing": lambda: curves(xlim=(1, 1)),
    "limits of curves must be finite": lambda: curves(ylim=(0, np.inf)),
    "heights must have shape .frames, modes": lambda: ntk.Bars(BARS[0]),
    "reference must have 3 modes": lambda: ntk.Bars(BARS, reference=X),
    "labels must be one for each of 3 modes": lambda: ntk.Bars(BARS, ["a"]),
}


@pytest.mark.parametrize("message", BAD)
def test_what_does_not_fit_is_refused(message):
    with pytest.raises(ValueError, match=message):
        BAD[message]()


def test_bars_name_as_many_modes_as_fit():
    """Neighbours must not touch; a long name only needs room for itself."""
    four = ["erf", "relu 0.5", "relu 0.1", "normalized"]
    bars = ntk.Bars(np.ones((2, 4)), labels=four)
    assert [name for _, name in bars.x_ticks()] == four
    many = ntk.Bars(np.ones((2, 40)))
    names = [name for _, name in many.x_ticks()]
    assert names[:2] == ["1", str(1 + int(names[1]) - int(names[0]))]
    assert 8 < len(names) < 40
    long = ntk.Bars(np.ones((2, 4)), labels=[16 * c for c in "abcd"])
    assert [name[0] for _, name in long.x_ticks()] == ["a", "c"]
