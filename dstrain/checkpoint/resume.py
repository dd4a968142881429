"""Whether a run goes on from a checkpoint, and from which: decided before the engine exists.

The recipe and the data must be those that made the checkpoint; what differs is named with both values.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dstrain.checkpoint.state import RunIdentity, RunState, load_state
from dstrain.checkpoint.store import checkpoint_dirs, newest_valid

log = logging.getLogger(__name__)


PLACE_OF_DATA = re.compile(r"data\.(train|eval)\.\d+\.(path|target_path)")
"""Recipe keys that may differ: another machine keeps the files elsewhere, and their content is compared itself."""


class ResumeRefused(ValueError):
    """The run folder holds a checkpoint that this recipe or these data must not go on from."""


@dataclass(frozen=True)
class Resume:
    """The checkpoint to go on from."""

    directory: Path
    state: RunState
    world_size: int
    """Ranks that saved it."""


def find_resume(root: Path, *, identity: RunIdentity, data: Mapping[str, str]) -> Resume | None:
    """The newest valid checkpoint under `root`, None for a new run.

    Raises:
        ResumeRefused: it was made by another recipe or from other data.
    """
    found = newest_valid(root, on_broken=lambda problem: log.warning("not a valid checkpoint: %s", problem))
    if found is None:
        if broken := checkpoint_dirs(root):
            raise ResumeRefused(
                f"none of the {len(broken)} checkpoints in {root} is whole, so the run cannot go on: move that folder away to "
                "begin again, or restore the files named above"
            )
        return None
    directory, manifest = found
    state = load_state(directory)
    changes = [
        f"{key}: {old!r} in the checkpoint, {new!r} now"
        for key, old, new in differences(manifest.recipe, identity.recipe)
        if not PLACE_OF_DATA.fullmatch(key)
    ]
    changes += [
        f"{split} data: fingerprint {state.data.get(split)} in the checkpoint, {fingerprint} now"
        for split, fingerprint in data.items()
        if state.data.get(split) != fingerprint
    ]
    if changes:
        listed = "\n  ".join(changes)
        raise ResumeRefused(
            f"{directory} cannot be continued, because what is learned has changed:\n  {listed}\n"
            "Undo the change, or start a new run with another output_dir (or name)"
        )
    return Resume(directory, state, manifest.world_size)


def differences(old: Any, new: Any, *, at: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted key, old and new value of every leaf in which two trees of mappings and lists differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            yield from differences(old.get(key), new.get(key), at=f"{at}.{key}" if at else str(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from differences(before, after, at=f"{at}.{index}")
    elif old != new:
        yield at, old, new
