"""What a run found in its data before the first step, and the file that holds it. No torch.

The audit counts and lists; what of it is worth an alarm, `reporting/audit.py` decides.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dstrain.run_folder.atomic import write_file
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.reading import RunFolderError, read_bytes

NUM_LISTED = 100
"""Rows that are listed of those that a check has found."""

NOT_IN_TRAINING = "not in training"
"""Group of the evaluation rows whose source is not in training, scored where others are."""


@dataclass(frozen=True, slots=True)
class Found:
    """Rows of which something is true."""

    number: int = 0
    rows: tuple[str, ...] = ()
    """The first of them, as `file:line`."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of one side, before anything is cut, special tokens included."""

    shortest: int
    mean: float
    median: int
    percentile_90: int
    percentile_99: int
    longest: int
    histogram: tuple[tuple[int, int], ...]
    """How many rows have at most 1, 2, 4, 8 … tokens, and more than the number before."""
    longest_rows: tuple[tuple[int, str], ...]
    """Tokens and `file:line` of the longest rows."""


@dataclass(frozen=True, slots=True)
class Direction:
    """Rows of a data source that have the same languages and the same prefix."""

    source_language: str | None
    target_language: str | None
    source_prefix: str
    scripts: Mapping[str, int]
    """Rows by the scripts of their sides, as in `SourceAudit`."""


@dataclass(frozen=True, slots=True)
class SourceAudit:
    """The rows of one data source."""

    place: str
    rows: int
    source: Lengths
    target: Lengths
    scripts: Mapping[str, int]
    """Rows by the scripts of their sides, such as `Hangul > Latin`; `mixed` where a text is not clearly of one."""
    checks: Mapping[str, Found]
    """Rows by what was looked for; see `CHECKS`."""
    directions: tuple[Direction, ...] = ()
    """The rows by their languages and prefix."""
    tag: str = ""
    """What the first sources begin with, if it is a mark in the data such as `<2en>` or `translate English to French:`."""


CHECKS: Mapping[str, str] = {
    "swapped": "source and target look swapped",
    "source_like_targets": "the source looks like the targets",
    "target_like_sources": "the target looks like the sources",
    "source_script": "the source is in another script than its language or most others",
    "target_script": "the target is in another script than its language or most others",
    "copied": "the target is the source",
    "source_control": "the source has control characters or lost ones",
    "target_control": "the target has control characters or lost ones",
    "length_ratio": "one side is far too long for the other",
    "numbers": "source and target have other numbers",
}
"""What is looked for in every row, in words."""


@dataclass(frozen=True, slots=True)
class Twins:
    """Rows that repeat an earlier row, with the first of them: the row and the earlier one, as `file:line`."""

    number: int = 0
    rows: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class SetAudit:
    """The rows of training or of evaluation; each counts once, whatever its `repeat`."""

    rows: int
    sources: tuple[SourceAudit, ...]
    equal: Twins = Twins()
    """Rows whose source and target are those of an earlier row, letter for letter."""
    normalised: Twins = Twins()
    """Likewise, but for case, white space and the forms of Unicode; with the equal ones."""
    many_targets: Twins = Twins()
    """Sources that have several targets, with two rows of each."""


@dataclass(frozen=True, slots=True)
class Shared:
    """Evaluation rows that are in training, in one way of being the same."""

    eval_rows: int = 0
    train_rows: int | None = 0
    """Training rows that are the same as one of them; None: not counted."""
    rows: tuple[tuple[str, str], ...] = ()
    """The first of them: `file:line` in the evaluation and in the training data."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """How much of the evaluation is in training."""

    eval_rows: int
    """Evaluation rows in all."""
    train_fingerprint: str
    eval_fingerprint: str
    """Of the token sets."""
    ways: Mapping[str, Shared]
    """By level and view, such as `normalised source`."""
    held_in_training: tuple[int, ...] = ()
    """Numbers of the evaluation rows whose source is in training but for case, white space and the forms of Unicode."""


@dataclass(frozen=True, slots=True)
class Losses:
    """What the rules, the limits and the tokenizer do to the rows of a set."""

    skipped: Mapping[str, int] = field(default_factory=dict)
    """Rows that were left out, by reason."""
    rows: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The first rows, as `file:line`, by what was done and the reason: `skip empty`, `truncate too_long`."""
    source_cut: int = 0
    """Rows whose source is over the limit, and is cut."""
    target_cut: int = 0
    kept_too_long: int = 0
    """Evaluation rows whose reference is over the limit, and is kept."""
    source_unknown: float = 0.0
    """Share of the tokens of sources that are not in the vocabulary."""
    target_unknown: float = 0.0
    not_given_back: Found = Found()
    """Evaluation rows of whose reference the tokenizer gives back another text."""


@dataclass(frozen=True, slots=True)
class Audit:
    """What is known of a run's data."""

    train: SetAudit
    eval: SetAudit
    overlap: Overlap
    losses: Mapping[str, Losses] = field(default_factory=dict)
    """By split."""
    ending: tuple[str, ...] = ()
    """Rules of the recipe that are `error` and would end a run with these data: `dstrain audit` continues without them."""


_AUDIT = TypeAdapter(Audit)
_SET, _OVERLAP = TypeAdapter(SetAudit), TypeAdapter(Overlap)


def set_as_json(audit: SetAudit) -> Any:
    """The audit of a set as JSON values, which `read_set` reads."""
    return _SET.dump_python(audit, mode="json")


def read_set(values: Any) -> SetAudit:
    """The audit of a set, of JSON values. Raises ValidationError where they are none."""
    found: SetAudit = _SET.validate_python(values, strict=False)
    return found


def write_overlap(overlap: Overlap, *, path: Path) -> None:
    """Write the overlap of two sets as JSON."""
    write_file(path, _OVERLAP.dump_json(overlap))


def read_overlap(path: Path) -> Overlap | None:
    """The overlap of two sets; None if the file does not exist or is damaged."""
    try:
        found: Overlap = _OVERLAP.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    return found


def as_text(audit: Audit) -> str:
    """The audit as JSON."""
    return _AUDIT.dump_json(audit, indent=1).decode() + "\n"


def write_audit(audit: Audit, *, path: Path) -> None:
    """Write the audit as JSON."""
    write_file(path, as_text(audit))


def read_audit(folder: RunFolder) -> Audit | None:
    """The audit of a run; None if an earlier version made the run, or if the file is damaged: a report can do without."""
    try:
        found: Audit = _AUDIT.validate_json(read_bytes(folder.audit))
    except (OSError, RunFolderError, ValidationError):
        return None
    return found
