"""The results on a card in terms of this program: scores by their names and units here, and how often they were taken. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from dstrain.config.card import MAX_STEPS
from dstrain.config.metrics import METRICS, is_lower_better
from dstrain.draft.card import ModelCard, Table, read_number

LARGEST = 1e9
"""Larger values are no scores."""
MAX_ROWS = 200
"""Most rows of a table that go into a recipe; of longer ones every second, third and so on."""

NAMES = {
    "validation_loss": "loss",
    "sacrebleu": "bleu",
    "rouge1": "rouge_1",
    "rouge2": "rouge_2",
    "rougel": "rouge_l",
    "em": "exact_match",
    "exactmatch": "exact_match",
    "acc": "accuracy",
    "generated_length": "gen_len",
}
"""Names of scores on cards to those here, where they differ by more than capitals and spaces."""
_NO_SCORES = frozenset(
    {"training_loss", "train_loss", "epoch", "step", "runtime", "samples_per_second", "steps_per_second"}
)
_SHARES = frozenset({*(metric.name for metric in METRICS if metric.unit == "0 to 1"), "rougelsum"})
_OF_CALLBACK = frozenset(
    {"bleu", "chrf", "ter", "rouge_1", "rouge_2", "rouge_l", "rougelsum", "exact_match", "gen_len"}
)
"""Scores of hypotheses: cards of Keras call them `Train …`, but only its callback computes them, on evaluation rows."""


@dataclass(frozen=True, slots=True)
class Step:
    """One row of a table of results."""

    step: int
    epoch: float | None
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Results:
    """The results of a card in this program's terms."""

    scores: Mapping[str, float] = field(default_factory=dict)
    """The scores that the card opens with."""
    steps: tuple[Step, ...] = ()
    """The rows of its table in the order of their steps; empty where it does not number steps."""
    notes: tuple[str, ...] = ()
    """What was changed or left out on the way."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all scores."""
        return tuple(dict.fromkeys([*self.scores, *(name for step in self.steps for name in step.scores)]))


def read_results(card: ModelCard) -> Results:
    """The results of a card."""
    steps = _steps(card.table)
    of_callback = {
        text: name for text in card.results if (name := _callback_name(text)) and "tensorflow" in card.versions
    }
    scores = {
        name: value
        for text, value in card.results.items()
        if (name := of_callback.get(text) or score_name(text)) is not None and abs(value) <= LARGEST
    }
    notes = (
        [] if steps or not card.table.rows else ["the card's table has no steps: there is nothing to compare by step"]
    )
    if of_callback:
        notes.append("Keras calls scores of hypotheses `Train …`: they are taken for those of evaluation rows")
    for name in dict.fromkeys([*scores, *(each for step in steps for each in step.scores)]):
        values = [
            *([scores[name]] if name in scores else []),
            *(step.scores[name] for step in steps if name in step.scores),
        ]
        if name in _SHARES and max(values) > 1:
            notes.append(f"{name} is in percent on the card, and a share of 1 here: divided by 100")
            scores = _divided(scores, name)
            steps = [Step(step.step, step.epoch, _divided(step.scores, name)) for step in steps]
        elif name == "bleu" and len(values) > 1 and max(values) <= 1:
            notes.append("no BLEU of the card is over 1: it may be a share of 1 there, and is up to 100 here")
    thinned = _thinned(steps)
    if len(thinned) < len(steps):
        notes.append(f"{len(thinned)} of the card's {len(steps):,} rows, evenly spaced")
    return Results(scores, tuple(thinned), tuple(notes))


def score_name(text: str) -> str | None:
    """The name here of a score on a card: `gen_len` for `Gen Len`; None for what is no score of the evaluation rows."""
    name = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_").removeprefix("eval_")
    name = NAMES.get(name, name)
    is_name = re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name) is not None
    return name if is_name and name not in _NO_SCORES and not name.startswith("train_") else None


def _callback_name(text: str) -> str | None:
    """The score that a card of Keras calls `Train …`, where it is one of hypotheses."""
    _, is_train, rest = text.partition("Train ")
    name = score_name(rest) if is_train else None
    return name if name in _OF_CALLBACK else None


def best_step(steps: Iterable[Step], *, by: str) -> Step | None:
    """The first step with the best value of a score; None if no step has it."""
    sign = -1 if is_lower_better(by) else 1
    return max((step for step in steps if by in step.scores), key=lambda step: sign * step.scores[by], default=None)


def cadence(steps: Sequence[Step]) -> tuple[str, float] | None:
    """How often the table was measured: (`every_steps` or `every_epochs`, how many); None where no rule shows."""
    if len(steps) < 2:
        return None
    epochs = [step.epoch for step in steps]
    if all(epoch is not None and abs(epoch - number) < 0.005 for number, epoch in enumerate(epochs, start=1)):
        return "every_epochs", 1.0
    first = steps[0].step
    gaps = [later.step - earlier.step for earlier, later in pairwise(steps)]
    # the last evaluation may come at the end, wherever that is
    return ("every_steps", float(first)) if all(gap == first for gap in gaps[:-1] or gaps) else None


def rows_of(steps: Sequence[Step], *, batch_size: int) -> int | None:
    """About how many training rows the run had, by the epoch that its last step was in; None where the table has no epochs."""
    last = steps[-1] if steps else None
    if last is None or not last.epoch:
        return None
    rows = round(last.step * batch_size / last.epoch)
    return round(rows, 3 - len(str(rows)))


def _steps(table: Table) -> list[Step]:
    names = [re.sub(r"\W+", " ", column).strip().lower() for column in table.columns]
    if "step" not in names:
        return []
    at_step, at_epoch = names.index("step"), names.index("epoch") if "epoch" in names else None
    found: dict[int, Step] = {}
    for row in table.rows:
        step = read_number(row[at_step])
        if step is None or not step.is_integer() or not 1 <= step <= 1e9:
            continue
        scores = {
            name: value
            for column, cell in zip(table.columns, row, strict=True)
            if (name := score_name(column)) is not None
            and (value := read_number(cell)) is not None
            and abs(value) <= LARGEST
        }
        epoch = read_number(row[at_epoch]) if at_epoch is not None else None
        found[int(step)] = Step(int(step), epoch if epoch is not None and 0 <= epoch <= 1e9 else None, scores)
    return [found[step] for step in sorted(found)]


def _thinned(steps: Sequence[Step]) -> list[Step]:
    assert MAX_ROWS <= MAX_STEPS
    stride = -(-len(steps) // MAX_ROWS)
    return list(steps[::-1][:: max(1, stride)][::-1])  # the last is among them


def _divided(scores: Mapping[str, float], name: str) -> dict[str, float]:
    return {each: round(value / 100, 8) if each == name else value for each, value in scores.items()}
