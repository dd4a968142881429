"""The audit of a run's data as tables: what was looked at, what was found, and whether that is an alarm. Pure."""

from collections.abc import Iterator

from dstrain.html_report.document import AuditTable
from dstrain.html_report.privacy import shown_path, shown_text
from dstrain.reporting.audit import EQUAL_SHARE, OVERLAP_SHARE, SPLITS, describe_lengths, is_alarm, is_much_lost
from dstrain.reporting.directions import find_wrong_ways
from dstrain.reporting.places import name_places
from dstrain.run_folder.audit import CHECKS, Audit, Losses, SetAudit, SourceAudit

Line = tuple[str, str, str]
MAX_PLACES = 3
"""Most rows that are named of those that a check has found."""


def build_audit_tables(audit: Audit, *, kind: str) -> list[AuditTable]:
    """A table of each source of training and evaluation, of each set, and of the overlap; `kind` is that of the task."""
    tables = []
    for split, rows in (("train", audit.train), ("eval", audit.eval)):
        for source in rows.sources:
            of_source = list(_describe_source(source, kind=kind))
            tables.append(AuditTable(f"{SPLITS[split]} rows of {shown_path(source.place)}", of_source))
        losses = audit.losses.get(split, Losses())
        of_set = [*_describe_twins(rows, is_training=split == "train"), *_describe_losses(losses, rows=rows.rows)]
        tables.append(AuditTable(f"all {SPLITS[split]} rows", of_set))
    tables.append(AuditTable("evaluation rows that are in training", list(_describe_overlap(audit))))
    wrong_ways = find_wrong_ways(audit, kind=kind, names=name_places(audit))
    if wrong_ways:
        lines = [(shown_path(place), shown_text(said), "alarm") for place, said in wrong_ways]
        tables.append(AuditTable("whole sources that go the wrong way", lines))
    return tables


def _describe_source(source: SourceAudit, *, kind: str) -> Iterator[Line]:
    yield "rows", f"{source.rows:,}", "note"
    for side, lengths in (("source", source.source), ("target", source.target)):
        yield f"{side} tokens", describe_lengths(lengths), "note"
    scripts = ", ".join(f"{name} {_share(rows, source.rows)}" for name, rows in source.scripts.items())
    yield "scripts", scripts, "note"
    for name, found in source.checks.items():
        where = f": {', '.join(map(shown_path, found.rows[:MAX_PLACES]))}" if found.rows else ""
        grade = _grade(found.number, alarm=is_alarm(name, found, rows=source.rows, kind=kind))
        yield CHECKS.get(name, name), f"{_share(found.number, source.rows)}{where}", grade


def _describe_twins(rows: SetAudit, *, is_training: bool) -> Iterator[Line]:
    alarm = is_training and rows.equal.number > EQUAL_SHARE * rows.rows
    equal, normalised, sources = (each.number for each in (rows.equal, rows.normalised, rows.many_targets))
    yield "repeat an earlier row, letter for letter", _share(equal, rows.rows), _grade(equal, alarm=alarm)
    yield "repeat an earlier row, but for case and spaces", _share(normalised, rows.rows), _grade(normalised)
    yield "sources with several targets", f"{sources:,}", _grade(sources)


def _describe_losses(losses: Losses, *, rows: int) -> Iterator[Line]:
    for reason, number in losses.skipped.items():
        places = losses.rows.get(f"skip {reason}", ())[:MAX_PLACES]
        where = f": {', '.join(map(shown_path, places))}" if places else ""
        grade = _grade(number, alarm=is_much_lost(reason, number, rows=rows))
        yield f"left out: {shown_text(reason.replace('_', ' '))}", f"{number:,}{where}", grade
    yield "sources over the limit, and cut", f"{losses.source_cut:,}", _grade(losses.source_cut)
    yield "targets over the limit, and cut", f"{losses.target_cut:,}", _grade(losses.target_cut)
    for side, share in (("sources", losses.source_unknown), ("targets", losses.target_unknown)):
        yield f"tokens of {side} that are not in the vocabulary", f"{share:.2%}", _grade(share)
    if number := losses.not_given_back.number:
        yield "references that the tokenizer does not give back", f"{number:,}", "note"


def _describe_overlap(audit: Audit) -> Iterator[Line]:
    overlap = audit.overlap
    yield "evaluation rows", f"{overlap.eval_rows:,}", "note"
    for way, shared in overlap.ways.items():
        alarm = way == "normalised pair" and shared.eval_rows > OVERLAP_SHARE * overlap.eval_rows
        yield way, _share(shared.eval_rows, overlap.eval_rows), _grade(shared.eval_rows, alarm=alarm)


def _grade(number: float, *, alarm: bool = False) -> str:
    return "alarm" if alarm else "note" if number else "ok"


def _share(rows: int, of: int) -> str:
    return f"{rows:,} ({rows / max(1, of):.2%})"
