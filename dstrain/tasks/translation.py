"""Chooses the languages and the prefix of a row. Does not know language codes: the tokenizer checks them."""

from dataclasses import dataclass

from dstrain.config.recipe import Task


@dataclass(frozen=True, slots=True)
class Languages:
    """The tokenizer's codes for both sides; None if the recipe names no language, as for T5 and Marian."""

    source: str | None
    target: str | None


def choose_languages(task: Task, *, source: str | None, target: str | None) -> Languages:
    """Languages of a row: for each side the row's own if it has one, otherwise the task's."""
    return Languages(source=source or task.source_language, target=target or task.target_language)


def choose_prefix(task: Task, *, prefix: str | None, languages: Languages) -> str:
    """The text before the sources of a row: the row's own if it has one, which may be empty, otherwise the task's.

    `{source_language}` and `{target_language}` in it stand for the languages of the row; without one they stay.
    """
    text = task.source_prefix if prefix is None else prefix
    for side, language in (("{source_language}", languages.source), ("{target_language}", languages.target)):
        text = text.replace(side, language or side)
    return text
