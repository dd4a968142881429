"""What a changed field of the recipe means for a resumed run: which part of its state is reset, or why it is refused.

RULES is the table. Pure; the owner of a part of the state resets it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Part(StrEnum):
    """A part of a run's state that depends on fields of the recipe."""

    PLACE = "place"
    """The place in the data, which is counted in steps: converted into rows."""
    ROWS = "rows"
    """What is known of the training rows by their numbers: the place in the epoch, and the quarantine; if the rows are others."""
    EVAL_ROWS = "evaluation rows"
    """SCORES, if the evaluation rows are others."""
    SCORES = "scores"
    """The best score so far, and the evaluations without improvement."""
    PATIENCE = "patience"
    """The evaluations without improvement alone."""
    LOSS = "loss"
    """Sums of the training loss, and the losses that a spike is compared with."""
    OPTIMIZER = "optimizer"
    """The moments of the optimizer and the number of its steps."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What an allowed change of a field does, or why it cannot be allowed."""

    effect: str
    """How the run resumes; or, if the change is refused, the reason."""
    parts: frozenset[Part] = frozenset()
    """What is reset or converted."""
    is_refused: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between an attempt and the checkpoint."""

    field: str
    """A dotted key of the configuration, or `tokenizer`."""
    old: Any
    new: Any
    about: str = ""
    """What the values are, if not those of the configuration key itself."""

    @property
    def rule(self) -> Rule:
        return find_rule(self.field)

    def __str__(self) -> str:
        about = f" ({self.about})" if self.about else ""
        old, new = ("null" if value is None else repr(value) for value in (self.old, self.new))
        return f"{self.field}{about}: {old} in the checkpoint, {new} now"


def _refused(reason: str) -> Rule:
    return Rule(reason, is_refused=True)


_ON = Rule("holds from the next step on")
_DROPOUT = Rule("dropout draws other numbers from the next step on")
_LENGTH = Rule("the run ends there, and a learning rate that falls until the end follows")
_RATE = Rule("the learning rate follows from the next step on")
_PLACE = Rule(
    "the place in the data is kept in rows, so that each row still comes once in this epoch", frozenset({Part.PLACE})
)
_SCORES = Rule("the best score and early stopping are reset; earlier scores do not compete", frozenset({Part.SCORES}))
_ROWS = Rule(
    "the epoch begins again and the quarantine is emptied, if the token ids of training rows are others; the best score and "
    "early stopping are reset, if those of evaluation rows are",
    frozenset({Part.ROWS, Part.EVAL_ROWS}),
)
_OTHER_WEIGHTS = "the weights come from the checkpoint, and no others are read"

RULES: Mapping[str, Rule] = {
    "seed": Rule(
        "dropout draws with it from the next step on, and the order of rows from the next epoch on",
        frozenset({Part.PLACE}),
    ),
    "precision": Rule("holds from the next step on; the loss scale of fp16 is reset"),
    "model.name": _refused(_OTHER_WEIGHTS),
    "model.revision": _refused(_OTHER_WEIGHTS),
    "model.scratch": _refused("the saved weights are of the model that the run began with"),
    "model.from_run": _refused(_OTHER_WEIGHTS),
    "model.add_languages": _refused("the saved weights have an embedding for each language that the run began with"),
    "model.vocabulary": _refused(
        "the saved weights have rows for the token ids that the run began with, and no others"
    ),
    "model.freeze": _refused("the checkpoint holds what the run began to train, and nothing else"),
    "model.adapter": _refused("the checkpoint holds the adapter that the run began to train, and nothing else"),
    "model.dropout": _ON,
    "model.layerdrop": _ON,
    "model.allow_fp16_t5": _ON,
    "task.kind": _refused("the weights have learned another task"),
    "task.name": Rule("the card calls the task so"),
    "task.form": _refused("the weights have learned to write the other form"),
    "task.source_language": _refused("the weights have learned another language pair"),
    "task.target_language": _refused("the weights have learned another language pair"),
    "task.segmentation": _ROWS,
    "task.source_prefix": _ROWS,
    "task.max_source_tokens": _ROWS,
    "task.max_target_tokens": _ROWS,
    "data.train": Rule(
        "the epoch begins again with the new rows and the quarantine is emptied, if their token ids are others",
        frozenset({Part.ROWS}),
    ),
    "data.temperature": Rule(
        "the epoch begins again in the new mixture and the quarantine is emptied", frozenset({Part.ROWS})
    ),
    "data.eval": _SCORES,
    "data.rules": _ROWS,
    "training.batch_size": _PLACE,
    "training.batch_unit": _PLACE,
    "training.epochs": _LENGTH,
    "training.max_steps": _LENGTH,
    "training.learning_rate": _RATE,
    "training.schedule": _RATE,
    "training.warmup_steps": _RATE,
    "training.optimizer": Rule(
        "the optimizer is reset: moments of 0, bias correction from its first step", frozenset({Part.OPTIMIZER})
    ),
    "training.betas": _ON,
    "training.epsilon": _ON,
    "training.weight_decay": _ON,
    "training.max_grad_norm": _ON,
    "training.label_smoothing": Rule(
        "the mean training loss and the losses that a spike is compared with are reset", frozenset({Part.LOSS})
    ),
    "training.spike_factor": _ON,
    "training.max_quarantined_rows": _ON,
    "training.early_stopping": Rule("evaluations without improvement are counted from 0", frozenset({Part.PATIENCE})),
    "evaluation.every_steps": _ON,
    "evaluation.every_epochs": _ON,
    "evaluation.batch_size": _ON,
    "evaluation.num_beams": _SCORES,
    "evaluation.length_penalty": _SCORES,
    "evaluation.max_new_tokens": _SCORES,
    "evaluation.best_metric": _SCORES,
    "evaluation.best_by": _SCORES,
    "evaluation.bleu_tokenizer": _SCORES,
    "evaluation.metrics": _SCORES,
    "evaluation.external": _ON,
    "evaluation.loss": _ON,
    "evaluation.max_rows": _SCORES,
    "evaluation.average_last": _ON,
    "evaluation.rehearsal": _ON,
    "machine.micro_batch_tokens": _DROPOUT,
    "machine.micro_batch_size": _DROPOUT,
    "machine.micro_batch_overhead": _DROPOUT,
    "machine.min_micro_batches": _DROPOUT,
    "vocabulary": _refused("the saved weights have rows for the token ids that the run began with, and no others"),
    "tokenizer": _refused("the weights belong to the pieces of the tokenizer that the run began with"),
}
"""Every field that is compared with the checkpoint: a key of the recipe half, or a section all of whose keys act alike."""

SAID: Mapping[Part, str] = {
    Part.OPTIMIZER: "the optimizer is reset: its moments are 0, and its bias correction begins with its first step",
    Part.LOSS: "the mean training loss and the losses that a spike is compared with are reset",
}
"""What is said of the parts of which there is no more to say; their owners describe the others."""

UNKNOWN = _refused("this version does not know the key")


def find_rule(field: str) -> Rule:
    """The rule of a field, or of the section of RULES that it lies in."""
    parts = field.split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((RULES[name] for name in names if name in RULES), UNKNOWN)


def find_parts(changes: Iterable[Change], *, old: Mapping[str, str], new: Mapping[str, str]) -> frozenset[Part]:
    """What changes reset, where `old` and `new` are the fingerprints of the data (RunState.data)."""
    found = {part for change in changes for part in change.rule.parts}
    if old.get("train") == new.get("train"):
        found.discard(Part.ROWS)
    if Part.EVAL_ROWS in found and old.get("eval") != new.get("eval"):
        found.add(Part.SCORES)
    return frozenset(found - {Part.EVAL_ROWS})
