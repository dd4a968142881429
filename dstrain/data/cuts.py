"""A step cut into micro-batches of rows of like length. Pure numpy; knows nothing of epochs, ranks or windows."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dstrain.data.buckets import Lengths, Rows, order_alike

MANY_PIECES = 64
"""From so many micro-batches on, which have like rows enough, rows are sorted once; for fewer the best cuts are searched."""


@dataclass(frozen=True, slots=True)
class Cut:
    """How a step is cut into micro-batches; the fields are those of `machine` in the configuration."""

    micro_batch_tokens: int
    micro_batch_size: int | None = None
    min_micro_batches: int = 1
    micro_batch_overhead: int = 128


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


def padded_tokens(source_lengths: Lengths, target_lengths: Lengths) -> int:
    """Tokens of one micro-batch with padding: rows × (longest source + longest target)."""
    return len(source_lengths) * (int(source_lengths.max()) + int(target_lengths.max()))


def fill_pieces(order: Rows, lengths: Rows, *, max_tokens: int) -> list[Rows]:
    """Consecutive parts of an order, none over max_tokens with padding but a single row that is.

    lengths are `[2, rows]`, source and target. The last two parts share what is left, as evenly as can be.
    """
    if padded_tokens(*lengths) <= max_tokens:
        return [order]
    pieces, start, longest_source, longest_target = [], 0, 0, 0
    for index, (source, target) in enumerate(zip(*lengths[:, order].tolist(), strict=True)):
        # comparisons, because max() takes three times as long
        if source > longest_source:
            longest_source = source
        if target > longest_target:
            longest_target = target
        if index > start and (index - start + 1) * (longest_source + longest_target) > max_tokens:
            pieces.append(order[start:index])
            start, longest_source, longest_target = index, source, target
    if not pieces:
        return [order]
    rest = np.concatenate([pieces[-1], order[start:]])
    sizes = np.arange(1, len(rest))
    left, right = (
        sizes * np.maximum.accumulate(lengths[:, part], axis=1).sum(axis=0)[:-1] for part in (rest, rest[::-1])
    )
    middle = 1 + int(np.argmin(np.maximum(left, right[::-1])))
    return [*pieces[:-1], rest[:middle], rest[middle:]]


def cut_alike(lengths: Lengths, *, max_tokens: int, overhead: int) -> list[Rows]:
    """Rows as pieces with little padding, each as places `[rows]`; none is over max_tokens but a single row that is.

    lengths are `[2, rows]`, source and target. From all rows on, a piece is cut in two, along the side and at the place that
    leave the least padding, until no cut saves more than `overhead` padded tokens a piece.
    """
    pieces, waiting = [], [np.arange(lengths.shape[1])]
    while waiting:
        piece = waiting.pop()
        whole = padded_tokens(*lengths[:, piece])
        # no cut saves more than all padding, and most pieces of like rows are done with here
        if len(piece) > 1 and (whole > max_tokens or whole - int(lengths[:, piece].sum()) > overhead):
            cost, halves = _cut_in_two(piece, lengths, max_tokens=max_tokens, overhead=overhead)
            if whole > max_tokens or cost < whole + overhead:
                waiting += reversed(halves)
                continue
        pieces.append(piece)
    return pieces


def _cut_in_two(piece: Rows, lengths: Lengths, *, max_tokens: int, overhead: int) -> tuple[int, tuple[Rows, Rows]]:
    """The cheapest two parts of a piece, and their cost: padded tokens, and overhead for as many pieces as they need."""
    found = []
    sizes = np.arange(1, len(piece))
    for side in (0, 1):
        order = piece[np.lexsort((-lengths[1 - side, piece], -lengths[side, piece]))]
        ordered = lengths[:, order]
        first = sizes * np.maximum.accumulate(ordered, axis=1).sum(axis=0)[:-1]
        second = sizes[::-1] * np.maximum.accumulate(ordered[:, ::-1], axis=1).sum(axis=0)[-2::-1]
        costs = first + second + overhead * (-(-first // max_tokens) - (-second // max_tokens))
        # of equals the most even, so that ranks share them well
        place = int(np.lexsort((abs(first - second), costs))[0])
        found.append((int(costs[place]), side, (order[: place + 1], order[place + 1 :])))
    cost, _, halves = min(found, key=lambda each: each[:2])
    return cost, halves


def split_pieces(
    pieces: list[Rows], source_lengths: Lengths, target_lengths: Lengths, *, num_pieces: int
) -> list[Rows]:
    """The heaviest piece in two, the first of equals, until there are num_pieces of them in the same order."""

    def entry(place: int, piece: Rows) -> tuple[int, int, Rows]:
        cost = padded_tokens(source_lengths[piece], target_lengths[piece]) * (len(piece) > 1)
        return -cost, place, piece

    # the place of a piece's first row is its own alone, so two pieces never come to be compared
    places = np.cumsum([0, *(len(piece) for piece in pieces[:-1])]).tolist()
    heap = [entry(place, piece) for place, piece in zip(places, pieces, strict=True)]
    heapq.heapify(heap)
    while len(heap) < num_pieces:
        _, place, heaviest = heap[0]
        left, right = np.array_split(heaviest, 2)
        heapq.heapreplace(heap, entry(place, left))
        heapq.heappush(heap, entry(place + len(left), right))
    return [piece for _, _, piece in sorted(heap, key=lambda item: item[1])]
