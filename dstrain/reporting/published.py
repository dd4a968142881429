"""Published results against the run's own on the card, step by step. Pure functions of a RunRecord."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from dstrain.config.card import Published, PublishedStep
from dstrain.reporting.markdown import Markdown, code, count, join, number, phrase, table
from dstrain.reporting.metadata import label
from dstrain.reporting.results import headline_row, order_scores
from dstrain.run_folder.record import RunRecord
from dstrain.run_folder.rows import EvalRow

OPENING = "opening"
"""The row with the scores that both cards open with."""


LOSSES = "transformers averages the validation loss over batches, dstrain over target tokens: for one model both differ a little."


@dataclass(frozen=True, slots=True)
class Pair:
    """A published step and the evaluation of this run that is nearest to it."""

    published: PublishedStep
    own: EvalRow


def build_published_table(record: RunRecord) -> Markdown | None:
    """For each published step and score the published value, the run's own and the difference; None without any of both."""
    published = record.config.card.published
    if published is None:
        return None
    pairs, opening = pair_steps(published, rows=record.eval_rows), headline_row(record)
    names = _shared(record, published, pairs)
    if not names:
        return None
    moved = any(pair.own.step != pair.published.step for pair in pairs)
    header = ["Step", *(["Step here"] if moved else [])]
    header += [f"{label(name)} {what}".strip() for name in names for what in ("published", "here", "difference")]
    lines = [
        [
            count(pair.published.step),
            *([count(pair.own.step)] if moved else []),
            *_compared(names, pair.published.scores, pair.own.scores),
        ]
        for pair in pairs
    ]
    if published.scores and opening is not None:
        where = [count(opening.step)] if moved else []
        lines.append([OPENING, *where, *_compared(names, published.scores, opening.scores)])
    return table(header, lines)


def explain_published(record: RunRecord) -> list[Markdown]:
    """Sentences: what is compared with what, what is missing, and why equal models may differ."""
    published = record.config.card.published
    if published is None or not (published.steps or published.scores):
        return []
    pairs = pair_steps(published, rows=record.eval_rows)
    sentences = [phrase("The published results are those of {}, as this run's recipe has them.", code(published.name))]
    if published.steps:
        sentences.append(_coverage(published, pairs))
    names = _shared(record, published, pairs)
    if names and published.scores:
        sentences.append(phrase("The row {} has the scores that each card opens with.", code(OPENING)))
    missing = sorted(_published_names(published) - {name for row in record.eval_rows for name in row.scores})
    if missing and record.eval_rows:
        sentences.append(phrase("Published and not computed here: {}.", join(map(code, missing), separator=", ")))
    epochs = _epochs(pairs)
    if epochs is not None:
        sentences.append(epochs)
    if "loss" in names:
        sentences.append(Markdown(LOSSES))
    return sentences


def pair_steps(published: Published, *, rows: tuple[EvalRow, ...]) -> list[Pair]:
    """Each published step with the run's nearest evaluation; left out where that is over a quarter of an interval away."""
    pairs = []
    for row, reach in zip(published.steps, _reaches(published), strict=True):
        own = min(rows, key=lambda each: abs(each.step - row.step), default=None)
        if own is not None and abs(own.step - row.step) <= reach:
            pairs.append(Pair(row, own))
    return pairs


def _reaches(published: Published) -> Iterator[float]:
    """A quarter of the shorter of the intervals before and after each step; the first one begins at 0."""
    steps = [row.step for row in published.steps]
    gaps = [later - earlier for earlier, later in pairwise([0, *steps])]
    for before, after in zip(gaps, [*gaps[1:], *gaps[-1:]], strict=True):
        yield min(before, after) / 4


def _published_names(published: Published) -> set[str]:
    return {*published.scores, *(name for row in published.steps for name in row.scores)}


def _shared(record: RunRecord, published: Published, pairs: list[Pair]) -> list[str]:
    """The scores that a published row and its evaluation both have, the loss first."""
    opening = headline_row(record)
    both = {name for pair in pairs for name in pair.published.scores if name in pair.own.scores}
    both |= {name for name in published.scores if opening is not None and name in opening.scores}
    return [*(["loss"] if "loss" in both else []), *order_scores(both - {"loss"}, config=record.config)]


def _compared(names: list[str], published: dict[str, float], own: dict[str, float]) -> list[str]:
    cells = []
    for name in names:
        theirs, ours = published.get(name), own.get(name)
        if theirs is None or ours is None:
            cells += ["" if value is None else number(value) for value in (theirs, ours)] + [""]
        else:
            cells += [number(theirs), number(ours), f"{ours - theirs:+.4f}"]
    return cells


def _coverage(published: Published, pairs: list[Pair]) -> Markdown:
    total = len(published.steps)
    if not pairs:
        return Markdown(f"None of its {count(total)} steps is near an evaluation of this run yet.")
    moved = sum(pair.own.step != pair.published.step for pair in pairs)
    nearest = (
        f"; where this run has none at that step, the nearest stands beside it ({count(moved)} rows)" if moved else ""
    )
    which = f"All {count(total)}" if len(pairs) == total else f"{count(len(pairs))} of its {count(total)}"
    return Markdown(f"{which} steps have an evaluation here{nearest}.")


def _epochs(pairs: list[Pair]) -> Markdown | None:
    """How far both were in their data at the last common step, where that differs by more than 2 %."""
    last = next((pair for pair in reversed(pairs) if pair.published.epoch), None)
    if last is None or last.published.epoch is None:
        return None
    theirs, ours = last.published.epoch, last.own.epoch * last.published.step / last.own.step
    if abs(ours - theirs) <= 0.02 * theirs:
        return None
    at = f"At step {count(last.published.step)} the published run had passed {theirs:g} times over its training rows"
    return Markdown(f"{at}, this one {number(ours, decimals=2)} times: the data differ in size.")
