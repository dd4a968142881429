"""A run as its files tell: RunFiles in, RunStatus out. Pure but for `inspect_status`, which reads the files."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dstrain.attempt.hangs import describe_hang
from dstrain.attempt.rank_records import RankRecord
from dstrain.checkpoint.store import parse_checkpoint_name
from dstrain.cluster.processes import HIDDEN, Holder, process_start
from dstrain.config.machine import Machine
from dstrain.reporting.terminal import from_iso
from dstrain.run_folder.claims import Claim
from dstrain.run_folder.rows import EvalRow, Row, best_evaluation
from dstrain.slurm.evaluation_jobs import MAX_JOBS
from dstrain.slurm.requeue import JobEnd
from dstrain.status.files import RunFiles, read_files
from dstrain.status.judge import (
    STOPPED,
    Evidence,
    IsThere,
    State,
    Verdict,
    find_missing,
    find_slowest,
    judge,
    main_phase,
)
from dstrain.status.pace import Pace, measure_pace, remaining_seconds

MAX_SLOWEST = 3
DEFAULT_LEASE_SECONDS = Machine().lease_seconds
"""Where a run's own is not known."""


@dataclass(frozen=True, slots=True)
class RankView:
    """What one rank is doing."""

    rank: int
    host: str
    phase: str
    step: int | None
    quiet_seconds: float
    """Since its last progress."""
    problem: str | None = None
    """Why it seems to be gone."""


@dataclass(frozen=True, slots=True)
class RanksView:
    """All ranks of the newest start, in short."""

    num_ranks: int
    phases: dict[str, int]
    """Phase to the number of ranks in it, the most frequent first."""
    quiet_seconds: float | None
    """Since the last progress of any of them; None once all have ended."""
    num_saving: int
    """Ranks with a checkpoint in flight."""
    slowest: tuple[RankView, ...]
    """Those that the others wait for, the slowest first."""
    missing: tuple[RankView, ...]
    """Those that show no sign of life."""


@dataclass(frozen=True, slots=True)
class Score:
    """A score, and when it was reached."""

    step: int
    metric: str
    value: float


@dataclass(frozen=True, slots=True)
class Start:
    """One start of the run."""

    number: int
    """Of its lease."""
    host: str | None
    since: float | None
    """Seconds since 1970."""
    from_step: int | None
    """The step it went on from; None if it never chose one."""
    cause: str | None
    """Why it was started, where its launcher said so."""
    ended: str | None
    """How it ended; None while it runs."""


@dataclass(frozen=True, slots=True)
class CheckpointView:
    """The newest checkpoint by name; whether it is whole, `dstrain verify` says."""

    name: str
    step: int
    saved: float | None
    """Seconds since 1970."""
    num_checkpoints: int


@dataclass(frozen=True)
class RunStatus:
    """What a run is doing. Times are seconds since 1970."""

    run: str
    state: State
    message: str
    since: float | None
    """As of Verdict."""
    now: float
    step: int | None
    total_steps: int | None
    step_seconds: float | None
    eta_seconds: float | None
    """Until the end, of a run that is running."""
    ranks: RanksView | None
    last_loss: Score | None
    last_scores: EvalRow | None
    best: Score | None
    checkpoint: CheckpointView | None
    cause: str | None
    """What ended its job, and who says so; None where nobody does."""
    comes_again: str | None
    """The Slurm job that Slurm is to start again."""
    starts: tuple[Start, ...]
    notes: tuple[str, ...]
    """What could not be read, and what to know besides."""


def inspect_status(
    run_dir: Path,
    *,
    now: float,
    observer: Holder,
    find_start: Callable[[int], int | None] = process_start,
    quiet_seconds: float | None = None,
) -> RunStatus:
    """What the run in a folder is doing.

    Args:
        now: seconds since 1970.
        observer: who asks; tells of which processes the process table of this host knows.
        find_start: a process id's start, as `process_start`.
        quiet_seconds: a run without progress for this long is silent, whatever its phase; None goes by the phase.
    """

    def is_there(process: Holder) -> bool | None:
        start = find_start(process.pid) if observer.may_see(process) else HIDDEN
        return None if start == HIDDEN else start == process.process_start

    return view_status(read_files(run_dir), run=str(run_dir), now=now, is_there=is_there, quiet_seconds=quiet_seconds)


def view_status(
    files: RunFiles, *, run: str, now: float, is_there: IsThere, quiet_seconds: float | None = None
) -> RunStatus:
    """What the files of a run tell; arguments as those of `judge`."""
    pace = measure_pace(files.train_rows, files.eval_rows)
    evidence = _collect(files, pace=pace)
    verdict = judge(evidence, now=now, is_there=is_there, quiet_seconds=quiet_seconds)
    step = _step(verdict, files=files)
    last = files.train_rows[-1] if files.train_rows else None
    has_ended = verdict.state in (*STOPPED, "lost", "killed")
    return RunStatus(
        run=run,
        state=verdict.state,
        message=verdict.message,
        since=verdict.since,
        now=now,
        step=step,
        total_steps=files.total_steps,
        step_seconds=pace.step_seconds if pace else None,
        eta_seconds=_eta(verdict, pace=pace, step=step, total_steps=files.total_steps),
        ranks=_view_ranks(evidence, verdict=verdict, now=now, is_there=is_there),
        last_loss=Score(last.step, "loss", last.loss) if last else None,
        last_scores=files.eval_rows[-1] if files.eval_rows else None,
        best=_find_best(files),
        checkpoint=_view_checkpoint(files),
        cause=_describe_end(files.job_end) if has_ended else None,
        comes_again=files.comes_again if has_ended else None,
        starts=tuple(_view_start(claim, files=files, verdict=verdict) for claim in files.claims),
        notes=files.notes + _note_unsaved(files) + _note_pending(files, run=run),
    )


def _collect(files: RunFiles, *, pace: Pace | None) -> Evidence:
    return Evidence(
        is_there=files.is_there,
        claim=files.claims[-1] if files.claims else None,
        renewed=files.renewed,
        outcome=files.outcome,
        records=files.records,
        last_event=next((event for event in reversed(files.events) if event.event != "unsaved"), None),
        job_end=files.job_end,
        lease_seconds=files.config.machine.lease_seconds if files.config else DEFAULT_LEASE_SECONDS,
        step_seconds=pace.step_seconds if pace else None,
    )


def _step(verdict: Verdict, *, files: RunFiles) -> int | None:
    """Steps done: by the ranks, else where the start went on from, else by whoever wrote last."""
    told = "preempted" if verdict.state in STOPPED else verdict.state
    if files.outcome and told == files.outcome.outcome and files.outcome.step is not None:
        return files.outcome.step
    steps = [record.step for record in files.records if record.step is not None]
    base = files.claims[-1].base_step if files.claims else None
    if not steps and base is not None:
        return base
    rows: list[Row] = [*files.train_rows[-1:], *files.eval_rows[-1:], *files.events[-1:]]
    return max(steps or [row.step for row in rows], default=None)


def _eta(verdict: Verdict, *, pace: Pace | None, step: int | None, total_steps: int | None) -> float | None:
    if verdict.state != "running" or pace is None or step is None or total_steps is None:
        return None
    return remaining_seconds(pace, step=step, total_steps=total_steps)


def _find_best(files: RunFiles) -> Score | None:
    if files.config is None:
        return None
    metric = files.config.best_metric
    best = best_evaluation(files.eval_rows, metric=metric)
    return Score(best.step, metric, best.scores[metric]) if best else None


def _note_unsaved(files: RunFiles) -> tuple[str, ...]:
    """That the newest checkpoint that was wanted does not exist, unless a later one does."""
    unsaved = [event for event in files.events if event.event == "unsaved"]
    newest = parse_checkpoint_name(files.checkpoints[0][0]) if files.checkpoints else None
    if not unsaved or (newest and newest.step >= unsaved[-1].step):
        return ()
    return (f"the checkpoint of step {unsaved[-1].step} could not be saved: {unsaved[-1].message}",)


def _note_pending(files: RunFiles, *, run: str) -> tuple[str, ...]:
    """Which evaluations have no scores yet because another job is to make them, by their jobs."""
    steps: dict[str, list[str]] = {}
    for row in files.pending_rows:
        jobs = files.evaluation_jobs.get((row.step, row.lease), [])
        given_up = ", given up" if len(jobs) >= MAX_JOBS else ""
        whose = f"job{'s' if len(jobs) > 1 else ''} {', '.join(jobs)}{given_up}" if jobs else "no job submitted"
        steps.setdefault(whose, []).append(str(row.step))
    if not steps:
        return ()
    listed = "; ".join(f"step {', '.join(some)} ({whose})" for whose, some in steps.items())
    return (f"evaluations of other jobs without scores so far: {listed}; by hand: dstrain evaluate {run} --pending",)


def _describe_end(end: JobEnd | None) -> str | None:
    """Of a start that ended by itself the message tells."""
    return f"{end.cause}; says {end.source}" if end and end.cause not in ("its own end", "unknown") else None


def _view_ranks(evidence: Evidence, *, verdict: Verdict, now: float, is_there: IsThere) -> RanksView | None:
    records = evidence.records
    if not records or verdict.state in ("finished", *STOPPED):
        return None
    # of a run that has ended none is missing
    is_on = verdict.state in ("running", "silent")
    lease_seconds = evidence.lease_seconds
    missing = find_missing(records, now=now, is_there=is_there, lease_seconds=lease_seconds) if is_on else []
    active = [record for record in records if record.ended is None]
    phases = Counter("ended" if record.ended else main_phase(record) for record in records)
    return RanksView(
        num_ranks=len(records),
        phases=dict(phases.most_common()),
        quiet_seconds=min((max(0.0, now - record.changed) for record in active), default=None),
        num_saving=sum(record.tracks.get("save", "idle") != "idle" for record in active),
        slowest=tuple(_view_rank(record, now=now) for record in find_slowest(active)[:MAX_SLOWEST]),
        missing=tuple(_view_rank(record, now=now, problem=problem) for record, problem in missing),
    )


def _view_rank(record: RankRecord, *, now: float, problem: str | None = None) -> RankView:
    quiet = max(0.0, now - record.changed)
    return RankView(record.rank, record.host, main_phase(record), record.step, quiet, problem)


def _view_checkpoint(files: RunFiles) -> CheckpointView | None:
    if not files.checkpoints:
        return None
    directory, saved = files.checkpoints[0]
    name = parse_checkpoint_name(directory)
    assert name
    return CheckpointView(str(name), name.step, saved, len(files.checkpoints))


def _view_start(claim: Claim, *, files: RunFiles, verdict: Verdict) -> Start:
    holder = claim.holder
    if claim.number != files.claims[-1].number:
        ended: str | None = _why_ended(claim, files=files)
    else:
        ended = None if verdict.state in ("running", "silent") else verdict.state
    since = from_iso(holder.since) if holder else None
    begun = (event for event in files.events if event.lease == claim.number and event.event in ("start", "resume"))
    cause = next((event.message for event in begun), None)
    return Start(claim.number, holder.host if holder else None, since, claim.base_step, cause, ended)


def _why_ended(claim: Claim, *, files: RunFiles) -> str:
    """How an earlier start ended, as far as its rows and a report of a hang say."""
    ends = [event for event in files.events if event.lease == claim.number and event.event in ("stop", "finish")]
    if ends:
        name = "stopped" if ends[-1].event == "stop" else "finished"
        return f"{name} at step {ends[-1].step}" + (f": {ends[-1].message}" if ends[-1].message else "")
    if claim.number in files.hangs:
        return describe_hang(files.hangs[claim.number])
    return "ended in order, without training" if claim.released else "killed, lost or failed: it left no last word"
