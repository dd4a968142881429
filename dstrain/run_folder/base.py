"""The weights of another run that a run began with (`model.from_run`): which they are, and the record beside the copy. No torch.

They are copied into the run folder once. From then on the other run is not read any more.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from dstrain.config.schema import RunConfig
from dstrain.errors import UserError
from dstrain.run_folder.layout import BEST, MODELS, RunFolder
from dstrain.run_folder.reading import parse_json, read_bytes, validate


@dataclass(frozen=True, slots=True)
class BaseRun:
    """Where the copied weights come from."""

    from_run: str
    """The value of `model.from_run`."""
    run: str
    step: int
    sha256: str
    """Of the file of the weights, or of all of them in order where there are several."""
    source_language: str | None = None
    target_language: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What `model.from_run` names."""

    folder: RunFolder
    step: int | None = None
    """The step of a checkpoint; None for a model folder of the run."""
    names: tuple[str, ...] = MODELS
    """The model folders that may be taken, the first of them that exists."""

    def find_model(self) -> Path | None:
        """The model folder; None if the run has none of them, or a checkpoint is meant."""
        found = (self.folder.model(name) for name in self.names if self.step is None)
        return next((path for path in found if path.is_dir()), None)


_RECORD = TypeAdapter(BaseRun)


def parse_from_run(text: str) -> Wanted:
    """`RUN`, `RUN@best` or `RUN@STEP`."""
    run, _, chosen = text.rpartition("@")
    if run and chosen == BEST:
        return Wanted(RunFolder(Path(run)), names=(BEST,))
    if run and chosen.isdecimal():
        return Wanted(RunFolder(Path(run)), step=int(chosen))
    return Wanted(RunFolder(Path(text)))


def read_base(folder: RunFolder) -> BaseRun | None:
    """The record of the weights that a run began with; None if it has copied none.

    Raises:
        RunFolderError: it is damaged.
    """
    if not folder.base_record.is_file():
        return None
    where = str(folder.base_record)
    found: BaseRun = validate(_RECORD, value=parse_json(read_bytes(folder.base_record), where=where), where=where)
    return found


def has_base(config: RunConfig) -> bool:
    """Whether the run folder holds the weights that the recipe names already."""
    base = read_base(RunFolder(Path(config.run_dir)))
    return base is not None and base.from_run == config.model.from_run


def inherit_languages(config: RunConfig, *, of_run: tuple[str | None, str | None]) -> RunConfig:
    """The recipe with the languages of the run that it begins from, where neither the task nor any data source names one."""
    updates: dict[str, Any] = {}
    sources = (*config.data.train, *config.data.eval)
    for key, language in zip(("source_language", "target_language"), of_run, strict=True):
        if getattr(config.task, key) is None and all(getattr(source, key) is None for source in sources):
            updates[key] = language
    return config.model_copy(update={"task": config.task.model_copy(update=updates)})


def check_own(config: RunConfig, *, wanted: Wanted) -> None:
    """Raises UserError for a run that would begin from itself."""
    if wanted.folder.path.resolve() == Path(config.run_dir).resolve():
        raise UserError(
            f"model.from_run: {wanted.folder.path} is this run's own folder: name another run, or another output_dir"
        )
