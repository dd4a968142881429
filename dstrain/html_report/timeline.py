"""What happened to a run: its attempts, the marks on its curves, its warnings. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from dstrain.html_report.curves import drawn_evaluations
from dstrain.html_report.document import Attempt, Mark, Warned
from dstrain.html_report.files import RunFiles, StartFiles
from dstrain.html_report.privacy import shown_text
from dstrain.reporting.metadata import title
from dstrain.run_folder.claims import Claim
from dstrain.run_folder.outcome import RunOutcome, summarize
from dstrain.run_folder.record import RunRecord
from dstrain.run_folder.rows import EventRow, Row
from dstrain.run_folder.scores import Scores

ENDS = {"stop": "stopped", "finish": "finished"}
"""Events at the end of an attempt, in words."""
NO_WORD = "killed, lost or failed: it recorded no reason"


def list_attempts(files: RunFiles | StartFiles, *, state: str) -> list[Attempt]:
    """The attempts in order. `state` is that of the run, which is that of its newest attempt if nothing else is known."""
    if isinstance(files, StartFiles):
        return _describe_attempts(files.claims, ends=files.ends, rows=(), num_ranks=None, state=state)
    record = files.record
    return _describe_attempts(
        files.claims, ends=record.ends, rows=files.rows, num_ranks=record.info.world_size, state=state
    )


def _describe_attempts(
    starts: Sequence[Claim], *, ends: Mapping[int, RunOutcome], rows: Sequence[Row], num_ranks: int | None, state: str
) -> list[Attempt]:
    claims = {claim.number: claim for claim in starts}
    numbers = list(claims) or list(dict.fromkeys(row.lease for row in rows if isinstance(row, EventRow)))
    newest = numbers[-1] if numbers else None
    begun = [number for number in numbers if number not in ends or ends[number].outcome != "refused"]
    return [
        _describe_attempt(
            claim=claims.get(number),
            end=ends.get(number),
            rows=[row for row in rows if row.lease == number],
            unknown=state if number == newest else NO_WORD,
            # run.json is that of the newest attempt
            ranks=num_ranks if begun[-1:] == [number] else None,
        )
        for number in numbers
    ]


def _describe_attempt(
    *, claim: Claim | None, end: RunOutcome | None, rows: Sequence[Row], unknown: str, ranks: int | None
) -> Attempt:
    events = [row for row in rows if isinstance(row, EventRow)]
    begun = next((event for event in events if event.event in ("start", "resume")), None)
    last = next((event for event in reversed(events) if event.event in ENDS), None)
    holder = claim.holder if claim else None
    first_step = claim.base_step if claim and claim.base_step is not None else begun.step if begun else None
    return Attempt(
        begin=holder.since if holder else begun.time if begun and begun.time else None,
        end=(end.time if end else last.time if last else None) or None,
        first_step=first_step,
        last_step=_last_step(rows, end=end, default=first_step),
        cause=_describe_end(end, last=last, unknown=unknown),
        host=holder.host if holder else None,
        ranks=ranks,
    )


def _last_step(rows: Sequence[Row], *, end: RunOutcome | None, default: int | None) -> int | None:
    steps = [row.step for row in rows] + ([end.step] if end is not None and end.step is not None else [])
    return max(steps, default=default)


def _describe_end(end: RunOutcome | None, *, last: EventRow | None, unknown: str) -> str:
    """`preempted: received SIGTERM`, in one line."""
    if end is not None:
        return shown_text(summarize(f"{end.outcome}: {end.message}" if end.message else end.outcome))
    if last is not None:
        return shown_text(ENDS[last.event] + (f": {last.message}" if last.message else ""))
    return unknown


def list_marks(files: RunFiles) -> list[Mark]:
    """What happened at which step: evaluations, kept checkpoints, restarts, steps that were skipped, ends; by step."""
    record = files.record
    found = [
        *(Mark(row.step, "evaluation", _describe_scores(row, record=record)) for row in drawn_evaluations(record)),
        *(Mark(step, "save", f"checkpoint of step {step:,} is kept") for step in files.saved),
        *_restarts(record.events),
        *_skipped(record),
        *(
            Mark(event.step, "end", shown_text(ENDS[event.event] + (f": {event.message}" if event.message else "")))
            for event in record.events
            if event.event in ENDS
        ),
    ]
    return sorted(found, key=lambda mark: mark.step)


def _describe_scores(scores: Scores, *, record: RunRecord) -> str:
    metric = record.config.best_metric
    return f"{title(metric)} {scores.scores[metric]:.4f}" if metric in scores.scores else "evaluation"


def _restarts(events: Iterable[EventRow]) -> Iterator[Mark]:
    for event in events:
        if event.event == "resume":
            changes = f"; {'; '.join(event.changes)}" if event.changes else ""
            why = f" ({event.message})" if event.message else ""
            yield Mark(event.step, "restart", shown_text(f"started again from step {event.step:,}{why}{changes}"))


def _skipped(record: RunRecord) -> Iterator[Mark]:
    for before, row in pairwise(record.train_rows):
        number = row.skipped_steps - before.skipped_steps
        if number > 0:
            yield Mark(row.step, "skipped", f"{number} step(s) skipped since step {before.step:,}")
    for left_out in record.quarantine:
        where = shown_text(left_out.where)
        yield Mark(left_out.step, "skipped", f"a row was left out of training ({where}): {shown_text(left_out.reason)}")


def list_warnings(files: RunFiles) -> list[Warned]:
    """The warnings of the run, then those of its evaluations and events by step, each text once."""
    record = files.record
    found = [
        *((None, text) for text in record.info.warnings),
        *((event.step, f"not saved: {event.message}") for event in record.events if event.event == "unsaved"),
        *((row.step, text) for row in record.eval_rows for text in row.warnings),
        *(
            (step, f"rows of attempt {number} are missing from here on: they could not be written, as on a full disk")
            for number, step in record.unwritten.items()
        ),
    ]
    first = {text: step for step, text in reversed(found)}
    ordered = sorted(first.items(), key=lambda each: -1 if each[1] is None else each[1])
    return [Warned(step, shown_text(text)) for text, step in ordered]
