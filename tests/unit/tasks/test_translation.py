"""Which languages a row is in."""

import pytest

from dstrain.config.recipe import Task
from dstrain.tasks.translation import Languages, choose_languages, choose_prefix


@pytest.mark.parametrize(
    ("source", "target", "chosen"),
    [
        (None, None, Languages("ko", "en")),
        ("ja", None, Languages("ja", "en")),
        (None, "fr", Languages("ko", "fr")),
        ("ja", "fr", Languages("ja", "fr")),
    ],
)
def test_a_row_overrides_the_task_on_each_side_by_itself(
    source: str | None, target: str | None, chosen: Languages
) -> None:
    task = Task(kind="translation", source_language="ko", target_language="en")
    assert choose_languages(task, source=source, target=target) == chosen


def test_families_without_language_codes_get_none() -> None:
    assert choose_languages(Task(kind="translation"), source=None, target=None) == Languages(None, None)


@pytest.mark.parametrize(("own", "chosen"), [(None, "translate: "), (">>fra<< ", ">>fra<< "), ("", "")])
def test_a_row_overrides_the_prefix_of_the_task(own: str | None, chosen: str) -> None:
    task = Task(kind="translation", source_prefix="translate: ")
    assert choose_prefix(task, prefix=own, languages=Languages("ko", "en")) == chosen


def test_a_prefix_names_the_languages_of_its_row() -> None:
    task = Task(kind="translation", source_prefix="{source_language} to {target_language}, {other}: ")
    assert choose_prefix(task, prefix=None, languages=Languages("ko", "en")) == "ko to en, {other}: "
    assert choose_prefix(task, prefix=">>{target_language}<< ", languages=Languages(None, "fr")) == ">>fr<< "
