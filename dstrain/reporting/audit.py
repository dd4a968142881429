"""The audit of a run's data in words: what is alarming, a few lines for the start, all of it for `dstrain audit`, the card.

Shares above which something is an alarm lie above what clean data have: recurring targets are normal for parses, and numbers
differ where one language counts in ten thousands. What is below is shown all the same.
"""

from collections.abc import Iterator, Mapping, Sequence

from dstrain.config.schema import RunConfig
from dstrain.reporting.directions import find_wrong_ways
from dstrain.reporting.markdown import Markdown, code, count, join, number, percent, phrase, table
from dstrain.reporting.places import name_places, shorten_row
from dstrain.run_folder.audit import (
    CHECKS,
    NOT_IN_TRAINING,
    Audit,
    Found,
    Lengths,
    Losses,
    SetAudit,
    Shared,
    SourceAudit,
)
from dstrain.run_folder.layout import NAMES
from dstrain.run_folder.record import RunRecord
from dstrain.run_folder.rows import EvalRow

ALARM_SHARES: Mapping[str, float] = {
    "swapped": 0.0002,
    "source_like_targets": 0.0005,
    "target_like_sources": 0.0005,
    "source_script": 0.002,
    "target_script": 0.002,
    "copied": 0.001,
    "source_control": 0.0005,
    "target_control": 0.0005,
    "length_ratio": 0.0005,
    "numbers": 0.04,
}
"""Share of the rows of a source above which a check is an alarm."""

FOR_TRANSLATION = frozenset({"copied", "source_script", "target_script", "source_like_targets", "target_like_sources"})
"""Checks that are no alarm for other tasks, whose targets may be in the words of the source."""

MIN_ALARM_ROWS = 3
EQUAL_SHARE, OVERLAP_SHARE = 0.1, 0.02
"""Of training rows that repeat an earlier one; of evaluation rows whose pair is in training."""

LEFT_OUT_SHARES: Mapping[str, float] = {"undecodable": 0.0005}
LEFT_OUT_SHARE = 0.01
"""Share of the rows of a set above which it is an alarm that they are left out for one reason: of those named, and of others."""

LEFT_OUT: Mapping[str, str] = {
    "empty": "a side is empty",
    "undecodable": "not UTF-8, or not as a row must be",
    "unpointable": "the parse has a word that the utterance lacks",
    "too_long": "over the limit of the task",
    "unknown_token": "the target is not in the vocabulary",
    "overlap": "in evaluation, by data.rules.overlap",
    "duplicate": "an earlier row again, by data.rules.duplicates",
}
"""Why rows are left out, in words."""

AS_ASKED = frozenset({"overlap", "duplicate"})
"""Reasons for which rows are left out that could be used."""

NUM_PLACES = 3
"""Rows that are named in a line."""

SPLITS = {"train": "training", "eval": "evaluation"}
VIEWS = ("source", "target", "pair")


def find_alarms(audit: Audit, *, kind: str) -> list[str]:
    """What a user should look at before training, a sentence each; `kind` is that of the task."""
    names = name_places(audit)
    wrong_ways = find_wrong_ways(audit, kind=kind, names=names)
    found = [said for _, said in wrong_ways]
    # rows that are in the wrong script because all are need no alarm of their own
    said_already = {(place, check) for place, _ in wrong_ways for check in ("source_script", "target_script")}
    found += [
        f"{names[source.place]}: {_share(each.number, source.rows)} of the {SPLITS[split]} rows, {CHECKS[name]}"
        f"{_first(each, names)}"
        for split, rows in _sets(audit)
        for source in rows.sources
        for name, each in source.checks.items()
        if is_alarm(name, each, rows=source.rows, kind=kind) and (source.place, name) not in said_already
    ]
    found += [
        f"{lost:,} {SPLITS[split]} rows are left out: {LEFT_OUT.get(reason, reason)}{_places(lost, rows, names)}"
        for split, each in audit.losses.items()
        for reason, lost, rows in _left_out(each)
        if is_much_lost(reason, lost, rows=dict(_sets(audit))[split].rows)
    ]
    equal, overlap = audit.train.equal, audit.overlap
    if equal.number > EQUAL_SHARE * audit.train.rows:
        found.append(
            f"{_share(equal.number, audit.train.rows)} of the training rows repeat an earlier one letter for letter: "
            "data.rules.duplicates=skip leaves them out"
        )
    pairs = overlap.ways["normalised pair"]
    if pairs.eval_rows > OVERLAP_SHARE * overlap.eval_rows:
        found.append(
            f"{_share(pairs.eval_rows, overlap.eval_rows)} of the evaluation rows are in training, source and target: "
            "data.rules.overlap=skip_train leaves them out of training"
        )
    return found


def is_alarm(name: str, found: Found, *, rows: int, kind: str) -> bool:
    """Whether what a check has found among the rows of a source is worth an alarm; `kind` is that of the task."""
    if name in FOR_TRANSLATION and kind != "translation":
        return False
    return found.number >= MIN_ALARM_ROWS and found.number > ALARM_SHARES.get(name, 1.0) * rows


def is_much_lost(reason: str, number: int, *, rows: int) -> bool:
    """Whether it is worth an alarm that so many rows are left out of a set for a reason; `rows` are those that are used."""
    if reason in AS_ASKED:
        return False
    return number >= MIN_ALARM_ROWS and number > LEFT_OUT_SHARES.get(reason, LEFT_OUT_SHARE) * (rows + number)


def describe_start(audit: Audit, *, max_rows: int | None = None) -> list[str]:
    """What is said before the first step, besides alarms: rows that are in training, and rows that come twice.

    `max_rows` are the evaluation rows that are scored, None for all.
    """
    lines = []
    overlap, train = audit.overlap, audit.train
    held = len(overlap.held_in_training)
    if held:
        equal = overlap.ways["equal source"].eval_rows
        scored = min(overlap.eval_rows, max_rows or overlap.eval_rows)
        left = scored - sum(row < scored for row in overlap.held_in_training)
        way_out = {
            0: "nothing is left to score without them: take other evaluation rows, or set data.rules.overlap=skip_train",
            scored: "none of those that are scored",
        }.get(left, f"the rows are also scored without them, as the group `{NOT_IN_TRAINING}`")
        lines.append(
            f"{_share(held, overlap.eval_rows)} of the evaluation rows have a source that is in training ({equal:,} letter for "
            f"letter): {way_out}"
        )
    if train.normalised.number:
        lines.append(
            f"{_share(train.equal.number, train.rows)} of the training rows repeat an earlier one letter for letter, "
            f"{train.normalised.number:,} but for case and spaces"
        )
    return lines


def describe_audit(audit: Audit, *, kind: str) -> Iterator[str]:
    """All of the audit in short, a line each."""
    names = name_places(audit)
    for split, rows in _sets(audit):
        for each in rows.sources:
            title = f"{SPLITS[split]} rows of {each.place}"
            yield from _describe_source(each, title=title, kind=kind, names=names)
        yield from _describe_twins(rows, title=SPLITS[split], names=names)
        yield from _describe_losses(audit.losses.get(split, Losses()), title=SPLITS[split], names=names)
    yield from _describe_overlap(audit, names=names)
    alarms = [*describe_ending(audit), *find_alarms(audit, kind=kind)]
    yield "look at:" if alarms else "nothing alarming"
    yield from (f"  {alarm}" for alarm in alarms)


def describe_ending(audit: Audit) -> list[str]:
    """The rules of the recipe with which a run would not start, a sentence each."""
    return [f"data.rules.{rule} is `error`: a run with these data ends before its first step" for rule in audit.ending]


def _sets(audit: Audit) -> list[tuple[str, SetAudit]]:
    return [("train", audit.train), ("eval", audit.eval)]


def _describe_source(audit: SourceAudit, *, title: str, kind: str, names: Mapping[str, str]) -> Iterator[str]:
    yield f"{title}: {audit.rows:,}"
    for side, lengths in (("source", audit.source), ("target", audit.target)):
        yield f"  {side} tokens: {describe_lengths(lengths)}"
        yield f"  {side}s by tokens: {', '.join(f'up to {most:,}: {rows:,}' for most, rows in lengths.histogram)}"
        longest = [f"{tokens:,} ({shorten_row(where, names)})" for tokens, where in lengths.longest_rows[:NUM_PLACES]]
        yield f"  longest {side}s: {', '.join(longest)}"
    yield f"  scripts: {', '.join(f'{name} {_share(rows, audit.rows)}' for name, rows in audit.scripts.items())}"
    for name, found in audit.checks.items():
        if found.number:
            mark = " (!)" if is_alarm(name, found, rows=audit.rows, kind=kind) else ""
            yield f"  {CHECKS.get(name, name)}: {_share(found.number, audit.rows)}{mark}{_first(found, names)}"


def _left_out(losses: Losses) -> list[tuple[str, int, Sequence[str]]]:
    """Reason, number and first rows of those that were left out."""
    return [(reason, number, losses.rows.get(f"skip {reason}", ())) for reason, number in losses.skipped.items()]


def _describe_losses(losses: Losses, *, title: str, names: Mapping[str, str]) -> Iterator[str]:
    for reason, lost, rows in _left_out(losses):
        yield f"  {lost:,} {title} rows left out: {LEFT_OUT.get(reason, reason)}{_places(lost, rows, names)}"
    for side, cut in (("sources", losses.source_cut), ("targets", losses.target_cut)):
        if cut:
            yield f"  {cut:,} {title} {side} over the limit of the task, and cut"
    if losses.kept_too_long:
        yield f"  {losses.kept_too_long:,} references over the limit of the task, and kept"
    for action, said in (("truncate", "cut"), ("keep", "kept")):
        if rows := losses.rows.get(f"{action} too_long", ()):
            yield f"  the first that are {said}: {', '.join(shorten_row(row, names) for row in rows[:NUM_PLACES])}"
    for side, share in (("sources", losses.source_unknown), ("targets", losses.target_unknown)):
        if share:
            yield f"  {share:.2%} of the tokens of {title} {side} are not in the vocabulary"
    if losses.not_given_back.number:
        found = losses.not_given_back
        yield f"  {found.number:,} references are not given back by the tokenizer{_first(found, names)}"


def describe_lengths(lengths: Lengths) -> str:
    """The lengths of one side in a phrase."""
    return (
        f"{lengths.shortest:,} to {lengths.longest:,}, mean {lengths.mean:.1f}, half up to {lengths.median:,}, 90 % up to "
        f"{lengths.percentile_90:,}, 99 % up to {lengths.percentile_99:,}"
    )


def _describe_twins(rows: SetAudit, *, title: str, names: Mapping[str, str]) -> Iterator[str]:
    for twins, what in (
        (rows.equal, "rows repeat an earlier one, letter for letter"),
        (rows.normalised, "rows repeat an earlier one, but for case and spaces"),
        (rows.many_targets, "sources have several targets"),
    ):
        if twins.number:
            shown = _pairs(twins.rows, names)
            yield f"  {twins.number:,} {title} {what}: {shown}"


def _describe_overlap(audit: Audit, *, names: Mapping[str, str]) -> Iterator[str]:
    overlap = audit.overlap
    yield f"evaluation rows that are in training, of {overlap.eval_rows:,}:"
    for way, shared in overlap.ways.items():
        shown = _pairs(shared.rows, names)
        yield f"  {way:<18}{_share(shared.eval_rows, overlap.eval_rows)}{f': {shown}' if shown else ''}"


def _share(rows: int, of: int) -> str:
    return f"{rows:,} ({rows / max(1, of):.2%})"


def _first(found: Found, names: Mapping[str, str]) -> str:
    return _places(found.number, found.rows, names)


def _places(number: int, rows: Sequence[str], names: Mapping[str, str]) -> str:
    """The first rows in brackets, and how many more there are; empty if none is known."""
    if not rows:
        return ""
    shown = [shorten_row(row, names) for row in rows[:NUM_PLACES]]
    more = f" and {number - len(shown):,} more" if number > len(shown) else ""
    return f" ({', '.join(shown)}{more})"


def _pairs(rows: Sequence[tuple[str, str]], names: Mapping[str, str]) -> str:
    return "; ".join(f"{shorten_row(one, names)} and {shorten_row(other, names)}" for one, other in rows[:NUM_PLACES])


def build_overlap_table(record: RunRecord) -> Markdown | None:
    """A row for each level of being the same, with the evaluation rows that are in training; None if it was not recorded."""
    if record.audit is None:
        return None
    ways = record.audit.overlap.ways
    levels = list(dict.fromkeys(way.partition(" ")[0] for way in ways))
    of = record.audit.overlap.eval_rows
    rows = [[level, *(_cell(ways.get(f"{level} {view}"), of=of) for view in VIEWS)] for level in levels]
    return table(["Evaluation rows in training", *(view.capitalize() for view in VIEWS)], rows)


def _cell(shared: Shared | None, *, of: int) -> str:
    return "-" if shared is None else f"{count(shared.eval_rows)} ({percent(shared.eval_rows / of) if of else '-'})"


def describe_findings(record: RunRecord) -> list[Markdown]:
    """What the checks of the rows have found, a sentence each; the first says where everything is."""
    audit = record.audit
    if audit is None:
        return []
    lines = [
        phrase("All that was counted, with the first hundred rows of each finding, is in {}.", code(str(NAMES.audit)))
    ]
    alarms = find_alarms(audit, kind=record.config.task.base_kind)
    lines += [phrase("Look at: {}.", alarm) for alarm in alarms]
    return lines


def describe_overlap(record: RunRecord) -> str | None:
    """How many evaluation rows are in training, in a phrase; None if it was not recorded."""
    if record.audit is None:
        return None
    overlap = record.audit.overlap
    pairs = overlap.ways["normalised pair"].eval_rows
    held = len(overlap.held_in_training)
    return (
        f"{held:,} of {overlap.eval_rows:,} evaluation rows ({percent(held / max(1, overlap.eval_rows))}) have a source that is "
        f"in training, {pairs:,} with its target; case, white space and forms of Unicode aside"
    )


def describe_languages(record: RunRecord) -> str | None:
    """What the check of scripts and sides has found, in a phrase; None if it was not recorded."""
    if record.audit is None:
        return None
    names = ("swapped", "source_like_targets", "target_like_sources", "source_script", "target_script")
    parts = []
    for split, rows in _sets(record.audit):
        found = {name: sum(source.checks.get(name, Found()).number for source in rows.sources) for name in names}
        said = ", ".join(f"{CHECKS[name]}: {number:,}" for name, number in found.items() if number)
        parts.append(f"{SPLITS[split]} rows: {said or 'none in another script or language than the others'}")
    kind = record.config.task.base_kind
    wrong_ways = find_wrong_ways(record.audit, kind=kind, names=name_places(record.audit))
    return "; ".join([*parts, *(said for _, said in wrong_ways)])


def compare_unseen(record: RunRecord, row: EvalRow) -> list[Markdown]:
    """The scores without the rows that are in training, beside the headline; empty if there are none such."""
    overlap = None if record.audit is None else record.audit.overlap
    if overlap is not None and 0 < overlap.eval_rows == len(overlap.held_in_training):
        template = "All {} evaluation rows have a source that is in training: no score is without them."
        return [phrase(template, count(overlap.eval_rows))]
    group = row.groups.get(NOT_IN_TRAINING)
    if group is None or row.num_rows is None:
        return []
    held = row.num_rows - int(group["num_rows"])
    names = [name for name in record.config.choosing if name in group]
    scores = join([Markdown(f"{code(name)} {number(group[name])}") for name in names], separator=", ")
    template = "{} of the {} evaluation rows ({}) have a source that is in training. Without them: {}."
    return [phrase(template, count(held), count(row.num_rows), percent(held / row.num_rows), scores)]


def describe_for(config: RunConfig, audit: Audit) -> Iterator[str]:
    """All of the audit of a recipe's data, a line each."""
    return describe_audit(audit, kind=config.task.base_kind)


def alarms_for(config: RunConfig, audit: Audit) -> list[str]:
    """What a user should look at in the data of a recipe, a sentence each."""
    return find_alarms(audit, kind=config.task.base_kind)
