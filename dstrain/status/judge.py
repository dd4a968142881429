"""Decides the state of a run from the content of its files.

Pure: no file is read, the time is an argument, and processes are checked by a callable. Judged in order of reliability: the
outcome that the run recorded, the end that its ranks recorded, whether its processes are alive, and last their progress.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dstrain.attempt.rank_records import PHASE_LIMITS, RankRecord
from dstrain.cluster.console import duration
from dstrain.cluster.processes import Holder
from dstrain.cluster.walltime import ALLOCATION_ENDS
from dstrain.reporting.terminal import from_iso
from dstrain.run_folder.claims import Claim
from dstrain.run_folder.outcome import RunOutcome
from dstrain.run_folder.rows import EventRow
from dstrain.slurm.requeue import JobEnd

State = Literal[
    "starting",
    "running",
    "silent",
    "killed",
    "stopped",
    "at its time limit",
    "preempted",
    "requeued",
    "cancelled",
    "lost",
    "failed",
    "finished",
    "never started",
    "unreadable",
    "no such folder",
]
MEANINGS: Mapping[State, str] = {
    "starting": "It has been started, and its processes import libraries and connect, which takes seconds.",
    "running": "Its ranks make progress.",
    "silent": "Its ranks live, or may live on another host, but have made no progress for longer than is usual.",
    "killed": "It was running or starting, and none of its processes is left: start it again.",
    "stopped": "It saved after a signal, such as Ctrl-C, and ended: start it again.",
    "at its time limit": "It saved before its allocation ended: start it again, unless Slurm does.",
    "preempted": "It saved because Slurm took its nodes for another job: start it again, unless Slurm does.",
    "requeued": "It saved because somebody requeued its job, which Slurm starts again.",
    "cancelled": "It saved because its job was cancelled: start it again.",
    "lost": "A rank hung or was lost to a fault outside the run: start it again.",
    "failed": "An error ended it, which starting again does not mend: its message says what does.",
    "finished": "It ended in order, at its last step or by early stopping.",
    "never started": "The folder is there, and no run has begun in it.",
    "unreadable": "None of its records can be read.",
    "no such folder": "There is no folder at this path.",
}
"""What each state means."""
STOPPED_BY: Mapping[str, State] = {
    "time limit": "at its time limit",
    "preemption": "preempted",
    "requeue by hand": "requeued",
    "cancelled": "cancelled",
}
"""Maps what ended a job to the state of a run that was signalled to stop and saved; any other cause is `stopped`."""
STOPPED: tuple[State, ...] = ("stopped", *STOPPED_BY.values())
"""States of a run that saved after it was signalled to stop."""
ONGOING: tuple[State, ...] = ("starting", "running", "silent")
"""States after which another may follow without a new start."""
IN_ORDER: tuple[State, ...] = ("starting", "running", "finished")
"""States that need no action."""

CLOCK_SECONDS = 60.0
"""Tolerance for clocks that differ between hosts, and for shared file systems that show writes of other hosts late."""
QUIET_SECONDS: Mapping[str, float] = {"set_up": 1800.0, "step": 120.0, "evaluation": 300.0, "save": 300.0}
"""Usual time limit without progress, per class of phases. Set-up has the longest: reading data and building operators show no
progress."""
KILLED_EARLY = "it ended before it had begun: it was killed while it imported libraries"
START_SECONDS = 300.0
"""Time that a start on another host, whose processes cannot be checked, has to acquire the lease."""
QUIET_STEPS = 5.0
"""A run with slow steps is not silent before the time of this many steps has passed."""

IsAlive = Callable[[Holder], bool | None]
"""Whether a process is alive; None if that cannot be known from this host."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the files of a run say about its newest attempt. Times are seconds since 1970."""

    folder_exists: bool = True
    is_readable: bool = True
    """Whether any of its records can be read, where there are some."""
    claim: Claim | None = None
    renewed: float | None = None
    """When the claim was last written, by the file system's clock."""
    starting: Holder | None = None
    """The process that started the run last, if it has acquired no lease. It may have ended."""
    last_word: float | None = None
    """When a start last said how it ended."""
    outcome: RunOutcome | None = None
    records: tuple[RankRecord, ...] = ()
    """Only those of the newest attempt."""
    last_event: EventRow | None = None
    job_end: JobEnd | None = None
    """As recorded by its batch script."""
    lease_seconds: float = 60.0
    step_seconds: float | None = None
    """Recent time per step; None if the rows do not say."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The state of a run, and why."""

    state: State
    message: str = ""
    since: float | None = None
    """Start of the newest attempt; for a silent run its last progress, for an ended run its end or last sign of life."""


def holder_of(record: RankRecord) -> Holder:
    """The process of a rank."""
    return Holder(record.host, record.pid, record.process_start, record.pid_namespace, since="")


def judge(evidence: Evidence, *, now: float, is_alive: IsAlive, quiet_seconds: float | None = None) -> Judgement:
    """The state of a run. `quiet_seconds` replaces the usual time limits without progress."""
    found = _judge_attempt(evidence, now=now, is_alive=is_alive, quiet_seconds=quiet_seconds)
    if found.state not in ONGOING and (start := evidence.starting) is not None:
        begun = from_iso(start.since)
        if _is_starting(evidence, begun=begun, now=now, alive=is_alive(start)):
            return Judgement(
                "starting", f"process {start.pid} on {start.host} imports libraries and connects its ranks", begun
            )
        if found.state == "never started" and ended_unseen(evidence, is_alive=is_alive):
            return Judgement("killed", KILLED_EARLY, begun)
    return found


def ended_unseen(evidence: Evidence, *, is_alive: IsAlive) -> bool:
    """Whether the last start is gone, and neither acquired the lease nor recorded how it ended.

    Not where another attempt has shown a sign of life since: while that one ran, this one was refused.
    """
    start, claim = evidence.starting, evidence.claim
    if start is None or is_alive(start) is not False or (claim is not None and claim.holder is None):
        return False  # a claim that cannot be read may be that of this start
    begun, signs = from_iso(start.since), (evidence.last_word, _last_sign(evidence))
    return begun is not None and all(sign is None or sign < begun for sign in signs)


def _is_starting(evidence: Evidence, *, begun: float | None, now: float, alive: bool | None) -> bool:
    if alive is not None:
        return alive
    # on another host: it counts as starting for a while, unless a start has recorded its end since
    ended = evidence.last_word
    return begun is not None and now - begun <= START_SECONDS and (ended is None or ended < begun)


def _judge_attempt(evidence: Evidence, *, now: float, is_alive: IsAlive, quiet_seconds: float | None) -> Judgement:
    """The state of the newest attempt that acquired the lease."""
    outcome, claim = evidence.outcome, evidence.claim
    if not evidence.is_readable:
        return Judgement("unreadable", "none of its records can be read, so nothing is known about the run")
    if outcome and outcome.outcome != "running" and is_current(outcome, claim=claim, records=evidence.records):
        state: State
        if outcome.outcome == "preempted":
            state = _stopped(outcome.message, end=evidence.job_end)
        else:  # no run is `refused`, unless outcome.json is gone
            state = "failed" if outcome.outcome == "refused" else outcome.outcome
        since = from_iso(outcome.time)
        if state in STOPPED and evidence.job_end is not None:
            # a later attempt of the job may have ended before it acquired the lease, and left only this job end
            since = max((time for time in (since, from_iso(evidence.job_end.time)) if time is not None), default=None)
        return Judgement(state, outcome.message, since)
    reasons = [record.ended for record in evidence.records if record.ended]
    # a released lease or an end recorded by every rank: the attempt ended by itself, although its outcome is missing
    if (claim and claim.released) or (evidence.records and len(reasons) == len(evidence.records)):
        return _by_last_event(evidence, reasons=reasons)
    if claim is None and not evidence.records:
        return _by_last_event(evidence, reasons=[])
    if gone := _find_end(evidence, now=now, is_alive=is_alive):
        return gone
    return _by_progress(evidence, now=now, is_alive=is_alive, quiet_seconds=quiet_seconds)


def is_current(outcome: RunOutcome, *, claim: Claim | None, records: Sequence[RankRecord]) -> bool:
    """Whether an outcome belongs to the newest attempt.

    A rank that fails alone writes an outcome without the number of its attempt. Such an outcome belongs to the newest attempt
    unless the run showed activity well after it was written.
    """
    if claim is None:
        return True
    if outcome.attempt:
        return outcome.attempt == claim.number
    ended = from_iso(outcome.time)
    begun = from_iso(claim.holder.since) if claim.holder else None
    # activity after the outcome: another start, which failed while this attempt was running, wrote it
    signs = [*([begun] if begun is not None else []), *(record.changed for record in records)]
    return ended is None or all(sign <= ended + CLOCK_SECONDS for sign in signs)


def main_phase(record: RankRecord) -> str:
    """The phase of a rank; while it waits for a save, the phase of the save."""
    phase = record.tracks.get("main", "?")
    saving = record.tracks.get("save", "idle")
    return saving if phase == "wait for save" and saving != "idle" else phase


def find_slowest(records: Sequence[RankRecord]) -> list[RankRecord]:
    """Ranks, slowest first: fewest steps, then longest without progress. The others wait for the first."""
    return sorted(records, key=lambda record: (-1 if record.step is None else record.step, record.changed, record.rank))


def find_missing(
    records: Sequence[RankRecord], *, now: float, is_alive: IsAlive, lease_seconds: float
) -> list[tuple[RankRecord, str]]:
    """Ranks that show no sign of life although they recorded no end, each with what is missing."""
    missing = []
    for record in records:
        silent = now - record.heartbeat
        if record.ended is None and is_alive(holder_of(record)) is False:
            missing.append((record, "its process is gone"))
        elif record.ended is None and silent > lease_seconds + CLOCK_SECONDS:
            missing.append((record, f"no heartbeat for {duration(silent)}"))
    return missing


def _by_last_event(evidence: Evidence, *, reasons: list[str]) -> Judgement:
    """The state of a run that ended without an outcome, such as on a full disk, or one older than outcomes."""
    event = evidence.last_event
    if event is None and evidence.claim is None and evidence.outcome is None and not evidence.records:
        return Judgement("never started" if evidence.folder_exists else "no such folder")
    last_sign = _last_sign(evidence)
    if event and event.event in ("finish", "stop"):
        message, since = event.message or "", from_iso(event.time)
        state = "finished" if event.event == "finish" else _stopped(message, end=evidence.job_end)
        return Judgement(state, message, since or last_sign)
    return Judgement("killed", reasons[0] if reasons else "it ended without recording a reason", last_sign)


def _stopped(message: str, *, end: JobEnd | None) -> State:
    """The state of a run that was signalled to stop. The run knows only the signal; its batch script knows who sent it."""
    if message == ALLOCATION_ENDS:
        return STOPPED_BY["time limit"]
    return STOPPED_BY.get(end.cause, "stopped") if end else "stopped"


def _find_end(evidence: Evidence, *, now: float, is_alive: IsAlive) -> Judgement | None:
    """`killed` if the newest attempt has no process left, as far as this host can know; else None."""
    holder = evidence.claim.holder if evidence.claim else None
    processes = [holder_of(record) for record in evidence.records if record.ended is None]
    processes += [holder] if holder else []
    seen = [is_alive(process) for process in processes]
    if any(seen):
        return None
    last_sign = _last_sign(evidence)
    if processes and None not in seen:
        return Judgement("killed", f"none of its processes is left on {processes[0].host}", last_sign)
    # processes of other hosts cannot be checked: they count as gone once heartbeats and lease are stale
    silent = now - last_sign if last_sign is not None else None
    if silent is not None and silent <= evidence.lease_seconds + CLOCK_SECONDS:
        return None
    whose = f" ({holder})" if holder else ""
    silence = "no sign of life" if silent is None else f"no sign of life for {duration(silent)}"
    return Judgement("killed", f"{silence}: its lease{whose} is stale", last_sign)


def _last_sign(evidence: Evidence) -> float | None:
    signs = [max(record.heartbeat, record.changed) for record in evidence.records]
    return max([*signs, *([evidence.renewed] if evidence.renewed is not None else [])], default=None)


def _by_progress(evidence: Evidence, *, now: float, is_alive: IsAlive, quiet_seconds: float | None) -> Judgement:
    claim = evidence.claim
    begun = from_iso(claim.holder.since) if claim and claim.holder else None
    active = [record for record in evidence.records if record.ended is None]
    if not active:
        return Judgement("running", "its ranks have not connected yet", begun)
    # ranks that wait for a collective show no progress, so the run is silent only when all ranks are
    last = max(record.changed for record in active)
    limit = max(_quiet_limit(record, step_seconds=evidence.step_seconds) for record in active)
    if now - last <= (limit if quiet_seconds is None else quiet_seconds):
        return Judgement("running", "", begun)
    slowest = find_slowest(active)[0]
    where = f"rank {slowest.rank} on {slowest.host} is in phase '{main_phase(slowest)}'"
    step = "before its first step" if slowest.step is None else f"after step {slowest.step}"
    state = "" if is_alive(holder_of(slowest)) is not False else ", and its process is gone"
    return Judgement("silent", f"no progress for {duration(now - last)}: {where} {step}{state}", last)


def _quiet_limit(record: RankRecord, *, step_seconds: float | None) -> float:
    limit = QUIET_SECONDS[PHASE_LIMITS.get(main_phase(record), "step")]
    return max(limit, QUIET_STEPS * (step_seconds or 0.0))
