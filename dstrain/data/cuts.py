"""Cuts a step into micro-batches of rows of similar length, with little padding.

A micro-batch holds positions within its step. Pure numpy; knows nothing of epochs, windows or ranks. There are two ways:
few micro-batches are found by searching for the best cuts (`cut_recursively`), many by one sort (`fill_micro_batches`).
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dstrain.data.arrays import Lengths, Rows
from dstrain.data.buckets import order_by_similarity

MANY_MICRO_BATCHES = 64
"""Above this many micro-batches one sort is good enough; below it the best cuts are searched for."""


@dataclass(frozen=True, slots=True)
class Cut:
    """How a step is cut into micro-batches; the fields are those of `machine` in the configuration."""

    micro_batch_tokens: int
    micro_batch_size: int | None = None
    min_micro_batches: int = 1
    micro_batch_overhead: int = 128


def cut_step(
    source_lengths: Lengths, target_lengths: Lengths, *, cut: Cut, bucket_ends: Rows | None = None
) -> list[Rows]:
    """The micro-batches of a step, each as positions `[batch]` within the step, the longest rows first.

    Each stays within `micro_batch_tokens`, padding included, unless a single row is longer; `micro_batch_size` replaces
    that budget by a number of rows. There are at least `min_micro_batches`, or one per row if there are fewer rows. Further
    cuts are made where they save more padding than `micro_batch_overhead`. If the step consists of buckets (which end at
    `bucket_ends` `[buckets]`), each bucket is cut separately.
    """
    lengths = np.stack([source_lengths, target_lengths]).astype(np.int64)
    num_rows = lengths.shape[1]
    buckets = np.split(np.arange(num_rows), [] if bucket_ends is None else bucket_ends[:-1])
    micro_batches = [bucket[part] for bucket in buckets for part in _cut_rows(lengths[:, bucket], cut=cut)]
    micro_batches = _longest_first(micro_batches, lengths)
    wanted = min(cut.min_micro_batches, num_rows)
    if len(micro_batches) >= wanted:
        return micro_batches
    return _longest_first(split_heaviest(micro_batches, lengths, num_micro_batches=wanted), lengths)


def _cut_rows(lengths: Lengths, *, cut: Cut) -> list[Rows]:
    """The micro-batches of rows whose lengths are `[2, rows]`, in no particular order."""
    max_tokens, size = cut.micro_batch_tokens, cut.micro_batch_size
    if size is not None:
        # stable, so that rows of equal length keep the step's order
        order = np.lexsort((-lengths[1], -lengths.sum(axis=0)))
        return [order[start : start + size] for start in range(0, len(order), size)]
    expected = int(lengths.sum()) / max_tokens
    if expected < MANY_MICRO_BATCHES:
        return cut_recursively(lengths, max_tokens=max_tokens, overhead=cut.micro_batch_overhead)
    order = order_by_similarity(*lengths, bucket_tokens=int(lengths[1].sum()) / expected)
    return fill_micro_batches(order, lengths, max_tokens=max_tokens)


def cut_recursively(lengths: Lengths, *, max_tokens: int, overhead: int) -> list[Rows]:
    """Micro-batches found by cutting all rows in two, and the parts again; none exceeds max_tokens unless it is one row.

    lengths are `[2, rows]`. Each cut is made along the side and at the row that leave the least padding. Cutting ends where
    no cut saves more than `overhead` padded tokens.
    """
    micro_batches, waiting = [], [np.arange(lengths.shape[1])]
    while waiting:
        part = waiting.pop()
        padded = padded_tokens(*lengths[:, part])
        # no cut saves more than all padding; for most parts this settles it without a search
        if len(part) > 1 and (padded > max_tokens or padded - int(lengths[:, part].sum()) > overhead):
            cost, halves = _cut_in_two(part, lengths, max_tokens=max_tokens, overhead=overhead)
            if padded > max_tokens or cost < padded + overhead:
                waiting += reversed(halves)
                continue
        micro_batches.append(part)
    return micro_batches


def _cut_in_two(part: Rows, lengths: Lengths, *, max_tokens: int, overhead: int) -> tuple[int, tuple[Rows, Rows]]:
    """The cheapest two halves of a part, and their cost: padded tokens, plus overhead for each micro-batch they need."""
    found = []
    sizes = np.arange(1, len(part))
    for side in (0, 1):
        order = part[np.lexsort((-lengths[1 - side, part], -lengths[side, part]))]
        ordered = lengths[:, order]
        first = sizes * np.maximum.accumulate(ordered, axis=1).sum(axis=0)[:-1]
        second = sizes[::-1] * np.maximum.accumulate(ordered[:, ::-1], axis=1).sum(axis=0)[-2::-1]
        costs = first + second + overhead * (-(-first // max_tokens) - (-second // max_tokens))
        # of equal costs the most even halves, so that ranks get equal shares
        index = int(np.lexsort((abs(first - second), costs))[0])
        found.append((int(costs[index]), side, (order[: index + 1], order[index + 1 :])))
    cost, _, halves = min(found, key=lambda each: each[:2])
    return cost, halves


def fill_micro_batches(order: Rows, lengths: Lengths, *, max_tokens: int) -> list[Rows]:
    """Consecutive parts of an order, each as long as max_tokens with padding allows; a longer row is a part alone.

    lengths are `[2, rows]`. The last two parts share the remaining rows as evenly as possible.
    """
    if padded_tokens(*lengths) <= max_tokens:
        return [order]
    parts, start, longest_source, longest_target = [], 0, 0, 0
    for index, (source, target) in enumerate(zip(*lengths[:, order].tolist(), strict=True)):
        # comparisons, because max() takes three times as long
        if source > longest_source:
            longest_source = source
        if target > longest_target:
            longest_target = target
        if index > start and (index - start + 1) * (longest_source + longest_target) > max_tokens:
            parts.append(order[start:index])
            start, longest_source, longest_target = index, source, target
    if not parts:
        return [order]
    rest = np.concatenate([parts[-1], order[start:]])
    sizes = np.arange(1, len(rest))
    left, right = (
        sizes * np.maximum.accumulate(lengths[:, rows], axis=1).sum(axis=0)[:-1] for rows in (rest, rest[::-1])
    )
    middle = 1 + int(np.argmin(np.maximum(left, right[::-1])))
    return [*parts[:-1], rest[:middle], rest[middle:]]


def split_heaviest(micro_batches: list[Rows], lengths: Lengths, *, num_micro_batches: int) -> list[Rows]:
    """Halves the heaviest micro-batch, the first of equals, until there are num_micro_batches; their order stays.

    lengths are `[2, rows]`.
    """

    def entry(place: int, rows: Rows) -> tuple[int, int, Rows]:
        cost = padded_tokens(*lengths[:, rows]) * (len(rows) > 1)  # a single row cannot be split
        return -cost, place, rows

    # each place (rows before this micro-batch) is unique, so that the heap never compares arrays
    places = np.cumsum([0, *(len(rows) for rows in micro_batches[:-1])]).tolist()
    heap = [entry(place, rows) for place, rows in zip(places, micro_batches, strict=True)]
    heapq.heapify(heap)
    while len(heap) < num_micro_batches:
        _, place, heaviest = heap[0]
        left, right = np.array_split(heaviest, 2)
        heapq.heapreplace(heap, entry(place, left))
        heapq.heappush(heap, entry(place + len(left), right))
    return [rows for _, _, rows in sorted(heap, key=lambda item: item[1])]


def padded_tokens(source_lengths: Lengths, target_lengths: Lengths) -> int:
    """Tokens of one micro-batch with padding: rows × (longest source + longest target)."""
    return len(source_lengths) * (int(source_lengths.max()) + int(target_lengths.max()))


def longest(lengths: Lengths, *, micro_batches: Sequence[Rows]) -> Rows:
    """The greatest length in each micro-batch `[micro-batches]`, none of which may be empty; `lengths` are of all rows."""
    if not micro_batches:
        return np.empty(0, dtype=np.int64)
    starts = np.cumsum([0, *(len(rows) for rows in micro_batches[:-1])])
    # in one call, because a call per micro-batch takes milliseconds where hundreds of ranks share a step
    return np.maximum.reduceat(lengths[np.concatenate(micro_batches)], starts).astype(np.int64)


def _longest_first(micro_batches: list[Rows], lengths: Lengths) -> list[Rows]:
    widths = np.stack([longest(side, micro_batches=micro_batches) for side in lengths]).sum(axis=0)
    return [micro_batches[index] for index in np.argsort(-widths, kind="stable")]
