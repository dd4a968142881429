"""Faults injected into a rank, by name: safeguards removed, disks filled, rows recorded. Injected before the run starts."""

import errno
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

ROWS_FILE = "rows-{rank}.jsonl"
LEFT_BYTES = 200_000
"""Bytes left on a full disk: enough for a manifest, but not for weights."""


def no_verification(argument: str) -> None:
    """Checkpoints count as valid if they have a manifest."""
    from dstrain.checkpoint import saver, store
    from dstrain.checkpoint.manifest import load_manifest

    store.verify_checkpoint = load_manifest
    saver.verify_committed = load_manifest


def rename_before_manifest(argument: str) -> None:
    """A directory is renamed to its final name before its manifest is written."""
    from dstrain.checkpoint import saver
    from dstrain.checkpoint.manifest import Manifest, save_manifest

    def commit(parts: Path, *, manifest: Manifest, on_stage: Callable[[str], None]) -> Path:
        final = parts.with_suffix("")
        on_stage("rename")
        parts.rename(final)
        on_stage("manifest")
        save_manifest(manifest, directory=final)
        on_stage("renamed")
        return final

    saver.commit_save = commit


def fill_disk(argument: str) -> None:
    """`4-8`: the file system of the run is full from the save of step 4 until that of step 8."""
    from dstrain.checkpoint import saver

    first, last = map(int, argument.split("-"))
    begin = saver.Saver._begin

    def begin_on_full_disk(self: Any, step: int, *, num_bytes: int) -> Any:
        begun = begin(self, step, num_bytes=num_bytes)
        filler = self._root.parent / "filler"
        if first <= step < last and not filler.exists():  # after the estimate, so that the write itself fails
            free = os.statvfs(self._root).f_bavail * os.statvfs(self._root).f_bsize
            filler.write_bytes(bytes(max(0, free - LEFT_BYTES)))
        return begun

    def begin_with_room(self: Any, step: int, *, num_bytes: int) -> Any:
        if step >= last:
            (self._root.parent / "filler").unlink(missing_ok=True)
        return begin_on_full_disk(self, step, num_bytes=num_bytes)

    saver.Saver._begin = begin_with_room
    saver.SPARE_BYTES = 0


def full_disk(argument: str) -> None:
    """`6`: the file system of the run has not a byte left from the save of step 6 on, and rows no longer fit either."""
    from dstrain.checkpoint import saver
    from dstrain.run import training

    begin, append_row, is_full = saver.Saver._begin, training.append_row, list[bool]()

    def begin_without_room(self: Any, step: int, *, num_bytes: int) -> Any:
        if step >= int(argument):
            is_full[:] = [True]
            with (self._root.parent / "filler").open("ab", buffering=0) as filler, suppress(OSError):
                while filler.write(bytes(4096)):
                    pass
        return begin(self, step, num_bytes=num_bytes)

    def append(path: Path, row: Mapping[str, Any]) -> None:
        if is_full:  # the last block of the file may have room for a few rows
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        append_row(path, row)

    saver.Saver._begin = begin_without_room
    training.append_row = append


def note_rows(argument: str) -> None:
    """Append the rows of every step that was not refused to a file of the rank in the folder `argument`."""
    from dstrain.engine.engine import Engine

    step_of = Engine.step

    def step(self: Any, batch: Any, **arguments: Any) -> Any:
        result = step_of(self, batch, **arguments)
        if result.fault is not None:
            return result
        rows = [row for part in batch.micro_batches if part.weight for row in part.rows.tolist()]
        path = Path(argument) / ROWS_FILE.format(rank=os.environ["RANK"])
        with path.open("a") as file:
            file.write(json.dumps({"step": arguments["step"], "rows": rows, "start": os.environ["START"]}) + "\n")
        return result

    Engine.step = step  # type: ignore[method-assign]


def late_commit(argument: str) -> None:
    """Commit a save that was running when the lease was lost, as a node that is cut off would."""
    from dstrain.attempt.lease import Lease
    from dstrain.checkpoint.saver import Saver

    commit = Saver._commit

    def commit_without_check(self: Any, *arguments: Any, **settings: Any) -> Any:
        check, self._check_lease = self._check_lease, lambda: None
        try:
            return commit(self, *arguments, **settings)
        finally:
            self._check_lease = check

    Saver._commit = commit_without_check  # type: ignore[method-assign]
    Lease.renew = lambda self: None  # type: ignore[method-assign]


def fail(argument: str) -> None:
    """Rank 1 raises an error in step 3, while rank 0 is busy and only its watchdog can notice."""
    from dstrain.engine.engine import Engine

    step_of = Engine.step

    def step(self: Any, batch: Any, **arguments: Any) -> Any:
        if arguments["step"] == 3:
            if os.environ["RANK"] == "1":
                raise RuntimeError("the disk of rank 1 is on fire")
            time.sleep(3.0)
        return step_of(self, batch, **arguments)

    Engine.step = step  # type: ignore[method-assign]


def poison(argument: str) -> None:
    """`3,17`: the loss of a micro-batch with one of these training rows is NaN."""
    from dstrain.data import collate
    from dstrain.models.loss import Seq2SeqLoss

    rows = frozenset(map(int, argument.split(",")))
    poisoned: set[tuple[int, ...]] = set()
    collate_rows, forward = collate.collate, Seq2SeqLoss.forward

    def collate_and_note(sources: Any, targets: Any, **settings: Any) -> Any:
        batch = collate_rows(sources, targets, **settings)
        for row, source, target in zip(batch.rows.tolist(), sources, targets, strict=True):
            if row in rows:
                poisoned.add((*source.tolist(), *target.tolist()))
        return batch

    def forward_with_poison(
        self: Any, source_ids: Any, source_mask: Any, decoder_ids: Any, labels: Any, *rest: Any
    ) -> Any:
        loss = forward(self, source_ids, source_mask, decoder_ids, labels, *rest)
        for source, mask, target in zip(source_ids, source_mask, labels, strict=True):
            if (*source[mask.bool()].tolist(), *target[target != -100].tolist()) in poisoned:
                return loss * float("nan")
        return loss

    import dstrain.data.loader

    dstrain.data.loader.collate = collate_and_note  # type: ignore[attr-defined]
    Seq2SeqLoss.forward = forward_with_poison  # type: ignore[method-assign]


FAULTS: Mapping[str, Callable[[str], None]] = {
    "late commit": late_commit,
    "no verification": no_verification,
    "rename before manifest": rename_before_manifest,
    "fail": fail,
    "fill disk": fill_disk,
    "full disk": full_disk,
    "note rows": note_rows,
    "poison": poison,
}


def inject_fault(fault: str) -> None:
    """Inject `name` or `name=argument`."""
    name, _, argument = fault.partition("=")
    FAULTS[name](argument)


def noted_rows(folder: Path) -> dict[int, list[int]]:
    """By step, the sorted rows of all ranks when it was last trained."""
    noted: dict[int, dict[str, list[int]]] = {}
    for path in sorted(folder.glob(ROWS_FILE.format(rank="*"))):
        for line in map(json.loads, path.read_text().splitlines()):
            noted.setdefault(line["step"], {}).setdefault(line["start"], []).extend(line["rows"])
    return {step: sorted(starts[max(starts)]) for step, starts in sorted(noted.items())}
