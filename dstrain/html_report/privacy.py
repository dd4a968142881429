"""What of a run leaves its machine in a report: no folder names and no secrets. Pure.

A report is sent to others. Where a file is on the machine of training tells them nothing, and may hold the name of a
user, so that an absolute path is shown by its last part: `/home/anna/data/train.tsv` as `…/train.tsv`. Texts of the data stay
as they are.
"""

import re

from dstrain.config.secrets import mask

_PART = r"[^\s/'\"`,;:()\[\]{}<>|=]+"
_HOME = re.compile(rf"(?<![\w./~…-])/(?:home|Users)/{_PART}(?![^\s'\"`,;:()\[\]{{}}<>|=])")
_FOLDERS = re.compile(rf"(?<![\w./~…-])(?:~[\w.-]*/(?:{_PART}/)*|/(?:{_PART}/)+)")
"""The folders of an absolute path in a sentence, up to its last slash; an address (`https://…`) is none."""


def shown_text(text: str) -> str:
    """A sentence for a reader elsewhere: folders of absolute paths become `…/`, keys and tokens `***`."""
    return mask(_FOLDERS.sub("…/", _HOME.sub("…", text)))


def shown_path(text: str) -> str:
    """A value that may be a path, spaces and all, such as one of a recipe or `file:line`."""
    if not re.match(r"(~[\w.-]*)?/", text):
        return shown_text(text)
    folder, _, name = text.rstrip("/").rpartition("/")
    return mask("…" if folder in ("/home", "/Users") else f"…/{name}")
