"""Reads the files of a run folder from outside, during the run or afterwards; decides nothing.

Writes nothing, computes no checksums and contacts no other host. A file or line that is broken or half written is skipped;
a note says so if anything is missing because of it.
"""

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from dstrain.attempt.failure import newest_report
from dstrain.attempt.hangs import Hang
from dstrain.attempt.rank_records import RankRecord, ranks_dir, read_rank_records
from dstrain.checkpoint.manifest import MANIFEST
from dstrain.checkpoint.store import checkpoint_dirs, current_dirs
from dstrain.cluster.processes import Holder
from dstrain.config.schema import RunConfig
from dstrain.reporting.terminal import from_iso
from dstrain.run_folder.began import read_run_config
from dstrain.run_folder.claims import Claim, claim_path, read_claims
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.outcome import RunOutcome, read_ends, read_outcome, read_unwritten
from dstrain.run_folder.reading import read_bytes
from dstrain.run_folder.record import merge_evaluations, read_deferred_scores, read_run_info
from dstrain.run_folder.rows import (
    MAX_STEP,
    DeferredRow,
    EvalRow,
    EventRow,
    Row,
    TrainRow,
    drop_superseded,
    read_sound_rows,
)
from dstrain.run_folder.start_mark import read_start_mark
from dstrain.slurm.evaluation_jobs import Evaluation, read_jobs
from dstrain.slurm.requeue import BY_SLURM, Entry, JobEnd, JobStart, read_history

MAX_COUNT = MAX_STEP
"""Most steps and seconds: a larger number can only come from a damaged file."""
UNREADABLE = (ValueError, OSError, RecursionError)
"""What reading a broken file may raise; a RecursionError comes from deeply nested JSON."""

_HANG = TypeAdapter(Hang)


@dataclass(frozen=True)
class RunFiles:
    """The content of a run folder. Times are seconds since 1970."""

    folder_exists: bool
    is_readable: bool
    """False if there are records, and not one of them can be read."""
    config: RunConfig | None
    total_steps: int | None
    train_rows: tuple[TrainRow, ...]
    eval_rows: tuple[EvalRow, ...]
    pending_rows: tuple[DeferredRow, ...]
    """Evaluations deferred to other jobs that have no scores yet."""
    evaluation_jobs: dict[Evaluation, list[str]]
    """The jobs that were submitted for each evaluation, the earliest first."""
    events: tuple[EventRow, ...]
    claims: tuple[Claim, ...]
    """One per attempt, the newest last."""
    standing: tuple[Claim, ...]
    """Those up to the attempt that the state of the run follows from. Later starts were refused, or failed on a finished run."""
    renewed: float | None
    """When the newest claim was last written, by the file system's clock."""
    starting: Holder | None
    """The process that started the run last, if it has acquired no lease. It may have ended."""
    last_word: float | None
    """When a start last said how it ended, by an outcome or the report of a failure."""
    outcome: RunOutcome | None
    """Of the last standing attempt, where it is known."""
    records: tuple[RankRecord, ...]
    """Of the ranks of the last standing attempt."""
    ends: dict[int, RunOutcome]
    """How attempts ended, by their number."""
    hangs: dict[int, Hang]
    """By the number of the attempt that hung."""
    job_end: JobEnd | None
    """How the job of the last standing attempt ended, by its batch script."""
    comes_again: str | None
    """The Slurm job that will start the run again or is doing so, by the newest entry of its batch script."""
    checkpoints: tuple[tuple[Path, float | None], ...]
    """Those that are not superseded, the newest first, and when they were saved."""
    notes: tuple[str, ...]
    """What could not be read, for the user."""


def read_files(run_dir: Path) -> RunFiles:
    """The content of a run folder; empty if the folder does not exist."""
    notes: list[str] = []
    rows = _read_rows(run_dir, notes=notes)
    evaluations, pending = merge_evaluations(
        rows, find_scores=lambda row: read_deferred_scores(RunFolder(run_dir), row=row)
    )
    claims, outcome = _read_claims_and_outcome(run_dir)
    history, ends = read_history(run_dir), read_ends(run_dir)
    standing = _find_standing(claims, outcome=outcome, ends=ends)
    config, records = _read_config(run_dir, notes=notes), _read_records(run_dir, claims=standing)
    total_steps, holders = _read_total_steps(run_dir, notes=notes), [claim for claim in claims if claim.holder]
    said = (config, total_steps, rows, outcome, records, holders, history)
    notes += _note_unwritten(run_dir)
    return RunFiles(
        folder_exists=run_dir.is_dir(),
        is_readable=any(map(bool, said)) or not _has_records(run_dir),
        config=config,
        total_steps=total_steps,
        train_rows=tuple(row for row in rows if isinstance(row, TrainRow)),
        eval_rows=tuple(evaluations),
        pending_rows=tuple(pending),
        evaluation_jobs=read_jobs(run_dir),
        events=tuple(row for row in rows if isinstance(row, EventRow)),
        claims=tuple(claims),
        standing=standing,
        renewed=_mtime(claim_path(run_dir, number=claims[-1].number)) if claims else None,
        starting=_find_starting(run_dir, claims=claims),
        last_word=_find_last_word(run_dir, ends=[*ends.values(), *([outcome] if outcome else [])]),
        outcome=_find_outcome(outcome, standing=standing, ends=ends),
        records=records,
        ends=ends,
        hangs=_read_hangs(run_dir, claims=claims),
        job_end=_find_job_end(history, claims=standing, is_newest=len(standing) == len(claims)),
        comes_again=_find_comes_again(history, claims=claims),
        checkpoints=_list_checkpoints(run_dir, claims=claims, notes=notes),
        notes=tuple(notes),
    )


def _has_records(run_dir: Path) -> bool:
    folder = RunFolder(run_dir)
    # not the claims: the first one is empty for a moment
    return any(map(os.path.lexists, (folder.config, folder.info, folder.metrics, folder.outcome)))


def _read_config(run_dir: Path, *, notes: list[str]) -> RunConfig | None:
    path = RunFolder(run_dir).config
    try:
        return read_run_config(RunFolder(run_dir)) if os.path.lexists(path) else None
    except UNREADABLE as error:
        notes.append(f"{path.name} cannot be read, so the limits and the metric of the run are unknown: {error}")
    return None


def _read_total_steps(run_dir: Path, *, notes: list[str]) -> int | None:
    try:
        total = read_run_info(run_dir).total_steps if RunFolder(run_dir).info.is_file() else None
    except UNREADABLE as error:
        notes.append(f"{RunFolder(run_dir).info.name} cannot be read: {error}")
        return None
    return total if total is not None and 0 < total <= MAX_COUNT else None


def _read_rows(run_dir: Path, *, notes: list[str]) -> list[Row]:
    """The rows of metrics.jsonl that are not superseded. Broken lines are skipped and noted, except a torn last one."""
    rows, unread = read_sound_rows(RunFolder(run_dir).metrics)
    notes += unread
    return drop_superseded(rows)


def _read_claims_and_outcome(run_dir: Path) -> tuple[list[Claim], RunOutcome | None]:
    """The claims and the outcome that belongs to them: both are read again if the outcome changed in between."""
    for _ in range(2):
        outcome = read_outcome(run_dir)
        try:
            claims = [claim for claim in read_claims(run_dir) if claim.is_start]
        except UNREADABLE:
            claims = []
        if read_outcome(run_dir) == outcome:
            break
    return claims, outcome


def _find_starting(run_dir: Path, *, claims: Sequence[Claim]) -> Holder | None:
    mark = read_start_mark(run_dir)
    if mark is None or any(claim.holder and mark.is_same(claim.holder) for claim in claims):
        return None
    return mark


def _find_last_word(run_dir: Path, *, ends: Sequence[RunOutcome]) -> float | None:
    times = [from_iso(end.time) for end in ends if end.outcome != "running"]
    with suppress(OSError):  # a start removes the reports of the one before
        nanoseconds, _ = newest_report(run_dir)
        times.append(nanoseconds / 1e9)
    return max((time for time in times if time), default=None)


def _find_standing(
    claims: Sequence[Claim], *, outcome: RunOutcome | None, ends: Mapping[int, RunOutcome]
) -> tuple[Claim, ...]:
    finished = outcome.attempt if outcome is not None and outcome.outcome == "finished" else 0
    kept = list(claims)
    while kept and (end := ends.get(kept[-1].number)) is not None:
        if end.outcome != "refused" and not 0 < finished < end.attempt:
            break
        kept.pop()
    return tuple(kept or claims)


def _find_outcome(
    outcome: RunOutcome | None, *, standing: Sequence[Claim], ends: Mapping[int, RunOutcome]
) -> RunOutcome | None:
    """The outcome of the run, or the end of its last standing attempt where outcome.json does not have it, as after a kill."""
    number = standing[-1].number if standing else 0
    if outcome is not None and outcome.outcome != "running" and outcome.attempt in (0, number):
        return outcome
    return ends.get(number, outcome)


def _note_unwritten(run_dir: Path) -> list[str]:
    return [
        f"rows of {RunFolder(run_dir).metrics.name} are missing from step {step} of attempt {number} on: they could not be "
        "written, as on a full disk"
        for number, step in read_unwritten(run_dir).items()
    ]


def _read_records(run_dir: Path, *, claims: Sequence[Claim]) -> tuple[RankRecord, ...]:
    """The rank records of the newest attempt. Older ones remain in the folder if an earlier attempt had more ranks."""
    try:
        found = read_rank_records(ranks_dir(run_dir))
    except UNREADABLE:
        return ()
    sane = [record for record in found if _is_sane(record)]
    attempts = [claims[-1].number] if claims else [record.attempt for record in sane]
    newest = max(attempts, default=0)
    return tuple(record for record in sane if record.attempt == newest)


def _is_sane(record: RankRecord) -> bool:
    times = (record.changed, record.heartbeat)
    numbers = (record.rank, record.step or 0, record.pid)
    return all(math.isfinite(time) for time in times) and all(0 <= number <= MAX_COUNT for number in numbers)


def _mtime(path: Path) -> float | None:
    with suppress(OSError):
        return path.lstat().st_mtime
    return None


def _read_hangs(run_dir: Path, *, claims: Sequence[Claim]) -> dict[int, Hang]:
    hangs = {}
    for claim in claims:
        with suppress(OSError, ValidationError):
            path = RunFolder(run_dir).hang_record(claim.number)
            hangs[claim.number] = _HANG.validate_json(read_bytes(path))
    return hangs


def _find_job_end(history: Sequence[Entry], *, claims: Sequence[Claim], is_newest: bool) -> JobEnd | None:
    """The end of the job of the last of `claims`; if that is the newest attempt, no later job may have ended."""
    ends = [entry for entry in reversed(history) if isinstance(entry, JobEnd)]
    return next((end for end in (ends[:1] if is_newest else ends) if _is_newest(end, claims=claims)), None)


def _find_comes_again(history: Sequence[Entry], *, claims: Sequence[Claim]) -> str | None:
    last = history[-1] if history else None
    if last is None or not _is_newest(last, claims=claims):
        return None
    # a start without an end: the batch script has not decided yet, was lost with its host, or is starting the run now
    return last.job if isinstance(last, JobStart) or last.again or last.cause in BY_SLURM else None


def _is_newest(entry: Entry, *, claims: Sequence[Claim]) -> bool:
    # an attempt started by hand or by another job has no history; one that ended before it acquired the lease has no claim
    newest = claims[-1] if claims else None
    return newest is None or (
        newest.job.rpartition("/")[2] == entry.job and (newest.restart, newest.launch) <= (entry.restart, entry.launch)
    )


def _list_checkpoints(
    run_dir: Path, *, claims: Sequence[Claim], notes: list[str]
) -> tuple[tuple[Path, float | None], ...]:
    root = RunFolder(run_dir).checkpoints
    try:
        current = current_dirs(root, claims=claims)
        num_superseded = len(checkpoint_dirs(root)) - len(current)
    except OSError as error:
        notes.append(f"the checkpoints cannot be listed: {error.strerror}")
        return ()
    if num_superseded > 0:
        notes.append(f"{num_superseded} checkpoint(s) are superseded: a later attempt resumed from an earlier step")
    return tuple((directory, _mtime(directory / MANIFEST)) for directory in current)
