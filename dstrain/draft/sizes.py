"""How large a model, how long a training and how long the texts should be, by the data and the machine. Pure.

The sizes and rates for few rows are those of the shipped recipes; all are points to begin from.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dstrain.draft.machine import Machine

SIZES = ("tiny", "small", "base", "large")
PERCENTILE = 99.5
"""Percent of the rows that a limit of length leaves whole, at least."""
LENGTHS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096)
"""Limits of length, in tokens."""
EPOCHS = 12
"""Passes of a model from scratch over its rows."""
FINE_TUNING_EPOCHS = 3
MOST_EPOCHS = 100
"""Passes that the fewest steps may make: more only learn few rows by heart."""
EVALUATIONS = 15
"""About how often a run is scored."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of a model from scratch, and the peak of its learning rate."""

    hidden_size: int
    num_layers: int
    num_heads: int
    learning_rate: float


SHAPES = {
    "tiny": Shape(128, 2, 4, 2e-3),
    "small": Shape(192, 3, 4, 1e-3),
    "base": Shape(256, 4, 4, 7e-4),
    "large": Shape(512, 6, 8, 5e-4),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """How long a training is, in optimizer steps."""

    batch_size: int
    max_steps: int
    warmup_steps: int
    evaluate_every: int
    log_every: int
    epochs: float
    """Passes over the rows that the steps make."""


def count(number: int, what: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def choose_size(num_rows: int, *, machine: Machine) -> tuple[str, str]:
    """The name of a size for a model from scratch, and why."""
    limits = {"small": 10_000, "base": 200_000} if machine.has_gpu else {"tiny": 10_000}
    largest = "large" if machine.has_gpu else "small"
    size = next((size for size, limit in limits.items() if num_rows < limit), largest)
    return size, f"{count(num_rows, 'row')}, and {machine}"


def choose_vocabulary(num_characters: int, *, distinct: int) -> tuple[int, str]:
    """The number of pieces of a new tokenizer for a text of so many characters, and why."""
    limits = ((100_000, 500), (500_000, 1000), (1_500_000, 2000), (4_000_000, 4000))
    by_length = next((size for limit, size in limits if num_characters < limit), 8000)
    # every character needs a piece, and 256 bytes have one each
    needed = math.ceil((1.5 * distinct + 400) / 100) * 100
    return max(by_length, needed), f"{count(num_characters, 'character')} of text, {distinct:,} different"


def plan_training(num_rows: int, *, machine: Machine, from_scratch: bool) -> Plan:
    """Batch size, steps and cadence for so many training rows."""
    batch_size = 64 if num_rows >= 640 else 16
    per_epoch = math.ceil(num_rows / batch_size)
    most = 20_000 if machine.has_gpu else 3_000
    wanted = (EPOCHS if from_scratch else FINE_TUNING_EPOCHS) * per_epoch
    least = min(500 if from_scratch else 100, MOST_EPOCHS * per_epoch)
    steps = _round(min(max(wanted, least), most))
    every = max(1, _round(steps / EVALUATIONS))
    epochs = steps * min(batch_size, num_rows) / num_rows
    return Plan(batch_size, steps, max(1, _round(steps / 20)), every, max(1, min(50, every // 4)), epochs)


def choose_length(tokens: Sequence[float]) -> int:
    """The limit that leaves PERCENTILE of the rows whole, by the estimated tokens of each; all, if none is far longer."""
    ordered = sorted(tokens)
    most = ordered[min(len(ordered) - 1, math.ceil(len(ordered) * PERCENTILE / 100) - 1)]
    limit = _length(most)
    return _length(ordered[-1]) if ordered[-1] <= 2.5 * limit else limit


def _length(tokens: float) -> int:
    return next((length for length in LENGTHS if tokens <= length), LENGTHS[-1])


def _round(number: float) -> int:
    """A whole number near it of which one or two digits are not 0: 1, 1.5, 2, 2.5, 3, 4, 5, 6 or 8 times a power of ten."""
    if number < 10:
        return max(1, round(number))
    power = 10.0 ** math.floor(math.log10(number))
    return round(min((1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10), key=lambda each: abs(each * power - number)) * power)
