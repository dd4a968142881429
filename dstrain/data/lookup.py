"""Finds the text of training rows by their numbers in the token set, and where each row is in the data.

A training set keeps no texts, so the sources are read again, in the order in which the set was made. Knows nothing of why
a row is looked up.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from dstrain.config.data import Source
from dstrain.data.bad_rows import BadRowLog
from dstrain.data.encoding import ReadingRules, encode_examples
from dstrain.data.examples import Example, build_examples
from dstrain.data.sources import read_rows


class LocatedRow(NamedTuple):
    """A row as it is in the data, at `file:line`."""

    where: str
    source: str
    target: str


def locate_rows(
    rows: Collection[int], *, sources: Sequence[Source], reading: ReadingRules, dropped: Collection[int] = ()
) -> dict[int, LocatedRow]:
    """The rows with these numbers in the training token set of the sources; a number beyond its end is left out.

    `dropped` are the numbers of the examples that the set was made without. `reading` must be what `prepare_token_set` was
    given. Stops reading after the last of the rows. Raises UserError if a source cannot be read.
    """
    found: dict[int, LocatedRow] = {}
    wanted = sorted(set(rows), reverse=True)
    end, left_out = 0, set(dropped)
    for number, example in enumerate(_kept_examples(sources, reading=reading)):
        if number in left_out:
            continue
        end += example.repeat
        while wanted and wanted[-1] < end:
            found[wanted.pop()] = LocatedRow(example.where, example.raw_source, example.raw_target)
        if not wanted:
            break
    return found


def _kept_examples(sources: Sequence[Source], *, reading: ReadingRules) -> Iterator[Example]:
    task, rules = reading.task, reading.rules
    log = BadRowLog()  # not shown: bad rows were counted and listed when the set was made
    examples = build_examples(
        read_rows(sources, task=task, rules=rules, on_bad=log), task=task, rules=rules, on_bad=log
    )
    if "skip" not in (rules.too_long, rules.unknown_token):
        yield from examples  # no rule skips a row because of its tokens, so tokenising, which takes longest, is not needed
        return
    for encoded in encode_examples(examples, reading=reading, on_bad=log):
        yield from (item.example for item in encoded)
