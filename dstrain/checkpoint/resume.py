"""Decides, before the engine exists, whether a run resumes and from which checkpoint.

The recipe, the data, the tokenizer and the cut must be those of the checkpoint. Every difference is reported with both
values and refused, unless the user has allowed that field to change.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dstrain.checkpoint.manifest import CheckpointError, Manifest
from dstrain.checkpoint.state import STATE_FILE, RunState, load_state
from dstrain.checkpoint.store import current_dirs, newest_valid
from dstrain.config.arguments import shell_command
from dstrain.config.differences import differences
from dstrain.config.earlier import fill_earlier
from dstrain.errors import UserError
from dstrain.run_folder.claims import Claim

log = logging.getLogger(__name__)


DATA_PATHS = re.compile(r"data\.(train|eval)\.\d+\.(path|target_path(\.\d+)?)")
"""Recipe keys that may differ: another machine may keep the files elsewhere, and their content is compared instead."""


class ResumeRefused(UserError):
    """The run folder has checkpoints, but the run must not resume from them with this recipe and these data."""


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between an attempt and the checkpoint."""

    field: str
    """A dotted key of the configuration, or `tokenizer`."""
    old: Any
    new: Any
    about: str = ""
    """What the values are, if not those of the configuration key itself."""

    def __str__(self) -> str:
        about = f" ({self.about})" if self.about else ""
        old, new = ("null" if value is None else repr(value) for value in (self.old, self.new))
        return f"{self.field}{about}: {old} in the checkpoint, {new} now"


@dataclass(frozen=True, slots=True)
class TrainingInputs:
    """What an attempt would train with; compared with what the checkpoint was trained with."""

    recipe: Mapping[str, Any]
    data: Mapping[str, str]
    """As RunState.data."""
    source_names: Mapping[str, str]
    """File or hub name of every source by its key in `data`."""
    cut: Mapping[str, Any]


@dataclass(frozen=True)
class Resume:
    """The checkpoint to resume from."""

    directory: Path
    state: RunState
    world_size: int
    """Ranks that saved it."""
    allowed: tuple[Change, ...] = ()
    """Changes since then that the user allowed."""


def find_resume(
    root: Path, *, inputs: TrainingInputs, claims: Sequence[Claim] = (), allowed: Iterable[str] = ()
) -> Resume | None:
    """The newest valid checkpoint under `root`, or None for a new run.

    Args:
        claims: claims of the run folder, to skip checkpoints of a writer that no longer held the lease.
        allowed: fields that may have changed; `training` allows every key below it.

    Raises:
        ResumeRefused: the recipe or the data have changed, or no checkpoint is valid.
        CheckpointError: the files match the manifest, but do not hold the state of a run.
    """
    found = newest_valid(
        root, claims=claims, on_broken=lambda problem: log.warning("not a valid checkpoint: %s", problem)
    )
    if found is None:
        if broken := current_dirs(root, claims=claims):
            raise ResumeRefused(
                f"none of the {len(broken)} checkpoints in {root} is valid, so the run cannot resume: move that folder away to "
                "start again, or restore the files named above"
            )
        for field in allowed:
            log.warning("--allow-changed %s is ignored: there is no checkpoint to resume from", field)
        return None
    directory, manifest = found
    state = load_state(directory)
    if state.step != manifest.step:
        raise CheckpointError(f"{directory / STATE_FILE}: is of step {state.step}, the manifest says {manifest.step}")
    changes = list(find_changes(manifest, state=state, inputs=inputs))
    wanted = tuple(allowed)
    for field in wanted:
        if not any(_is_allowed(change.field, (field,)) for change in changes):
            log.warning("--allow-changed %s is ignored: no field of that name has changed", field)
    refused = [change for change in changes if not _is_allowed(change.field, wanted)]
    if refused:
        listed = "\n  ".join(map(str, refused))
        fields = " ".join(f"--allow-changed {field}" for field in dict.fromkeys(change.field for change in refused))
        export = shell_command(["dstrain", "export", directory.parent.parent])
        raise ResumeRefused(
            f"{directory} cannot be continued, because what is learned has changed:\n  {listed}\n"
            f"Undo the change; or start afresh in another run folder: output_dir=…; or continue all the same with {fields}; "
            f"or start a new run from these weights: {export} MODEL_FOLDER, then "
            "model.name=MODEL_FOLDER output_dir=…"
        )
    return Resume(directory, state, manifest.world_size, tuple(changes))


def find_changes(manifest: Manifest, *, state: RunState, inputs: TrainingInputs) -> Iterator[Change]:
    """Every difference between an attempt and a checkpoint."""
    recipe = fill_earlier(manifest.recipe)
    for key, old, new in differences(recipe, inputs.recipe):
        if not DATA_PATHS.fullmatch(key):
            yield Change(key, old, new)
    changed = [key for key in sorted({*state.data, *inputs.data}) if state.data.get(key) != inputs.data.get(key)]
    causes = [key for key in changed if key not in ("train", "eval")]
    for key in causes:
        about = f"content of {inputs.source_names[key]}" if key in inputs.source_names else "fingerprint"
        yield Change(key, state.data.get(key), inputs.data.get(key), about=about)
    for split in changed:
        # token ids follow from sources, tokenizer and recipe: they are reported only if none of these explains the change
        explained = any(cause == "tokenizer" or cause.startswith(f"data.{split}") for cause in causes)
        if split in ("train", "eval") and not explained and recipe == inputs.recipe:
            yield Change(
                f"data.{split}", state.data.get(split), inputs.data.get(split), about="fingerprint of the token ids"
            )
    for key, old, new in differences(state.cut, inputs.cut):
        yield Change(f"machine.{key}", old, new, about="cuts steps into micro-batches, which dropout depends on")


def _is_allowed(field: str, allowed: Sequence[str]) -> bool:
    return any(field == name or field.startswith(f"{name}.") for name in allowed)
