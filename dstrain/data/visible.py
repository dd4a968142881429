"""Whether a text shows anything. White space is not all that is invisible: data from the web has zero-width characters."""

import re

INVISIBLE = (
    r"\s\x00-\x1f\x7f-\x9f"
    # Unicode's Default_Ignorable_Code_Point, which Python's unicodedata does not have
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff"
    "\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    # marks of interlinear annotation, and Braille without a dot
    "\ufff9-\ufffb\u2800"
)
_VISIBLE = re.compile(f"[^{INVISIBLE}]")


def has_visible_text(text: str) -> bool:
    """Whether at least one character of the text is drawn."""
    return _VISIBLE.search(text) is not None
