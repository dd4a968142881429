"""Lays out a window of rows as buckets of similar lengths, and the buckets as optimizer steps, with little padding.

Pure numpy. Knows nothing of epochs, ranks or the configuration. A layout is a function of lengths, sizes and keys alone;
all sums are of whole numbers, so that every machine computes the same one.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dstrain.data.arrays import Lengths, Rows, UInt64Array
from dstrain.data.permutation import permute

BUCKET_TOKENS = 4096
"""At most so many target tokens per bucket. Changing it changes what recipes mean: a larger step takes several buckets at
random, so that its gradient mixes long and short rows; a smaller step is one bucket."""

WIDTHS = (0.8, 1.6)
"""Range from which the ratio of target padding to source padding is drawn; total padding is near its minimum in all of it."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a window is laid out."""

    order: Rows
    """Positions in the window `[rows]`, in their new order."""
    bucket_ends: Rows
    """Where each bucket ends in `order` `[buckets]`."""
    step_ends: Rows
    """Where each step ends in `order` `[steps]`; always the end of a bucket too."""


def plan_layout(source_lengths: Lengths, target_lengths: Lengths, *, max_tokens: int, keys: UInt64Array) -> Layout:
    """The rows of a window as steps of at most max_tokens target tokens, each made of one or more buckets.

    Rows of equal length keep their order. The keys decide where buckets begin and in which order they come, so that each
    epoch puts other rows into one step.
    """
    # the largest equal parts of a step that are no larger than a bucket
    bucket_tokens = max_tokens // -(-max_tokens // BUCKET_TOKENS)
    low, high = WIDTHS
    by_length = order_by_similarity(
        source_lengths,
        target_lengths,
        bucket_tokens=bucket_tokens,
        width=low + (high - low) * (int(keys[0]) / 2**64),
        is_rising=bool(keys[1] >> np.uint64(63)),
    )
    ends = plan_token_steps(target_lengths[by_length], max_tokens=bucket_tokens)
    shuffled = permute(np.arange(len(ends), dtype=np.int64), num_rows=len(ends), keys=keys)
    buckets = np.split(by_length, ends[:-1])
    tokens = np.diff(np.cumsum(target_lengths[by_length], dtype=np.int64)[ends - 1], prepend=0)[shuffled]
    bucket_ends = np.cumsum(np.diff(ends, prepend=0)[shuffled])
    return Layout(
        order=np.concatenate([buckets[number] for number in shuffled]),
        bucket_ends=bucket_ends,
        step_ends=bucket_ends[plan_token_steps(tokens, max_tokens=max_tokens) - 1],
    )


def order_by_similarity(
    source_lengths: Lengths,
    target_lengths: Lengths,
    *,
    bucket_tokens: float,
    width: float = 1.0,
    is_rising: bool = False,
) -> Rows:
    """Positions `[rows]` in an order in which any run of bucket_tokens target tokens needs little padding on both sides.

    Groups of similar targets come from the longest to the shortest. Within a group rows are sorted by source, rising in one
    group and falling in the next, so that a bucket across two groups has similar sources too. Rows of equal length keep
    their order.
    """
    longest = int(source_lengths.max())
    table = _group_targets(source_lengths, target_lengths, bucket_tokens=bucket_tokens, width=width)
    groups = _narrow(table)[target_lengths]
    sources = _narrow(source_lengths)
    order = np.argsort(np.where((groups % 2 == 0) == is_rising, sources, longest - sources), kind="stable")
    return order[np.argsort(groups[order], kind="stable")]


def plan_token_steps(target_lengths: Lengths, *, max_tokens: int) -> Rows:
    """Where each step ends `[steps]` if rows are taken in order up to max_tokens; a longer row is a step alone.

    The last two steps share the remaining rows as evenly as possible.
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


def _group_targets(source_lengths: Lengths, target_lengths: Lengths, *, bucket_tokens: float, width: float) -> Rows:
    """The group of every target length `[longest target + 1]`, from 0 for the longest.

    A group ends where its target padding reaches its expected source padding (times `width`), for sources sorted and cut
    into as many parts as the group has buckets: there the sum of both is near its minimum.
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
        # evenly spread lengths cover a range of √12 standard deviations, and are padded by half of it on average
        spread = np.sqrt(12 * np.maximum(squares / rows - mean * mean, 0.0)) / np.maximum(1.0, targets / bucket_tokens)
        is_wide = (rows * lengths[start] - targets) * 2 * mean >= width * spread * targets
        stop = start + 1 + int(np.argmax(is_wide)) if is_wide.any() else len(lengths)
        groups[lengths[start:stop]] = number
        start, number = stop, number + 1
    return groups


def _narrow(values: Lengths) -> npt.NDArray[np.integer]:
    # numpy sorts 16-bit integers by radix, many times faster than wider ones
    return values.astype(np.uint16) if values.max() < 1 << 16 else values
