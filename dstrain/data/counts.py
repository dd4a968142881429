"""Counts what the limits and the tokenizer do to a set's rows, and says it: before training, in numbers. No row is changed here.

References are read back from their ids: a hypothesis can only be equal to what the tokenizer gives back.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from dstrain.data.encoding import Encoded, ReadingRules
from dstrain.data.source_counts import describe_skipped, describe_used, short
from dstrain.errors import UserError
from dstrain.tasks.parsing import is_valid_parse

LONG_FACTOR = 3
"""A reference is very long if it has so many times the tokens of all but one in a hundred, and at least MIN_LONG_TOKENS."""

MIN_LONG_TOKENS = 128


@dataclass(slots=True)
class Counts:
    """What became of the distinct rows of a set."""

    num_rows: int = 0
    source_cut: int = 0
    """Rows whose source was cut to the limit."""
    target_cut: int = 0
    source_unknown: int = 0
    """Tokens of sources that are not in the vocabulary."""
    target_unknown: int = 0
    not_given_back: int = 0
    """References of which the tokenizer gives back another text, white space aside; 0 for training rows, which are not read."""
    first_not_given_back: Mapping[str, str] = field(default_factory=dict)
    """The first of them: `where`, `text` and what is `given_back`."""
    longest_target: int = 0
    longest_target_where: str = ""
    unparsed: int = 0
    """Targets of the plain form that are not well-formed parses."""
    first_unparsed: Mapping[str, str] = field(default_factory=dict)
    """The first of them: `where` and `text`."""

    def add(self, row: Encoded, *, reading: ReadingRules) -> None:
        """Count one row."""
        example, tokenizer = row.example, reading.encoder
        self.num_rows += 1
        self.source_cut += row.source_lost > 0
        self.target_cut += row.target_lost > 0
        unknown = tokenizer.unk_token_id
        if unknown is not None:
            self.source_unknown += row.source_ids.count(unknown)
            self.target_unknown += row.target_ids.count(unknown)
        if reading.task.kind == "parsing" and not reading.task.has_pointers and not is_valid_parse(example.target):
            self.unparsed += 1
            self.first_unparsed = self.first_unparsed or {"where": example.where, "text": example.target}
        if len(row.target_ids) > self.longest_target:
            self.longest_target, self.longest_target_where = len(row.target_ids), example.where
        if reading.split == "eval":
            given_back = tokenizer.decode(row.target_ids)
            if "".join(given_back.split()) != "".join(example.target.split()):
                self.not_given_back += 1
                self.first_not_given_back = self.first_not_given_back or {
                    "where": example.where,
                    "text": example.target,
                    "given_back": given_back,
                }

    def join(self, later: "Counts") -> None:
        """Add the counts of rows that come after these."""
        if later.longest_target > self.longest_target:
            self.longest_target, self.longest_target_where = later.longest_target, later.longest_target_where
        self.first_not_given_back = self.first_not_given_back or later.first_not_given_back
        self.first_unparsed = self.first_unparsed or later.first_unparsed
        sums = (
            "num_rows",
            "source_cut",
            "target_cut",
            "source_unknown",
            "target_unknown",
            "not_given_back",
            "unparsed",
        )
        for name in sums:
            setattr(self, name, getattr(self, name) + getattr(later, name))

    def check_limits(self, *, reading: ReadingRules) -> None:
        """Raises UserError if every row was cut: then the limit is wrong, not the rows."""
        for side, number in (("source", self.source_cut), ("target", self.target_cut)):
            if number == self.num_rows > 0:
                limit = getattr(reading.task, f"max_{side}_tokens")
                raise UserError(
                    f"task.max_{side}_tokens is {limit}: each of the {number:,} {side}s of data.{reading.split} would be cut; "
                    "raise it"
                )

    def report(self) -> dict[str, Any]:
        """The counts by name, for the description of the token set."""
        return {name: value for name, value in asdict(self).items() if name != "num_rows"}


def describe_set(split: str, report: Mapping[str, Any]) -> str:
    """One line about a token set, from its report: what was read, left out, cut, and is not in the vocabulary."""
    used = f"{split} data: {describe_used(report['distinct_rows'], read=report['rows_read'])}"
    if report["rows"] != report["distinct_rows"]:
        used += f", repeated to {report['rows']:,} per epoch"
    parts = [used, *describe_losses(report)]
    for side in ("source", "target"):
        if unknown := report[f"{side}_unknown"]:
            parts.append(f"unknown tokens {unknown / max(1, report[f'{side}_tokens']):.2%} of the {side}s")
    return "; ".join(parts)


def describe_losses(report: Mapping[str, Any]) -> list[str]:
    """What a token set's report says of rows that were skipped or changed: a phrase each, such as `2 too long skipped`."""
    changed = [
        (report["truncated"], "cut to the limits of the task"),
        (report["kept_too_long"], "kept over the limits of the task"),
        (report["kept_with_unknown"], "kept with unknown tokens"),
    ]
    return [*describe_skipped(report["skipped"]), *(f"{number:,} {what}" for number, what in changed if number)]


def warn_of_set(split: str, report: Mapping[str, Any], *, usual_target: int) -> Iterator[str]:
    """What a reader should know of a token set before training; `usual_target` is the 99th percentile of target lengths."""
    rows = report["distinct_rows"]
    for side in ("source", "target"):
        if report[f"{side}_cut"] > rows / 2:
            yield (
                f"{split} data: {report[f'{side}_cut']:,} of {rows:,} {side}s are cut; task.max_{side}_tokens may be too low"
            )
    if report["not_given_back"]:
        first = report["first_not_given_back"]
        change = f"{short(first['text'])!r} becomes {short(first['given_back'])!r}"
        yield (
            f"{split} data: the tokenizer does not give back {report['not_given_back']:,} of {rows:,} references, so that no "
            f"hypothesis can equal them; the first is {first['where']}: {change}"
        )
    if 0 < report["unparsed"] < rows / 2:  # where most are no parses, another formalism is meant, such as SQL
        first = report["first_unparsed"]
        yield (
            f"{split} data: {report['unparsed']:,} of {rows:,} targets are not well-formed parses, but the others are; they are "
            f"used as they are, and the first is {first['where']}: {short(first['text'])!r}"
        )
    longest = report["longest_target"]
    if split == "eval" and longest > max(MIN_LONG_TOKENS, LONG_FACTOR * usual_target):
        yield (
            f"eval data: the longest reference has {longest:,} tokens ({report['longest_target_where']}), 99 % have at most "
            f"{usual_target:,}; unless evaluation.max_new_tokens is set, it lets every hypothesis become as long, which is slow"
        )
