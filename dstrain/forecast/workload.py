"""What a run has to compute: its steps, the largest micro-batch, its evaluations and saves, by the plan that the run itself uses.

Pure numpy. Knows no machine but for the type of its device, which decides some null keys.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dstrain.config.device_defaults import BATCH_TOKENS, CPU_TOKENS, OVERHEADS
from dstrain.config.schema import RunConfig
from dstrain.data.cuts import Cut, longest
from dstrain.data.plan import Plan, Position
from dstrain.forecast.lengths import RowLengths

SAMPLED_STEPS = 200
"""Steps, spread over the first epoch, from which the others are foretold."""
MIN_ROW_TOKENS = 16
"""A row counts as at least this long in the budget of an evaluation batch (`evaluation/generate.py`)."""
MIN_CAP_MARGIN = 8
"""Tokens by which a hypothesis may be longer than the longest reference, or a tenth of it (`evaluation/generate.py`)."""
MOST_COUNTED_EPOCHS = 20
"""Epochs whose steps in target tokens are counted one by one; beyond them the first is taken for all."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that are padded together."""

    num_rows: int
    source: int
    """Positions of each source, padding included."""
    target: int
    labels: int
    """Target tokens of all rows, without padding."""


@dataclass(frozen=True, slots=True)
class Searches:
    """The evaluation batches of one evaluation."""

    num_rows: int
    batches: tuple[Batch, ...]
    """The target of a batch is its longest reference."""
    cap: int
    """Most tokens of a hypothesis."""

    @property
    def largest(self) -> Batch:
        """The batch that needs most memory: caches grow with rows × positions."""
        return max(self.batches, key=lambda batch: batch.num_rows * (batch.source + self.cap))


@dataclass(frozen=True, slots=True)
class Workload:
    """What a run has to compute."""

    total_steps: int
    steps_per_epoch: int
    num_train_rows: int
    steps: tuple[tuple[Batch, ...], ...]
    """The micro-batches of sampled steps, over all ranks."""
    searches: Searches
    num_evaluations: int
    """Those of training; a rehearsal of two batches is not counted."""
    num_saves: int
    """Those at steps; saves by the clock come between them where these are rarer."""
    is_exact: bool
    origin: str

    @property
    def micro_batches(self) -> float:
        """Micro-batches of a step, on average."""
        return sum(map(len, self.steps)) / len(self.steps)

    def largest(self, cost: Callable[[Batch], int]) -> Batch:
        """The micro-batch of the greatest cost."""
        return max((batch for step in self.steps for batch in step), key=cost)


def find_workload(config: RunConfig, *, lengths: RowLengths, device: str) -> Workload:
    """The work of a run that begins on a device of this type (`cpu` or `cuda`)."""
    plan = Plan(
        lengths.source,
        lengths.target,
        fingerprint=lengths.fingerprint,
        seed=config.seed,
        batch_size=config.training.batch_size,
        batch_unit=config.training.batch_unit,
        cut=find_cut(config, device=device),
        mixture=lengths.mixture,
    )
    per_epoch = max(1, round(plan.num_steps(0) / lengths.share))
    total = _count_total(config, plan=plan, per_epoch=per_epoch, share=lengths.share)
    places = np.unique(np.linspace(0, plan.num_steps(0) - 1, min(SAMPLED_STEPS, plan.num_steps(0))).astype(int))
    num_evaluations = _count_evaluations(config, total_steps=total, per_epoch=per_epoch)
    return Workload(
        total_steps=total,
        steps_per_epoch=per_epoch,
        num_train_rows=round(plan.num_rows / lengths.share),
        steps=tuple(_micro_batches(plan, step=int(place)) for place in places),
        searches=find_searches(config, lengths=lengths, device=device),
        num_evaluations=num_evaluations,
        num_saves=_count_saves(config, total_steps=total, num_evaluations=num_evaluations),
        is_exact=lengths.is_exact,
        origin=lengths.origin,
    )


def find_cut(config: RunConfig, *, device: str) -> Cut:
    """How steps are cut, with the values that null keys have on this device."""
    machine = config.machine
    overhead = machine.micro_batch_overhead
    return Cut(
        machine.micro_batch_tokens or CPU_TOKENS,
        machine.micro_batch_size,
        machine.min_micro_batches,
        OVERHEADS[device] if overhead is None else overhead,
    )


def find_searches(config: RunConfig, *, lengths: RowLengths, device: str) -> Searches:
    """The batches of one evaluation, as `evaluation/generate.py` plans them for rows of one target language."""
    evaluation = config.evaluation
    num_rows = min(len(lengths.eval_source), evaluation.max_rows or len(lengths.eval_source))
    sources = lengths.eval_source[:num_rows]
    targets = lengths.eval_target[:num_rows]
    budget = (config.machine.evaluation_tokens or BATCH_TOKENS[device]) // evaluation.num_beams
    order = np.argsort(-sources, kind="stable")
    batches, start = list[Batch](), 0
    while start < num_rows:
        first = int(sources[order[start]])
        size = evaluation.batch_size or max(1, budget // max(MIN_ROW_TOKENS, first))
        rows = order[start : start + size]
        batches.append(Batch(len(rows), first, int(targets[rows].max()), int(targets[rows].sum())))
        start += size
    longest_reference = int(lengths.eval_target.max())
    margin = max(MIN_CAP_MARGIN, -(-longest_reference // 10))
    return Searches(num_rows, tuple(batches), evaluation.max_new_tokens or longest_reference + margin)


def _micro_batches(plan: Plan, *, step: int) -> tuple[Batch, ...]:
    found = plan.step(Position(0, step)).micro_batches
    sources = longest(plan.source_lengths, micro_batches=found)
    targets = longest(plan.target_lengths, micro_batches=found)
    return tuple(
        Batch(len(rows), int(source), int(target), int(plan.target_lengths[rows].sum()))
        for rows, source, target in zip(found, sources, targets, strict=True)
    )


def _count_total(config: RunConfig, *, plan: Plan, per_epoch: int, share: float) -> int:
    training = config.training
    if training.max_steps is not None:
        return training.max_steps
    assert training.epochs is not None
    if share == 1.0 and (training.batch_unit == "sequences" or training.epochs <= MOST_COUNTED_EPOCHS):
        return plan.total_steps(epochs=training.epochs)
    return max(1, math.ceil(training.epochs * per_epoch))


def _count_evaluations(config: RunConfig, *, total_steps: int, per_epoch: int) -> int:
    """Evaluations at the cadence, and the one at the end where that is not one of them."""
    evaluation = config.evaluation
    if evaluation.every_steps is not None:
        return math.ceil(total_steps / evaluation.every_steps)
    if evaluation.every_epochs is not None:
        return max(1, math.ceil(total_steps / per_epoch / evaluation.every_epochs - 1e-9))
    return 1


def _count_saves(config: RunConfig, *, total_steps: int, num_evaluations: int) -> int:
    every = config.checkpoint.every_steps
    return num_evaluations if every is None else math.ceil(total_steps / every)
