"""Whether a card can stand on the Hub: its metadata, its licence, and links that lead to files beside it. Pure."""

import posixpath
import re
from collections.abc import Iterator, Set
from typing import Any

from huggingface_hub import ModelCard

from dstrain.config.licenses import license_problem

_LINK = re.compile(r"(?<!\\)\]\(<?([^)\s>]+)")
_FENCE = re.compile(r"^\s*(`{3,}|~{3,})")
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|#|//", re.IGNORECASE)
"""How a link begins that leads out of the model, or to a heading of the card."""


def check_card(card: str, *, names: Set[str]) -> Iterator[tuple[int, str]]:
    """(line, problem) for what the Hub would refuse or could not show; `names` are the files that go up."""
    yield from _metadata_problems(card, names=names)
    for number, link in _relative_links(card):
        if posixpath.normpath(link) not in names:
            yield number, f"the link `{link}` leads to nothing that goes up: remove it, or put the file into the folder"


def _metadata_problems(card: str, *, names: Set[str]) -> Iterator[tuple[int, str]]:
    try:
        data = _read_metadata(card)
    except Exception as error:  # of the YAML library, or a ValueError about the scores
        reason = str(error).strip().split("\n")[0]
        yield 1, f"its metadata cannot be read ({reason}): correct it, or write the card again with dstrain card"
        return
    if not data:
        yield 1, "has no metadata: it must begin with `---` and YAML; dstrain card writes it"
    licenses = data.get("license") or []
    for license in licenses if isinstance(licenses, list) else [licenses]:
        if problem := license_problem(str(license)):
            yield 1, f"license {problem}; found `{license}`"
    text = str(data.get("license_link") or "")
    if text and not _ELSEWHERE.match(text) and text not in names:
        yield 1, f"license_link `{text}` is no file that goes up: put it into the folder"


def states_license(card: str) -> bool:
    """Whether the metadata of a card that can be read have a licence."""
    return bool(_read_metadata(card).get("license"))


def _read_metadata(card: str) -> dict[str, Any]:
    read: Any = ModelCard(card)
    metadata: dict[str, Any] = read.data.to_dict()
    return metadata


def _relative_links(card: str) -> Iterator[tuple[int, str]]:
    """(line, target without its anchor) of the links and images outside of code that name no address."""
    fence = ""
    for number, line in enumerate(card.split("\n"), start=1):
        mark = _FENCE.match(line)
        if mark and (not fence or mark[1].startswith(fence)):
            fence = "" if fence else mark[1]
        elif not fence:
            for link in _LINK.findall(re.sub(r"`[^`]*`", "", line)):
                if not _ELSEWHERE.match(link):
                    yield number, link.partition("#")[0]
