"""A RunStatus as a few lines of text, or as JSON values for scripts. Reads no files."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dstrain.cluster.console import duration
from dstrain.config.arguments import shell_command
from dstrain.reporting.standing import Standing
from dstrain.reporting.terminal import UNKNOWN, moment, printable, to_iso
from dstrain.run_folder.outcome import summarize
from dstrain.status.inspect import AttemptView, RanksView, RankView, RunStatus, ScoreAtStep
from dstrain.status.judge import STOPPED

MAX_SHOWN = 3
"""Most missing ranks that are named."""
MAX_ATTEMPTS = 5
"""Most attempts that are listed, counted from the newest."""
MAX_SCORES = 5
RESUMES = "the same command resumes from the newest checkpoint"
BEGINS = "the same command begins at the first step, since there is no checkpoint yet"
ADVICE = {
    **dict.fromkeys(("killed", "lost", *STOPPED), "start it again: {again}"),
    "failed": "mend what the message says; then {again}",
    "unreadable": "restore the files of the run folder, or give another one: the notes say what is wrong with them",
    "no such folder": "give the run folder (output_dir in the recipe) as a path on this host",
    "silent": "its watchdog ends it after the time limit in machine.watchdog, and writes the stacks of all ranks to hangs/",
}
TIMES = ("since", "saved", "now")
"""Fields that hold seconds since 1970."""


def describe_status(status: RunStatus) -> str:
    """What a run is doing, in about twenty lines at most, however many ranks it has."""
    rows = list(_rows(status))
    width = max((len(topic) for topic, _ in rows), default=0)
    lines = [f"{status.run}: {status.state}{_headline(status)}"]
    for topic, text in rows:
        first, *more = printable(text).split("\n")
        lines += [f"  {topic:<{width}}  {first}", *(f"  {'':<{width}}  {line}" for line in more)]
    return "\n".join(lines)


def describe_standing(status: RunStatus) -> Standing:
    """What a page says of what a run is doing, as the first lines of `describe_status`."""
    reasons = [summarize(status.message), status.cause and f"cause: {status.cause}"]
    return Standing(status.state, "; ".join(filter(None, reasons)), _advise(status), status.step)


def as_json(status: RunStatus) -> dict[str, Any]:
    """The same as JSON values: times in ISO format, None for a number that is not finite."""
    values = asdict(status)
    scores = values.pop("last_scores")
    kept = ("step", "scores", "intervals")
    values["last_scores"] = {key: scores[key] for key in kept} if scores else None
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
    if advice := _advise(status):
        yield "what to do", advice
    if status.step is not None or status.total_steps is not None:
        yield "step", describe_progress(status)
    if status.eta_seconds is not None and status.step_seconds is not None:
        end = moment(status.now + status.eta_seconds)
        yield "ETA", f"in {duration(status.eta_seconds)}, {end} ({status.step_seconds:.3g} s per step)"
    if status.ranks:
        yield from _rank_rows(status.ranks)
    if status.last_loss:
        yield "loss", f"{status.last_loss.value:.4f} at step {status.last_loss.step}"
    if status.last_scores:
        yield "scores", _scores(status)
    if status.best:
        yield "best", describe_best(status.best)
    if checkpoint := status.checkpoint:
        when = f", saved {_ago(checkpoint.saved, now=status.now)}" if checkpoint.saved else ""
        yield "checkpoint", f"{checkpoint.name}{when}, the newest of {checkpoint.num_checkpoints}"
    elif status.state not in ("starting", "never started", "unreadable", "no such folder"):
        yield "checkpoint", "none yet"
    yield from _unsaved_rows(status)
    yield from _attempt_rows(status.starts)
    for note in status.notes:
        yield "note", note


def _advise(status: RunStatus) -> str:
    """What to do, in a line; empty if nothing."""
    again = RESUMES if status.checkpoint else BEGINS
    if status.comes_again is None:
        return ADVICE.get(status.state, "").format(again=again)
    # the run folder does not record that a waiting job was cancelled, therefore the hint at squeue
    job = status.comes_again
    queue = shell_command(["squeue", "--jobs", job])
    return f"Slurm starts job {job} again (see {queue}); if it does not, start it again: {again}"


def _unsaved_rows(status: RunStatus) -> Iterator[tuple[str, str]]:
    if status.unsaved is None:
        return
    steps, seconds = status.unsaved.steps, status.unsaved.seconds
    work = f"{steps:,} step{'' if steps == 1 else 's'}" + (
        f", {duration(seconds)} of work" if steps and seconds else ""
    )
    if status.state in ("running", "silent"):
        yield "a kill costs", work
    elif steps:
        yield "to be repeated", work


def describe_progress(status: RunStatus) -> str:
    """The steps that are done, of how many: `120 of 1,000 (12.0%)`."""
    step = UNKNOWN if status.step is None else f"{status.step:,}"
    if status.total_steps is None:
        return step
    share = "" if status.step is None else f" ({status.step / status.total_steps:.1%})"
    return f"{step} of {status.total_steps:,}{share}"


def _rank_rows(ranks: RanksView) -> Iterator[tuple[str, str]]:
    phases = ", ".join(f"{count} in '{phase}'" for phase, count in ranks.phases.items())
    saving = f"; {ranks.num_saving} saving a checkpoint" if ranks.num_saving else ""
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
    intervals = status.last_scores.intervals
    shown = "  ".join(_score(name, value, intervals.get(name)) for name, value in listed[:MAX_SCORES])
    return f"{shown}{'  …' if len(listed) > MAX_SCORES else ''} at step {status.last_scores.step}"


def describe_best(best: ScoreAtStep) -> str:
    """A score with its interval and step: `bleu 39.5000 ± 0.9000 at step 400`."""
    return f"{_score(best.metric, best.value, best.interval)} at step {best.step}"


def _score(name: str, value: float, interval: float | None) -> str:
    return f"{name} {value:.4f}" + ("" if interval is None else f" ± {interval:.4f}")


def _attempt_rows(attempts: Sequence[AttemptView]) -> Iterator[tuple[str, str]]:
    if not attempts:
        return
    hidden = len(attempts) - MAX_ATTEMPTS
    lines = [f"… {hidden} earlier"] if hidden > 0 else []
    for attempt in attempts[-MAX_ATTEMPTS:]:
        host = attempt.host or UNKNOWN
        from_step = "" if attempt.from_step is None else f" from step {attempt.from_step}"
        cause = f" ({attempt.cause})" if attempt.cause else ""
        ended = "in progress" if attempt.ended is None else summarize(attempt.ended)
        lines.append(f"{attempt.number}  {moment(attempt.since)} on {host}{from_step}{cause}: {ended}")
    yield "attempts", "\n".join(lines)


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
