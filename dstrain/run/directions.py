"""The pairs of languages that a run was trained in, as its exported folders say them, and the rows to prove them with."""

from collections.abc import Iterator

from dstrain.config.schema import RunConfig
from dstrain.data.tokens import TokenSet
from dstrain.models.save import Directions
from dstrain.models.tokenizer import Seq2SeqTokenizer
from dstrain.run_folder.record import CountedPairs
from dstrain.tasks.pairs import distinct_languages, trained_pairs
from dstrain.tasks.translation import Languages

NUM_CHECKED_PAIRS = 8


def run_languages(config: RunConfig, *, counted: CountedPairs) -> list[Languages]:
    """The languages of each pair that a run was trained in, the default first; those of the recipe where no row names one."""
    return distinct_languages(trained_pairs(config, counted=counted)) or [Languages(*config.languages)]


def find_directions(
    config: RunConfig, *, counted: CountedPairs, tokens: TokenSet | None, tokenizer: Seq2SeqTokenizer
) -> Directions:
    """What an exported folder says of its languages; with an evaluation set, also a row of each of its first pairs."""
    pairs = run_languages(config, counted=counted)
    named = [(pair.source, pair.target) for pair in pairs if pair != Languages(None, None)]
    rows = () if tokens is None else _rows_of_pairs(tokens, limit=config.task.max_source_tokens, tokenizer=tokenizer)
    return Directions(pairs=named, rows=list(rows))


def _rows_of_pairs(
    tokens: TokenSet, *, limit: int, tokenizer: Seq2SeqTokenizer
) -> Iterator[tuple[str, str | None, str | None]]:
    """The first row of each pair whose source is whole, and that a user's tokenizer reads as the run's does."""
    seen = set[tuple[str | None, str | None]]()
    for row, example in enumerate(tokens.examples):
        pair = (example.source_language, example.target_language)
        is_whole = len(tokens.source(row)) < limit and not tokenizer.spells_control_token(example.source)
        if pair not in seen and is_whole:
            seen.add(pair)
            yield example.source, *pair
        if len(seen) == NUM_CHECKED_PAIRS:
            return
