"""The lengths of a recipe's rows in tokens: from its token sets, or estimated from the texts of the first rows. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from dstrain.config.data import Source
from dstrain.config.schema import RunConfig
from dstrain.data.arrays import Lengths
from dstrain.data.bad_rows import BadRowLog
from dstrain.data.examples import Example, build_examples
from dstrain.data.mixture import Mixture, find_mixture
from dstrain.data.sources import build_rows, estimate_records, read_records
from dstrain.errors import UserError
from dstrain.forecast.prepared import Found

SAMPLED_ROWS = 2000
"""Rows of each source whose texts are read for an estimate."""
MOST_ROWS = 4_000_000
"""Rows that an estimate lays out at most; a larger set is represented by as many."""
CHARACTERS_PER_TOKEN = 3.0
"""Of running text, with a vocabulary made for it. Usual values are 2 to 5; for one token a byte it is 1."""
SPECIAL_TOKENS = 2
"""Added to each side: an end token, and in most families a language or a start."""


@dataclass(frozen=True)
class RowLengths:
    """The lengths of all rows, as far as they are known."""

    source: Lengths
    target: Lengths
    eval_source: Lengths
    eval_target: Lengths
    fingerprint: str
    """Of the training rows, which decides their order."""
    mixture: Mixture | None
    is_exact: bool
    origin: str
    """Where the lengths come from, in words."""
    share: float = 1.0
    """The share of the rows that these represent, where they are too many to lay out."""


def exact_lengths(config: RunConfig, *, found: Found) -> RowLengths:
    """The lengths in the recipe's token sets."""
    train, evaluation = found.train, found.eval
    mixture = find_mixture(config.data, report=train.report)
    fingerprint = train.fingerprint if mixture is None else mixture.fingerprint(train.fingerprint)
    return RowLengths(
        train.source_lengths,
        train.target_lengths,
        evaluation.source_lengths,
        evaluation.target_lengths,
        fingerprint,
        mixture,
        is_exact=True,
        origin="the token ids in the cache",
    )


def estimate_lengths(config: RunConfig) -> RowLengths:
    """The lengths of rows whose texts have not been tokenised, from the first of each source and the number of lines.

    Raises:
        UserError: a source cannot be read or counted without reading it all; `dstrain prepare` makes the token ids.
    """
    train = [_sample(source, config=config, number=number) for number, source in enumerate(config.data.train)]
    sizes = [_count_rows(source, num_sampled=len(rows)) for source, rows in zip(config.data.train, train, strict=True)]
    mixture = find_mixture(config.data, report={"by_source": [{"used": size} for size in sizes]})
    repeats = [source.repeat for source in config.data.train]
    wanted = sizes if mixture is not None else [size * repeat for size, repeat in zip(sizes, repeats, strict=True)]
    share = min(1.0, MOST_ROWS / max(1, sum(wanted)))
    sides = _join([_lengths_of(rows, config=config) for rows in train], sizes=[max(1, int(n * share)) for n in wanted])
    evaluated = [_sample(source, config=config, number=number) for number, source in enumerate(config.data.eval)]
    eval_sizes = [
        _count_rows(source, num_sampled=len(rows)) for source, rows in zip(config.data.eval, evaluated, strict=True)
    ]
    eval_sides = _join([_lengths_of(rows, config=config) for rows in evaluated], sizes=eval_sizes)
    return RowLengths(
        *sides,
        *eval_sides,
        fingerprint="estimate",
        # a mixture draws by the numbers of rows, which are laid out here as they are
        mixture=mixture if share == 1.0 else None,
        is_exact=False,
        origin=f"an estimate: {CHARACTERS_PER_TOKEN:g} characters a token in the first rows; `dstrain prepare` makes it exact",
        share=share,
    )


def _sample(source: Source, *, config: RunConfig, number: int) -> list[Example]:
    if source.hub is not None:
        raise UserError(
            f"data: the rows of `{source.hub}` lie on the Hub: run `dstrain prepare` with this recipe first, which reads them"
        )
    ignored = BadRowLog()
    records = islice(read_records([source]), SAMPLED_ROWS)
    rows = build_rows(records, task=config.task, rules=config.data.rules, on_bad=ignored)
    found = list(build_examples(rows, task=config.task, rules=config.data.rules, on_bad=ignored))
    if not found:
        raise UserError(f"data: {source.place} has no usable row among its first {SAMPLED_ROWS:,}")
    return found


def _count_rows(source: Source, *, num_sampled: int) -> int:
    """About how many rows a source has."""
    if num_sampled < SAMPLED_ROWS // 2:
        return num_sampled
    if source.demo is not None:
        return sum(1 for _ in read_records([source]))
    found = estimate_records([source])
    if found is None:
        raise UserError(
            f"data: the rows of {source.place} cannot be counted without reading them all: run `dstrain prepare` with this "
            "recipe first"
        )
    return found


def _lengths_of(rows: Sequence[Example], *, config: RunConfig) -> tuple[Lengths, Lengths]:
    task = config.task
    sources = [_text_tokens(row.source) for row in rows]
    # labels and pointers are tokens of their own
    targets = [len(row.target.split()) if task.has_pointers else _text_tokens(row.target) for row in rows]
    return tuple(  # type: ignore[return-value]
        np.minimum(np.asarray(side, dtype=np.int32) + SPECIAL_TOKENS, limit)
        for side, limit in ((sources, task.max_source_tokens), (targets, task.max_target_tokens))
    )


def _text_tokens(text: str) -> int:
    return max(1, round(len(text) / CHARACTERS_PER_TOKEN))


def _join(parts: Sequence[tuple[Lengths, Lengths]], *, sizes: Sequence[int]) -> tuple[Lengths, Lengths]:
    """Both sides of all sources, each repeated to its number of rows."""
    pairs = list(zip(parts, sizes, strict=True))
    source, target = (np.concatenate([np.resize(part[side], size) for part, size in pairs]) for side in (0, 1))
    return source, target
