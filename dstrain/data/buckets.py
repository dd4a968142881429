"""Rows of like length together: a window of rows as buckets and these as steps, a step as pieces, all with little padding.

Pure numpy. Knows nothing of epochs, ranks or the configuration. All of it is a function of the lengths, the sizes and the
keys that it is given; sums are of whole numbers, so that every machine finds the same.
"""

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
