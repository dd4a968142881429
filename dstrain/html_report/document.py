"""The document in a report: what its page shows, as JSON. Types alone; reads no files and knows no page.

Texts are untrusted: the page sets them as text, never as markup. A number is finite, or absent (`None`).
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal

VERSION = 1
"""Of the form below. A page draws the version that it was made for."""

Numbers = Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Column:
    """One quantity of training, a value for each row of `Training.step`."""

    name: str
    label: str
    unit: str
    log: bool
    """Whether it is drawn on a logarithmic axis."""
    values: Numbers


@dataclass(frozen=True, slots=True)
class Training:
    """The training rows: steps, ascending, and the quantities that were recorded."""

    step: Sequence[int]
    columns: Sequence[Column]


@dataclass(frozen=True, slots=True)
class Curve:
    """One metric on the rows of a set, or of a group in it, with its 95 % intervals where they are known."""

    set: str
    group: str | None
    step: Sequence[int]
    value: Numbers
    low: Numbers
    high: Numbers


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric with all its curves."""

    name: str
    label: str
    higher_is_better: bool | None
    """None for what is neither, such as a length."""
    signature: str | None
    is_primary: bool
    """Whether it chooses the best model."""
    curves: Sequence[Curve]


@dataclass(frozen=True, slots=True)
class Best:
    """The evaluation that is the best by the recipe's metric."""

    metric: str
    step: int
    set: str


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened at a step."""

    step: int
    kind: Literal["evaluation", "save", "restart", "end", "skipped"]
    text: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One start of the run. Times are ISO; `end` is None while it runs, or if a kill left no record."""

    begin: str | None
    end: str | None
    first_step: int | None
    last_step: int | None
    cause: str
    """How it ended."""
    host: str | None
    ranks: int | None


@dataclass(frozen=True, slots=True)
class Warned:
    """A warning, at a step or of the whole run."""

    step: int | None
    text: str


@dataclass(frozen=True, slots=True)
class AuditTable:
    """A part of the data audit: check, value, and `alarm`, `ok` or `note`."""

    title: str
    rows: Sequence[tuple[str, str, str]]


@dataclass(frozen=True, slots=True)
class Score:
    """One score of an evaluation, with its 95 % interval where that is known."""

    name: str
    label: str
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation whose hypotheses are in the document."""

    step: int
    label: str
    scores: Sequence[Score]


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a set, a value of each list for each row."""

    id: Sequence[str]
    source: Sequence[str]
    reference: Sequence[Sequence[str]]
    """All references of a row."""
    group: Sequence[str | None]
    length: Sequence[int]
    """Words of the first reference."""
    rarity: Sequence[int | None]
    """How often the rarest word of the first reference occurs in the training targets."""


@dataclass(frozen=True, slots=True)
class TextSet:
    """The texts of an evaluation set or test set: hypotheses and scores by row, then by evaluation."""

    name: str
    score_name: str
    score_higher_is_better: bool
    rows: Rows
    evaluations: Sequence[Evaluation]
    hypotheses: Sequence[Sequence[str | None]]
    """None where the evaluation did not have the row."""
    row_scores: Sequence[Numbers]
    num_rows: int
    """Rows that were scored; more than those in the document if these are sampled."""
    is_sampled: bool


@dataclass(frozen=True, slots=True)
class Run:
    """One run."""

    name: str
    folder: str
    """The last part of its path."""
    state: str
    why: str
    """The reason of that state, in a line; empty if there is none."""
    advice: str
    """What to do about it, in a line; empty if nothing."""
    summary: Sequence[tuple[str, str]]
    best: Best | None
    train: Training
    metrics: Sequence[Metric]
    marks: Sequence[Mark]
    attempts: Sequence[Attempt]
    warnings: Sequence[Warned]
    settings: Sequence[tuple[str, str]]
    """Dotted keys of the configuration, with their values."""
    audit: Sequence[AuditTable] | None
    sets: Sequence[TextSet]
    unread: Sequence[Literal["rows", "texts"]] = ()
    """Of what is there some, or all, that cannot be read: rows of metrics.jsonl, texts of evaluations."""


@dataclass(frozen=True, slots=True)
class Document:
    """All that a report shows."""

    created: str
    dstrain: str
    damage: Sequence[str]
    """Which files are missing or cannot be read, a sentence each."""
    notes: Sequence[str]
    """What else was left out or is not known, a sentence each."""
    runs: Sequence[Run]
    version: int = VERSION


def encode(document: Document) -> bytes:
    """The document as JSON, in UTF-8; numbers that are not finite become null."""
    text = json.dumps(_plain(document), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # a lone surrogate in a text must not cost the report
    return text.encode("utf-8", errors="replace")


def _plain(value: Any) -> Any:
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    return value
