"""Decides which rows of the input embedding a run trains: `machine.compact_embedding`. Changes nothing of what is learned."""

import logging

import numpy as np
import torch
from transformers import PreTrainedModel

from dstrain.checkpoint.resume import Resume
from dstrain.checkpoint.state import find_changed_rows
from dstrain.cluster.process_group import Ranks
from dstrain.config.schema import RunConfig
from dstrain.data.tokens import TokenSet
from dstrain.engine.shards import MOMENTS, trained_parameters
from dstrain.errors import UserError
from dstrain.models.compact import compact_embedding, why_not_compact
from dstrain.models.families import decoder_start_id
from dstrain.models.tokenizer import Seq2SeqTokenizer

LARGEST_SHARE = 0.5
"""Share of the rows up to which null is on: the embedding as it was found takes memory beside the rows that are trained."""

log = logging.getLogger(__name__)


def compact_if_exact(
    model: PreTrainedModel,
    *,
    config: RunConfig,
    tokenizer: Seq2SeqTokenizer,
    train: TokenSet,
    resume: Resume | None,
    ranks: Ranks,
) -> None:
    """Leave the rows of the input embedding that training does not read out of it, where the recipe lets us; collective.

    With null, a resumed run keeps what it began with. Rows that were trained before are still trained if the data change.

    Raises:
        UserError: the recipe wants it, and it would change what is learned.
    """
    wanted = config.machine.compact_embedding
    saved = {} if resume is None else resume.state.rows
    began_whole = resume is not None and not saved
    if wanted is False or (wanted is None and began_whole):
        return
    reason = _why_not(model, config=config)
    if reason is not None:
        if wanted:
            raise UserError(f"machine.compact_embedding: {reason}; set it to null or false")
        return
    trained = {token_id for ids in saved.values() for token_id in ids}
    if resume is not None and began_whole:
        trained |= set(_find_trained(model, config=config, resume=resume, ranks=ranks))
    ids = sorted(trained | _read_in_training(model, tokenizer=tokenizer, train=train))
    num_rows = model.get_input_embeddings().num_embeddings
    if wanted is None and not saved and len(ids) > LARGEST_SHARE * num_rows:
        return
    compact_embedding(model, ids=ids)
    log.info(
        "input embedding: training reads %s of %s rows; the others stay as they are, without gradients and optimizer state",
        f"{len(ids):,}",
        f"{num_rows:,}",
    )


def _why_not(model: PreTrainedModel, *, config: RunConfig) -> str | None:
    if config.model.vocabulary == "seen":
        return "model.vocabulary is `seen`, which leaves these rows out already"
    if config.training.weight_decay:
        return (
            f"training.weight_decay is {config.training.weight_decay:g}, which changes rows that training does not read"
        )
    return why_not_compact(model)


def _read_in_training(model: PreTrainedModel, *, tokenizer: Seq2SeqTokenizer, train: TokenSet) -> set[int]:
    start = decoder_start_id(model)
    always = {tokenizer.pad_token_id, *tokenizer.tokenizer.all_special_ids} | (set() if start is None else {start})
    occurring = np.concatenate([train.occurring("source"), train.occurring("target")])
    return always | set(occurring.tolist())


def _find_trained(model: PreTrainedModel, *, config: RunConfig, resume: Resume, ranks: Ranks) -> list[int]:
    """The rows that a checkpoint with all rows has trained, found by rank 0."""
    found = None
    if ranks.rank == 0:
        embedding = model.get_input_embeddings()
        assert isinstance(embedding, torch.nn.Embedding)
        name = next(name for name, each in trained_parameters(model) if each is embedding.weight)
        moments = MOMENTS[config.training.optimizer]
        found = find_changed_rows(resume.directory, embedding=embedding, name=name, moments=moments)
    trained: list[int] = ranks.broadcast(found, list[int])
    return trained
