"""Rows of like length together: a window of rows as buckets and these as steps, a step as pieces, all with little padding.

Pure numpy. Knows nothing of epochs, ranks or the configuration. All of it is a function of the lengths, the sizes and the
keys that it is given; sums are of whole numbers, so that every machine finds the same.
"""

import heapq
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dstrain.data.permutation import UInt64Array, permute

BUCKET_TOKENS = 4096
"""Target tokens of a bucket at most. Part of what a recipe means: a larger step is of several buckets, drawn at random, so
that long and short rows meet in its gradient; a smaller one is a bucket."""

WIDTHS = (0.8, 1.6)
"""Between these the padding of targets over that of sources is drawn. Padding is near its least all over this range."""

Rows = npt.NDArray[np.int64]
Lengths = npt.NDArray[np.signedinteger]


@dataclass(frozen=True, slots=True)
class Layout:
    """A window laid out: its places `[rows]` in their new order, and where in it buckets and steps end."""

    order: Rows
    bucket_ends: Rows
    step_ends: Rows


def plan_layout(source_lengths: Lengths, target_lengths: Lengths, *, max_tokens: int, keys: UInt64Array) -> Layout:
    """The rows of a window as steps of at most max_tokens target tokens, each of one bucket or of several.

    Rows of equal length keep the order in which they come. The keys decide where buckets begin and in which order they
    follow each other, so that with other keys other rows meet.
    """
    bucket_tokens = max_tokens // -(-max_tokens // BUCKET_TOKENS)
    low, high = WIDTHS
    alike = order_alike(
        source_lengths,
        target_lengths,
        bucket_tokens=bucket_tokens,
        width=low + (high - low) * (int(keys[0]) / 2**64),
        is_rising=bool(keys[1] >> np.uint64(63)),
    )
    ends = plan_token_steps(target_lengths[alike], max_tokens=bucket_tokens)
    shuffled = permute(np.arange(len(ends), dtype=np.int64), num_rows=len(ends), keys=keys)
    buckets = np.split(alike, ends[:-1])
    tokens = np.diff(np.cumsum(target_lengths[alike], dtype=np.int64)[ends - 1], prepend=0)[shuffled]
    bucket_ends = np.cumsum(np.diff(ends, prepend=0)[shuffled])
    return Layout(
        order=np.concatenate([buckets[number] for number in shuffled]),
        bucket_ends=bucket_ends,
        step_ends=bucket_ends[plan_token_steps(tokens, max_tokens=max_tokens) - 1],
    )


def order_alike(
    source_lengths: Lengths,
    target_lengths: Lengths,
    *,
    bucket_tokens: float,
    width: float = 1.0,
    is_rising: bool = False,
) -> Rows:
    """Places `[rows]` in an order of which any part of bucket_tokens target tokens needs little padding on both sides.

    From long targets to short ones, in groups; within a group by source, up in one and down in the next, so that a bucket
    which begins in one group and ends in the next is of like rows too. Rows of equal length keep their order.
    """
    longest = int(source_lengths.max())
    table = _group_targets(source_lengths, target_lengths, bucket_tokens=bucket_tokens, width=width)
    groups = _narrow(table)[target_lengths]
    sources = _narrow(source_lengths)
    order = np.argsort(np.where((groups % 2 == 0) == is_rising, sources, longest - sources), kind="stable")
    return order[np.argsort(groups[order], kind="stable")]


def plan_token_steps(target_lengths: Lengths, *, max_tokens: int) -> Rows:
    """Where each step ends `[steps]` when rows are taken in order up to max_tokens; a longer row is a step alone.

    The last two share evenly what is left for them, as nearly as whole rows allow.
    """
    cumulative = np.cumsum(target_lengths, dtype=np.int64)
    ends: list[int] = []
    start = spent = 0
    while start < len(cumulative):
        start = max(start + 1, int(cumulative.searchsorted(spent + max_tokens, side="right")))
        spent = int(cumulative[start - 1])
        ends.append(start)
    if len(ends) > 1:
        first = ends[-3] if len(ends) > 2 else 0
        left = cumulative[first:-1] - (cumulative[first - 1] if first else 0)
        ends[-2] = first + 1 + int(np.argmin(np.maximum(left, left[-1] + target_lengths[-1] - left)))
    return np.asarray(ends, dtype=np.int64)


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


def _group_targets(
    source_lengths: Lengths, target_lengths: Lengths, *, bucket_tokens: float, width: float
) -> npt.NDArray[np.int64]:
    """The group of every target length `[longest target + 1]`, from 0 for the longest.

    A group ends where its targets are padded by as much as its sources will be, which are cut into as many parts as it
    has buckets: there the two together are near their least.
    """
    counts = np.bincount(target_lengths)
    lengths = np.flatnonzero(counts)[::-1]
    sources = source_lengths.astype(np.float64)
    sums = [
        np.cumsum(each[lengths], dtype=np.float64)
        for each in (
            counts,
            counts * np.arange(len(counts)),
            np.bincount(target_lengths, weights=sources),
            np.bincount(target_lengths, weights=sources * sources),
        )
    ]
    groups = np.zeros(len(counts), dtype=np.int64)
    start = number = 0
    while start < len(lengths):
        rows, targets, firsts, squares = (each[start:] - (each[start - 1] if start else 0.0) for each in sums)
        mean = firsts / rows
        # lengths spread evenly about their mean lie within √12 standard deviations; padded by half of that on average
        spread = np.sqrt(12 * np.maximum(squares / rows - mean * mean, 0.0)) / np.maximum(1.0, targets / bucket_tokens)
        is_wide = (rows * lengths[start] - targets) * 2 * mean >= width * spread * targets
        stop = start + 1 + int(np.argmax(is_wide)) if is_wide.any() else len(lengths)
        groups[lengths[start:stop]] = number
        start, number = stop, number + 1
    return groups


def _narrow(values: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
    # numpy sorts 16 bits by radix, many times faster than more, and a window of them is small
    return values.astype(np.uint16) if values.max() < 1 << 16 else values
