"""Checks of the built book, run by `make check` on _build/html.

Each check takes a page and returns what is wrong with it. The lower half of
the file shows each one a bad page, so that it is known to bite.
"""

import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from bs4 import BeautifulSoup, Comment

SITE = Path(__file__).parents[2] / "_build" / "html"
PAGES = sorted(
    page
    for page in SITE.rglob("*.html")
    if not {"_static", "_sources"} & set(page.relative_to(SITE).parts)
)

OUTSIDE = re.compile(r"(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)
CSS_LOADS = re.compile(r"""(?:url\(\s*|@import\s+)["']?([^"')\s;]+)""")
# What a browser fetches without a click, as (selector, attribute).
LOADS = (
    ("script, img, iframe, embed, source, track, video, audio, input", "src"),
    ("img, source", "srcset"),
    ("video", "poster"),
    ("object", "data"),
    ("image, use", "href"),
    ("image, use", "xlink:href"),
)
LOADING_LINKS = {
    *("stylesheet", "icon", "preload", "modulepreload", "prefetch"),
    *("preconnect", "dns-prefetch", "manifest", "apple-touch-icon"),
}
FILE_NAME = re.compile(r"\S+\.(?:png|svg|jpe?g|gif|webp)$", re.IGNORECASE)
# A command, an opening delimiter, a dollar pair, a role or a fence.
RAW_MARKUP = re.compile(
    r"\\[a-zA-Z]{2,}|\\[(\[]|\$\$|\$[^\s$][^$]*\$|\{[a-z:-]+\}`|:::|```"
)
# What a slider's panel shows before its script runs: "" is no path.
DRAWN = '[role=img] :is(path[d^="M"][data-moves], [data-moves] image[href])'


@cache
def read(path):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def loaded(page):
    """Addresses that the page fetches by itself."""
    for selector, attribute in LOADS:
        for tag in page.select(selector):
            value = tag.get(attribute)
            if value and attribute == "srcset":
                yield from (part.split()[0] for part in value.split(","))
            elif value:
                yield value
    for link in page.find_all("link", href=True):
        if LOADING_LINKS & set(link.get("rel", [])):
            yield link["href"]
    for style in page.find_all("style"):
        yield from CSS_LOADS.findall(style.get_text())
    for tag in page.find_all(style=True):
        yield from CSS_LOADS.findall(tag["style"])


def outside_resources(page):
    wrong = [address for address in loaded(page) if OUTSIDE.match(address)]
    # A script written into the page may fetch what it names.
    for script in page.find_all("script", src=False):
        wrong += re.findall(r"""["'`]((?:https?:)?//\w[^"'`]*)""", str(script))
    return wrong


def broken_links(page, path):
    """Links and local files that lead nowhere, seen from the page's path."""
    wrong = []
    targets = [a["href"] for a in page.select("a[href], area[href]")]
    for address in [*targets, *loaded(page)]:
        parts = urlsplit(address)
        if parts.scheme or parts.netloc:
            continue
        target = (path.parent / unquote(parts.path)).resolve()
        if not parts.path:
            target = path
        if not target.is_file():
            wrong.append(f"{address}: no such file")
        elif parts.fragment and target.suffix == ".html":
            there = page if target == path else read(target)
            name = unquote(parts.fragment)
            if not there.find(attrs={"id": name}) and not there.find(
                "a", attrs={"name": name}
            ):
                wrong.append(f"{address}: no such place on the page")
    return wrong


def poor_alt_texts(page):
    """Images in the text whose description is missing or says nothing."""
    wrong = []
    for image in page.select("article img, figure img"):
        alt = image.get("alt", "").strip()
        if FILE_NAME.match(alt) or len(alt.split()) < 3:
            wrong.append(f"{image.get('src', '')[-40:]}: alt text {alt!r}")
        elif RAW_MARKUP.search(alt):
            wrong.append(f"raw TeX in alt text {alt!r}")
    return wrong


def raw_markup(page):
    """TeX and MyST that reach the reader as they were typed."""
    wrong = []
    for text in page.find_all(string=RAW_MARKUP):
        if isinstance(text, Comment) or text.find_parent(
            ["script", "style", "code", "pre"]
        ):
            continue
        if not text.find_parent(class_="math"):
            wrong.append(" ".join(text.split())[:80])
    return wrong


def error_output(page):
    """Blocks in which a cell's warnings or errors are shown."""
    blocks = page.select(".stderr, .traceback")
    return [block.get_text().strip()[:80] for block in blocks]


def doubled_scripts(page):
    seen, wrong = set(), []
    for script in page.find_all("script"):
        name = script.get("src", "").split("?")[0] or script.get_text().strip()
        if name in seen:
            wrong.append(name[:80])
        seen.add(name)
    return wrong


def poor_sliders(page):
    """Sliders that leave somebody out: see each line."""
    wrong = []
    for control in page.select("article input[type=range]"):
        slider = control.find_parent(class_="ntk-slider")
        if slider is None:
            wrong.append("a slider that is not the package's")
            continue
        if not control.find_parent("label") or not control.parent.text.strip():
            wrong.append("a slider without a label")
        picture = slider.select_one("[role=img]")
        words = picture.get("aria-label", "") if picture else ""
        if len(words.split()) < 3 or RAW_MARKUP.search(words):
            wrong.append(f"a slider's text alternative is {words!r}")
        if not slider.select(DRAWN):
            wrong.append("a slider that shows nothing without a script")
        size = len(str(slider).encode())
        if size > 100_000:
            wrong.append(f"a slider of {size} bytes")
    return wrong


CHECKS = [
    outside_resources,
    broken_links,
    poor_alt_texts,
    raw_markup,
    error_output,
    doubled_scripts,
    poor_sliders,
]


def run(check, page, path):
    return check(page, path) if check is broken_links else check(page)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(SITE)))
def test_page(path, check):
    wrong = run(check, read(path), path)
    assert wrong == []


def test_the_book_is_there():
    assert (SITE / "index.html") in PAGES
    assert len(PAGES) > 5


def test_style_sheets_load_nothing_from_outside():
    for sheet in SITE.rglob("*.css"):
        found = CSS_LOADS.findall(sheet.read_text(encoding="utf-8"))
        assert not [url for url in found if OUTSIDE.match(url)], sheet.name


def test_formulas_need_no_network():
    mathjax = SITE / "_static" / "mathjax"
    assert list(mathjax.glob("output/chtml/fonts/woff-v2/*.woff"))
    for path in PAGES:
        page = read(path)
        if page.select(".math"):
            scripts = page.select('script[src*="mathjax/tex-mml-chtml.js"]')
            assert len(scripts) == 1, path.name


SLIDER = """<div class="ntk-slider">
<div role="img" aria-label="A line that falls."><path data-moves d="M0 0L1 1">
</div><label>time t <input type="range" max="9"></label></div>"""

BAD = [
    (outside_resources, '<script src="https://cdn.example/a.js"></script>'),
    (outside_resources, '<link rel="stylesheet" href="//cdn.example/a.css">'),
    (outside_resources, '<link rel="preconnect" href="https://a.example">'),
    (outside_resources, '<img src="http://a.example/a.png">'),
    (outside_resources, '<img srcset="a.png, https://a.example/b.png 2x">'),
    (outside_resources, '<iframe src="https://a.example/"></iframe>'),
    (outside_resources, '<p style="background: url(//a.example/a.png)">x</p>'),
    (outside_resources, '<style>@import "https://a.example/a.css";</style>'),
    (outside_resources, '<script>load("https://a.example/a.js")</script>'),
    (broken_links, '<a href="gone.html">x</a>'),
    (broken_links, '<a href="#gone">x</a>'),
    (broken_links, '<a href="other.html#gone">x</a>'),
    (broken_links, '<script src="gone.js"></script>'),
    (poor_alt_texts, '<article><img src="a.png"></article>'),
    (poor_alt_texts, '<article><img src="a.png" alt=""></article>'),
    (
        poor_alt_texts,
        '<figure><img src="a.png" alt="_images/a.png"></figure>',
    ),
    (poor_alt_texts, '<article><img src="a.png" alt="a plot"></article>'),
    (
        poor_alt_texts,
        '<figure><img src="a.png" alt="the $x$ axis"></figure>',
    ),
    (raw_markup, "<p>where $x$ is</p>"),
    (raw_markup, r"<p>\begin{aligned} x</p>"),
    (raw_markup, r"<title>The \(\beta\) page</title>"),
    (raw_markup, "<p>see {prf:ref}`thm-limit`</p>"),
    (raw_markup, "<p>:::{note}</p>"),
    (error_output, '<div class="output stderr"><pre>oh</pre></div>'),
    (doubled_scripts, '<script src="a.js"></script><script src="a.js?v=1">'),
    (doubled_scripts, "<script>let a = 1</script><script>let a = 1</script>"),
    *(
        (poor_sliders, f"<article>{SLIDER.replace(good, bad)}</article>")
        for good, bad in (
            ("ntk-slider", "slider"),
            ("time t", ""),
            ("label>", "p>"),
            ("A line that falls.", ""),
            ("A line that falls.", "line 1"),
            ("A line that falls.", "the curve $f_t$ falls"),
            ("M0 0L1 1", ""),
            ("</div><label>", "</div><script>" + 100_000 * "1" + "</script>"),
        )
    ),
]

GOOD = (
    r"""
<title>A page</title><script src="a.js"></script><script>let a = 1</script>
<style>p { background: url("a.png") }</style>
<article id="top"><a href="#top">up</a><a href="other.html#there">x</a>
<a href="https://a.example/">a link that waits for a click</a>
<p>It costs $5 <span class="math">\(\beta\)</span> <code>{ref}`x`</code></p>
<img src="a.png" alt="A falling line, then a plateau."></article>
"""
    + f"<article>{SLIDER}</article>"
)


@pytest.fixture
def small_site(tmp_path):
    for name in ("a.js", "a.png"):
        (tmp_path / name).touch()
    (tmp_path / "other.html").write_text('<p id="there">x</p>')
    return tmp_path


@pytest.mark.parametrize(("check", "html"), BAD)
def test_a_bad_page_is_caught(check, html, small_site):
    path = small_site / "page.html"
    path.write_text(html)
    assert run(check, read(path), path)


@pytest.mark.parametrize("check", CHECKS)
def test_a_good_page_passes(check, small_site):
    path = small_site / "page.html"
    path.write_text(GOOD)
    assert not run(check, read(path), path)
