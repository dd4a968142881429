"""Lengths in, optimizer steps out: which rows form a step, how a step is cut, and who computes which piece.

Pure numpy. Knows nothing of tokens, tensors, processes or files. The plan is a function of (data fingerprint, seed,
epoch) and of the recipe's batch size; the world size enters only in `deal`, after everything else is decided.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from dstrain.data.permutation import permutation_keys, permute

WINDOW_ROWS = 1 << 18
"""Rows laid out together when a step is counted in tokens. Bounds memory, and leaves one short step a window."""

FILLER = -1
"""In the list of `deal`: this rank has nothing to compute while others still have."""

Rows = npt.NDArray[np.int64]
Lengths = npt.NDArray[np.signedinteger]


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


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One optimizer step, the same on every rank.

    rows are the row numbers `[n]` in the epoch's order; micro_batches hold the same row numbers, each longest first, and
    one of them is empty where all its rows are excluded; next_position follows this step; num_target_tokens counts the
    labels of the whole step.
    """

    position: Position
    next_position: Position
    rows: Rows
    micro_batches: tuple[Rows, ...]
    num_target_tokens: int


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
            raise ValueError("data.train has no rows to plan: give it at least one usable row")
        self.source_lengths = source_lengths
        self.target_lengths = target_lengths
        self.num_rows = len(source_lengths)
        self.batch_size = batch_size
        self.batch_unit = batch_unit
        self.cut = cut
        self._fingerprint = fingerprint
        self._seed = seed
        self._window_rows = window_rows
        self._first_steps = lru_cache(maxsize=1024)(self._count_steps)
        self._window = lru_cache(maxsize=2)(self._plan_window)

    def num_steps(self, epoch: int) -> int:
        """Optimizer steps of an epoch. In target tokens this reads every length once an epoch."""
        if self.batch_unit == "sequences":
            return -(-self.num_rows // self.batch_size)
        return int(self._first_steps(epoch)[-1])

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
        return position.epoch + position.step / self.num_steps(position.epoch)

    def step(self, position: Position) -> StepPlan:
        """The step at position, found without looking at the steps before it.

        Raises ValueError if the epoch has no such step.
        """
        num_steps = self.num_steps(position.epoch)
        if not 0 <= position.step < num_steps:
            raise ValueError(
                f"epoch {position.epoch} has no step {position.step}: it has {num_steps} steps, counted from 0. "
                "The data or training.batch_size differ from those the position was saved with: restore them"
            )
        rows = self._step_rows(position)
        source_lengths, target_lengths = self.source_lengths[rows], self.target_lengths[rows]
        at_end = position.step + 1 == num_steps
        return StepPlan(
            position=position,
            next_position=Position(position.epoch + 1, 0) if at_end else Position(position.epoch, position.step + 1),
            rows=rows,
            micro_batches=tuple(rows[part] for part in cut_step(source_lengths, target_lengths, cut=self.cut)),
            num_target_tokens=int(target_lengths.sum(dtype=np.int64)),
        )

    def _step_rows(self, position: Position) -> Rows:
        if self.batch_unit == "sequences":
            start = position.step * self.batch_size
            return self._permuted(position.epoch, start=start, stop=min(start + self.batch_size, self.num_rows))
        first_steps = self._first_steps(position.epoch)
        window = int(np.searchsorted(first_steps, position.step, side="right")) - 1
        rows, ends = self._window(position.epoch, window)
        index = position.step - int(first_steps[window])
        return rows[(ends[index - 1] if index else 0) : ends[index]]

    def _permuted(self, epoch: int, *, start: int, stop: int) -> Rows:
        keys = permutation_keys(self._fingerprint, seed=self._seed, epoch=epoch)
        return permute(np.arange(start, stop, dtype=np.int64), num_rows=self.num_rows, keys=keys)

    def _plan_window(self, epoch: int, window: int) -> tuple[Rows, Rows]:
        start = window * self._window_rows
        rows = self._permuted(epoch, start=start, stop=min(start + self._window_rows, self.num_rows))
        return rows, plan_token_steps(self.target_lengths[rows], max_tokens=self.batch_size)

    def _count_steps(self, epoch: int) -> Rows:
        # The number of the first step of every window, and behind the last window the number of all steps.
        num_windows = -(-self.num_rows // self._window_rows)
        counts = [len(self._plan_window(epoch, window)[1]) for window in range(num_windows)]
        return np.cumsum([0, *counts], dtype=np.int64)


def plan_token_steps(target_lengths: Lengths, *, max_tokens: int) -> Rows:
    """Where each step ends `[steps]` when rows are taken in order up to max_tokens; a longer row is a step alone."""
    cumulative = np.cumsum(target_lengths, dtype=np.int64)
    ends: list[int] = []
    start = spent = 0
    while start < len(cumulative):
        start = max(start + 1, int(cumulative.searchsorted(spent + max_tokens, side="right")))
        spent = int(cumulative[start - 1])
        ends.append(start)
    return np.asarray(ends, dtype=np.int64)


def padded_tokens(source_lengths: Lengths, target_lengths: Lengths) -> int:
    """Tokens of one micro-batch with padding: rows × (longest source + longest target)."""
    return len(source_lengths) * (int(source_lengths.max()) + int(target_lengths.max()))


def cut_step(source_lengths: Lengths, target_lengths: Lengths, *, cut: Cut) -> list[Rows]:
    """The micro-batches of a step, each as places `[batch]` within the step, rows of like length together.

    The longest come first. No micro-batch is over the token budget, but for a single row that is; a pinned size
    replaces the budget. There are at least `min_micro_batches`, or as many as rows.
    """
    # Stable, so that equal lengths keep the step's order.
    order = np.lexsort((-source_lengths, -target_lengths))
    if cut.micro_batch_size is not None:
        pieces = [order[start : start + cut.micro_batch_size] for start in range(0, len(order), cut.micro_batch_size)]
    else:
        pieces = _fill(order, source_lengths, target_lengths, max_tokens=cut.micro_batch_tokens)
    while len(pieces) < min(cut.min_micro_batches, len(order)):
        costs = [padded_tokens(source_lengths[piece], target_lengths[piece]) * (len(piece) > 1) for piece in pieces]
        heaviest = int(np.argmax(costs))
        pieces[heaviest : heaviest + 1] = np.array_split(pieces[heaviest], 2)
    return pieces


def _fill(order: Rows, source_lengths: Lengths, target_lengths: Lengths, *, max_tokens: int) -> list[Rows]:
    sources, targets = source_lengths[order].tolist(), target_lengths[order].tolist()
    pieces, start, longest_source = [], 0, 0
    for index, source in enumerate(sources):
        longest_source = max(longest_source, source)
        # Targets fall, so the piece's first is its longest.
        if index > start and (index - start + 1) * (longest_source + targets[start]) > max_tokens:
            pieces.append(order[start:index])
            start, longest_source = index, source
    return [*pieces, order[start:]]


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
    loads = [0] * world_size
    for index in sorted(range(len(costs)), key=lambda index: (-costs[index], index)):
        rank = min((rank for rank in range(world_size) if len(dealt[rank]) < per_rank), key=loads.__getitem__)
        dealt[rank].append(index)
        loads[rank] += costs[index]
    return [[*mine, *[FILLER] * (per_rank - len(mine))] for mine in dealt]
