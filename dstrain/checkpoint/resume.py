"""Decides, before the engine exists, whether a run resumes and from which checkpoint.

The recipe, the data, the tokenizer and the cut must be those of the checkpoint. Every difference is reported with both
values and refused, unless the user has allowed that field to change and `changes` says how the run resumes.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dstrain.checkpoint.changes import Change, Part, find_parts
from dstrain.checkpoint.manifest import CheckpointError, Manifest
from dstrain.checkpoint.state import STATE_FILE, RunState, load_state
from dstrain.checkpoint.store import current_dirs, newest_valid
from dstrain.config.arguments import shell_command, weights_overrides
from dstrain.config.differences import differences
from dstrain.config.earlier import fill_earlier
from dstrain.config.vocabulary import default_at
from dstrain.config.yaml_source import write_value
from dstrain.errors import UserError
from dstrain.run_folder.claims import Claim

log = logging.getLogger(__name__)


DATA_PATHS = re.compile(r"data\.(train|eval)\.\d+\.(path|target_path(\.\d+)?)")
"""Recipe keys that may differ: another machine may keep the files elsewhere, and their content is compared instead."""


class ResumeRefused(UserError):
    """The run folder has checkpoints, but the run must not resume from them with this recipe and these data."""


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
class Found:
    """The newest valid checkpoint of a run folder."""

    directory: Path
    manifest: Manifest
    state: RunState


@dataclass(frozen=True)
class Resume:
    """The checkpoint to resume from."""

    directory: Path
    state: RunState
    world_size: int
    """Ranks that saved it."""
    allowed: tuple[Change, ...] = ()
    """Changes since then that the user allowed."""
    parts: frozenset[Part] = frozenset()
    """What these changes reset."""

    def before(self, field: str, *, now: Any) -> Any:
        """The value of a key in the checkpoint, where `now` is the present one."""
        return next((change.old for change in self.allowed if change.field == field), now)


def find_checkpoint(root: Path, *, claims: Sequence[Claim] = ()) -> Found | None:
    """The newest valid checkpoint under `root`, or None for a new run.

    Args:
        claims: claims of the run folder, to skip checkpoints of a writer that no longer held the lease.

    Raises:
        ResumeRefused: no checkpoint is valid.
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
        return None
    directory, manifest = found
    state = load_state(directory)
    if state.step != manifest.step:
        raise CheckpointError(f"{directory / STATE_FILE}: is of step {state.step}, the manifest says {manifest.step}")
    return Found(directory, manifest, state)


def check_recipe(found: Found, *, recipe: Mapping[str, Any], allowed: Iterable[str] = ()) -> None:
    """Check the recipe alone, before the data are read.

    Raises:
        ResumeRefused: the recipe has changed.
    """
    _refuse(found, list(_recipe_changes(found.manifest, recipe=recipe)), recipe=recipe, allowed=tuple(allowed))


def check_inputs(found: Found, *, inputs: TrainingInputs, allowed: Iterable[str] = ()) -> Resume:
    """The resume from a checkpoint with its changes.

    Args:
        allowed: fields that may have changed; `training` allows every key below it.

    Raises:
        ResumeRefused: the recipe or the data have changed.
    """
    changes, wanted = list(find_changes(found.manifest, state=found.state, inputs=inputs)), tuple(allowed)
    for field in wanted:
        if not any(_is_allowed(change.field, (field,)) for change in changes):
            log.warning("--allow-changed %s is ignored: no field of that name has changed", field)
    _refuse(found, changes, recipe=inputs.recipe, allowed=wanted)
    parts = find_parts(changes, old=found.state.data, new=inputs.data)
    return Resume(found.directory, found.state, found.manifest.world_size, tuple(changes), parts)


def find_changes(manifest: Manifest, *, state: RunState, inputs: TrainingInputs) -> Iterator[Change]:
    """Every difference between an attempt and a checkpoint."""
    in_recipe = list(_recipe_changes(manifest, recipe=inputs.recipe))
    yield from in_recipe
    changed = [key for key in sorted({*state.data, *inputs.data}) if state.data.get(key) != inputs.data.get(key)]
    causes = [key for key in changed if key not in ("train", "eval")]
    for key in causes:
        about = f"content of {inputs.source_names[key]}" if key in inputs.source_names else "fingerprint"
        yield Change(key, state.data.get(key), inputs.data.get(key), about=about)
    may_change_ids = {*causes, *(change.field for change in in_recipe if change.field.startswith(("task.", "data.")))}
    for split in changed:
        # token ids follow from sources, tokenizer and recipe: they are reported only if none of these explains the change
        sections = ("tokenizer", "task.", "data.rules.", f"data.{split}")
        if split in ("train", "eval") and not any(field.startswith(sections) for field in may_change_ids):
            yield Change(
                f"data.{split}", state.data.get(split), inputs.data.get(split), about="fingerprint of the token ids"
            )
    for key, old, new in differences(state.cut, inputs.cut):
        yield Change(f"machine.{key}", old, new, about="cuts steps into micro-batches, which dropout depends on")


def _recipe_changes(manifest: Manifest, *, recipe: Mapping[str, Any]) -> Iterator[Change]:
    earlier = fill_earlier(manifest.recipe)
    for key, old, new in differences(earlier, recipe):
        if not DATA_PATHS.fullmatch(key) and not _is_new_default(key, new=new, earlier=earlier):
            yield Change(key, old, new)


def _is_new_default(key: str, *, new: Any, earlier: Mapping[str, Any]) -> bool:
    """Whether a checkpoint of an earlier version lacks the key, and the key has its default."""
    *sections, last = path = [int(part) if part.isdecimal() else part for part in key.split(".")]
    section: Any = earlier
    for part in sections:
        if isinstance(section, Mapping):
            section = section.get(part)
        elif isinstance(section, list) and isinstance(part, int) and part < len(section):
            section = section[part]
    return isinstance(section, Mapping) and last not in section and default_at(tuple(path)) == new


def _refuse(found: Found, changes: Sequence[Change], *, recipe: Mapping[str, Any], allowed: Sequence[str]) -> None:
    """Raise ResumeRefused for the changes that are not allowed or cannot be, with the ways out."""
    never = [change for change in changes if change.rule.is_refused]
    refused = never + [change for change in changes if change not in never and not _is_allowed(change.field, allowed)]
    if not refused:
        return
    listed = "\n  ".join(f"{change}. {_consequence(change)}" for change in refused)
    fields = " ".join(f"--allow-changed {field}" for field in dict.fromkeys(change.field for change in refused))
    ways = ["Undo the change", "start afresh in another run folder: output_dir=…"]
    ways += [] if never else [f"continue all the same with {fields}"]
    ways += [f"start a new run from these weights: {describe_new_run(found.directory.parent.parent, recipe=recipe)}"]
    raise ResumeRefused(
        f"{found.directory} cannot be continued, because what is learned has changed:\n  {listed}\n{'; or '.join(ways)}"
    )


def _consequence(change: Change) -> str:
    rule = change.rule
    return f"Cannot be allowed: {rule.effect}" if rule.is_refused else f"If allowed: {rule.effect}"


def describe_new_run(run: Path, *, recipe: Mapping[str, Any]) -> str:
    """How to begin a run with the weights of another."""
    weights = f"{run}-weights"
    started = [*weights_overrides(weights, model=recipe["model"]), f"output_dir={write_value(f'{run}-2')}"]
    overrides = shell_command(started)
    return f"{shell_command(['dstrain', 'export', run, weights])}, then the same command with {overrides}"


def _is_allowed(field: str, allowed: Sequence[str]) -> bool:
    return any(field == name or field.startswith(f"{name}.") for name in allowed)
