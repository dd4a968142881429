"""What an exported folder says of the task that its model was trained for, so that it predicts without its recipe. No torch."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from dstrain.config.recipe import Task
from dstrain.config.schema import RunConfig
from dstrain.run_folder.layout import TASK_SETTINGS
from dstrain.run_folder.reading import parse_json, read_bytes, validate
from dstrain.tasks.translation import choose_languages, choose_prefix


@dataclass(frozen=True, slots=True)
class TaskSettings:
    """A task, and the languages and prefixes of its training rows."""

    task: Task
    trained_with: Mapping[str, list[str | None]]
    """Key of `task` to the distinct values of the training rows, in the order of the recipe."""


_ADAPTER = TypeAdapter(TaskSettings)


def settings_of(config: RunConfig) -> TaskSettings:
    """The settings of a run's recipe."""
    task, data = config.task, config.data
    pairs = [choose_languages(task, source=each.source_language, target=each.target_language) for each in data.train]
    found: dict[str, list[str | None]] = {
        "source_language": [pair.source for pair in pairs],
        "target_language": [pair.target for pair in pairs],
        "source_prefix": [
            choose_prefix(task, prefix=each.source_prefix, languages=pair)
            for each, pair in zip(data.train, pairs, strict=True)
        ],
    }
    return TaskSettings(task, {key: list(dict.fromkeys(values)) for key, values in found.items()})


def write_task_settings(folder: Path, *, config: RunConfig) -> None:
    """Write the settings of a run's recipe into a folder that is being made."""
    settings = asdict(settings_of(config)) | {"task": config.task.model_dump()}
    (folder / TASK_SETTINGS).write_text(json.dumps(settings, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def read_task_settings(folder: Path) -> TaskSettings | None:
    """The settings that a model folder holds; None if it has none, as a published one.

    Raises:
        RunFolderError: the file is damaged.
    """
    file = folder / TASK_SETTINGS
    try:
        content = read_bytes(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    found: TaskSettings = validate(_ADAPTER, value=parse_json(content, where=str(file)), where=str(file))
    return found
