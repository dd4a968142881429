"""The supported model families: which family a model belongs to, and in what families differ. Does not load models.

Six families are supported, each tested against the loss of its stock model: M2M100, NLLB (M2M100's architecture), mBART
(cc25 and 50), Marian, T5 and mT5.
"""

from collections.abc import Callable
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from dstrain.config.conflicts import T5_ARCHITECTURES, fp16_refusal
from dstrain.config.recipe import Task
from dstrain.errors import UserError
from dstrain.models.tokenizer import Seq2SeqTokenizer

FAMILY_OF_MODEL_TYPE = {"m2m_100": "m2m100", "mbart": "mbart", "marian": "marian", "t5": "t5", "mt5": "mt5"}
"""`model_type` of a Hugging Face config -> family; NLLB shares M2M100's model type."""

FIXED_POSITIONS = ("mbart", "marian")
"""Model types with a table of positions, beyond which there are none."""

DROPOUT_FIELDS = ("dropout", "attention_dropout", "activation_dropout", "dropout_rate")
LAYERDROP_FIELDS = ("encoder_layerdrop", "decoder_layerdrop")

KEPT_GENERATION_FIELDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "bad_words_ids")
"""Kept from a pretrained model's generation config: token ids, and tokens that must not be generated (Marian's padding)."""

SUPPRESSION_FIELDS = ("suppress_tokens", "renormalize_logits")
"""Written by dstrain into the models it exports, if a run has trained part of the vocabulary: what they must not write."""

EXPORTED_GENERATION_FIELDS = (
    "num_beams",
    "max_new_tokens",
    "length_penalty",
    "forced_bos_token_id",
    *SUPPRESSION_FIELDS,
)
"""Written by dstrain into the models it exports, from the recipe's evaluation settings."""

HARMLESS_GENERATION_FIELDS = (
    "use_cache",
    "output_attentions",
    "output_hidden_states",
    "return_dict_in_generate",
    "transformers_version",
    "_from_model_config",
)
"""Dropped without a message, because hypotheses do not depend on them."""


def family_of(model_config: PreTrainedConfig) -> str:
    """The family: `m2m100`, `nllb`, `mbart`, `marian`, `t5` or `mt5`.

    Raises UserError for any other architecture, decoder-only ones among them, and for Marian with two vocabularies.
    """
    family = FAMILY_OF_MODEL_TYPE.get(model_config.model_type)
    if family is None:
        raise UserError(
            f"model.name: architecture `{model_config.model_type}` is not supported; use an encoder-decoder model of "
            "the families M2M100, NLLB, mBART, Marian, T5 or mT5"
        )
    if family == "marian" and not model_config.share_encoder_decoder_embeddings:
        raise UserError(
            "model.name: Marian models with separate source and target vocabularies are not supported; use one whose "
            "config has share_encoder_decoder_embeddings=true"
        )
    is_nllb = str(getattr(model_config, "tokenizer_class", None)).startswith("Nllb")
    return "nllb" if family == "m2m100" and is_nllb else family


def check_precision(model_config: PreTrainedConfig, *, precision: str, allow_fp16_t5: bool) -> None:
    """Raise UserError for fp16 with the T5 family, unless `allow_fp16_t5` is set."""
    if precision == "fp16" and model_config.model_type in T5_ARCHITECTURES and not allow_fp16_t5:
        raise UserError(fp16_refusal(model_config.model_type))


def max_positions(model_config: PreTrainedConfig) -> int | None:
    """Longest sequence that the model accepts, in tokens; None if there is no limit.

    M2M100's sinusoids grow on demand, and T5's positions are relative.
    """
    return int(model_config.max_position_embeddings) if model_config.model_type in FIXED_POSITIONS else None


def check_limits(task: Task, *, positions: int | None) -> None:
    """Raise UserError if a limit of the task is over the model's positions; None are as many as needed."""
    for key in ("max_source_tokens", "max_target_tokens"):
        limit = getattr(task, key)
        if positions is not None and limit > positions:
            raise UserError(f"task.{key} is {limit}, but the model has {positions} positions: lower it to {positions}")


def set_dropout(model_config: PreTrainedConfig, *, dropout: float) -> None:
    """Set all dropout probabilities of the family, in place."""
    for field in DROPOUT_FIELDS:
        if hasattr(model_config, field):
            setattr(model_config, field, dropout)


def set_layerdrop(model_config: PreTrainedConfig, *, layerdrop: float) -> list[str]:
    """Set the probability of skipping a layer, in place; returns a sentence for each value that changed."""
    changes = []
    for field in LAYERDROP_FIELDS:
        stored = getattr(model_config, field, layerdrop)
        if stored != layerdrop:
            setattr(model_config, field, layerdrop)
            changes.append(
                f"{field} of the model is {stored:g}; this run trains with {layerdrop:g}, as model.layerdrop says"
            )
    return changes


def decoder_start_id(model: PreTrainedModel) -> int | None:
    """The first token of every decoder input; None for mBART, which moves the last label to the front.

    mBART-cc25's labels `[x…, </s>, language]` become `[language, x…, </s>]`, mBART-50's `[language, x…, </s>]` become
    `[</s>, language, x…]` (`shift_tokens_right` in transformers' modeling_mbart). Raises UserError if the model's config
    does not name the token.
    """
    if model.config.model_type == "mbart":
        return None
    start = model.config.decoder_start_token_id
    if start is None:
        raise UserError(
            f"the config of `{model.config.name_or_path}` has no decoder_start_token_id: add it to its config.json "
            "(M2M100: the id of </s>; Marian, T5 and mT5: the id of <pad>)"
        )
    return int(start)


def _same(token_id: int) -> int:
    return token_id


def generation_arguments(
    model: PreTrainedModel,
    tokenizer: Seq2SeqTokenizer,
    *,
    target_language: str | None,
    row_of: Callable[[int], int] = _same,
) -> dict[str, Any]:
    """The arguments of `generate` that the family needs for this target language, and no others.

    M2M100, NLLB and mBART-50 force the language as the first token; mBART-cc25 starts from it; Marian and T5 need
    nothing. Without a target language the tokenizer's default is used, as in `Seq2SeqTokenizer.encode`. Beams, length
    penalty and maximum length are up to the caller. `row_of` is the model's row of an id, where it has not all rows. Raises
    UserError for unknown language codes.
    """
    if not tokenizer.languages:
        return {}
    language_id = tokenizer.language_id(target_language or tokenizer.default_language)
    assert language_id is not None
    language = row_of(language_id)
    if model.config.model_type == "mbart" and tokenizer.ends_with_language:
        return {"decoder_start_token_id": language, "forced_bos_token_id": None}
    start = model.config.decoder_start_token_id
    eos = row_of(tokenizer.tokenizer.eos_token_id)
    return {"decoder_start_token_id": eos if start is None else start, "forced_bos_token_id": language}


def reset_generation_config(
    model: PreTrainedModel, *, is_export: bool = False, keeps_suppression: bool = False
) -> list[str]:
    """Drop a pretrained model's generation defaults, in place; returns a sentence for each one dropped.

    Otherwise a stale `max_length=200`, `num_beams=5` or forced last token would apply wherever the recipe sets nothing. Token
    ids and forbidden tokens stay. What dstrain's own export has written (`is_export`) is dropped without a sentence.
    """
    stored = model.generation_config.to_diff_dict()
    fields = (*KEPT_GENERATION_FIELDS, *(SUPPRESSION_FIELDS if keeps_suppression else ()))
    kept = {key: stored[key] for key in fields if stored.get(key) is not None}
    config_start = getattr(model.config, "decoder_start_token_id", None)
    if config_start is not None:
        kept.setdefault("decoder_start_token_id", config_start)
    model.generation_config = type(model.generation_config)(**kept)
    unmentioned = {
        *KEPT_GENERATION_FIELDS,
        *HARMLESS_GENERATION_FIELDS,
        *(EXPORTED_GENERATION_FIELDS if is_export else ()),
    }
    dropped = [(key, value) for key, value in stored.items() if key not in unmentioned and value is not None]
    return [f"generation default {key}={value} of the model is dropped: the recipe decides" for key, value in dropped]


def output_head(model: PreTrainedModel) -> nn.Module:
    """The model's projection from hidden states `[..., hidden]` to logits `[..., vocabulary]`, without bias."""
    head: nn.Module = model.get_output_embeddings()
    return head


def input_embeddings(model: PreTrainedModel) -> list[Any]:
    """The embedding of the model, of its encoder and of its decoder: often one module, or one weight in several."""
    return [part.get_input_embeddings() for part in (model, model.get_encoder(), model.get_decoder())]


def is_head_tied(model: PreTrainedModel) -> bool:
    """Whether the head shares its weights with the embeddings, whatever the config says."""
    return output_head(model).weight is model.get_input_embeddings().weight


def hidden_scale(model: PreTrainedModel) -> float:
    """The factor on hidden states before the head: hidden ** -0.5 for T5 1.0 with its tied head, else 1.

    As in `T5ForConditionalGeneration.forward`; mT5 and T5 1.1 do not scale.
    """
    scaled = model.config.model_type == "t5" and model.config.scale_decoder_outputs
    return float(model.config.d_model) ** -0.5 if scaled else 1.0
