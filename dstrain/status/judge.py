"""What a run is doing, decided from what its files say. Pure: reads nothing, asks no clock; processes by a callable."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dstrain.attempt.rank_records import PHASE_LIMITS, RankRecord
from dstrain.cluster.processes import Holder
from dstrain.cluster.walltime import ALLOCATION_ENDS
from dstrain.reporting.terminal import duration, from_iso
from dstrain.run_folder.claims import Claim
from dstrain.run_folder.outcome import RunOutcome
from dstrain.run_folder.rows import EventRow
from dstrain.slurm.requeue import JobEnd

State = Literal[
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
    "no such folder",
]
STOPPED_BY: Mapping[str, State] = {
    "time limit": "at its time limit",
    "preemption": "preempted",
    "requeue by hand": "requeued",
    "cancelled": "cancelled",
}
"""What ended a job to the state of a run that was told to stop, and saved; `stopped` where nobody knows more."""
STOPPED: tuple[State, ...] = ("stopped", *STOPPED_BY.values())
IN_ORDER: tuple[State, ...] = ("running", "finished")
"""States that need no action."""

CLOCK_SECONDS = 60.0
"""Clocks of hosts differ by less, and a shared file system shows other hosts' writes sooner."""
QUIET_SECONDS: Mapping[str, float] = {"set_up": 1800.0, "step": 120.0, "evaluation": 300.0, "save": 300.0}
"""Longest usual time without progress, by the class of a phase: reading data and building operators show none."""
QUIET_STEPS = 5.0
"""A run whose steps take long is not silent before this many of them."""

IsThere = Callable[[Holder], bool | None]
"""Whether a process is there; None where that cannot be known from here."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the files of a run say of its newest start. Times are seconds since 1970."""

    is_there: bool = True
    """Whether there is such a folder."""
    claim: Claim | None = None
    renewed: float | None = None
    """When the claim was last written, by the file system's clock."""
    outcome: RunOutcome | None = None
    records: tuple[RankRecord, ...] = ()
    """Of the newest start alone."""
    last_event: EventRow | None = None
    job_end: JobEnd | None = None
    """By its batch script."""
    lease_seconds: float = 60.0
    step_seconds: float | None = None
    """Of a usual step, where rows tell it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state of a run, and why."""

    state: State
    message: str = ""
    since: float | None = None
    """Of a silent run the last progress, of one that ended its end or its last sign of life; else the start."""


def holder_of(record: RankRecord) -> Holder:
    """The process of a rank."""
    return Holder(record.host, record.pid, record.process_start, record.pid_namespace, since="")


def judge(evidence: Evidence, *, now: float, is_there: IsThere, quiet_seconds: float | None = None) -> Verdict:
    """What a run is doing; `quiet_seconds` replaces the usual times without progress."""
    outcome, claim = evidence.outcome, evidence.claim
    if outcome and outcome.outcome != "running" and is_current(outcome, claim=claim, records=evidence.records):
        state = outcome.outcome if outcome.outcome != "preempted" else _stopped(outcome.message, end=evidence.job_end)
        since = from_iso(outcome.time)
        if state in STOPPED and evidence.job_end is not None:
            # by then another start of the job may have come and gone without the folder
            since = max((time for time in (since, from_iso(evidence.job_end.time)) if time is not None), default=None)
        return Verdict(state, outcome.message, since)
    said = [record.ended for record in evidence.records if record.ended]
    if (claim and claim.released) or (evidence.records and len(said) == len(evidence.records)):
        return _by_last_event(evidence, said=said)
    if claim is None and not evidence.records:
        return _by_last_event(evidence, said=[])
    if gone := _find_end(evidence, now=now, is_there=is_there):
        return gone
    return _by_progress(evidence, now=now, is_there=is_there, quiet_seconds=quiet_seconds)


def is_current(outcome: RunOutcome, *, claim: Claim | None, records: Sequence[RankRecord]) -> bool:
    """Whether an outcome is that of the newest start.

    One that does not know its lease (a rank that failed by itself) is, unless the run was alive well after it was written.
    """
    if claim is None:
        return True
    if outcome.attempt:
        return outcome.attempt == claim.number
    ended = from_iso(outcome.time)
    begun = from_iso(claim.holder.since) if claim.holder else None
    signs = [*([begun] if begun is not None else []), *(record.changed for record in records)]
    return ended is None or all(sign <= ended + CLOCK_SECONDS for sign in signs)


def main_phase(record: RankRecord) -> str:
    """What a rank is doing; while it waits for a save, the save counts."""
    phase = record.tracks.get("main", "?")
    saving = record.tracks.get("save", "idle")
    return saving if phase == "wait for save" and saving != "idle" else phase


def find_slowest(records: Sequence[RankRecord]) -> list[RankRecord]:
    """Ranks in the order in which the others wait for them: fewest steps first, then the longest without progress."""
    return sorted(records, key=lambda record: (-1 if record.step is None else record.step, record.changed, record.rank))


def find_missing(
    records: Sequence[RankRecord], *, now: float, is_there: IsThere, lease_seconds: float
) -> list[tuple[RankRecord, str]]:
    """Ranks without a last word that show no sign of life, and what they lack."""
    missing = []
    for record in records:
        silent = now - record.heartbeat
        if record.ended is None and is_there(holder_of(record)) is False:
            missing.append((record, "its process is gone"))
        elif record.ended is None and silent > lease_seconds + CLOCK_SECONDS:
            missing.append((record, f"no heartbeat for {duration(silent)}"))
    return missing


def _by_last_event(evidence: Evidence, *, said: list[str]) -> Verdict:
    """Of a run that ended without an outcome: on a full disk, or one that is older than outcomes."""
    event = evidence.last_event
    if event is None and evidence.claim is None and evidence.outcome is None and not evidence.records:
        return Verdict("never started" if evidence.is_there else "no such folder")
    last_sign = _last_sign(evidence)
    if event and event.event in ("finish", "stop"):
        message, since = event.message or "", from_iso(event.time)
        state = "finished" if event.event == "finish" else _stopped(message, end=evidence.job_end)
        return Verdict(state, message, since or last_sign)
    return Verdict("killed", said[0] if said else "it ended without a word", last_sign)


def _stopped(message: str, *, end: JobEnd | None) -> State:
    """The state of a run that was told to stop: it knows of a signal at most, its batch script who sent it."""
    if message == ALLOCATION_ENDS:
        return STOPPED_BY["time limit"]
    return STOPPED_BY.get(end.cause, "stopped") if end else "stopped"


def _find_end(evidence: Evidence, *, now: float, is_there: IsThere) -> Verdict | None:
    """`killed` if no process of the newest start is left as far as can be known from here, else None."""
    holder = evidence.claim.holder if evidence.claim else None
    processes = [holder_of(record) for record in evidence.records if record.ended is None]
    processes += [holder] if holder else []
    seen = [is_there(process) for process in processes]
    if any(seen):
        return None
    last_sign = _last_sign(evidence)
    if processes and None not in seen:
        return Verdict("killed", f"no process of it is left on {processes[0].host}", last_sign)
    silent = now - last_sign if last_sign is not None else None
    if silent is not None and silent <= evidence.lease_seconds + CLOCK_SECONDS:
        return None
    whose = f" ({holder})" if holder else ""
    heard = "no sign of life" if silent is None else f"no sign of life for {duration(silent)}"
    return Verdict("killed", f"{heard}: its lease{whose} is stale", last_sign)


def _last_sign(evidence: Evidence) -> float | None:
    signs = [max(record.heartbeat, record.changed) for record in evidence.records]
    return max([*signs, *([evidence.renewed] if evidence.renewed is not None else [])], default=None)


def _by_progress(evidence: Evidence, *, now: float, is_there: IsThere, quiet_seconds: float | None) -> Verdict:
    claim = evidence.claim
    begun = from_iso(claim.holder.since) if claim and claim.holder else None
    active = [record for record in evidence.records if record.ended is None]
    if not active:
        return Verdict("running", "its ranks have not met yet", begun)
    # as long as one rank gets on, the others wait for it
    last = max(record.changed for record in active)
    limit = max(_quiet_limit(record, step_seconds=evidence.step_seconds) for record in active)
    if now - last <= (limit if quiet_seconds is None else quiet_seconds):
        return Verdict("running", "", begun)
    slowest = find_slowest(active)[0]
    where = f"rank {slowest.rank} on {slowest.host} is in phase '{main_phase(slowest)}'"
    step = "before its first step" if slowest.step is None else f"after step {slowest.step}"
    state = "" if is_there(holder_of(slowest)) is not False else ", and its process is gone"
    return Verdict("silent", f"no progress for {duration(now - last)}: {where} {step}{state}", last)


def _quiet_limit(record: RankRecord, *, step_seconds: float | None) -> float:
    limit = QUIET_SECONDS[PHASE_LIMITS.get(main_phase(record), "step")]
    return max(limit, QUIET_STEPS * (step_seconds or 0.0))
