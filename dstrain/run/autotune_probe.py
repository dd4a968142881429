"""Measures how large a micro-batch fits into memory, and whether compiled layers are faster.

`python -m dstrain.run.autotune_probe REQUEST.json` is started by `dstrain.run.autotune` and prints its result as a line of
JSON. It is a process of its own, so that all the memory it uses is freed. For memory it takes training steps with the longest
rows, the optimizer included, and evaluates a batch of the longest sources; for speed it takes steps with rows of median length.
"""

import gc
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from dstrain.cluster.environment import read_process_info
from dstrain.cluster.process_group import Ranks, join_ranks
from dstrain.config.schema import RunConfig
from dstrain.data.arrays import Rows
from dstrain.data.collate import MicroBatch, collate
from dstrain.data.loader import StepBatch
from dstrain.data.plan import Position, StepPlan
from dstrain.data.tokens import TokenSet, load_token_set
from dstrain.engine.build import build_engine
from dstrain.engine.engine import Engine
from dstrain.errors import OutOfMemory
from dstrain.evaluation.evaluate import evaluate
from dstrain.models.compilation import compile_layers, first_line
from dstrain.models.families import decoder_start_id
from dstrain.models.load import enable_activation_checkpointing, load_model, quiet_transformers
from dstrain.models.loss import Seq2SeqLoss
from dstrain.models.tokenizer import Seq2SeqTokenizer, load_tokenizer
from dstrain.run.compact import compact_if_exact
from dstrain.run.part import leave_part
from dstrain.run.vocabulary import load_vocabulary

SMALLEST_GAIN = 1.1
"""A budget is tried only if it is larger than the last by at least this factor."""
SHARE_OF_FREE = 0.9
"""Share of the free memory that may be used; the rest is for fragmentation and for the buffers of other ranks."""
MOST_PLACES = 8
"""Upper estimate of the padded tokens, both sides together, per target token, for rows of very different lengths."""

LEAST_SPEED_UP = 1.03
"""Compiled layers must be faster by this factor: compiling takes minutes in every attempt."""
WARM_UP_STEPS = 3
TIMED_STEPS = 10

Measure = Callable[[int], int | None]
"""Maps a budget in tokens to peak memory in bytes; None if it did not fit."""


@dataclass(frozen=True)
class Request:
    """What to measure, and with which tokenizer and data."""

    config: RunConfig
    """Its `machine.micro_batch_tokens`, `machine.compile` or both are null."""
    tokenizer: str
    train: str
    """Folder of the token set."""
    eval: str


def plan_budget(measure: Measure, *, smallest: int, largest: int, limit_bytes: int) -> int | None:
    """The largest budget found to fit, between `smallest` and `largest`; None if not even the smallest does.

    Peak memory rises at most in proportion to the budget. So a budget whose peak is under half of the limit is doubled; after
    that, the next budget is extrapolated linearly from the last two.
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
        if found is None:  # out of memory: what it left allocated would distort the next measurement
            return best
        slope = max(0.0, (found - peak) / (budget - best))
        if found > limit_bytes:
            ceiling = budget
        else:
            best, peak = budget, found


def is_faster(compiled: Sequence[float], *, eager: Sequence[float]) -> bool:
    """Whether compiled layers are fast enough to be worth it, by the median seconds per step: single steps may be slow."""
    return median(eager) >= LEAST_SPEED_UP * median(compiled)


class Probe:
    """A model that trains and evaluates while its memory and time are measured."""

    def __init__(self, request: Request, *, ranks: Ranks) -> None:
        self._config, self._ranks = request.config, ranks
        self._tokenizer: Seq2SeqTokenizer = load_tokenizer(request.tokenizer)
        self._train, self._eval = load_token_set(Path(request.train)), load_token_set(Path(request.eval))
        self._longest = longest_rows(self._train)
        model = load_model(self._config.model, tokenizer=self._tokenizer, seed=self._config.seed)
        self._vocabulary = load_vocabulary(self._config, tokenizer=self._tokenizer)
        leave_part(model, config=self._config, tokenizer=self._tokenizer, vocabulary=self._vocabulary)
        compact_if_exact(
            model, config=self._config, tokenizer=self._tokenizer, train=self._train, resume=None, ranks=ranks
        )
        if self._config.machine.activation_checkpointing:
            enable_activation_checkpointing(model)
        self._model = model
        if self._config.machine.compile:
            self.compile()
        module = Seq2SeqLoss(model, label_smoothing=self._config.training.label_smoothing)
        self._start_id = decoder_start_id(model)
        self._engine: Engine = build_engine(self._config, module=module, ranks=ranks, total_steps=1000)
        self._num_steps = 0
        self.is_spent = False
        """Whether memory ran out in the middle of a step, after which the engine must not be used again."""

    @property
    def width(self) -> int:
        """Tokens of the longest row, both sides together."""
        return int(self._train.source_lengths[self._longest[0]] + self._train.target_lengths[self._longest[0]])

    def measure(self, budget: int) -> int | None:
        """Peak memory in bytes of two steps and an evaluation; None if they do not fit.

        A step has two micro-batches, so that gradients are accumulated.
        """
        _reset_peak(self._ranks.device)
        batch = self._batch(np.resize(self._longest, self._num_rows(budget, width=self.width)))
        try:
            for _ in range(2):
                self._step(batch)
            self._evaluate()
        except OutOfMemory:
            self.is_spent = True
            return None
        return _peak_bytes(self._ranks.device)

    def compile(self) -> None:
        """Train with compiled layers from here on."""
        compile_layers(self._model)

    def time(self, budget: int) -> list[float]:
        """Seconds per step, two micro-batches each, with rows of median length; the first few steps are not counted."""
        training, machine = self._config.training, self._config.machine
        middle = len(self._longest) // 2
        lengths = [
            int(side[self._longest[middle]]) for side in (self._train.source_lengths, self._train.target_lengths)
        ]
        rows_per_step = training.batch_size // (1 if training.batch_unit == "sequences" else lengths[1])
        num_rows = min(self._num_rows(budget, width=sum(lengths)), max(1, rows_per_step // machine.min_micro_batches))
        batch = self._batch(np.resize(self._longest[max(0, middle - num_rows // 2) :], num_rows))
        seconds = []
        for _ in range(WARM_UP_STEPS + TIMED_STEPS):
            started = time.perf_counter()
            self._step(batch)
            if self._ranks.device.type == "cuda":
                torch.cuda.synchronize(self._ranks.device)  # kernels run asynchronously
            seconds.append(time.perf_counter() - started)
        return seconds[WARM_UP_STEPS:]

    def _num_rows(self, budget: int, *, width: int) -> int:
        return self._config.machine.micro_batch_size or max(1, budget // width)

    def _step(self, batch: StepBatch) -> None:
        self._num_steps += 1
        self._engine.step(batch, step=self._num_steps)

    def _batch(self, rows: Rows) -> StepBatch:
        pieces = tuple(self._collate(rows, index=index) for index in range(2))
        num_target_tokens = 2 * int(self._train.target_lengths[rows].sum())
        plan = StepPlan(Position(0, 0), Position(0, 1), rows, (rows, rows), num_target_tokens)
        return StepBatch(plan, pieces, num_target_tokens, 0, 0, 0)

    def _collate(self, rows: Rows, *, index: int) -> MicroBatch:
        return collate(
            [self._train.source(int(row)) for row in rows],
            [self._train.target(int(row)) for row in rows],
            pad_id=self._vocabulary.row(self._tokenizer.pad_token_id),
            decoder_start_id=self._start_id,
            index=index,
            rows=rows,
            vocabulary=self._vocabulary,
        )

    def _evaluate(self) -> None:
        with self._engine.gathered() as model:
            evaluate(
                model,
                tokens=self._eval,
                tokenizer=self._tokenizer,
                config=self._config,
                ranks=self._ranks,
                vocabulary=self._vocabulary,
                max_batches=1,
            )


def longest_rows(tokens: TokenSet) -> Rows:
    """Row numbers `[rows]`, the longest first, both sides together."""
    return np.argsort(-(tokens.source_lengths.astype(np.int64) + tokens.target_lengths), kind="stable")


def find_budget(request: Request, *, probe: Probe, limit_bytes: int) -> int | None:
    """The largest budget of a micro-batch that fits, at most a whole step; None if not even one row fits."""
    training, width = request.config.training, probe.width
    step_tokens = training.batch_size * (width if training.batch_unit == "sequences" else MOST_PLACES)
    largest = max(width, step_tokens // request.config.machine.min_micro_batches)
    return plan_budget(probe.measure, smallest=width, largest=largest, limit_bytes=limit_bytes)


def find_faster(probe: Probe, *, budget: int, limit_bytes: int) -> tuple[bool, str]:
    """Whether layers should be compiled, and why; the probe's own layers stay compiled."""
    eager = probe.time(budget)
    try:
        probe.compile()
        compiled = probe.time(budget)
        peak = probe.measure(budget)
    except Exception as error:  # a compiler may raise anything, and the run works without it
        return False, f"compiling failed ({first_line(error)})"
    found = f"a step takes {median(compiled):.4f} s compiled, {median(eager):.4f} s eager"
    if not is_faster(compiled, eager=eager):
        return False, found
    if peak is None or peak > limit_bytes:
        return False, f"{found}, but the same micro-batches do not fit into memory"
    return True, found


def answer(request: Request, *, build_probe: Callable[[], Probe], limit_bytes: int) -> dict[str, Any]:
    """`budget` in tokens, None if not even one row fits; `compile`; the `reason` for it, empty if it was not measured."""
    machine = request.config.machine
    budget, probe = machine.micro_batch_tokens, build_probe()
    if budget is None:
        budget = find_budget(request, probe=probe, limit_bytes=limit_bytes)
    is_compiled, reason = bool(machine.compile), ""
    if machine.compile is None and budget is not None:
        if probe.is_spent:
            del probe
            gc.collect()
            probe = build_probe()
        is_compiled, reason = find_faster(probe, budget=budget, limit_bytes=limit_bytes)
    return {"budget": budget, "compile": is_compiled, "reason": reason}


def main() -> None:
    """Measure and print the answer as a line of JSON."""
    quiet_transformers()
    values = json.loads(Path(sys.argv[1]).read_bytes())
    request = Request(**(values | {"config": RunConfig.model_validate(values["config"])}))
    ranks = join_ranks(read_process_info({}), timeout_minutes=request.config.machine.collective_timeout_minutes)
    limit = int(torch.cuda.mem_get_info(ranks.device)[0] * SHARE_OF_FREE)
    print(json.dumps(answer(request, build_probe=lambda: Probe(request, ranks=ranks), limit_bytes=limit)), flush=True)


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)  # reserved, so with fragmentation
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    main()
