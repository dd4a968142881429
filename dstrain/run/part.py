"""Leaves a run's model with what the run trains: its rows of the vocabulary, and its part of the weights."""

import logging

from transformers import PreTrainedModel

from dstrain.config.schema import RunConfig
from dstrain.data.vocabulary import Vocabulary
from dstrain.models.partial import count_trained, find_new_ids, fingerprint_frozen, train_part
from dstrain.models.restrict import keep_rows
from dstrain.models.tokenizer import Seq2SeqTokenizer

log = logging.getLogger(__name__)


def leave_part(
    model: PreTrainedModel, *, config: RunConfig, tokenizer: Seq2SeqTokenizer, vocabulary: Vocabulary
) -> str | None:
    """Leave the model as the recipe trains it, in place; returns the hash of what it does not train, None if it trains all.

    The model must be as `load_model` returns it.

    Raises:
        UserError: the recipe freezes everything, or what the model does not have.
    """
    if vocabulary.kept is not None:
        keep_rows(model, vocabulary.kept)
    if not config.model.trains_part:
        return None
    num_all = sum(parameter.numel() for parameter in model.parameters())
    new_ids = find_new_ids(config.model, tokenizer=tokenizer)
    kept = None if vocabulary.kept is None else frozenset(vocabulary.kept)
    rows = [vocabulary.row(token_id) for token_id in new_ids if kept is None or token_id in kept]
    train_part(model, section=config.model, new_ids=rows, seed=config.seed)
    more = f", the rows of {len(rows):,} new tokens among them" if rows else ""
    log.info("%s of %s parameters are trained%s", f"{count_trained(model):,}", f"{num_all:,}", more)
    return fingerprint_frozen(model)
