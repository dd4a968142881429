"""Saves in the background: copies the state to host memory between two steps, then hashes and writes while training runs.

Every rank writes what it owns; the ranks agree on the outcome before the checkpoint is committed. At most one save is in
flight. Does not decide when to save.
"""

import logging
import shutil
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from dstrain.checkpoint.disk_space import SPARE_BYTES
from dstrain.checkpoint.manifest import CheckpointError, FileEntry, Manifest
from dstrain.checkpoint.parts import write_blocks, write_tensors
from dstrain.checkpoint.state import STATE_FILE, HostBuffers, RunState, Snapshot, take_snapshot, with_engine_state
from dstrain.checkpoint.store import (
    CheckpointName,
    begin_save,
    commit_save,
    remove_leftover,
    remove_leftovers,
    verify_committed,
)
from dstrain.cluster.process_group import Ranks
from dstrain.engine.engine import Engine

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """What a manifest records about the run that saved it."""

    recipe_hash: str
    recipe: dict[str, Any]
    versions: dict[str, str]
    lease: int = 0
    """Number of the writer's lease on the run folder."""


@dataclass(frozen=True, slots=True)
class SaveOutcome:
    """How a save ended; the same on every rank."""

    step: int
    directory: Path | None
    """The checkpoint, or None if the save failed."""
    problem: str | None = None
    """Why the save failed."""


class Saver:
    """Saves a run's state; `save` and `finish` are collective: all ranks call them at the same step."""

    def __init__(
        self,
        root: Path,
        *,
        engine: Engine,
        identity: RunIdentity,
        ranks: Ranks,
        check_lease: Callable[[], None],
        sync_records: Callable[[], None],
        prune: Callable[[], None],
        on_stage: Callable[[str], None],
    ) -> None:
        """`ranks` must be a process group of its own: its collectives run at the same time as those of training.

        `check_lease` is called before a commit and raises if another writer has taken the folder. `sync_records` syncs the
        logged rows to disk, since a checkpoint implies that everything up to its step is recorded. `prune` is called after
        a commit, and `on_stage` with each stage.
        """
        self._root = root
        self._engine = engine
        self._identity = identity
        self._ranks = ranks
        self._check_lease = check_lease
        self._sync_records = sync_records
        self._prune = prune
        self._on_stage = on_stage
        self._buffers = HostBuffers(ranks.device)
        self._in_flight: Future[SaveOutcome] | None = None

    def save(self, state: RunState, *, scores: Mapping[str, float] | None) -> list[SaveOutcome]:
        """Wait for the previous save, copy the state and begin to write it; returns the outcome of the previous save."""
        before = self.finish()
        snapshot = take_snapshot(self._engine, ranks=self._ranks, buffers=self._buffers)
        complete = with_engine_state(state, engine=self._engine)
        future: Future[SaveOutcome] = Future()

        def work() -> None:
            try:
                outcome = self._write(snapshot, complete, scores=scores)
            except BaseException as error:  # raised in the training thread by `finish`
                self._on_stage("idle")
                future.set_exception(error)
            else:
                # before the result, which lets the next save begin
                self._on_stage("idle")
                future.set_result(outcome)

        threading.Thread(target=work, name="dstrain-saver", daemon=True).start()
        self._in_flight = future
        return before

    @property
    def is_writing(self) -> bool:
        """Whether a save is in flight that has not ended; ranks may differ."""
        return self._in_flight is not None and not self._in_flight.done()

    def poll(self) -> list[SaveOutcome]:
        """The outcome of the save in flight if it has ended, else an empty list; not collective, ranks may differ."""
        return [] if self.is_writing else self.finish()

    def finish(self) -> list[SaveOutcome]:
        """Wait for the save in flight, if there is one, and return its outcome.

        Raises:
            LeaseLost: another writer has taken the folder.
            Exception: whatever else ended the save, such as a failed collective.
        """
        if self._in_flight is None:
            return []
        future, self._in_flight = self._in_flight, None
        return [future.result()]

    def tidy(self) -> None:
        """Remove, on rank 0, what an earlier process was killed before removing; no save may be in flight."""
        assert self._in_flight is None
        if self._ranks.rank == 0:
            self._remove_old()
            self._on_stage("idle")

    def _write(self, snapshot: Snapshot, state: RunState, *, scores: Mapping[str, float] | None) -> SaveOutcome:
        ranks, on_stage = self._ranks, self._on_stage
        on_stage("begin")
        total_bytes = int(ranks.sum([snapshot.num_bytes])[0])
        begun = self._begin(state.step, num_bytes=total_bytes) if ranks.rank == 0 else None
        parts, problem = ranks.broadcast(begun, tuple[Path | None, str | None])
        if problem is not None:
            return SaveOutcome(state.step, None, problem)
        written = ranks.gather(self._write_parts(snapshot, parts=parts), list[FileEntry] | str)
        outcome = None
        if written is not None:
            outcome = self._commit(state, written=written, parts=parts, scores=scores)
        result: SaveOutcome = ranks.broadcast(outcome, SaveOutcome)
        if ranks.rank == 0 and result.directory is not None:
            self._remove_old()
        return result

    def _remove_old(self) -> None:
        # a writer that lost the lease must not remove what the new one resumes from
        self._check_lease()
        try:
            remove_leftovers(self._root, lease=self._identity.lease)
            self._prune()
        except OSError as error:
            log.warning("%s: older checkpoints could not be removed: %s", self._root, error)

    def _begin(self, step: int, *, num_bytes: int) -> tuple[Path | None, str | None]:
        try:
            parts = begin_save(self._root, name=CheckpointName(step, self._identity.lease))
            free = shutil.disk_usage(self._root).free
        except OSError as error:
            return None, f"{self._root}: {error.strerror}"
        if free < (needed := num_bytes + SPARE_BYTES):
            remove_leftover(parts)
            return None, f"{self._root}: {needed / 1e6:,.0f} MB are needed, {free / 1e6:,.0f} MB are free"
        return parts, None

    def _write_parts(self, snapshot: Snapshot, *, parts: Path) -> list[FileEntry] | str:
        try:
            return [
                write_tensors(
                    tensors, path=parts / f"{kind}-{self._ranks.rank:05d}.safetensors", on_stage=self._on_stage
                )
                for kind, tensors in (("weights", snapshot.weights), ("optimizer", snapshot.optimizer))
            ]
        except OSError as error:
            return f"rank {self._ranks.rank}: {error.filename or parts}: {error.strerror}"

    def _commit(
        self,
        state: RunState,
        *,
        written: list[list[FileEntry] | str],
        parts: Path,
        scores: Mapping[str, float] | None,
    ) -> SaveOutcome:
        problems = [part for part in written if isinstance(part, str)]
        entries = [entry for part in written if not isinstance(part, str) for entry in part]
        try:
            if problems:
                raise OSError(0, "; ".join(problems))
            content = to_json(asdict(state), indent=1, inf_nan_mode="constants")
            path = parts / STATE_FILE
            entries.append(write_blocks([], [content], num_bytes=len(content), path=path, on_stage=self._on_stage))
            manifest = Manifest(
                step=state.step,
                lease=self._identity.lease,
                world_size=self._ranks.world_size,
                recipe_hash=self._identity.recipe_hash,
                recipe=self._identity.recipe,
                versions=self._identity.versions,
                files=tuple(entries),
                scores=dict(scores) if scores is not None else None,
            )
            self._sync_records()
            self._check_lease()
            return SaveOutcome(state.step, commit_save(parts, manifest=manifest, on_stage=self._on_stage))
        except OSError as error:
            # the previous checkpoint is valid, so training continues; the next save tries again
            remove_leftover(parts)
            return SaveOutcome(state.step, None, str(error.strerror or error))


class ValidCheckpoints:
    """Remembers which checkpoints are valid and full, since reading them is expensive: a valid one is read once."""

    def __init__(self) -> None:
        self._known: set[Path] = set()

    def __call__(self, directory: Path) -> bool:
        """Whether a directory is a valid, full checkpoint; logs why if it is not valid."""
        if directory in self._known:
            return True
        try:
            is_full = verify_committed(directory).content == "full"
        except CheckpointError as error:
            log.warning("not a valid checkpoint: %s", error)
            return False
        if is_full:
            self._known.add(directory)
        return is_full
