"""The page: one file that holds everything, lets nothing else run, and gives back its document."""

import base64
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dstrain.html_report import page
from dstrain.html_report.page import LIBRARY, LIBRARY_LICENCE, SCRIPTS, STYLES, build_page

ROOT = Path(__file__).resolve().parents[3]
STATIC = Path(page.__file__).parent / "static"
OWN = [STATIC / name for name in (*SCRIPTS, *STYLES) if "/" not in name]
END = "\0"
HOSTILE = '</script><script>alert(1)</script><img src=x onerror="alert(1)">{{script}} 한국어'


class Elements(HTMLParser):
    """Every element with its attributes, and the text of those that hold text only."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self._texts: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._texts.append([])

    def handle_endtag(self, tag: str) -> None:
        self._texts[-1].append(END)

    def handle_data(self, data: str) -> None:
        if self._texts:
            self._texts[-1].append(data)

    @property
    def texts(self) -> list[tuple[str, str]]:
        held = [
            (tag, "".join(parts).partition(END)[0]) for (tag, _), parts in zip(self.found, self._texts, strict=True)
        ]
        return [(tag, text) for tag, text in held if tag in ("script", "style", "title")]

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def test_the_document_comes_back_byte_for_byte() -> None:
    document = json.dumps({"text": HOSTILE}, ensure_ascii=False).encode()
    scripts = [text for tag, text in Elements(build_page(document, title="run")).texts if tag == "script"]
    assert gzip.decompress(base64.b64decode(scripts[0])) == document


def test_the_same_document_gives_the_same_page() -> None:
    assert build_page(b"{}", title="run") == build_page(b"{}", title="run")


def test_a_title_is_text_whatever_it_says() -> None:
    plain, hostile = (Elements(build_page(b"{}", title=title)) for title in ("run", HOSTILE))
    assert ("title", HOSTILE) in hostile.texts
    assert [tag for tag, _ in hostile.found] == [tag for tag, _ in plain.found]


def test_the_policy_admits_the_scripts_and_the_style_of_the_page_and_nothing_else() -> None:
    elements = Elements(build_page(b"{}", title="run"))
    (policy,) = (each["content"] or "" for each in elements.of("meta") if "http-equiv" in each)
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split(";")}
    _, *scripts = [
        text for tag, text in elements.texts if tag == "script"
    ]  # the first is the document, which does not run
    styles = [text for tag, text in elements.texts if tag == "style"]
    assert rules["script-src"] == [sha256(text) for text in scripts]
    assert rules["style-src"] == [sha256(text) for text in styles]
    assert rules["default-src"] == ["'none'"]
    assert "connect-src" not in rules
    assert rules["require-trusted-types-for"] == ["'script'"]
    assert "unsafe" not in policy


def sha256(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_nothing_is_asked_for_from_elsewhere() -> None:
    elements = Elements(build_page(b"{}", title="run"))
    addresses = [
        value for _, each in elements.found for name, value in each.items() if name in ("src", "href", "action")
    ]
    assert addresses == ["#main"]
    assert elements.of("link") == []


def test_the_library_comes_with_its_licence() -> None:
    text = build_page(b"{}", title="run")
    assert (STATIC / LIBRARY_LICENCE).read_text().strip() in text
    assert (STATIC / LIBRARY).read_text() in text


def test_a_page_without_data_is_small() -> None:
    assert len(build_page(b"{}", title="run").encode()) < 160_000


def test_every_file_of_the_page_is_used_and_in_the_wheel() -> None:
    wheel = pytest.importorskip(
        "hatchling.builders.wheel", reason="hatchling, which builds the wheel, is not installed"
    )
    files = {path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*") if path.is_file()}
    assert files == {*STYLES, *SCRIPTS, LIBRARY, LIBRARY_LICENCE, "page.html"}
    in_wheel = {Path(each.path) for each in wheel.WheelBuilder(str(ROOT)).recurse_included_files()}
    assert {STATIC / name for name in files} <= in_wheel


@pytest.mark.parametrize("path", OWN, ids=lambda path: str(path.name))
def test_own_files_stay_small_open_with_what_they_own_and_never_make_markup_of_text(path: Path) -> None:
    text = path.read_text()
    lines = text.splitlines()
    assert len(lines) <= 400
    assert [line for line in lines if len(line) > 130] == []
    assert lines[0].startswith(("// ", "/* "))
    assert (
        re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|</script", text) == []
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_leaving_out_comments_and_indentation_leaves_the_code(name: str) -> None:
    original = [line.strip() for line in (STATIC / name).read_text().splitlines()]
    code = [line for line in original if line and not line.startswith(("//", "/**", "* ", "*/"))]
    assert [line for line in page._lean(name).splitlines() if line] == code
