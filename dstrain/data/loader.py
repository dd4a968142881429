"""Builds this rank's tensors of each step from plan and token ids, some steps ahead in a background thread.

Knows nothing of the engine, nor of how rows became tokens. The device matters only for pinning host memory.
"""

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch

from dstrain.data.arrays import Rows
from dstrain.data.collate import MicroBatch, collate
from dstrain.data.cuts import longest
from dstrain.data.plan import FILLER, Plan, Position, StepPlan, deal, exclude_rows
from dstrain.data.tokens import TokenSet
from dstrain.data.vocabulary import WHOLE, Vocabulary
from dstrain.errors import UserError

CPU = torch.device("cpu")
POLL_SECONDS = 0.1
"""How often a blocked thread checks whether it should stop."""


@dataclass(frozen=True, slots=True)
class StepBatch:
    """What one rank computes in one optimizer step, and the size of the step over all ranks.

    micro_batches are this rank's, fillers included: the same number on every rank. Token counts are over all ranks, without
    fillers; the padded ones count positions of the padded tensors. A step of fillers alone has target_tokens 1, so that
    nothing is divided by zero. data_seconds is how long the consumer waited for this step.
    """

    plan: StepPlan
    micro_batches: tuple[MicroBatch, ...]
    target_tokens: int
    source_tokens: int
    padded_source_tokens: int
    padded_target_tokens: int
    data_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Failure:
    error: BaseException


class Loader:
    """Endless steps for one rank, from any position."""

    def __init__(
        self,
        tokens: TokenSet,
        plan: Plan,
        *,
        rank: int,
        world_size: int,
        pad_id: int,
        decoder_start_id: int | None,
        prefetch_steps: int,
        vocabulary: Vocabulary = WHOLE,
        device: torch.device = CPU,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._tokens = tokens
        self._plan = plan
        self._rank = rank
        self._world_size = world_size
        self._pad_id = pad_id
        self._decoder_start_id = decoder_start_id
        self._vocabulary = vocabulary
        self._prefetch_steps = prefetch_steps
        self._device = device
        self._clock = clock
        self._excluded: frozenset[int] = frozenset()

    def exclude(self, rows: Iterable[int]) -> None:
        """Leave these rows out of all steps loaded from now on; an open iterator may hold steps loaded before."""
        self._excluded |= frozenset(rows)

    def iterate_from(self, position: Position) -> Generator[StepBatch, None, None]:
        """The steps from position on, epoch after epoch without end; close the iterator to stop its thread.

        An error in the thread is raised here, with the thread's traceback. Raises UserError if the epoch has no such
        position.
        """
        ready: queue.Queue[StepBatch | _Failure] = queue.Queue(maxsize=self._prefetch_steps)
        stop = threading.Event()
        thread = threading.Thread(
            target=self._prefetch, args=(position, ready, stop), name="dstrain-loader", daemon=True
        )
        thread.start()
        try:
            while True:
                before = self._clock()
                item = ready.get()
                if isinstance(item, _Failure):
                    raise item.error
                yield replace(item, data_seconds=self._clock() - before)
        finally:
            stop.set()
            thread.join()

    def load_step(self, position: Position) -> StepBatch:
        """The step at position, collated for this rank.

        Raises UserError if the epoch has no such position, or if all rows of the data are excluded.
        """
        source_lengths, target_lengths = self._plan.source_lengths, self._plan.target_lengths
        excluded = self._excluded
        plan = exclude_rows(self._plan.step(position), excluded=excluded, target_lengths=target_lengths)
        # dropping emptied micro-batches keeps the others' numbers, and so their dropout
        numbers = [number for number, rows in enumerate(plan.micro_batches) if len(rows)]
        row_sets = [plan.micro_batches[number] for number in numbers]
        sizes = np.asarray([len(rows) for rows in row_sets], dtype=np.int64)
        sources = longest(source_lengths, micro_batches=row_sets)
        targets = longest(target_lengths, micro_batches=row_sets)
        costs = (sizes * (sources + targets)).tolist()
        mine = deal(costs, world_size=self._world_size)[self._rank] if row_sets else [FILLER]
        # a real row, because 0 × inf is NaN; the last, which is among the shortest, because its result is not used
        filler_number, filler = (numbers[-1], row_sets[-1][-1:]) if row_sets else (0, self._spare_row(excluded))
        return StepBatch(
            plan=plan,
            micro_batches=tuple(
                self._collate(filler, index=filler_number, weight=0.0)
                if index == FILLER
                else self._collate(row_sets[index], index=numbers[index])
                for index in mine
            ),
            target_tokens=max(1, plan.num_target_tokens),
            source_tokens=int(source_lengths[plan.rows].sum()),
            padded_source_tokens=int((sizes * sources).sum()),
            padded_target_tokens=int((sizes * targets).sum()),
        )

    def _spare_row(self, excluded: frozenset[int]) -> Rows:
        """A row that is not excluded, for a step in which all are."""
        num_rows = len(self._plan.source_lengths)
        row = next((row for row in range(num_rows) if row not in excluded), None)
        if row is None:
            raise UserError(
                f"all {num_rows} rows of data.train are in quarantine, so there is nothing to train on: see "
                "quarantine.jsonl in the run folder, and correct the data or lower training.learning_rate"
            )
        return np.asarray([row], dtype=np.int64)

    def _collate(self, rows: Rows, *, index: int, weight: float = 1.0) -> MicroBatch:
        return collate(
            [self._tokens.source(int(row)) for row in rows],
            [self._tokens.target(int(row)) for row in rows],
            pad_id=self._pad_id,
            decoder_start_id=self._decoder_start_id,
            weight=weight,
            index=index,
            rows=rows,
            vocabulary=self._vocabulary,
        )

    def _prefetch(self, position: Position, ready: "queue.Queue[StepBatch | _Failure]", stop: threading.Event) -> None:
        item: StepBatch | _Failure
        pins = self._device.type == "cuda"
        if pins:
            torch.cuda.set_device(self._device)  # a new thread uses the first GPU, which may be another rank's
        while not stop.is_set():
            try:
                item = self.load_step(position)
                position = item.plan.next_position
                if pins:
                    item = replace(item, micro_batches=tuple(batch.pinned() for batch in item.micro_batches))
            # every error must reach the consumer, which would otherwise wait for ever
            except BaseException as error:
                item = _Failure(error)
            _put(item, ready=ready, stop=stop)
            if isinstance(item, _Failure):
                return


def _put(item: StepBatch | _Failure, *, ready: "queue.Queue[StepBatch | _Failure]", stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            return ready.put(item, timeout=POLL_SECONDS)
        except queue.Full:
            continue
