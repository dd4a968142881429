"""The status of a run, computed from its files. Pure, except `inspect_status`, which reads them."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dstrain.attempt.hangs import describe_hang
from dstrain.attempt.rank_records import RankRecord
from dstrain.checkpoint.store import parse_checkpoint_name
from dstrain.cluster.processes import HIDDEN, Holder, process_start
from dstrain.config.arguments import shell_command
from dstrain.config.machine import Machine
from dstrain.reporting.terminal import from_iso, moment
from dstrain.run_folder.claims import Claim
from dstrain.run_folder.outcome import summarize
from dstrain.run_folder.rows import EvalRow, Row, best_evaluation, competing, untied
from dstrain.slurm.evaluation_jobs import MAX_JOBS
from dstrain.slurm.requeue import JobEnd
from dstrain.status.files import RunFiles, read_files
from dstrain.status.judge import (
    KILLED_EARLY,
    ONGOING,
    STOPPED,
    Evidence,
    IsAlive,
    Judgement,
    State,
    ended_unseen,
    find_missing,
    find_slowest,
    judge,
    main_phase,
)
from dstrain.status.pace import Pace, measure_pace, remaining_seconds, spent_seconds

MAX_SLOWEST = 3
"""Slowest ranks that are listed."""
DEFAULT_LEASE_SECONDS = Machine().lease_seconds
"""For a run whose recipe cannot be read."""


@dataclass(frozen=True, slots=True)
class RankView:
    """What one rank is doing."""

    rank: int
    host: str
    phase: str
    step: int | None
    quiet_seconds: float
    """Seconds since its last progress."""
    problem: str | None = None
    """Why it counts as missing; None if it does not."""


@dataclass(frozen=True, slots=True)
class RanksView:
    """A summary of all ranks of the newest attempt."""

    num_ranks: int
    phases: dict[str, int]
    """Number of ranks per phase, the most frequent phase first."""
    quiet_seconds: float | None
    """Seconds since the last progress of any rank; None once all have ended."""
    num_saving: int
    """Ranks that are saving a checkpoint."""
    slowest: tuple[RankView, ...]
    """The ranks that the others wait for, the slowest first."""
    missing: tuple[RankView, ...]
    """The ranks that show no sign of life."""


@dataclass(frozen=True, slots=True)
class ScoreAtStep:
    """One score and the step it was measured at."""

    step: int
    metric: str
    value: float
    interval: float | None = None
    """Half its 95 % interval, where it has one."""


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One attempt of the run."""

    number: int
    """The number of its lease."""
    host: str | None
    since: float | None
    """Seconds since 1970."""
    from_step: int | None
    """The step it resumed from, 0 for a new run; None if it ended before it chose one."""
    cause: str | None
    """Why it was started, if its launcher gave a reason."""
    ended: str | None
    """How it ended; None while it is in progress."""


@dataclass(frozen=True, slots=True)
class CheckpointView:
    """The newest checkpoint, by name. It is not verified; `dstrain verify` does that."""

    name: str
    step: int
    saved: float | None
    """Seconds since 1970."""
    num_checkpoints: int


@dataclass(frozen=True, slots=True)
class UnsavedWork:
    """What a run has done since its newest checkpoint: a kill costs so much, and a resumed run does it again."""

    steps: int
    seconds: float | None
    """At the current pace, with evaluations; None if the pace is unknown."""


@dataclass(frozen=True)
class RunStatus:
    """What a run is doing. Times are seconds since 1970."""

    run: str
    state: State
    message: str
    since: float | None
    """As `Judgement.since`."""
    now: float
    step: int | None
    total_steps: int | None
    step_seconds: float | None
    eta_seconds: float | None
    """Seconds until the last step; None unless the run is running."""
    ranks: RanksView | None
    last_loss: ScoreAtStep | None
    last_scores: EvalRow | None
    best: ScoreAtStep | None
    checkpoint: CheckpointView | None
    unsaved: UnsavedWork | None
    """None if the run is finished or has no step yet."""
    cause: str | None
    """What ended its job, and the source of that; None if unknown."""
    comes_again: str | None
    """The job that Slurm will start again; None if there is none."""
    starts: tuple[AttemptView, ...]
    """The newest last."""
    notes: tuple[str, ...]
    """What could not be read, and anything else the user should know."""


def inspect_status(
    run_dir: Path,
    *,
    now: float,
    observer: Holder,
    find_start: Callable[[int], int | None] = process_start,
    quiet_seconds: float | None = None,
) -> RunStatus:
    """The status of the run in a folder.

    Args:
        now: seconds since 1970.
        observer: this process; decides which processes of the run this host's process table can show.
        find_start: returns the start time of a process id, as `process_start` does.
        quiet_seconds: seconds without progress after which a run is silent; None uses the limit of its phase.
    """

    def is_alive(process: Holder) -> bool | None:
        start = find_start(process.pid) if observer.may_see(process) else HIDDEN
        return None if start == HIDDEN else start == process.process_start

    return view_status(read_files(run_dir), run=str(run_dir), now=now, is_alive=is_alive, quiet_seconds=quiet_seconds)


def view_status(
    files: RunFiles, *, run: str, now: float, is_alive: IsAlive, quiet_seconds: float | None = None
) -> RunStatus:
    """The status of a run from the content of its files; the other arguments are those of `judge`."""
    pace = measure_pace(files.train_rows, files.eval_rows)
    evidence = _collect(files, pace=pace)
    judgement = judge(evidence, now=now, is_alive=is_alive, quiet_seconds=quiet_seconds)
    step = _step(judgement, files=files)
    last = files.train_rows[-1] if files.train_rows else None
    has_ended = judgement.state in (*STOPPED, "lost", "killed")
    return RunStatus(
        run=run,
        state=judgement.state,
        message=judgement.message,
        since=judgement.since,
        now=now,
        step=step,
        total_steps=files.total_steps,
        step_seconds=pace.step_seconds if pace else None,
        eta_seconds=_eta(judgement, pace=pace, step=step, total_steps=files.total_steps),
        ranks=_view_ranks(evidence, judgement=judgement, now=now, is_alive=is_alive),
        last_loss=ScoreAtStep(last.step, "loss", last.loss) if last else None,
        last_scores=files.eval_rows[-1] if files.eval_rows else None,
        best=_find_best(files),
        checkpoint=_view_checkpoint(files),
        unsaved=_count_unsaved(files, judgement=judgement, step=step, pace=pace),
        cause=_describe_end(files.job_end) if has_ended else None,
        comes_again=files.comes_again if has_ended else None,
        starts=tuple(_view_attempt(claim, files=files, judgement=judgement) for claim in files.claims),
        notes=files.notes
        + _note_unseen(evidence, judgement=judgement, is_alive=is_alive)
        + _note_refused(files)
        + _note_unsaved(files)
        + _note_pending(files, run=run),
    )


def _collect(files: RunFiles, *, pace: Pace | None) -> Evidence:
    return Evidence(
        folder_exists=files.folder_exists,
        is_readable=files.is_readable,
        claim=files.standing[-1] if files.standing else None,
        renewed=files.renewed if files.standing == files.claims else None,
        starting=files.starting,
        last_word=files.last_word,
        outcome=files.outcome,
        records=files.records,
        last_event=next((event for event in reversed(files.events) if event.event != "unsaved"), None),
        job_end=files.job_end,
        lease_seconds=files.config.machine.lease_seconds if files.config else DEFAULT_LEASE_SECONDS,
        step_seconds=pace.step_seconds if pace else None,
    )


def _step(judgement: Judgement, *, files: RunFiles) -> int | None:
    """Completed steps: from the outcome, else the ranks, else the step resumed from, else the newest rows."""
    outcome = "preempted" if judgement.state in STOPPED else judgement.state
    # the step of an outcome counts only if the judgement relies on that outcome
    if files.outcome and outcome == files.outcome.outcome and files.outcome.step is not None:
        return files.outcome.step
    steps = [record.step for record in files.records if record.step is not None]
    base = files.standing[-1].base_step if files.standing else None
    if not steps and base is not None:
        return base
    rows: list[Row] = [*files.train_rows[-1:], *files.eval_rows[-1:], *files.events[-1:]]
    return max(steps or [row.step for row in rows], default=None)


def _eta(judgement: Judgement, *, pace: Pace | None, step: int | None, total_steps: int | None) -> float | None:
    if judgement.state != "running" or pace is None or step is None or total_steps is None:
        return None
    return remaining_seconds(pace, step=step, total_steps=total_steps)


def _find_best(files: RunFiles) -> ScoreAtStep | None:
    if files.config is None:
        return None
    metric = files.config.best_metric
    rows = untied(competing(files.eval_rows, events=files.events))
    best = best_evaluation(rows, metrics=files.config.ranking)
    return ScoreAtStep(best.step, metric, best.scores[metric], best.intervals.get(metric)) if best else None


def _note_unseen(evidence: Evidence, *, judgement: Judgement, is_alive: IsAlive) -> tuple[str, ...]:
    """A note on a start after the newest attempt, which leaves the state of the run as it was."""
    start = evidence.starting
    is_said = judgement.state in ONGOING or judgement.message == KILLED_EARLY
    if start is None or is_said or not ended_unseen(evidence, is_alive=is_alive):
        return ()
    begun = moment(from_iso(start.since))
    return (f"the last start, of {begun}, ended before it acquired the run folder, and recorded no reason",)


def _note_refused(files: RunFiles) -> tuple[str, ...]:
    """A note if the newest start was refused, which leaves the state of the run as it was."""
    end = files.ends.get(files.claims[-1].number) if files.claims else None
    if end is None or end.outcome != "refused":
        return ()
    return (f"the last start was refused and has changed nothing: {summarize(end.message)}",)


def _note_unsaved(files: RunFiles) -> tuple[str, ...]:
    """A note if the newest attempt to save a checkpoint failed."""
    unsaved = [event for event in files.events if event.event == "unsaved"]
    newest = parse_checkpoint_name(files.checkpoints[0][0]) if files.checkpoints else None
    if not unsaved or (newest and newest.step >= unsaved[-1].step):
        return ()
    return (f"the checkpoint of step {unsaved[-1].step} could not be saved: {unsaved[-1].message}",)


def _note_pending(files: RunFiles, *, run: str) -> tuple[str, ...]:
    """A note on the evaluations deferred to other jobs that have no scores yet, grouped by job."""
    steps: dict[str, list[str]] = {}
    for row in files.pending_rows:
        jobs = files.evaluation_jobs.get((row.step, row.lease), [])
        given_up = ", given up" if len(jobs) >= MAX_JOBS else ""
        whose = f"job{'s' if len(jobs) > 1 else ''} {', '.join(jobs)}{given_up}" if jobs else "no job submitted"
        steps.setdefault(whose, []).append(str(row.step))
    if not steps:
        return ()
    listed = "; ".join(f"step {', '.join(some)} ({whose})" for whose, some in steps.items())
    way_out = f"to run them here: {shell_command(['dstrain', 'evaluate', run, '--pending'])}"
    return (f"evaluations deferred to other jobs have no scores yet: {listed}; {way_out}",)


def _describe_end(end: JobEnd | None) -> str | None:
    """What ended a job; None if the attempt ended by itself: its own message says why."""
    return f"{end.cause}, according to {end.source}" if end and end.cause not in ("its own end", "unknown") else None


def _view_ranks(evidence: Evidence, *, judgement: Judgement, now: float, is_alive: IsAlive) -> RanksView | None:
    records = evidence.records
    if not records or judgement.state in ("starting", "finished", *STOPPED):
        return None
    # once a run has ended, all its ranks are gone and none counts as missing
    is_active = judgement.state in ("running", "silent")
    lease_seconds = evidence.lease_seconds
    missing = find_missing(records, now=now, is_alive=is_alive, lease_seconds=lease_seconds) if is_active else []
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


def _count_unsaved(files: RunFiles, *, judgement: Judgement, step: int | None, pace: Pace | None) -> UnsavedWork | None:
    if step is None or judgement.state == "finished":
        return None
    checkpoint = _view_checkpoint(files)
    saved = min(step, checkpoint.step) if checkpoint else 0
    seconds = spent_seconds(pace, files.eval_rows, since_step=saved, step=step) if pace else None
    return UnsavedWork(step - saved, seconds)


def _view_attempt(claim: Claim, *, files: RunFiles, judgement: Judgement) -> AttemptView:
    holder = claim.holder
    if claim.number != files.claims[-1].number or files.standing != files.claims or judgement.state == "starting":
        ended: str | None = _why_ended(claim, files=files)
    else:
        ended = None if judgement.state in ("running", "silent") else judgement.state
    since = from_iso(holder.since) if holder else None
    begun = (event for event in files.events if event.lease == claim.number and event.event in ("start", "resume"))
    cause = next((event.message for event in begun), None)
    return AttemptView(claim.number, holder.host if holder else None, since, claim.base_step, cause, ended)


def _why_ended(claim: Claim, *, files: RunFiles) -> str:
    """How an attempt ended, according to its rows, its last word or its report of a hang."""
    ends = [event for event in files.events if event.lease == claim.number and event.event in ("stop", "finish")]
    if ends:
        name = "stopped" if ends[-1].event == "stop" else "finished"
        return f"{name} at step {ends[-1].step}" + (f": {ends[-1].message}" if ends[-1].message else "")
    if end := files.ends.get(claim.number):
        where = "" if end.step is None else f" at step {end.step}"
        return f"{end.outcome}{where}" + (f": {end.message}" if end.message else "")
    if claim.number in files.hangs:
        return describe_hang(files.hangs[claim.number])
    return "ended normally, without training" if claim.released else "killed, lost or failed: it recorded no reason"
