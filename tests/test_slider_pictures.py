import io
import json
import re
from base64 import b64decode

import matplotlib
import matplotlib.image
import numpy as np
import pytest
from bs4 import BeautifulSoup

import ntk_helpers as ntk

FRAMES = 5
RNG = np.random.default_rng(0)
NOISE = RNG.normal(size=(FRAMES, 3, 6, 4))
SMOOTH = np.add.outer(np.arange(FRAMES), np.add.outer(X := np.arange(9.0), X))


def make(panel, **changes):
    given = {
        "label": "depth L",
        "values": range(FRAMES),
        "panels": [panel],
        "description": "Pictures of noise.",
        "format": "{:d}",
    }
    return ntk.Slider(**given | changes)


def pixels(address):
    """Red, green and blue of a picture, decoded by matplotlib, in [0, 1]."""
    head, text = address.split(",")
    assert head == "data:image/png;base64"
    decoded = matplotlib.image.imread(io.BytesIO(b64decode(text)), "png")
    return decoded[..., :3]


def addresses(slider):
    """All pictures as the page's script joins them, frame by frame."""
    script = BeautifulSoup(slider.html, "html.parser").script.string
    data = json.loads(re.search(r'",(\{.*\})\);$', script)[1])
    (part,) = data["parts"]
    return [[part["head"] + rest for rest in f] for f in part["frames"]]


@pytest.mark.parametrize("array", (NOISE, SMOOTH[:, None]))
def test_grey_values(array):
    """Black to white from the least to the greatest, to half a level."""
    slider = make(ntk.Pictures(array, colours="gray"))
    low, high = array.min(), array.max()
    for frame, row in enumerate(addresses(slider)):
        for picture, address in zip(array[frame], row, strict=True):
            shade = (picture - low) / (high - low)
            error = np.abs(pixels(address) - shade[..., None]).max()
            assert error <= 0.5 / 255 + 1e-6


def test_one_picture_a_frame():
    four, three = (
        make(ntk.Pictures(array)) for array in (SMOOTH[:, None], SMOOTH)
    )
    assert four.html == three.html


@pytest.mark.parametrize("start", (0, 3))
def test_the_frame_without_a_script(start):
    slider = make(ntk.Pictures(NOISE), start=start)
    images = BeautifulSoup(slider.html, "html.parser").find_all("image")
    assert [i["href"] for i in images] == addresses(slider)[start]
    for image in images:
        width, height = float(image["width"]), float(image["height"])
        assert height == pytest.approx(width * 6 / 4, abs=0.15)
    assert len({i["x"] for i in images}) == 3
    ends = [float(i["x"]) + float(i["width"]) for i in images]
    assert max(ends) <= 340


def test_rows_and_titles():
    panel = ntk.Pictures(NOISE, per_row=2, titles=("a", "b", "c"))
    page = BeautifulSoup(make(panel).html, "html.parser")
    images, texts = page.find_all("image"), page.select("svg text")
    assert [text.text for text in texts] == ["a", "b", "c"]
    assert [images[0][k] for k in "x"] == [images[2][k] for k in "x"]
    assert images[0]["y"] == images[1]["y"] < images[2]["y"]
    for image, text in zip(images, texts, strict=True):
        below = float(text["y"]) - float(image["y"]) - float(image["height"])
        assert below == pytest.approx(14, abs=0.11)


def test_diverging_colours():
    """The number at the centre is white, and limits are symmetric."""
    panel = ntk.Pictures(SMOOTH, colours="RdBu_r", centre=2.0, levels=255)
    reach = SMOOTH.max() - 2
    shade = (SMOOTH + reach - 2) / (2 * reach)
    levels = np.rint(shade * 254) / 254
    expected = matplotlib.colormaps["RdBu_r"](levels)[..., :3]
    slider = make(panel)
    for frame, (address,) in enumerate(addresses(slider)):
        assert np.abs(pixels(address) - expected[frame]).max() < 0.51 / 255
    scale = BeautifulSoup(slider.html, "html.parser").select_one(".ntk-scale")
    low, high = (span.text for span in scale.find_all("span")[:2])
    assert (low, high) == ("\N{MINUS SIGN}16", "20")


def test_limits_and_levels():
    """Beyond the limits the end's colour; with two levels, two colours."""
    panel = ntk.Pictures(SMOOTH, colours="gray", limits=(5, 6), levels=2)
    for frame, (address,) in enumerate(addresses(make(panel))):
        expected = (SMOOTH[frame] > 5.5) * 1.0
        assert (pixels(address)[..., 0] == expected).all()


def test_a_panel_that_stays_is_kept_once():
    still = np.broadcast_to(NOISE[0], NOISE.shape)
    both = make(None, panels=[ntk.Pictures(NOISE), ntk.Pictures(still)])
    page = BeautifulSoup(both.html, "html.parser")
    assert len(page.find_all("image")) == 6
    assert len(page.select("[data-moves]")) == 1


def test_size_of_real_digits_and_of_gram_matrices():
    """Eight digits in 30 frames; a matrix of 40 points in 30 frames."""
    digits = ntk.datasets.digits().x[:8].reshape(8, 8, 8)
    mix = np.linspace(0, 1, 30)[:, None, None, None]
    noise = RNG.uniform(size=digits.shape)
    cosine = np.cos(np.subtract.outer(np.arange(40), np.arange(40)) / 7)
    depth = np.arange(1, 31)[:, None, None]
    for array in (mix * digits + (1 - mix) * noise, cosine**depth):
        slider = make(ntk.Pictures(array), values=range(30))
        assert len(slider.html.encode()) < 80_000


def test_too_large():
    noise = RNG.uniform(size=(FRAMES, 150, 150))
    with pytest.raises(ValueError, match=r"Pictures 1\d\d KB.*fewer levels"):
        make(ntk.Pictures(noise))
    fewer = make(ntk.Pictures(noise, levels=4))
    assert len(fewer.html.encode()) < 100_000


def test_numbers_as_a_table():
    page = BeautifulSoup(make(ntk.Pictures(SMOOTH)).html, "html.parser")
    rows = [[c.text for c in row] for row in page.table.find_all("tr")]
    assert rows[0] == ["depth L", "smallest", "mean", "largest"]
    assert rows[1:] == [
        [str(k), str(k), str(k + 8), str(k + 16)] for k in range(FRAMES)
    ]


def with_nan():
    array = SMOOTH.copy()
    array[0, 0, 0] = np.nan
    return array


BAD = {
    "images must have shape .frames, rows, columns. or": {"images": X},
    "images must be finite, got 1 NaN": {"images": with_nan()},
    "colours must be a matplotlib colour map": {"colours": "grey scale"},
    "levels must be 2 to 256, got 300": {"levels": 300},
    "levels must be an integer >= 1": {"levels": 2.5},
    "titles must be one for each of 1 pictures": {"titles": "ab"},
    "limits must be two increasing numbers": {"limits": (1, 0)},
    "limits and centre exclude": {"limits": (0, 1), "centre": 0},
    "per_row must be an integer": {"per_row": 1.5},
    "centre must be finite": {"centre": np.nan},
}


@pytest.mark.parametrize("message", BAD)
def test_what_does_not_fit_is_refused(message):
    with pytest.raises(ValueError, match=message):
        ntk.Pictures(**{"images": SMOOTH} | BAD[message])
