"""A RunStatus as a few lines for people, or as JSON values for scripts. Reads nothing."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dstrain.reporting.terminal import UNKNOWN, duration, moment, printable, to_iso
from dstrain.status.inspect import RanksView, RankView, RunStatus, Start
from dstrain.status.judge import STOPPED

MAX_SHOWN = 3
"""Ranks without a sign of life that are named."""
MAX_STARTS = 5
"""Starts that are listed, the newest."""
MAX_SCORES = 5
AGAIN = "start it again: the same command goes on from the newest checkpoint"
ADVICE = {
    **dict.fromkeys(("killed", "lost", *STOPPED), AGAIN),
    "no such folder": "give a run folder: the output_dir of its recipe, seen from here",
    "silent": "its watchdog ends it when its limit is over (machine.watchdog), with the stacks of all ranks in hangs/",
}
TIMES = ("since", "saved", "now")
"""Fields that hold seconds since 1970."""


def describe_status(status: RunStatus) -> str:
    """What a run is doing, in at most some twenty lines whatever its size."""
    rows = list(_rows(status))
    width = max((len(topic) for topic, _ in rows), default=0)
    lines = [f"{status.run}: {status.state}{_headline(status)}"]
    for topic, text in rows:
        first, *more = printable(text).split("\n")
        lines += [f"  {topic:<{width}}  {first}", *(f"  {'':<{width}}  {line}" for line in more)]
    return "\n".join(lines)


def as_json(status: RunStatus) -> dict[str, Any]:
    """The same as JSON values: times in ISO form, and null for what is no finite number."""
    values = asdict(status)
    scores = values.pop("last_scores")
    values["last_scores"] = {"step": scores["step"], "scores": scores["scores"]} if scores else None
    encoded: dict[str, Any] = _encode(values)
    return encoded


def _headline(status: RunStatus) -> str:
    since = f" since {moment(status.since)} ({_ago(status.since, now=status.now)})" if status.since else ""
    quiet = status.ranks.quiet_seconds if status.ranks and status.state == "running" else None
    return since + (f", last progress {duration(quiet)} ago" if quiet is not None else "")


def _rows(status: RunStatus) -> Iterator[tuple[str, str]]:
    if status.message:
        yield "message", status.message
    if status.cause:
        yield "cause", status.cause
    if status.comes_again is not None:
        job = status.comes_again  # who cancels it while it waits leaves no word in the run folder
        yield "way out", f"Slurm starts job {job} again, as squeue --jobs {job} shows; if it does not, {AGAIN}"
    elif advice := ADVICE.get(status.state):
        yield "way out", advice
    if status.step is not None or status.total_steps is not None:
        yield "step", _progress(status)
    if status.eta_seconds is not None and status.step_seconds is not None:
        end = moment(status.now + status.eta_seconds)
        yield "ETA", f"in {duration(status.eta_seconds)}, {end} ({status.step_seconds:.3g} s a step)"
    if status.ranks:
        yield from _rank_rows(status.ranks)
    if status.last_loss:
        yield "loss", f"{status.last_loss.value:.4f} at step {status.last_loss.step}"
    if status.last_scores:
        yield "scores", _scores(status)
    if status.best:
        yield "best", f"{status.best.metric} {status.best.value:.4f} at step {status.best.step}"
    if checkpoint := status.checkpoint:
        when = f", saved {_ago(checkpoint.saved, now=status.now)}" if checkpoint.saved else ""
        yield "checkpoint", f"{checkpoint.name}{when}, the newest of {checkpoint.num_checkpoints}"
    elif status.state not in ("never started", "no such folder"):
        yield "checkpoint", "none yet"
    yield from _start_rows(status.starts)
    for note in status.notes:
        yield "note", note


def _progress(status: RunStatus) -> str:
    step = UNKNOWN if status.step is None else f"{status.step:,}"
    if status.total_steps is None:
        return step
    share = "" if status.step is None else f" ({status.step / status.total_steps:.1%})"
    return f"{step} of {status.total_steps:,}{share}"


def _rank_rows(ranks: RanksView) -> Iterator[tuple[str, str]]:
    phases = ", ".join(f"{count} in '{phase}'" for phase, count in ranks.phases.items())
    saving = f"; a checkpoint in flight on {ranks.num_saving}" if ranks.num_saving else ""
    yield "ranks", f"{ranks.num_ranks}: {phases}{saving}"
    if ranks.slowest:
        yield "slowest" if ranks.num_ranks > 1 else "rank", "\n".join(map(_rank, ranks.slowest))
    if ranks.missing:
        more = len(ranks.missing) - MAX_SHOWN
        named = [f"{_rank(rank)}: {rank.problem}" for rank in ranks.missing[:MAX_SHOWN]]
        yield "missing", "\n".join([*named, *([f"… and {more} more"] if more > 0 else [])])


def _rank(rank: RankView) -> str:
    step = "before its first step" if rank.step is None else f"step {rank.step}"
    return f"rank {rank.rank} on {rank.host}: '{rank.phase}', {step}, last progress {duration(rank.quiet_seconds)} ago"


def _scores(status: RunStatus) -> str:
    assert status.last_scores
    metric = status.best.metric if status.best else None
    listed = sorted(status.last_scores.scores.items(), key=lambda score: score[0] != metric)
    shown = "  ".join(f"{name} {value:.4f}" for name, value in listed[:MAX_SCORES])
    return f"{shown}{'  …' if len(listed) > MAX_SCORES else ''} at step {status.last_scores.step}"


def _start_rows(starts: Sequence[Start]) -> Iterator[tuple[str, str]]:
    if not starts:
        return
    hidden = len(starts) - MAX_STARTS
    lines = [f"… {hidden} earlier"] if hidden > 0 else []
    for start in starts[-MAX_STARTS:]:
        from_step = "" if start.from_step is None else f" from step {start.from_step}"
        ended = "goes on" if start.ended is None else start.ended.partition("\n")[0]
        cause = f" ({start.cause})" if start.cause else ""
        lines.append(f"{start.number}  {moment(start.since)} on {start.host or UNKNOWN}{from_step}{cause}: {ended}")
    yield "starts", "\n".join(lines)


def _ago(then: float | None, *, now: float) -> str:
    return UNKNOWN if then is None else f"{duration(now - then)} ago"


def _encode(value: Any, *, name: str = "") -> Any:
    if name in TIMES:
        return to_iso(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _encode(item, name=key) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(item) for item in value]
    return value
