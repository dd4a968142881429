"""Notes which token sets were made from a recipe, so that `dstrain plan` finds them without tokenizer and torch."""

from pathlib import Path

from dstrain.config.schema import RunConfig
from dstrain.data.tokens import load_token_set
from dstrain.forecast.prepared import Note, write_note
from dstrain.models.partial import find_new_ids
from dstrain.models.tokenizer import Seq2SeqTokenizer
from dstrain.run.cache import cache_dir
from dstrain.run.vocabulary import choose_vocabulary


def note_token_sets(config: RunConfig, *, train: Path, evaluation: Path, tokenizer: Seq2SeqTokenizer) -> None:
    """Note the folders of both token sets in the cache."""
    num_kept = None
    if config.model.vocabulary == "seen":
        sets = (load_token_set(train), load_token_set(evaluation))
        num_kept = len(choose_vocabulary(tokenizer, train=sets[0], evaluation=sets[1]))
    note = make_note(config, train=train, evaluation=evaluation, tokenizer=tokenizer, num_kept=num_kept)
    write_note(config, note, cache=cache_dir(config))


def make_note(
    config: RunConfig, *, train: Path, evaluation: Path, tokenizer: Seq2SeqTokenizer, num_kept: int | None
) -> Note:
    """What a forecast has to know of a recipe's tokens; `num_kept` are the ids that are trained, None if all."""
    return Note(
        train.name,
        evaluation.name,
        vocabulary_size=tokenizer.vocabulary_size,
        special_ids=tuple(sorted({tokenizer.pad_token_id, *tokenizer.tokenizer.all_special_ids})),
        num_kept=num_kept,
        num_new=len(find_new_ids(config.model, tokenizer=tokenizer)),
    )
