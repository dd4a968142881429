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

from dstrain.data.buckets import cut_alike, fill_pieces, order_alike, plan_layout, split_pieces
from dstrain.data.permutation import permutation_keys, permute
from dstrain.errors import UserError

WINDOW_ROWS = 1 << 18
"""Rows laid out together when a step is counted in tokens, or a few less. Bounds memory, and leaves two steps a window that
are shorter, though seldom by more than half; the more rows, the more alike are those of a bucket."""

MANY_PIECES = 64
"""From so many micro-batches on, which have like rows enough, rows are sorted once; for fewer the best cuts are searched."""

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
class Cut:
    """How a step is cut into micro-batches; the fields are those of `machine` in the configuration."""

    micro_batch_tokens: int
    micro_batch_size: int | None = None
    min_micro_batches: int = 1
    micro_batch_overhead: int = 128


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


def longest(lengths: Lengths, *, pieces: Sequence[Rows]) -> Rows:
    """The greatest length of each piece `[pieces]`, none of which is empty; lengths are those of all rows."""
    if not pieces:
        return np.empty(0, dtype=np.int64)
    starts = np.cumsum([0, *(len(piece) for piece in pieces[:-1])])
    # together, because one piece after the other costs milliseconds where hundreds of ranks share a step
    return np.maximum.reduceat(lengths[np.concatenate(pieces)], starts).astype(np.int64)


def cut_step(
    source_lengths: Lengths, target_lengths: Lengths, *, cut: Cut, bucket_ends: Rows | None = None
) -> list[Rows]:
    """The micro-batches of a step, each as places `[batch]` within the step, rows of like length together.

    The longest come first. No micro-batch is over the token budget, but for a single row that is; a pinned size
    replaces the budget. There are at least `min_micro_batches`, or as many as rows; where each saves more padding than
    `micro_batch_overhead`, there are more. A step whose rows lie in buckets of like length already (where each ends,
    `[buckets]`) is cut bucket by bucket.
    """
    lengths = np.stack([source_lengths, target_lengths]).astype(np.int64)
    buckets = np.split(np.arange(lengths.shape[1]), [] if bucket_ends is None else bucket_ends[:-1])
    pieces = [bucket[piece] for bucket in buckets for piece in _cut_rows(lengths[:, bucket], cut=cut)]
    pieces = _longest_first(pieces, lengths)
    wanted = min(cut.min_micro_batches, lengths.shape[1])
    if len(pieces) >= wanted:
        return pieces
    return _longest_first(split_pieces(pieces, source_lengths, target_lengths, num_pieces=wanted), lengths)


def _longest_first(pieces: list[Rows], lengths: Rows) -> list[Rows]:
    widths = np.stack([longest(side, pieces=pieces) for side in lengths]).sum(axis=0)
    return [pieces[place] for place in np.argsort(-widths, kind="stable")]


def _cut_rows(lengths: Rows, *, cut: Cut) -> list[Rows]:
    """Rows `[2, rows]`, source and target, as micro-batches with little padding."""
    max_tokens, size = cut.micro_batch_tokens, cut.micro_batch_size
    if size is not None:
        # stable, so that equal lengths keep the step's order
        order = np.lexsort((-lengths[1], -lengths.sum(axis=0)))
        return [order[start : start + size] for start in range(0, len(order), size)]
    num_pieces = int(lengths.sum()) / max_tokens
    if num_pieces < MANY_PIECES:
        return cut_alike(lengths, max_tokens=max_tokens, overhead=cut.micro_batch_overhead)
    order = order_alike(*lengths, bucket_tokens=int(lengths[1].sum()) / num_pieces)
    return fill_pieces(order, lengths, max_tokens=max_tokens)


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
