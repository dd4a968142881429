"""The rows of the demo data, generated once, for the tests of this room."""

from functools import cache
from typing import Literal

from dstrain.tasks.demo.rows import DemoRow, demo_rows

Task = Literal["translation", "parsing", "text"]
TASKS: tuple[Task, ...] = ("translation", "parsing", "text")


@cache
def rows_of(task: Task, split: str, seed: int = 0) -> list[DemoRow]:
    return demo_rows(task, split=split, seed=seed)
