"""From row numbers of a training token set back to the text: where each row stands in the data, and what it says.

A training set keeps no texts, so the sources are read again in the order in which the set was made. Knows nothing of
why somebody asks.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from dstrain.config.recipe import Rules, Source, Task
from dstrain.data.bad_rows import BadRowLog
from dstrain.data.examples import Example, build_examples
from dstrain.data.sources import read_rows
from dstrain.data.tokens import Encoder, fit_examples


class LocatedRow(NamedTuple):
    """A row as it stands in the data, at `file:line`."""

    where: str
    source: str
    target: str


def locate_rows(
    rows: Collection[int], *, sources: Sequence[Source], task: Task, rules: Rules, encoder: Encoder
) -> dict[int, LocatedRow]:
    """The rows of these numbers in the training token set of the sources; none for a number beyond its end.

    rules.unknown_token must be resolved, as for `prepare_token_set`. Reads no further than the last of the rows. Raises
    UserError if a source cannot be read.
    """
    found: dict[int, LocatedRow] = {}
    wanted = sorted(set(rows), reverse=True)
    end = 0
    for example in _kept_examples(sources, task=task, rules=rules, encoder=encoder):
        end += example.repeat
        while wanted and wanted[-1] < end:
            found[wanted.pop()] = LocatedRow(example.where, example.raw_source, example.raw_target)
        if not wanted:
            break
    return found


def _kept_examples(sources: Sequence[Source], *, task: Task, rules: Rules, encoder: Encoder) -> Iterator[Example]:
    log = BadRowLog()  # they are counted and listed where the set is made
    examples = build_examples(
        read_rows(sources, task=task, rules=rules, on_bad=log), task=task, rules=rules, on_bad=log
    )
    if "skip" not in (rules.too_long, rules.unknown_token):
        yield from examples  # no row was lost for its tokens, so none need be made: they take most of the time
        return
    for kept in fit_examples(examples, encoder=encoder, task=task, rules=rules, for_evaluation=False, log=log):
        yield from (item.example for item in kept)
