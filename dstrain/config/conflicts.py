"""Settings that cannot go together: the error that carries them, and the checks across sections. Knows no section."""

import re
from collections.abc import Iterable, Iterator, Mapping

Conflict = tuple[tuple[str, ...], str]
"""The dotted keys involved, first the one at which it is reported, and the message."""

_SCORED = {"translation": ("bleu", "chrf", "loss"), "parsing": ("exact_match", "loss")}
_NEED_LANGUAGES = ("m2m100", "nllb", "mbart")


class ConflictError(ValueError):
    """Settings that exclude each other; the keys are relative to the section that raises."""

    def __init__(self, *conflicts: Conflict) -> None:
        self.conflicts = conflicts
        super().__init__("; ".join(message for _, message in conflicts))


def evaluation_conflicts(
    *, kind: str, metric: str | None, early_stopping: bool, is_periodic: bool, is_elsewhere: bool
) -> Iterator[Conflict]:
    """Metrics that the task does not have, and early stopping without evaluations before the end or of another job's."""
    if metric is not None and metric not in _SCORED[kind]:
        message = f"`{metric}` is not computed for task.kind `{kind}`: take one of {', '.join(_SCORED[kind])}"
        yield ("evaluation.best_metric", "task.kind"), message
    if early_stopping and not is_periodic:
        keys = ("training.early_stopping", "evaluation.every_steps", "evaluation.every_epochs")
        yield keys, "needs evaluation.every_steps or evaluation.every_epochs"
    if early_stopping and is_elsewhere:
        message = "cannot wait for scores of another job: set one of both to null"
        yield ("training.early_stopping", "machine.evaluation_job"), message


def task_conflicts(
    *, kind: str, demos: Mapping[str, str | None], architecture: str | None, languages: Mapping[str, str | None]
) -> Iterator[Conflict]:
    """Demo rows (by dotted key) of another task, and language codes (by key of `task`) that an architecture needs."""
    for key, demo in demos.items():
        if demo not in (None, kind):
            yield (key, "task.kind"), f"demo `{demo}` has no rows for task.kind `{kind}`: make them equal"
    if architecture in _NEED_LANGUAGES and kind == "translation":
        for key, language in languages.items():
            if language is None:
                keys = (f"task.{key}", "model.scratch.architecture", "task.kind")
                yield keys, f"is needed by architecture `{architecture}`"


def named_architecture(name: str, *, known: Iterable[str]) -> str | None:
    """The architecture that a model's name gives away: `t5` for `google/flan-t5-small`, `mt5` for `mt5-small`."""
    parts = re.split(r"[^a-z0-9]+", name.lower())
    return next((architecture for architecture in known if architecture in parts), None)
