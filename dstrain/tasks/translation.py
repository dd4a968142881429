"""Which languages a row is in. Knows no language code by name: the tokenizer that owns the codes checks them."""

from dataclasses import dataclass

from dstrain.config.recipe import Task


@dataclass(frozen=True, slots=True)
class Languages:
    """The tokenizer's own codes for the two sides; None where the recipe names none, as T5 and Marian allow."""

    source: str | None
    target: str | None


def choose_languages(task: Task, *, source: str | None, target: str | None) -> Languages:
    """Languages of a row: its own where it names them, the task's otherwise, each side by itself."""
    return Languages(source=source or task.source_language, target=target or task.target_language)
