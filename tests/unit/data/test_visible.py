"""Characters that show nothing are no text, however many there are."""

import pytest

from dstrain.data.visible import has_visible_text


@pytest.mark.parametrize(
    "text",
    ["", " ", "\t\n", "\u200b", "\ufeff", "\u200b \u200d", "\xa0\u3000", "\u3164", "\u2800", "\xad", "\u2060", "\x00\x07",
     "\u115f\u1160", "\ufe0f", "\U000e0041", "\u202e\u202c", "\ufffa"],
)  # fmt: skip
def test_nothing_is_visible(text: str) -> None:
    assert not has_visible_text(text)


@pytest.mark.parametrize("text", ["a", "한", ".", "\u200ba", "\u0301", "😀", "\ue000", "0", "。", "\u0600", "<unk>"])
def test_something_is_visible(text: str) -> None:
    assert has_visible_text(text)
