"""Lengths in, optimizer steps out: which rows form a step, how a step is cut, and who computes which piece.

Pure numpy. Knows nothing of tokens, tensors, processes or files. The plan is a function of (data fingerprint, seed,
epoch) and of the recipe's batch size; the world size enters only in `deal`, after everything else is decided. Which rows
of a window are alike is the concern of `buckets`.
"""

import heapq
import math
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from dstrain.data.buckets import plan_layout
from dstrain.data.cuts import Cut, cut_step
from dstrain.data.permutation import permutation_keys, permute
from dstrain.errors import UserError

WINDOW_ROWS = 1 << 18
"""Rows laid out together when a step is counted in tokens, or a few less. Bounds memory, and leaves two steps a window that
are shorter, though seldom by more than half; the more rows, the more alike are those of a bucket."""


FILLER = -1
"""In the list of `deal`: this rank has nothing to compute while others still have."""

Rows = npt.NDArray[np.int64]
Lengths = npt.NDArray[np.signedinteger]

Exchange = Callable[[list[Rows]], list[list[Rows]]]
"""This rank's value in, those of all ranks out, in the order of ranks and on every rank."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the data: the optimizer step (from 0) within an epoch (from 0)."""

    epoch: int
    step: int


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One optimizer step, the same on every rank.

    rows are the row numbers `[n]` in the epoch's order; micro_batches hold the same row numbers, the longest rows first, and
    one of them is empty where all its rows are excluded; next_position follows this step; num_target_tokens counts the
    labels of the whole step.
    """

    position: Position
    next_position: Position
    rows: Rows
    micro_batches: tuple[Rows, ...]
    num_target_tokens: int


class _FirstSteps:
    """The number of the first step of every window of an epoch, counted as far as it is asked for, from several threads."""

    def __init__(self, count: Callable[[int], int], *, num_windows: int) -> None:
        self._count = count
        self._first = np.zeros(num_windows + 1, dtype=np.int64)
        self._num_counted = 0
        # whoever comes second waits for what the first counts, which may be every length of the data
        self._lock = threading.Lock()

    def fill(self, counts: Rows) -> None:
        """Take over the counts of all windows."""
        with self._lock:
            self._first[1:] = np.cumsum(counts)
            self._num_counted = len(counts)

    def total(self) -> int:
        """Steps of the epoch."""
        with self._lock:
            self._count_past(math.inf)
            return int(self._first[-1])

    def find(self, step: int) -> tuple[int, int]:
        """The window that holds a step, and the window's first step; past the last window if the epoch is shorter."""
        with self._lock:
            self._count_past(step)
            return self._locate(step)

    def fraction(self, step: int) -> tuple[int, float]:
        """Windows passed before a step, and how much of the next; the window that it begins need not be counted."""
        with self._lock:
            self._count_past(step - 1)
            window, first = self._locate(step)
            return window, (step - first) / int(self._first[window + 1] - first) if step > first else 0.0

    def _count_past(self, step: float) -> None:
        while self._num_counted < len(self._first) - 1 and self._first[self._num_counted] <= step:
            window = self._num_counted
            self._first[window + 1] = self._first[window] + self._count(window)
            self._num_counted += 1

    def _locate(self, step: int) -> tuple[int, int]:
        window = int(np.searchsorted(self._first[: self._num_counted + 1], step, side="right")) - 1
        return window, int(self._first[window])


class Plan:
    """All optimizer steps of all epochs, computed when asked for; holds no array longer than a window."""

    def __init__(
        self,
        source_lengths: Lengths,
        target_lengths: Lengths,
        *,
        fingerprint: str,
        seed: int,
        batch_size: int,
        batch_unit: Literal["sequences", "target_tokens"],
        cut: Cut,
        window_rows: int = WINDOW_ROWS,
    ) -> None:
        assert len(source_lengths) == len(target_lengths)
        if len(source_lengths) == 0:
            raise UserError("data.train has no rows to plan: give it at least one usable row")
        self.source_lengths = source_lengths
        self.target_lengths = target_lengths
        self.num_rows = len(source_lengths)
        self.batch_size = batch_size
        self.batch_unit = batch_unit
        self.cut = cut
        self._fingerprint = fingerprint
        self._seed = seed
        self._window_rows = window_rows
        self._num_windows = -(-self.num_rows // window_rows)
        self._window = lru_cache(maxsize=2)(self._plan_window)
        self._first_steps = lru_cache(maxsize=1024)(self._begin_count)

    def num_steps(self, epoch: int) -> int:
        """Optimizer steps of an epoch. In target tokens this reads every length once an epoch; see `count_together`."""
        if self.batch_unit == "sequences":
            return -(-self.num_rows // self.batch_size)
        return self._first_steps(epoch).total()

    def count_together(self, epochs: Iterable[int], *, rank: int, world_size: int, exchange: Exchange) -> None:
        """Know the steps of whole epochs, of which every rank counts its part of the windows; as collective as exchange."""
        if self.batch_unit == "sequences":
            return
        asked = list(epochs)
        mine = [self._count_windows(epoch, windows=range(rank, self._num_windows, world_size)) for epoch in asked]
        for epoch, parts in zip(asked, zip(*exchange(mine), strict=True), strict=True):
            counts = np.empty(self._num_windows, dtype=np.int64)
            for other, part in enumerate(parts):
                counts[other::world_size] = part
            self._first_steps(epoch).fill(counts)

    def total_steps(self, *, epochs: float | None = None, max_steps: int | None = None) -> int:
        """Optimizer steps of the whole training, of which exactly one of the two lengths is given; at least 1."""
        assert (epochs is None) != (max_steps is None)
        if epochs is None:
            assert max_steps is not None
            return max_steps
        whole = math.floor(epochs)
        steps = sum(self.num_steps(epoch) for epoch in range(whole))
        if epochs > whole:
            # The small difference keeps 0.3 of 10 steps, which is 3.0000000000000004 or so, from becoming four.
            steps += math.ceil((epochs - whole) * self.num_steps(whole) - 1e-6)
        return max(1, steps)

    def epoch_at(self, position: Position) -> float:
        """Epochs passed when the next step to train is the one at position."""
        if self.batch_unit == "sequences":
            return position.epoch + position.step / self.num_steps(position.epoch)
        # by windows, because the steps of an epoch are known only once all its lengths were read
        window, fraction = self._first_steps(position.epoch).fraction(position.step)
        start, stop = self._window_ends(window)
        return position.epoch + start / self.num_rows + fraction * ((stop - start) / self.num_rows)

    def step(self, position: Position) -> StepPlan:
        """The step at position, found without planning the steps before it.

        In target tokens the steps of earlier windows are counted first, once an epoch, where that was not done yet.

        Raises UserError if the epoch has no such step.
        """
        found = self._find_step(position)
        if found is None:
            raise UserError(
                f"epoch {position.epoch} has no step {position.step}: it has {self.num_steps(position.epoch)} steps, "
                "counted from 0. The data or training.batch_size differ from those the position was saved with: restore "
                "them"
            )
        rows, bucket_ends, at_end = found
        source_lengths, target_lengths = self.source_lengths[rows], self.target_lengths[rows]
        return StepPlan(
            position=position,
            next_position=Position(position.epoch + 1, 0) if at_end else Position(position.epoch, position.step + 1),
            rows=rows,
            micro_batches=tuple(
                rows[part] for part in cut_step(source_lengths, target_lengths, cut=self.cut, bucket_ends=bucket_ends)
            ),
            num_target_tokens=int(target_lengths.sum(dtype=np.int64)),
        )

    def _find_step(self, position: Position) -> tuple[Rows, Rows, bool] | None:
        """The rows of a step, where its buckets end, and whether it is the last of its epoch; None if there is no such step."""
        if position.step < 0:
            return None
        if self.batch_unit == "sequences":
            start = position.step * self.batch_size
            if start >= self.num_rows:
                return None
            stop = min(start + self.batch_size, self.num_rows)
            rows = self._permuted(position.epoch, start=start, stop=stop)
            return rows, np.asarray([len(rows)]), stop == self.num_rows
        window, first = self._first_steps(position.epoch).find(position.step)
        if window == self._num_windows:
            return None
        rows, bucket_ends, step_ends = self._window(position.epoch, window)
        index = position.step - first
        start, stop = step_ends[index - 1] if index else 0, step_ends[index]
        inside = bucket_ends[(bucket_ends > start) & (bucket_ends <= stop)]
        at_end = window + 1 == self._num_windows and index + 1 == len(step_ends)
        return rows[start:stop], inside - start, at_end

    def _permuted(self, epoch: int, *, start: int, stop: int) -> Rows:
        keys = permutation_keys(self._fingerprint, seed=self._seed, epoch=epoch)
        return permute(np.arange(start, stop, dtype=np.int64), num_rows=self.num_rows, keys=keys)

    def _window_ends(self, window: int) -> tuple[int, int]:
        # equally many rows in each, because few rows have little of like length
        start, stop = (
            min(each, self._num_windows) * self.num_rows // self._num_windows for each in (window, window + 1)
        )
        return start, stop

    def _plan_window(self, epoch: int, window: int) -> tuple[Rows, Rows, Rows]:
        start, stop = self._window_ends(window)
        rows = self._permuted(epoch, start=start, stop=stop)
        layout = plan_layout(
            self.source_lengths[rows],
            self.target_lengths[rows],
            max_tokens=self.batch_size,
            keys=permutation_keys(self._fingerprint, seed=self._seed, epoch=epoch, window=window),
        )
        return rows[layout.order], layout.bucket_ends, layout.step_ends

    def _begin_count(self, epoch: int) -> _FirstSteps:
        # through the windows that are kept, because a window is most often counted when its first step is wanted
        return _FirstSteps(lambda window: len(self._window(epoch, window)[2]), num_windows=self._num_windows)

    def _count_windows(self, epoch: int, *, windows: Sequence[int]) -> Rows:
        return np.asarray([len(self._plan_window(epoch, window)[2]) for window in windows], dtype=np.int64)


def exclude_rows(plan: StepPlan, *, excluded: Collection[int], target_lengths: Lengths) -> StepPlan:
    """The step without some rows. Micro-batches keep their numbers, and with them their random numbers."""
    unwanted = np.fromiter(excluded, dtype=np.int64)
    if not np.isin(plan.rows, unwanted).any():
        return plan
    rows = plan.rows[~np.isin(plan.rows, unwanted)]
    return replace(
        plan,
        rows=rows,
        micro_batches=tuple(piece[~np.isin(piece, unwanted)] for piece in plan.micro_batches),
        num_target_tokens=int(target_lengths[rows].sum(dtype=np.int64)),
    )


def deal(costs: Sequence[int], *, world_size: int) -> list[list[int]]:
    """The micro-batches of every rank, heaviest first; all lists are equally long, filled up with FILLER.

    Longest processing time first (Graham 1969), with equally many pieces, fillers included, on every rank.
    """
    per_rank = -(-len(costs) // world_size)
    dealt: list[list[int]] = [[] for _ in range(world_size)]
    # those that may take another piece: the least loaded first, the lower rank of equals
    waiting = [(0, rank) for rank in range(world_size)]
    for index in sorted(range(len(costs)), key=lambda index: (-costs[index], index)):
        load, rank = waiting[0]
        dealt[rank].append(index)
        if len(dealt[rank]) < per_rank:
            heapq.heapreplace(waiting, (load + costs[index], rank))
        else:
            heapq.heappop(waiting)
    return [[*mine, *[FILLER] * (per_rank - len(mine))] for mine in dealt]
