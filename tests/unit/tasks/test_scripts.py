"""Which characters stand for words by themselves, because their script has no spaces."""

import pytest
import regex

from dstrain.tasks.scripts import CHINESE, KANA, UNSPACED, WITHOUT_SPACES


@pytest.mark.parametrize("character", "書注かカไລខမ")
def test_scripts_without_spaces_are_known(character: str) -> None:
    assert regex.fullmatch(f"[{WITHOUT_SPACES}]", character)


@pytest.mark.parametrize("character", "aé한зا1 .")
def test_letters_of_other_scripts_are_not_among_them(character: str) -> None:
    assert not regex.search(f"[{WITHOUT_SPACES}]", character)


def test_a_character_belongs_to_one_part_only() -> None:
    for text, part in (("書", CHINESE), ("か", KANA), ("ไ", UNSPACED)):
        assert [each for each in (CHINESE, KANA, UNSPACED) if regex.search(f"[{each}]", text)] == [part]
