"""The scripts of languages, by the codes of every family; nothing is said of unknown ones."""

import pytest

from dstrain.data.characters import BLOCKS
from dstrain.tasks.language_scripts import _OF_SUFFIX, _WRITTEN_IN, scripts_of


@pytest.mark.parametrize(
    ("language", "scripts"),
    [
        ("ko", {"Hangul"}),
        ("ko_KR", {"Hangul"}),
        ("kor_Hang", {"Hangul"}),
        ("__ko__", {"Hangul"}),
        ("en_XX", {"Latin"}),
        ("sr", {"Cyrillic", "Latin"}),
        ("srp_Cyrl", {"Cyrillic"}),
        ("zh_CN", {"Han or Kana"}),
        ("ja", {"Han or Kana"}),
        ("zh_romanised", set()),
        ("tlh", set()),
        ("", set()),
        (None, set()),
    ],
)
def test_a_code_gives_its_scripts(language: str | None, scripts: set[str]) -> None:
    assert scripts_of(language) == scripts


def test_scripts_have_the_names_that_texts_are_told_by() -> None:
    assert {*_OF_SUFFIX.values(), *_WRITTEN_IN} <= BLOCKS.keys()
