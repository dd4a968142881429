"""Compares a scenario with the straight run: differences, a verdict and a table. Pure; reads no files, starts nothing."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from signal import SIGKILL
from typing import Any

from dstrain.cluster.exit_codes import EXIT_PREEMPTED
from dstrain.drill.scenarios import CONTROL, STRAIGHT, RankLaunch, Scenario
from dstrain.reporting import markdown
from dstrain.run_folder.record import RunRecord

TOLERANCES = {"fp32": 1e-6, "bf16": 2e-2, "fp16": 2e-2}
"""Largest relative difference allowed by precision, unless the control run differs by more."""
OTHER_RANKS_TOLERANCE = 1e-5
"""Allowed at least when the number of ranks changes: sums are then rounded in another order."""
NOISE_FACTOR = 2.0
"""Differences up to this multiple of the control run's are allowed."""
MAX_NOISE = 5e-2
"""Where two straight runs differ by more, the drill proves nothing and fails."""
MAX_SCORES: Mapping[str, float] = {"bleu": 100.0, "chrf": 100.0, "ter": 100.0}
"""Largest value of a score, 1 if not listed. Differences are relative to at least this: near 0 one hypothesis would dominate."""

HEADER = ("scenario", "stopped in", "resumed from", "exit codes", "losses", "scores", "final weights", "verdict")
LEGEND = (
    "losses: largest relative difference from the straight run; scores: largest difference as a share of the highest "
    "possible score; exit codes of all ranks, launch by launch: 0 finished, 85 stopped and to be started again (saved, or a "
    "peer was lost), -9 killed"
)


@dataclass(frozen=True, slots=True)
class Exit:
    """How one launch ended."""

    codes: tuple[int, ...]
    """Exit codes in rank order; a negative one is a signal number."""
    stopped_in: str | None = None
    """Where it was killed or stopped according to its own files; None if they do not say."""
    timed_out: bool = False


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run folder after its last launch."""

    record: RunRecord
    weights: str
    """SHA-256 of the final weights; empty if there are none."""

    @property
    def resumed_from(self) -> int:
        """The step that its last launch began from."""
        starts = [event.step for event in self.record.events if event.event in ("start", "resume")]
        return starts[-1] if starts else 0


@dataclass(frozen=True, slots=True)
class Difference:
    """Largest differences between a run and the straight run."""

    losses: float
    scores: float
    same_weights: bool
    missing: tuple[str, ...] = ()
    """Values that only one of the two runs logged."""


@dataclass(frozen=True, slots=True)
class Result:
    """A row of the table."""

    scenario: Scenario
    exits: tuple[Exit, ...]
    resumed_from: int | None = None
    difference: Difference | None = None
    fault: str | None = None
    """Why it failed; None if it passed."""


def compare(run: FinishedRun, *, straight: FinishedRun) -> Difference:
    """The largest differences over the steps and evaluations of both runs, and the values that only one of them has."""
    losses, wanted_losses = _losses(run.record), _losses(straight.record)
    scores, wanted_scores = _scores(run.record), _scores(straight.record)
    missing = [*sorted(losses.keys() ^ wanted_losses.keys()), *sorted(scores.keys() ^ wanted_scores.keys())]
    return Difference(
        losses=_largest(_apart(losses[key], wanted_losses[key]) for key in losses.keys() & wanted_losses.keys()),
        scores=_largest(
            _apart(scores[key], wanted_scores[key], at_least=MAX_SCORES.get(key[1].rpartition("/")[2], 1.0))
            for key in scores.keys() & wanted_scores.keys()
        ),
        same_weights=run.weights == straight.weights,
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
    """Absolute difference divided by the larger absolute value, or by `at_least` if that is more."""
    if value == other or (math.isnan(value) and math.isnan(other)):
        return 0.0
    if not (math.isfinite(value) and math.isfinite(other)):
        return math.inf
    return abs(value - other) / max(abs(value), abs(other), at_least)


def _largest(values: Iterable[float]) -> float:
    return max(values, default=0.0)


def tolerance_of(scenario: Scenario, *, precision: str) -> float:
    """The largest relative difference that rounding can explain."""
    tolerance = TOLERANCES[precision]
    return max(tolerance, OTHER_RANKS_TOLERANCE) if scenario.changes_ranks else tolerance


def find_fault(
    scenario: Scenario,
    *,
    exits: Sequence[Exit],
    run: FinishedRun | None,
    difference: Difference | None,
    noise: Difference | None,
) -> str | None:
    """Why a scenario failed; None if it passed. `noise` is the difference of the control run, None if that has not run."""
    for number, (launch, end) in enumerate(zip(scenario.launches, exits, strict=False), start=1):
        if problem := _launch_problem(launch, end=end, is_last=number == len(scenario.launches)):
            return f"launch {number} of {len(scenario.launches)}: {problem}"
    if run is None:
        return "its run folder cannot be read"
    if run.record.status != "finished":
        return f"its run folder says {run.record.status} instead of finished"
    if run.resumed_from < scenario.kept_step:
        return f"it resumed from step {run.resumed_from} although step {scenario.kept_step} was saved"
    if difference is None:
        return None
    return _difference_problem(scenario, difference=difference, noise=noise, precision=run.record.config.precision)


def _launch_problem(launch: RankLaunch, *, end: Exit, is_last: bool) -> str | None:
    codes = f"exit codes {_joined(end.codes)}"
    if end.timed_out:
        return "it exceeded its time limit and was killed"
    if is_last:
        return None if set(end.codes) == {0} else f"it did not finish ({codes})"
    if launch.sigterm_after is not None:
        if set(end.codes) == {0}:
            return "it finished before the signal was sent: raise --steps"
        return None if set(end.codes) == {EXIT_PREEMPTED} else f"it did not shut down cleanly after SIGTERM ({codes})"
    assert launch.drill
    if -SIGKILL not in end.codes:
        return f"phase '{launch.drill.phase}' was entered fewer than {launch.drill.occurrence} times ({codes})"
    if end.stopped_in is None:
        return f"it was killed, but no rank's record shows it in '{launch.drill.phase}'"
    others = set(end.codes) - {-SIGKILL, 0, EXIT_PREEMPTED}
    return f"a rank that was not killed failed ({codes})" if others else None


def _difference_problem(
    scenario: Scenario, *, difference: Difference, noise: Difference | None, precision: str
) -> str | None:
    if difference.missing:
        shown = ", ".join(difference.missing[:3]) + (" …" if len(difference.missing) > 3 else "")
        return f"it and the straight run logged different values: {shown}"
    tolerance = MAX_NOISE if scenario.name == CONTROL else tolerance_of(scenario, precision=precision)
    for kind in ("losses", "scores"):
        found, noisy = getattr(difference, kind), getattr(noise, kind) if noise else 0.0
        allowed = max(tolerance, NOISE_FACTOR * noisy)
        if found > allowed:
            return f"{kind} differ by {found:.2g}, more than {allowed:.2g}"
    repeats = noise is not None and noise.same_weights and scenario.name != CONTROL and not scenario.changes_ranks
    if repeats and difference.losses == 0.0 and not difference.same_weights:
        return "losses are equal but the final weights are not, although straight runs are bit-equal"
    return None


def cells(result: Result) -> tuple[str, ...]:
    """A row of the table as text, one cell per column of HEADER."""
    stops = [each.stopped_in or "?" for each in result.exits[: len(result.scenario.launches) - 1]]
    resumed = result.resumed_from is not None and len(result.scenario.launches) > 1
    difference = result.difference
    return (
        result.scenario.title,
        ", ".join(stops) or "-",
        f"step {result.resumed_from}" if resumed else "-",
        ", then ".join(_joined(each.codes) for each in result.exits),
        f"{difference.losses:.2g}" if difference else "-",
        f"{difference.scores:.2g}" if difference else "-",
        ("bit-equal" if difference.same_weights else "differ") if difference else "-",
        "NOT OK" if result.fault else "reference" if result.scenario.name == STRAIGHT else "ok",
    )


def text_table(results: Sequence[Result]) -> str:
    """The table for a terminal, one line per scenario."""
    rows = [HEADER, *map(cells, results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def markdown_report(results: Sequence[Result], *, title: str) -> str:
    """The table with a title, the faults found and a legend."""
    faults = [
        f"- {markdown.plain(result.scenario.title)}: {markdown.plain(result.fault or '')}" for result in failed(results)
    ]
    table = markdown.table(HEADER, map(cells, results))
    return "\n\n".join([f"# {markdown.plain(title)}", table, *(["\n".join(faults)] if faults else []), LEGEND]) + "\n"


def as_json(result: Result) -> dict[str, Any]:
    """A row of the table as JSON values; a number that is not finite is null."""
    difference = result.difference
    return {
        "story": result.scenario.name,
        "ranks": [launch.num_ranks for launch in result.scenario.launches],
        "stopped_in": [each.stopped_in for each in result.exits],
        "exit_codes": [list(each.codes) for each in result.exits],
        "went_on_from": result.resumed_from,
        "losses": _finite(difference.losses) if difference else None,
        "scores": _finite(difference.scores) if difference else None,
        "same_weights": difference.same_weights if difference else None,
        "ok": result.fault is None,
        "fault": result.fault,
    }


def failed(results: Iterable[Result]) -> list[Result]:
    """The results of the scenarios that failed."""
    return [result for result in results if result.fault is not None]


def _joined(codes: Iterable[int]) -> str:
    return " ".join(map(str, codes))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
