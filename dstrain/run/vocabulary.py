"""Which token ids a run with `model.vocabulary: seen` trains: chosen from its token sets once, and kept in its folder."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from dstrain.checkpoint.resume import describe_new_run
from dstrain.config.schema import RunConfig
from dstrain.data.tokens import TokenSet
from dstrain.data.vocabulary import WHOLE, Vocabulary
from dstrain.errors import UserError
from dstrain.models.spelling import spelling_ids
from dstrain.models.tokenizer import Seq2SeqTokenizer
from dstrain.run_folder.atomic import write_file
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.reading import RunFolderError, read_bytes

SHOWN_TOKENS = 3

_IDS = TypeAdapter(Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1, strict=False)])

log = logging.getLogger(__name__)


def choose_vocabulary(tokenizer: Seq2SeqTokenizer, *, train: TokenSet, evaluation: TokenSet) -> Vocabulary:
    """The ids that occur in the training rows and in the evaluation sources, and those that spell other words.

    References of evaluation rows do not count: a score may not profit from knowing their words.
    """
    sources = [evaluation] if evaluation.typed is None else [evaluation, evaluation.typed]
    parts = [train.occurring("source"), train.occurring("target"), *(tokens.occurring("source") for tokens in sources)]
    occurring = np.unique(np.concatenate(parts)).tolist()
    kept = sorted({*occurring, *spelling_ids(tokenizer, occurring=occurring)})
    return Vocabulary(tuple(kept), unknown_id=_unknown_id(tokenizer))


def keep_vocabulary(
    config: RunConfig, *, tokenizer: Seq2SeqTokenizer, train: TokenSet, evaluation: TokenSet, fingerprint: str | None
) -> None:
    """Write the vocabulary of a run to its folder; a resumed run keeps its own, the one with this fingerprint.

    Raises:
        UserError: that one is lost, or the rows hold tokens that it lacks.
    """
    folder = RunFolder(Path(config.run_dir))
    wanted = choose_vocabulary(tokenizer, train=train, evaluation=evaluation)
    if fingerprint is None or wanted.fingerprint == fingerprint:
        write_file(folder.vocabulary, json.dumps(wanted.kept))
    kept = load_vocabulary(config, tokenizer=tokenizer)
    if fingerprint is not None and kept.fingerprint != fingerprint:
        raise UserError(
            f"{folder.vocabulary}: the token ids that this run trains are lost, and the present rows give others: restore that "
            "file, or the data that the run began with; or start a new run with another output_dir"
        )
    lacking = kept.lacks(np.asarray(wanted.kept, dtype=np.int32)).tolist()
    if lacking:
        raise UserError(
            f"data.train, data.eval: the rows hold {_list_tokens(lacking, tokenizer=tokenizer)} that they did not hold when this "
            "run began, and its embeddings have no rows for them (model.vocabulary is `seen`): put the data back, or start a new "
            "run from its weights: "
            + describe_new_run(folder.path, recipe=config.model_dump(mode="json", include={"model"}))
        )
    others = "; the others keep their embeddings" if len(kept) < tokenizer.vocabulary_size else ""
    log.info("vocabulary: %s of %s token ids are trained%s", f"{len(kept):,}", f"{tokenizer.vocabulary_size:,}", others)


def load_vocabulary(config: RunConfig, *, tokenizer: Seq2SeqTokenizer) -> Vocabulary:
    """The vocabulary of a run, from its folder.

    Raises:
        UserError: the file is missing or damaged.
    """
    if config.model.vocabulary == "full":
        return WHOLE
    path = RunFolder(Path(config.run_dir)).vocabulary
    try:
        content = read_bytes(path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): restore it, or start the run again, which writes it"
        ) from error
    try:
        kept = _IDS.validate_json(content)
    except ValidationError:
        kept = ()
    if not kept or list(kept) != sorted(set(kept)) or kept[-1] >= tokenizer.vocabulary_size:
        raise RunFolderError(
            f"{path}: not ascending ids of this run's tokenizer: restore it, or remove it and start the run again, which "
            "writes it"
        )
    return Vocabulary(kept, unknown_id=_unknown_id(tokenizer))


def forbidden_ids(vocabulary: Vocabulary, *, num_rows: int) -> list[int]:
    """The ids that a whole model of `num_rows` rows must not generate, because the run did not train them."""
    assert vocabulary.kept is not None
    is_kept = np.zeros(num_rows, dtype=np.bool_)
    is_kept[list(vocabulary.kept)] = True
    found: list[int] = np.flatnonzero(~is_kept).tolist()
    return found


def _unknown_id(tokenizer: Seq2SeqTokenizer) -> int:
    return tokenizer.pad_token_id if tokenizer.unk_token_id is None else tokenizer.unk_token_id


def _list_tokens(ids: Sequence[int], *, tokenizer: Seq2SeqTokenizer) -> str:
    shown = ", ".join(f"`{token}`" for token in tokenizer.tokenizer.convert_ids_to_tokens(list(ids[:SHOWN_TOKENS])))
    return f"{len(ids):,} tokens ({shown}{', …' if len(ids) > SHOWN_TOKENS else ''})"
