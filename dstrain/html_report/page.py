"""The report page as one file: markup, style, scripts, the chart library and the document, with nothing from elsewhere.

What the page shows is decided by the scripts in `static/`, which read the document alone. What the document says is untrusted:
the scripts set it as text, and the policy of the page lets no other script run, whatever is inserted into it.
"""

import base64
import gzip
import hashlib
import html
import re
from importlib.resources import files

STYLES = ("uplot/uPlot.min.css", "base.css", "controls.css", "parts.css", "rows.css", "print.css")

LIBRARY = "uplot/uPlot.iife.min.js"
LIBRARY_LICENCE = "uplot/LICENSE"

SCRIPTS = (
    "elements.js",
    "texts.js",
    "formats.js",
    "document.js",
    "palette.js",
    "curves.js",
    "chart.js",
    "marks.js",
    "curves_section.js",
    "difference.js",
    "columns.js",
    "buckets.js",
    "ngrams.js",
    "row_list.js",
    "analysis_views.js",
    "hypotheses_section.js",
    "timeline.js",
    "sections.js",
    "main.js",
)
"""In this order; each is a classic script whose functions the later ones use."""


def build_page(document: bytes, *, title: str) -> str:
    """The page for a document of JSON in UTF-8, as HTML; the same input gives the same page."""
    style = "\n".join(_lean(name) for name in STYLES)
    library = f"/*\n{_static(LIBRARY_LICENCE).strip()}\n*/\n{_static(LIBRARY)}"
    script = '"use strict";\n' + "\n".join(_lean(name) for name in SCRIPTS)
    parts = {
        "policy": _policy(style=style, scripts=(library, script)),
        "title": html.escape(title),
        "style": style,
        "library": library,
        "script": script,
        "document": base64.b64encode(gzip.compress(document, mtime=0)).decode(),
    }
    # in one pass, so that a part that looks like a marker stays as it is
    return re.sub(r"\{\{(\w+)\}\}", lambda marker: parts[marker[1]], _static("page.html"))


def _static(name: str) -> str:
    return files("dstrain.html_report").joinpath("static", name).read_text(encoding="utf-8")


def _lean(name: str) -> str:
    """A style sheet or script without indentation and without comments on lines of their own."""
    return re.sub(r"(?m)^[ \t]+", "", re.sub(r"(?ms)^[ \t]*(?://[^\n]*|/\*(?!!).*?\*/)\n", "", _static(name)))


def _policy(*, style: str, scripts: tuple[str, ...]) -> str:
    """A content security policy that admits this style and these scripts only, no request, and no text made into markup."""
    allowed = " ".join(_hash(script) for script in scripts)
    return (
        f"default-src 'none'; script-src {allowed}; style-src {_hash(style)}; img-src data:; base-uri 'none'; "
        "form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
