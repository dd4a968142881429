"""Decides which rows form each optimizer step, from their lengths, and which rank computes which micro-batch.

The plan follows from the data's fingerprint, the seed, the epoch and the recipe's batch size. The world size enters only
in `deal`, after everything else is decided, so that any number of ranks trains the same steps. An epoch is a permutation
of all rows, or of those that a mixture of sources draws. A step is either the next `batch_size` rows of it, or, counted in
target tokens, a part of a window: a long run of the permutation that `buckets` lays out by length. `cuts` cuts a step into
micro-batches.

Pure numpy. Knows nothing of tokens, tensors, processes or files.
"""

import heapq
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from dstrain.data.arrays import Lengths, Rows
from dstrain.data.buckets import plan_layout
from dstrain.data.cuts import Cut, cut_step
from dstrain.data.epoch_rows import EpochRows
from dstrain.data.epoch_steps import EpochSteps
from dstrain.data.mixture import Mixture
from dstrain.data.permutation import permutation_keys
from dstrain.errors import UserError

WINDOW_ROWS = 1 << 18
"""Rows laid out together if steps are counted in tokens; windows are made equally long, so a few less. Fewer rows would need
less memory, but be less similar within a bucket. The last two steps of a window may be short, seldom by more than half."""

KEPT_WINDOWS = 2
"""Laid-out windows kept in memory: the one that is trained, and the next, which the loader prefetches."""

FILLER = -1
"""In the lists of `deal`: this rank computes a filler, because others have one micro-batch more."""

Exchange = Callable[[list[list[int]]], list[list[list[int]]]]
"""All-gather: takes this rank's value, returns every rank's in rank order."""


@dataclass(frozen=True, slots=True)
class Position:
    """A position in the data: an epoch and the optimizer step within it, both counted from 0."""

    epoch: int
    step: int


FIRST = Position(0, 0)
"""Where a new run begins."""


@dataclass(frozen=True, slots=True)
class Rest:
    """An epoch that another plan has begun, and the rows that it has left."""

    epoch: int
    rows: EpochRows


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One optimizer step, the same on every rank.

    rows are row numbers `[n]` in the epoch's order; micro_batches hold the same row numbers, the longest rows first. A
    micro-batch is empty if all its rows are excluded. next_position is where the next step begins. num_target_tokens counts
    the labels of the whole step.
    """

    position: Position
    next_position: Position
    rows: Rows
    micro_batches: tuple[Rows, ...]
    num_target_tokens: int


@dataclass(frozen=True, slots=True)
class _Window:
    """A window laid out: its rows `[rows]` in the order of training, and where buckets and steps end among them."""

    rows: Rows
    bucket_ends: Rows
    step_ends: Rows


class Plan:
    """All optimizer steps of all epochs, each computed on request; holds no array longer than a window.

    May be used from several threads: the loader plans ahead while the main thread reports progress.
    """

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
        mixture: Mixture | None = None,
        rest: Rest | None = None,
        window_rows: int = WINDOW_ROWS,
    ) -> None:
        """Steps of the epoch of `rest` are counted from the first that this plan trains."""
        assert len(source_lengths) == len(target_lengths)
        if len(source_lengths) == 0:
            raise UserError("data.train has no rows to plan: give it at least one usable row")
        self.source_lengths = source_lengths
        self.target_lengths = target_lengths
        self.num_rows = len(source_lengths) if mixture is None else mixture.num_rows
        """Rows of an epoch."""
        self.batch_size = batch_size
        self.batch_unit = batch_unit
        self.cut = cut
        self.rest = rest
        self._fingerprint = fingerprint
        self._seed = seed
        self._mixture = mixture
        self._window_rows = window_rows
        self._recent_windows: tuple[tuple[tuple[int, int], _Window], ...] = ()
        """((epoch, window), its layout), the last used first."""
        self._epoch_steps: dict[int, EpochSteps] = {}

    @property
    def whole_epoch(self) -> int:
        """The first epoch that this plan trains from its first row to its last."""
        return 1 if self.rest is not None and self.rest.epoch == 0 else 0

    def num_steps(self, epoch: int) -> int:
        """Optimizer steps of an epoch. In target tokens this reads every length, once per epoch; see `count_together`."""
        if self.batch_unit == "sequences":
            return -(-len(self._rows_of(epoch)) // self.batch_size)
        return self._steps_of(epoch).num_steps()

    def count_together(
        self,
        epochs: Iterable[int],
        *,
        rank: int,
        world_size: int,
        exchange: Exchange,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        """Count the steps of these epochs, each rank a share of the windows. Collective if `exchange` is.

        `beat` is called after every window of this rank.
        """
        if self.batch_unit == "sequences":
            return
        wanted = list(epochs)
        sizes = [self._num_windows(epoch) for epoch in wanted]
        mine = [
            self._count_windows(epoch, windows=range(rank, size, world_size), beat=beat).tolist()
            for epoch, size in zip(wanted, sizes, strict=True)
        ]
        for epoch, size, parts in zip(wanted, sizes, zip(*exchange(mine), strict=True), strict=True):
            counts = np.empty(size, dtype=np.int64)
            for other, part in enumerate(parts):
                counts[other::world_size] = part
            self._steps_of(epoch).set_counts(counts)

    def total_steps(
        self, *, epochs: float | None = None, max_steps: int | None = None, done: int = 0, start: Position = FIRST
    ) -> int:
        """Optimizer steps of the whole training, at least 1; exactly one of `epochs` and `max_steps` must be given.

        `done` steps are trained, and the next is at `start`: what is left of the epochs is counted from there.
        """
        assert (epochs is None) != (max_steps is None)
        if epochs is None:
            assert max_steps is not None
            return max_steps
        return max(1, done + self._steps_between(start, end=epochs))

    def _steps_between(self, start: Position, *, end: float) -> int:
        """Steps from a position to the end of so many epochs; none if it lies before."""
        whole = math.floor(end)
        if start.epoch > whole:
            return 0
        if self.batch_unit == "sequences":  # every epoch has as many steps, but for one begun otherwise
            left = whole - start.epoch
            steps = self.num_steps(start.epoch) + (left - 1) * self.num_steps(start.epoch + 1) if left else 0
        else:
            steps = sum(self.num_steps(epoch) for epoch in range(start.epoch, whole))
        if end > whole:
            trained = self._trained_before(whole)
            share = (end - whole - trained) / (1.0 - trained)
            # 0.3 of 10 steps is computed as 3.0000000000000004 or so: without the 1e-6 it would be rounded up to four
            steps += max(0, math.ceil(share * self.num_steps(whole) - 1e-6))
        return max(0, steps - start.step)

    def epoch_at(self, position: Position) -> float:
        """Epochs completed when the step at position is the next to train."""
        trained = self._trained_before(position.epoch)
        if self.batch_unit == "sequences":
            done = (1.0 - trained) * (position.step / self.num_steps(position.epoch))
            return position.epoch + (trained + done)
        # by rows of completed windows, because the number of steps in the epoch may not be counted yet
        window, fraction = self._steps_of(position.epoch).progress(position.step)
        start, stop = self._window_ends(position.epoch, window)
        return position.epoch + (trained + start / self.num_rows) + fraction * ((stop - start) / self.num_rows)

    def rows_from(self, position: Position) -> EpochRows:
        """The rows that an epoch has left where the step at position is the next to train."""
        rows = self._rows_of(position.epoch)
        if self.batch_unit == "sequences":
            return rows.after(min(position.step * self.batch_size, len(rows)))
        number, first = self._steps_of(position.epoch).locate(position.step)
        if number == self._num_windows(position.epoch):
            return rows.after(len(rows))
        window, index = self._window(position.epoch, number), position.step - first
        begun = window.step_ends[index - 1] if index else 0
        return rows.after(self._window_ends(position.epoch, number)[1], first=window.rows[begun:])

    def step(self, position: Position) -> StepPlan:
        """The step at position, computed without planning the steps before it.

        In target tokens the steps of earlier windows are counted first, unless they already are.

        Raises UserError if the epoch has no such step.
        """
        found = self._find_step(position)
        if found is None:
            raise UserError(
                f"epoch {position.epoch} has no step {position.step}: it has {self.num_steps(position.epoch)} steps, "
                "counted from 0. The data or training.batch_size have changed since the position was saved: restore them"
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
        """The rows of a step, where its buckets end, and whether it is its epoch's last; None if there is no such step."""
        if position.step < 0:
            return None
        if self.batch_unit == "sequences":
            epoch, start = self._rows_of(position.epoch), position.step * self.batch_size
            if start >= len(epoch):
                return None
            stop = min(start + self.batch_size, len(epoch))
            rows = epoch.between(start, stop)
            return rows, np.asarray([len(rows)]), stop == len(epoch)
        number, first = self._steps_of(position.epoch).locate(position.step)
        num_windows = self._num_windows(position.epoch)
        if number == num_windows:
            return None
        window = self._window(position.epoch, number)
        index = position.step - first
        start, stop = window.step_ends[index - 1] if index else 0, window.step_ends[index]
        inside = window.bucket_ends[(window.bucket_ends > start) & (window.bucket_ends <= stop)]
        at_end = number + 1 == num_windows and index + 1 == len(window.step_ends)
        return window.rows[start:stop], inside - start, at_end

    def _rows_of(self, epoch: int) -> EpochRows:
        if self.rest is not None and epoch == self.rest.epoch:
            return self.rest.rows
        keys = permutation_keys(self._fingerprint, seed=self._seed, epoch=epoch)
        if self._mixture is None:
            return EpochRows(self.num_rows, keys)
        at = partial(self._mixture.rows, fingerprint=self._fingerprint, seed=self._seed, epoch=epoch)
        return EpochRows(self.num_rows, keys, at=at)

    def _trained_before(self, epoch: int) -> float:
        """The share of an epoch's rows that another plan has trained."""
        return (self.num_rows - len(self._rows_of(epoch))) / self.num_rows

    def _num_windows(self, epoch: int) -> int:
        return -(-len(self._rows_of(epoch)) // self._window_rows)

    def _window_ends(self, epoch: int, window: int) -> tuple[int, int]:
        # equally long, because a short last window would have few rows of similar length
        num_rows, num_windows = len(self._rows_of(epoch)), self._num_windows(epoch)
        start, stop = (min(each, num_windows) * num_rows // num_windows for each in (window, window + 1))
        return start, stop

    def _steps_of(self, epoch: int) -> EpochSteps:
        # counted through `_window`, which keeps what it lays out: a window is usually counted just before it is trained
        if epoch not in self._epoch_steps:
            steps = EpochSteps(
                lambda window: len(self._window(epoch, window).step_ends), num_windows=self._num_windows(epoch)
            )
            self._epoch_steps.setdefault(epoch, steps)  # atomic: all threads share one
        return self._epoch_steps[epoch]

    def _window(self, epoch: int, window: int) -> _Window:
        key = (epoch, window)
        kept = dict(self._recent_windows)
        found = kept.pop(key, None) or self._plan_window(epoch, window)
        # one assignment of a new tuple, so that two threads need no lock; at worst one lays a window out again
        self._recent_windows = ((key, found), *kept.items())[:KEPT_WINDOWS]
        return found

    def _plan_window(self, epoch: int, window: int) -> _Window:
        rows = self._rows_of(epoch).between(*self._window_ends(epoch, window))
        layout = plan_layout(
            self.source_lengths[rows],
            self.target_lengths[rows],
            max_tokens=self.batch_size,
            keys=permutation_keys(self._fingerprint, seed=self._seed, epoch=epoch, window=window),
        )
        return _Window(rows[layout.order], layout.bucket_ends, layout.step_ends)

    def _count_windows(self, epoch: int, *, windows: Sequence[int], beat: Callable[[], None]) -> Rows:
        counts = np.empty(len(windows), dtype=np.int64)
        for place, window in enumerate(windows):
            counts[place] = len(self._plan_window(epoch, window).step_ends)  # not through `_window`: not trained next
            beat()
        return counts


def exclude_rows(plan: StepPlan, *, excluded: Collection[int], target_lengths: Lengths) -> StepPlan:
    """The step without some rows. Micro-batches keep their numbers, so that their dropout stays the same."""
    unwanted = np.fromiter(excluded, dtype=np.int64)
    if not np.isin(plan.rows, unwanted).any():
        return plan
    rows = plan.rows[~np.isin(plan.rows, unwanted)]
    return replace(
        plan,
        rows=rows,
        micro_batches=tuple(each[~np.isin(each, unwanted)] for each in plan.micro_batches),
        num_target_tokens=int(target_lengths[rows].sum(dtype=np.int64)),
    )


def deal(costs: Sequence[int], *, world_size: int) -> list[list[int]]:
    """Indices into costs for every rank, heaviest first; all lists are equally long, filled up with FILLER.

    Longest processing time first (Graham 1969), with the same number of micro-batches on every rank: each forward and
    backward pass may hold collective operations, which all ranks must enter.
    """
    per_rank = -(-len(costs) // world_size)
    dealt: list[list[int]] = [[] for _ in range(world_size)]
    # ranks that may take another micro-batch: the least loaded first, of equals the lower rank
    waiting = [(0, rank) for rank in range(world_size)]
    for index in sorted(range(len(costs)), key=lambda index: (-costs[index], index)):
        load, rank = waiting[0]
        dealt[rank].append(index)
        if len(dealt[rank]) < per_rank:
            heapq.heapreplace(waiting, (load + costs[index], rank))
        else:
            heapq.heappop(waiting)
    return [[*mine, *[FILLER] * (per_rank - len(mine))] for mine in dealt]
