"""How a story ended beside the straight run: differences, a verdict and a table. Pure; reads no files, starts nothing."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from signal import SIGKILL
from typing import Any

from dstrain.cluster.exit_codes import EXIT_PREEMPTED
from dstrain.drill.scenarios import CONTROL, STRAIGHT, Life, Story
from dstrain.reporting import markdown
from dstrain.run_folder.record import RunRecord

TOLERANCES = {"fp32": 1e-6, "bf16": 2e-2, "fp16": 2e-2}
"""Largest relative difference by precision, where the control run shows no more."""
OTHER_RANKS_TOLERANCE = 1e-5
"""Sums over other ranks are rounded in another order."""
NOISE_FACTOR = 2.0
MAX_NOISE = 5e-2
"""A machine whose straight runs differ by more proves nothing."""
FULL_MARKS: Mapping[str, float] = {"bleu": 100.0, "chrf": 100.0}
"""What a score can reach, 1 for others: a score near 0 would make a large ratio of one other hypothesis."""

HEADER = ("story", "stopped in", "went on from", "exit codes", "losses", "scores", "final weights", "verdict")
LEGEND = (
    "losses: largest relative difference from the straight run; scores: largest difference as a share of full marks; exit "
    "codes of all ranks, life after life: -9 killed, 85 saved or a peer was lost, start me again, 0 finished"
)


@dataclass(frozen=True, slots=True)
class Ended:
    """How one life ended."""

    codes: tuple[int, ...]
    """Exit codes in the order of ranks; negative is a signal."""
    stopped_in: str | None = None
    """Where its own files say that it was killed or stopped; None if they do not."""
    timed_out: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """What a finished run folder tells: its record, and a digest of the final weights."""

    record: RunRecord
    weights: str

    @property
    def went_on_from(self) -> int:
        """The step that its last start began at."""
        starts = [event.step for event in self.record.events if event.event in ("start", "resume")]
        return starts[-1] if starts else 0


@dataclass(frozen=True, slots=True)
class Difference:
    """Between a run and the straight one."""

    losses: float
    scores: float
    same_weights: bool
    missing: tuple[str, ...] = ()
    """Rows that only one of them has."""


@dataclass(frozen=True, slots=True)
class Result:
    """A row of the table."""

    story: Story
    ended: tuple[Ended, ...]
    went_on_from: int | None = None
    difference: Difference | None = None
    fault: str | None = None
    """Why it is not ok."""


def compare(told: Told, *, straight: Told) -> Difference:
    """The largest differences over all steps and evaluations that both have, and what only one has."""
    losses, wanted_losses = _losses(told.record), _losses(straight.record)
    scores, wanted_scores = _scores(told.record), _scores(straight.record)
    missing = [*sorted(losses.keys() ^ wanted_losses.keys()), *sorted(scores.keys() ^ wanted_scores.keys())]
    return Difference(
        losses=_largest(_apart(losses[key], wanted_losses[key]) for key in losses.keys() & wanted_losses.keys()),
        scores=_largest(
            _apart(scores[key], wanted_scores[key], at_least=FULL_MARKS.get(key[1], 1.0))
            for key in scores.keys() & wanted_scores.keys()
        ),
        same_weights=told.weights == straight.weights,
        missing=tuple(f"{name} of step {step}" for step, name in missing),
    )


def _losses(record: RunRecord) -> dict[tuple[int, str], float]:
    losses = {(row.step, "training loss"): row.loss for row in record.train_rows}
    for row in record.eval_rows:
        losses[row.step, "loss"] = row.scores.get("loss", math.nan)
        losses[row.step, "mean training loss"] = math.nan if row.train_loss is None else row.train_loss
    return losses


def _scores(record: RunRecord) -> dict[tuple[int, str], float]:
    return {(row.step, name): value for row in record.eval_rows for name, value in row.scores.items() if name != "loss"}


def _apart(value: float, other: float, *, at_least: float = 0.0) -> float:
    """Difference relative to the larger one, or to `at_least`."""
    if value == other or (math.isnan(value) and math.isnan(other)):
        return 0.0
    if not (math.isfinite(value) and math.isfinite(other)):
        return math.inf
    return abs(value - other) / max(abs(value), abs(other), at_least)


def _largest(values: Iterable[float]) -> float:
    return max(values, default=0.0)


def tolerance_of(story: Story, *, precision: str) -> float:
    """The largest relative difference that rounding explains."""
    tolerance = TOLERANCES[precision]
    return max(tolerance, OTHER_RANKS_TOLERANCE) if story.changes_ranks else tolerance


def find_fault(
    story: Story, *, ended: Sequence[Ended], told: Told | None, difference: Difference | None, noise: Difference | None
) -> str | None:
    """Why a story is not ok, None if it is. `noise` is the control run's difference, None before or without it."""
    for number, (life, end) in enumerate(zip(story.lives, ended, strict=False), start=1):
        if problem := _life_problem(life, end=end, is_last=number == len(story.lives)):
            return f"start {number} of {len(story.lives)}: {problem}"
    if told is None:
        return "its run folder cannot be read"
    if told.record.status != "finished":
        return f"its run folder says {told.record.status}, not finished"
    if told.went_on_from < story.kept_step:
        return f"it went on from step {told.went_on_from} although step {story.kept_step} was saved"
    if difference is None:
        return None
    return _difference_problem(story, difference=difference, noise=noise, precision=told.record.config.precision)


def _life_problem(life: Life, *, end: Ended, is_last: bool) -> str | None:
    codes = f"exit codes {_joined(end.codes)}"
    if end.timed_out:
        return "it did not end in time and was killed"
    if is_last:
        return None if set(end.codes) == {0} else f"it did not finish ({codes})"
    if life.sigterm_after is not None:
        if set(end.codes) == {0}:
            return "it was over before the signal came: give it more --steps"
        return None if set(end.codes) == {EXIT_PREEMPTED} else f"it did not stop in order at SIGTERM ({codes})"
    assert life.drill
    if -SIGKILL not in end.codes:
        return f"'{life.drill.phase}' {life.drill.occurrence} was never reached ({codes})"
    if end.stopped_in is None:
        return f"it was killed, but no rank's record says in '{life.drill.phase}'"
    others = set(end.codes) - {-SIGKILL, 0, EXIT_PREEMPTED}
    return f"a rank that was not killed failed ({codes})" if others else None


def _difference_problem(
    story: Story, *, difference: Difference, noise: Difference | None, precision: str
) -> str | None:
    if difference.missing:
        shown = ", ".join(difference.missing[:3]) + (" …" if len(difference.missing) > 3 else "")
        return f"it and the straight run do not have the same rows: {shown}"
    tolerance = MAX_NOISE if story.name == CONTROL else tolerance_of(story, precision=precision)
    for kind in ("losses", "scores"):
        found, noisy = getattr(difference, kind), getattr(noise, kind) if noise else 0.0
        allowed = max(tolerance, NOISE_FACTOR * noisy)
        if found > allowed:
            return f"{kind} differ by {found:.2g}, more than {allowed:.2g}"
    repeats = noise is not None and noise.same_weights and story.name != CONTROL and not story.changes_ranks
    if repeats and difference.losses == 0.0 and not difference.same_weights:
        return "losses are equal but the final weights are not, although a straight run repeats them bit for bit"
    return None


def cells(result: Result) -> tuple[str, ...]:
    """A row of the table as text, one cell a column of HEADER."""
    stops = [end.stopped_in or "?" for end in result.ended[: len(result.story.lives) - 1]]
    resumed = result.went_on_from is not None and len(result.story.lives) > 1
    difference = result.difference
    return (
        result.story.title,
        ", ".join(stops) or "-",
        f"step {result.went_on_from}" if resumed else "-",
        ", then ".join(_joined(end.codes) for end in result.ended),
        f"{difference.losses:.2g}" if difference else "-",
        f"{difference.scores:.2g}" if difference else "-",
        ("bit-equal" if difference.same_weights else "differ") if difference else "-",
        "NOT OK" if result.fault else "reference" if result.story.name == STRAIGHT else "ok",
    )


def text_table(results: Sequence[Result]) -> str:
    """The table for a terminal, a line a story."""
    rows = [HEADER, *map(cells, results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def markdown_report(results: Sequence[Result], *, title: str) -> str:
    """The table with its title, its faults and what its columns mean."""
    faults = [
        f"- {markdown.plain(result.story.title)}: {markdown.plain(result.fault or '')}" for result in failed(results)
    ]
    table = markdown.table(HEADER, map(cells, results))
    return "\n\n".join([f"# {markdown.plain(title)}", table, *(["\n".join(faults)] if faults else []), LEGEND]) + "\n"


def as_json(result: Result) -> dict[str, Any]:
    """A row of the table as JSON values; what is no finite number is null."""
    difference = result.difference
    return {
        "story": result.story.name,
        "ranks": [life.num_ranks for life in result.story.lives],
        "stopped_in": [end.stopped_in for end in result.ended],
        "exit_codes": [list(end.codes) for end in result.ended],
        "went_on_from": result.went_on_from,
        "losses": _finite(difference.losses) if difference else None,
        "scores": _finite(difference.scores) if difference else None,
        "same_weights": difference.same_weights if difference else None,
        "ok": result.fault is None,
        "fault": result.fault,
    }


def failed(results: Iterable[Result]) -> list[Result]:
    """The rows that are not ok."""
    return [result for result in results if result.fault is not None]


def _joined(codes: Iterable[int]) -> str:
    return " ".join(map(str, codes))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
