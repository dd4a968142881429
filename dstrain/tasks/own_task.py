"""A task of the user's own: a class that the recipe names, which turns texts of the data into those of the model and back.

    class Headlines:
        def source(self, text): ...           # what the model reads
        def target(self, text, source): ...   # what it learns to write
        def answer(self, text, source): ...   # what it wrote, in the form of the data: this is scored and predicted

All texts are those of one row; `source` of `target` and `answer` is the source as it is in the data.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

from dstrain.config.recipe import Task
from dstrain.errors import UserError
from dstrain.tasks.own_code import describe_error, file_hash, find_place, load_code, place_of

KEY = "task.kind"
METHODS = ("source", "target", "answer")


class UnusableText(ValueError):
    """A text of which the class of the user's own can make nothing: it raised ValueError."""


@dataclass(frozen=True)
class OwnTask:
    """An instance of the user's own class. Its methods raise UnusableText for one row, UserError if the class is at fault."""

    item: str
    task: Any

    def source(self, text: str, *, where: str) -> str:
        """What the model reads for a source of the data, without prefix; `where` is the place of its row in the data."""
        return self._call("source", text, where=where)

    def target(self, text: str, *, source: str, where: str) -> str:
        """What the model learns to write for a target of the data."""
        return self._call("target", text, source, where=where)

    def answer(self, text: str, *, source: str, where: str) -> str:
        """What the model wrote, in the form of the data."""
        return self._call("answer", text, source, where=where)

    def _call(self, name: str, text: str, *more: str, where: str) -> str:
        method = getattr(self.task, name)
        called, row = f"{KEY} `{self.item}`: `{name}`", f"{text[:200]!r}, of the row {where}"
        try:
            found = method(text, *more)
        except ValueError as error:
            raise UnusableText(f"{called} refuses it ({error})") from error
        except Exception as error:  # whatever the user's code does
            place = find_place(error, item=self.item, function=method)
            raise UserError(
                f"{called} failed on {row} ({describe_error(error)}{place}): correct it; it must return a text, or raise "
                "ValueError for a row that cannot be used"
            ) from error
        if not isinstance(found, str):
            raise UserError(f"{called} returned {found!r} for {row}{place_of(method)}: it must return a text")
        return found


def load_task(task: Task) -> OwnTask | None:
    """The class of the user's own that the recipe names; None for the other kinds.

    Raises UserError if there is no such class, or if it cannot be used.
    """
    return None if task.own is None else _load(task.own)


def code_fingerprint(task: Task) -> list[str]:
    """What decides the texts of a task beside the recipe: a hash of the file of the user's own class, if it has one."""
    return [file_hash(own.item)] if (own := load_task(task)) else []


@cache
def _load(item: str) -> OwnTask:
    made = load_code(item, key=KEY)
    try:
        task = made()
    except Exception as error:  # whatever the user's code does
        place = find_place(error, item=item, function=getattr(made, "__init__", made))
        raise UserError(
            f"{KEY} `{item}`: it cannot be made without arguments ({describe_error(error)}{place})"
        ) from error
    lacking = [name for name in METHODS if not callable(getattr(task, name, None))]
    if lacking:
        raise UserError(f"{KEY} `{item}`: it has no method `{lacking[0]}`: a task has {', '.join(METHODS)}")
    return OwnTask(item, task)
