"""What the built pages need and the theme does not do: see each function."""

import re
import shutil
from importlib import metadata
from pathlib import Path

# Of the 24 MB in the package: the one file that typesets TeX, the fonts it
# asks for, and the TeX extensions (\boldsymbol, \cancel) it loads on need.
MATHJAX_PARTS = (
    "tex-mml-chtml.js",
    "output/chtml/fonts/woff-v2",
    "input/tex/extensions",
)


def copy_mathjax(app, exception):
    """Put MathJax next to the theme's own files."""
    if exception or app.builder.format != "html":
        return
    package = metadata.distribution("sphinx-mathjax-offline")
    source = Path(package.locate_file("sphinx-mathjax-offline/static/mathjax"))
    target = Path(app.outdir, "_static", "mathjax")
    for part in MATHJAX_PARTS:
        to = target / part
        to.parent.mkdir(parents=True, exist_ok=True)
        if (source / part).is_dir():
            shutil.copytree(source / part, to, dirs_exist_ok=True)
        else:
            shutil.copyfile(source / part, to)


def load_once(app, pagename, templatename, context, doctree):
    """Drop a script or style sheet that the page names a second time."""
    seen = set()
    for kind in ("script_files", "css_files"):
        kept = []
        for asset in context.get(kind, []):
            name = (
                getattr(asset, "filename", asset) or None,
                getattr(asset, "attributes", {}).get("body"),
            )
            if name not in seen:
                kept.append(asset)
            seen.add(name)
        context[kind] = kept


# A formula with what is attached to it: a bracket, a full stop, "-th".
SPAN = r'<span class="math notranslate nohighlight">[^<]*</span>'
TAIL = r"[^\s<&]{1,12}(?=[\s<])"
ATTACHED = re.compile(rf"[(\[]+{SPAN}(?:{TAIL})?|{SPAN}{TAIL}")


def keep_together(app, pagename, templatename, context, doctree):
    """Let no line begin with the full stop or comma behind a formula."""
    if "body" in context:
        context["body"] = ATTACHED.sub(
            r'<span class="keep-together">\g<0></span>', context["body"]
        )


def setup(app):
    # After every extension has added what it loads.
    app.connect("html-page-context", load_once, priority=900)
    app.connect("html-page-context", keep_together)
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
