"""How many tokens a model has positions for, by its configuration, and limits of a task beyond them. Pure."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from dstrain.config.recipe import Scratch, Task

_LEARNED = ("max_position_embeddings", "max_position_embeddings")
FIELDS = {
    **dict.fromkeys(("mbart", "marian", "bart", "plbart", "mvp", "pegasus", "bigbird_pegasus", "blenderbot"), _LEARNED),
    "led": ("max_encoder_position_embeddings", "max_decoder_position_embeddings"),
}
"""`model_type` to the fields of its configuration with the positions of sources and of targets. Other families have no limit."""
WINDOWS = {"led": "attention_window"}
"""`model_type` to the field with the width to which sources are padded inside the encoder."""


class Positions(NamedTuple):
    """Longest sources and targets that a model accepts, in tokens; None if there is no limit, or it is not known."""

    source: int | None = None
    target: int | None = None


def read_positions(kind: str, field: Callable[[str], Any]) -> Positions:
    """The positions of a model of this `model_type`; `field` returns the value of a field of its configuration, or None.

    Raises OverflowError, TypeError or ValueError for a value that is no number.
    """
    found = (field(name) for name in FIELDS.get(kind, ()))
    source, target = (*(None if value is None else int(value) for value in found), None, None)[:2]
    windows = field(WINDOWS[kind]) if kind in WINDOWS else None
    if source is not None and windows is not None:
        source -= source % (max(windows) if isinstance(windows, list) else windows)
    return Positions(source, target)


def scratch_positions(scratch: Scratch) -> Positions:
    """The positions of a new model, as far as its family limits them."""
    is_limited = scratch.architecture in FIELDS
    return Positions(scratch.max_positions, scratch.max_positions) if is_limited else Positions()


def limits_beyond(task: Task, *, positions: Positions) -> Iterator[tuple[str, str]]:
    """(key, what is wrong and the way out) for each limit of the task that is over the model's positions."""
    for name, most in zip(("max_source_tokens", "max_target_tokens"), positions, strict=True):
        limit = getattr(task, name)
        if most is not None and limit > most:
            yield f"task.{name}", f"is {limit}, but the model has {most} positions: lower it to {most}"
