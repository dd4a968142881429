"""The hyperparameters of a card as lines of a recipe: what is stated, else what its trainer does by default. Pure."""

import math
import re
from dataclasses import dataclass

from dstrain.config.section import MOST
from dstrain.config.trainer_names import ACCUMULATION, KEYS, SCHEDULES
from dstrain.draft.card import ModelCard, read_number
from dstrain.draft.families import NamedFamily
from dstrain.draft.published import Results, rows_of
from dstrain.draft.recipe_text import Line

STATED = "as in the card"

PRECISIONS = (
    (r"native amp|apex|fp16|mixed_float16|float16", "fp16"),
    (r"bf16|bfloat16", "bf16"),
    (r"fp32|float32|none|\bno\b", "fp32"),
)
"""What a card says of its arithmetic, in small letters, to `precision`."""


@dataclass(frozen=True, slots=True)
class Steps:
    """How long the card's training was, as far as its card says."""

    batch_size: int
    total: int | None
    """Optimizer steps; None where it has neither steps nor a table from which they follow."""
    num_rows: int | None
    """Training rows, by its table."""


def framework(card: ModelCard) -> str:
    """The trainer whose defaults hold where the card is silent, with its version."""
    version, name = card.versions.get("transformers"), "Keras" if _is_keras(card) else "transformers"
    return (
        f"{name} (transformers {version})"
        if version and name == "Keras"
        else f"{name} {version or '(no version named)'}"
    )


def batch_size(card: ModelCard) -> Line:
    """`training.batch_size`: the sequences of an optimizer step over all devices."""
    parts = [_count(card, name) for name in ("train_batch_size", "num_devices", ACCUMULATION)]
    stated = _count(card, "total_train_batch_size")
    factors = " × ".join(str(part) for part in parts if part is not None)
    product = math.prod(part or 1 for part in parts) if parts[0] is not None else None
    value = stated or product
    if value is None or value > MOST:
        return _silent("batch_size", 8, card)
    why = f"{STATED}: sequences in an optimizer step, over all ranks"
    if product not in (None, value):
        why = f"the card's total_train_batch_size; its parts, {factors}, make {product:,}"
    elif factors != str(value):
        why = f"the card's {factors}: sequences in an optimizer step, over all ranks"
    return Line("batch_size", value, why, "stated")


def steps(card: ModelCard, results: Results) -> Steps:
    """The length of the card's training."""
    size = batch_size(card).value
    num_rows = rows_of(results.steps, batch_size=size)
    total, epochs = _count(card, "training_steps"), card.number("num_epochs")
    if total is None and epochs is not None and num_rows is not None and 0 < epochs <= 1e6:
        total = math.ceil(num_rows / size) * math.ceil(epochs)
    return Steps(size, total, num_rows)


def training_lines(card: ModelCard, results: Results) -> list[Line]:
    """The section `training`."""
    default = f"default of {framework(card)}"
    return [
        batch_size(card),
        *_length(card),
        _number(card, "learning_rate", 5e-5, default=default, most=1000.0, is_positive=True),
        *_schedule(card, default=default, length=steps(card, results)),
        *_optimizer(card, default=default),
        _clipping(card),
        _number(card, "label_smoothing_factor", 0.0, default=default, most=0.999),
    ]


def seed(card: ModelCard) -> Line:
    """`seed`."""
    value = _count(card, "seed", least=0)
    if value is None or value >= 2**32:
        return Line("seed", 42, "the card names none; the default of transformers and of dstrain", "default")
    return Line("seed", value, f"{STATED}; decides data order and dropout", "stated")


def precision(card: ModelCard, family: NamedFamily | None) -> tuple[Line, str | None]:
    """`precision`, and what would be harmful in the card's own."""
    text = next((card.hyperparameters[key] for key in _PRECISION_KEYS if key in card.hyperparameters), None)
    if text is None:
        why = "the card names no mixed precision, but only fp16 is named on cards: bf16 is sound and faster on a GPU"
        return Line("precision", "fp32", why, "default"), None
    value = next((value for pattern, value in PRECISIONS if re.search(pattern, text.lower())), None)
    if value is None:
        return Line("precision", "fp32", f"the card has `{text}`, which means nothing here", "question"), None
    if value == "fp16" and family is not None and family.is_t5:
        why = f"the card's fp16 (`{text}`) overflows {family.title} and ends in NaN (transformers#9295); bf16 is as fast on a GPU"
        return Line("precision", "bf16", why), f"fp16 overflows {family.title} and ends in NaN: the recipe has bf16"
    scaled = ", with dynamic loss scaling; on a CPU override precision=fp32" if value == "fp16" else ""
    return Line("precision", value, f'{STATED} ("{text}"){scaled}', "stated"), None


_PRECISION_KEYS = ("mixed_precision_training", "training_precision")


def evaluation_batch_size(card: ModelCard) -> Line:
    """`evaluation.batch_size`."""
    value = _count(card, "total_eval_batch_size") or _count(card, "eval_batch_size")
    if value is None:
        return Line("batch_size", None, "the card names none; as many as fit into machine.evaluation_tokens")
    return Line("batch_size", value, f"{STATED}; `batch_size: null` is faster, and scores are the same", "stated")


def _silent(key: str, value: int, card: ModelCard) -> Line:
    """A value that the card does not state: the default of its trainer, which Keras does not have."""
    if _is_keras(card):
        return Line(key, value, "the card does not say, and Keras has no default: how many?", "question")
    return Line(key, value, f"the card does not say; default of {framework(card)}", "default")


def _is_keras(card: ModelCard) -> bool:
    return "tensorflow" in card.versions


def _length(card: ModelCard) -> list[Line]:
    total, epochs = _count(card, "training_steps"), card.number("num_epochs")
    if total is not None:
        return [Line("max_steps", total, STATED, "stated")]
    if epochs is not None and 0 < epochs <= 1e6:
        return [Line("epochs", _short(epochs), STATED, "stated")]
    return [_silent("epochs", 3, card)]


def _schedule(card: ModelCard, *, default: str, length: Steps) -> list[Line]:
    text = card.hyperparameters.get("lr_scheduler_type", "").removeprefix("SchedulerType.").lower()
    if text in SCHEDULES:
        value, what = SCHEDULES[text]
        line = Line(
            "schedule", value, f"{STATED}; {what}" if value == text else what, "stated" if value == text else "guess"
        )
    elif text:
        line = Line(
            "schedule", "linear", f"the card has `{text}`, which does not exist here: which comes closest?", "question"
        )
    else:
        line = Line("schedule", "linear", default, "default")
    return [line, _warmup(card, default=default, length=length)]


def _warmup(card: ModelCard, *, default: str, length: Steps) -> Line:
    stated, ratio = card.number("lr_scheduler_warmup_steps"), card.number("lr_scheduler_warmup_ratio")
    if stated is not None and 0 < stated < 1:  # what transformers 5 calls the steps may be a share of them
        stated, ratio = None, stated
    if stated is not None and stated.is_integer() and 0 <= stated <= MOST:
        return Line("warmup_steps", int(stated), STATED, "stated")
    if ratio is not None and 0 <= ratio <= 1:
        if length.total is None:
            why = f"the card warms up for {ratio:g} of its steps and does not say how many these are"
            return Line("warmup_steps", 0, why, "question")
        why = f"the card's {ratio:g} of {'about ' if 'training_steps' not in card.hyperparameters else ''}{length.total:,} steps"
        return Line("warmup_steps", math.ceil(ratio * length.total), why, "guess")
    return Line("warmup_steps", 0, f"the card names none; {default}", "default")


def _optimizer(card: ModelCard, *, default: str) -> list[Line]:
    text = card.hyperparameters.get("optimizer", "")
    name = text.lower()
    betas = re.search(r"betas=\(\s*([\d.eE+-]{1,20})\s*,\s*([\d.eE+-]{1,20})\s*\)", text)
    numbers = dict(re.findall(r"'(\w{1,40})': ([\d.eE+-]{1,20})", text))  # of the Keras callback
    first, second = betas.groups() if betas else (numbers.get("beta_1", ""), numbers.get("beta_2", ""))
    epsilon = re.search(r"epsilon=([\d.eE+-]{1,20})", text)
    decay = re.search(r"weight_decay=([\d.eE+-]{1,20})", text)
    return [
        _kind(text, name=name, default=default),
        _betas(read_number(first), read_number(second), default=default),
        _stated_number("epsilon", epsilon[1] if epsilon else numbers.get("epsilon", ""), 1e-8, default=default),
        _stated_number(
            "weight_decay", decay[1] if decay else numbers.get("weight_decay_rate", ""), 0.0, default=default
        ),
    ]


def _kind(text: str, *, name: str, default: str) -> Line:
    if not text:
        return Line("optimizer", "adamw", default, "default")
    if "adafactor" in name:
        why = (
            "the card has Adafactor, which does not exist here; with a constant learning rate of 1e-3 AdamW comes close"
        )
        return Line("optimizer", "adamw", why, "question")
    if name.startswith("sgd"):
        return Line("optimizer", "sgd", STATED, "stated")
    if "adamw" in name or "adamweightdecay" in name:
        return Line("optimizer", "adamw", STATED, "stated")
    if "adam" in name:
        why = f"{STATED}; older cards call AdamW so too, and without weight decay both are the same"
        return Line("optimizer", "adam", why, "stated")
    return Line("optimizer", "adamw", f"the card has `{text[:60]}`, which does not exist here", "question")


def _clipping(card: ModelCard) -> Line:
    if _is_keras(card):
        return _number(card, "max_grad_norm", 0.0, default="Keras does not clip by default")
    return _number(card, "max_grad_norm", 1.0, default=f"what {framework(card)} clips to by default")


def _betas(first: float | None, second: float | None, *, default: str) -> Line:
    if first is not None and second is not None and 0 <= first < 1 and 0 <= second < 1:
        return Line("betas", [first, second], STATED, "stated")
    return Line("betas", [0.9, 0.999], default, "default")


def _stated_number(key: str, text: str, otherwise: float, *, default: str) -> Line:
    value = read_number(text)
    if value is not None and (0 if key == "weight_decay" else 1e-300) <= value <= 1:
        return Line(key, value, STATED, "stated")
    return Line(key, otherwise, default, "default")


def _number(
    card: ModelCard,
    stated_as: str,
    otherwise: float,
    *,
    default: str,
    most: float = 1e9,
    is_positive: bool = False,
) -> Line:
    value, key = card.number(stated_as), KEYS[stated_as].rpartition(".")[2]
    if value is None and stated_as == "learning_rate":  # of the Keras callback, inside its optimizer
        rate = re.search(r"'(?:initial_)?learning_rate': ([\d.eE+-]{1,20})", card.hyperparameters.get("optimizer", ""))
        value = read_number(rate[1]) if rate else None
    if value is not None and 0 <= value <= most and (value > 0 or not is_positive):
        return Line(key, value, STATED, "stated")
    return Line(key, otherwise, default, "default")


def _count(card: ModelCard, name: str, *, least: int = 1) -> int | None:
    value = card.number(name)
    return int(value) if value is not None and value.is_integer() and least <= value <= 2**40 else None


def _short(value: float) -> float | int:
    return int(value) if value.is_integer() else value
