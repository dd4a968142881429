"""How large a micro-batch fits into memory, measured: python -m dstrain.probe REQUEST.json, started by dstrain.budget.

A process of its own, so that whatever it takes is given back. It trains real steps of the longest rows, the optimizer's part
included, and evaluates a batch of the longest sources; it knows nothing of what is done with the answer, a line of JSON.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dstrain.cluster.environment import discover_place
from dstrain.cluster.process_group import Ranks, join_ranks
from dstrain.config.schema import RunConfig
from dstrain.data.collate import MicroBatch, collate
from dstrain.data.loader import StepBatch
from dstrain.data.plan import Position, Rows, StepPlan
from dstrain.data.tokens import TokenSet, load_token_set
from dstrain.engine.engine import Engine, build_engine
from dstrain.evaluation.evaluate import evaluate
from dstrain.models.families import decoder_start_id, generation_arguments
from dstrain.models.load import enable_activation_checkpointing, load_model, quiet_transformers
from dstrain.models.loss import Seq2SeqLoss
from dstrain.models.tokenizer import Seq2SeqTokenizer, load_tokenizer

SMALLEST_GAIN = 1.1
"""A budget that is larger by less is not worth a try."""
SHARE_OF_FREE = 0.9
"""Of the memory that is free; the rest is for what the allocator cannot use, and for other ranks' buffers."""
MOST_PLACES = 8
"""Places of a padded micro-batch to a target token, where rows are as unlike as can be expected."""

Measure = Callable[[int], int | None]
"""Budget in tokens to peak memory in bytes; None where it did not fit."""


@dataclass(frozen=True)
class Request:
    """What is asked."""

    config: RunConfig
    tokenizer: str
    train: str
    """Folder of the token set."""
    eval: str


def plan_budget(measure: Measure, *, smallest: int, largest: int, limit_bytes: int) -> int | None:
    """The largest budget found to fit, between `smallest` and `largest`; None if not even the smallest does.

    Peak memory rises at most in proportion to the budget, so that twice a budget fits where its peak is under half of the
    limit; from there a straight line through the last two tells where to look.
    """
    peak = measure(smallest)
    if peak is None or peak > limit_bytes:
        return None
    best, ceiling, slope = smallest, largest + 1, 0.0
    while True:
        budget = min(2 * best, ceiling - 1)
        if slope and (2 * peak > limit_bytes or ceiling <= largest):
            budget = min(budget, best + int((limit_bytes - peak) / slope))
        if budget < best * SMALLEST_GAIN:
            return best
        found = measure(budget)
        if found is None:  # what it left behind would be measured with the next
            return best
        slope = max(0.0, (found - peak) / (budget - best))
        if found > limit_bytes:
            ceiling = budget
        else:
            best, peak = budget, found


class Probe:
    """A model that trains and evaluates, and what it takes."""

    def __init__(self, request: Request, *, ranks: Ranks) -> None:
        self._config, self._ranks = request.config, ranks
        self._tokenizer: Seq2SeqTokenizer = load_tokenizer(request.tokenizer)
        self._train, self._eval = load_token_set(Path(request.train)), load_token_set(Path(request.eval))
        self._longest = longest_rows(self._train)
        model = load_model(self._config.model, tokenizer=self._tokenizer, seed=self._config.seed)
        if self._config.machine.activation_checkpointing:
            enable_activation_checkpointing(model)
        module = Seq2SeqLoss(model, label_smoothing=self._config.training.label_smoothing).to(ranks.device)
        self._start_id = decoder_start_id(model)
        self._engine: Engine = build_engine(self._config, module=module, ranks=ranks, total_steps=1000)
        self._num_steps = 0

    @property
    def width(self) -> int:
        """Tokens of the longest row, both sides together."""
        return int(self._train.source_lengths[self._longest[0]] + self._train.target_lengths[self._longest[0]])

    def measure(self, budget: int) -> int | None:
        """Peak memory of two steps and an evaluation; a step is of two micro-batches, whose gradients add up."""
        _reset_peak(self._ranks.device)
        try:
            for _ in range(2):
                self._num_steps += 1
                self._engine.step(self._batch(budget), step=self._num_steps)
            self._evaluate()
        except torch.OutOfMemoryError:
            return None
        return _peak_bytes(self._ranks.device)

    def _batch(self, budget: int) -> StepBatch:
        rows = self._longest[:1] if budget < self.width else np.resize(self._longest, budget // self.width)
        pieces = tuple(self._collate(rows, index=index) for index in range(2))
        num_target_tokens = 2 * int(self._train.target_lengths[rows].sum())
        plan = StepPlan(Position(0, 0), Position(0, 1), rows, (rows, rows), num_target_tokens)
        return StepBatch(plan, pieces, num_target_tokens, 0, 0, 0)

    def _collate(self, rows: Rows, *, index: int) -> MicroBatch:
        return collate(
            [self._train.source(int(row)) for row in rows],
            [self._train.target(int(row)) for row in rows],
            pad_id=self._tokenizer.pad_token_id,
            decoder_start_id=self._start_id,
            index=index,
            rows=rows,
        )

    def _evaluate(self) -> None:
        with self._engine.gathered() as model:
            evaluate(
                model,
                loss_module=Seq2SeqLoss(model),
                tokenizer=self._tokenizer,
                tokens=self._eval,
                config=self._config,
                generation_arguments=lambda language: generation_arguments(
                    model,
                    tokenizer=self._tokenizer,
                    target_language=language,
                ),
                rank=0,
                world_size=1,
                gather=lambda results: [results],
                device=self._ranks.device,
                max_batches=1,
            )


def longest_rows(tokens: TokenSet) -> Rows:
    """Row numbers `[rows]`, the longest first, both sides together."""
    return np.argsort(-(tokens.source_lengths.astype(np.int64) + tokens.target_lengths), kind="stable")


def find_budget(request: Request, *, probe: Probe, limit_bytes: int) -> int | None:
    """The largest budget of a micro-batch that fits; None if not even one row does. No larger than a step."""
    training, width = request.config.training, probe.width
    step_tokens = training.batch_size * (width if training.batch_unit == "sequences" else MOST_PLACES)
    largest = max(width, step_tokens // request.config.machine.min_micro_batches)
    return plan_budget(probe.measure, smallest=width, largest=largest, limit_bytes=limit_bytes)


def main() -> None:
    """Print `{"budget": tokens}`, or null where not one row fits."""
    quiet_transformers()
    values = json.loads(Path(sys.argv[1]).read_bytes())
    request = Request(**(values | {"config": RunConfig.model_validate(values["config"])}))
    ranks = join_ranks(discover_place({}), timeout_minutes=request.config.machine.collective_timeout_minutes)
    limit = int(torch.cuda.mem_get_info(ranks.device)[0] * SHARE_OF_FREE)
    print(json.dumps({"budget": find_budget(request, probe=Probe(request, ranks=ranks), limit_bytes=limit)}))


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)  # with what fragments of it are lost
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    main()
