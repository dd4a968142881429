"""Paths of one machine in a text: found before the text is shared, and shortened where it is written. Pure.

A path that begins at the root says who the user is and how a machine is laid out, and leads nowhere elsewhere.
"""

import re

HIDDEN = "…"
_PART = r"[^\s/\\:*?\"'<>|`,;()\[\]{}…]+"
_POSIX = re.compile(rf"(?:(?<![\w./~…-])|(?<=file://))/(?:{_PART}/)+{_PART}/?")
_WINDOWS = re.compile(rf"(?<!\w)[A-Za-z]:(?:\\{{1,2}}{_PART}){{2,}}")
_HOME = re.compile(r"^(?:/(?:home|Users)/[^/]+|/root)(?=/|$)|^[A-Za-z]:\\{1,2}Users\\{1,2}[^\\]+")
MIN_PARTS = 3
"""Parts of a path outside of a home from which on its last two are shown."""


def find_local_paths(text: str) -> list[str]:
    """Each path of a machine in a text once, in their order there; no links of the web."""
    found = [*_POSIX.finditer(text), *_WINDOWS.finditer(text)]
    return list(dict.fromkeys(match[0] for match in sorted(found, key=lambda match: match.start())))


def shorten_paths(text: str) -> str:
    """The text with only the end of such paths: `/home/ann/data/train.tsv` becomes `…/data/train.tsv`."""
    return _WINDOWS.sub(_shorten, _POSIX.sub(_shorten, text))


def _shorten(match: re.Match[str]) -> str:
    in_home, is_home = _HOME.subn("", match[0])
    parts = [part for part in re.split(r"[/\\]+", in_home) if part and not part.endswith(":")]
    kept = parts[-2:] if is_home or len(parts) >= MIN_PARTS else parts[-1:]
    return "/".join([HIDDEN, *kept])
