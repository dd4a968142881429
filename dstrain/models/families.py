"""The supported model families: which family a model belongs to, and in what families differ. Does not load models.

Each family in the table is tested against the loss of its stock model. Any other encoder-decoder is an experiment: it must
pass the self-test of `self_test.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES

from dstrain.config.conflicts import T5_ARCHITECTURES, fp16_refusal
from dstrain.config.positions import Positions, limits_beyond, read_positions
from dstrain.config.recipe import Task
from dstrain.errors import UserError
from dstrain.models.tokenizer import Seq2SeqTokenizer


@dataclass(frozen=True, slots=True)
class Family:
    """In what a family differs from others. Fields that name something name a field of the model's config."""

    name: str
    title: str
    has_languages: bool = False
    """Whether a token tells languages apart; else only the text of a source can."""
    scaled: str | None = None
    """Whether hidden states are multiplied by hidden ** -0.5 before the head."""
    begins_with_last: bool = False
    """Whether the decoder begins with the last label, a language, instead of a fixed token."""
    masks_itself: bool = False
    """Whether the decoder makes its own causal mask without a GPU synchronisation."""
    is_first_global: bool = False
    """Whether the first source token attends to all others, and all others to it."""
    is_searched: bool = False
    """Whether the built-in search is proved to return the hypotheses of `generate()`."""


FAMILIES = {
    "m2m_100": Family("m2m100", "M2M100", has_languages=True, is_searched=True),  # its sinusoids grow on demand
    "mbart": Family("mbart", "mBART", has_languages=True, begins_with_last=True, is_searched=True),
    "marian": Family("marian", "Marian", is_searched=True),
    "t5": Family("t5", "T5", scaled="scale_decoder_outputs", masks_itself=True, is_searched=True),
    "mt5": Family("mt5", "mT5", masks_itself=True, is_searched=True),
    "umt5": Family("umt5", "umT5", scaled="tie_word_embeddings", masks_itself=True, is_searched=True),
    "longt5": Family("longt5", "LongT5", scaled="scale_decoder_outputs"),
    "bart": Family("bart", "BART", is_searched=True),
    "plbart": Family("plbart", "PLBart", has_languages=True, begins_with_last=True, is_searched=True),
    "mvp": Family("mvp", "MVP"),
    "led": Family(
        "led",
        "LED",
        is_first_global=True,
    ),
    "pegasus": Family("pegasus", "Pegasus", is_searched=True),
    "pegasus_x": Family("pegasus_x", "Pegasus-X"),
    "bigbird_pegasus": Family("bigbird_pegasus", "BigBird-Pegasus"),
    "blenderbot": Family("blenderbot", "Blenderbot", is_searched=True),
    "t5gemma": Family("t5gemma", "T5Gemma"),
}
"""`model_type` of a Hugging Face config -> family; NLLB shares M2M100's model type, ByT5 T5's."""

REFUSED = {
    "prophetnet": "it is trained with a loss over several tokens ahead",
    "seamless_m4t": "its languages are not those of its tokenizer",
    "seamless_m4t_v2": "its languages are not those of its tokenizer",
}
"""Model types that are known not to train as they should, and why."""

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
    """The name of the family: `m2m100`, `nllb`, `bart`, …; of an experiment its model type.

    Raises UserError for any other architecture, decoder-only ones among them, and for Marian with two vocabularies.
    """
    kind = model_config.model_type
    family = FAMILIES.get(kind)
    if family is None:
        _refuse(model_config)
        return str(kind)
    if kind == "marian" and not model_config.share_encoder_decoder_embeddings:
        raise UserError(
            "model.name: Marian models with separate source and target vocabularies are not supported; use one whose "
            "config has share_encoder_decoder_embeddings=true"
        )
    is_nllb = str(getattr(model_config, "tokenizer_class", None)).startswith("Nllb")
    return "nllb" if kind == "m2m_100" and is_nllb else family.name


def _refuse(model_config: PreTrainedConfig) -> None:
    kind = model_config.model_type
    # a self-test would not find it, because the stock loss has it on request only
    router = "the auxiliary loss of its router would not be trained" if hasattr(model_config, "num_experts") else None
    if reason := REFUSED.get(kind, router):
        raise UserError(f"model.name: architecture `{kind}` is not supported: {reason}")
    if kind in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES and model_config.is_encoder_decoder:
        return
    *titles, last = ["NLLB", "ByT5", *(family.title for family in FAMILIES.values())]
    raise UserError(
        f"model.name: architecture `{kind}` is not supported; use an encoder-decoder model of the families "
        f"{', '.join(titles)} or {last}, or another one that AutoModelForSeq2SeqLM loads"
    )


def is_experiment(model_config: PreTrainedConfig) -> bool:
    """Whether the model is of no family in the table, so that only the self-test speaks for it."""
    return model_config.model_type not in FAMILIES


def _facts(model_config: PreTrainedConfig) -> Family:
    """The family's differences; an experiment is taken to have none."""
    return FAMILIES.get(model_config.model_type, Family(model_config.model_type, model_config.model_type))


def check_precision(model_config: PreTrainedConfig, *, precision: str, allow_fp16_t5: bool) -> None:
    """Raise UserError for fp16 with the T5 family, unless `allow_fp16_t5` is set."""
    if precision == "fp16" and model_config.model_type in T5_ARCHITECTURES and not allow_fp16_t5:
        raise UserError(fp16_refusal(model_config.model_type))


def max_positions(model_config: PreTrainedConfig) -> Positions:
    """The model's positions, as far as they are limited."""
    return read_positions(model_config.model_type, partial(getattr, model_config))


def check_limits(task: Task, *, positions: Positions) -> None:
    """Raise UserError if a limit of the task is over the model's positions."""
    for key, message in limits_beyond(task, positions=positions):
        raise UserError(f"{key} {message}")


def set_dropout(model_config: PreTrainedConfig, *, dropout: float) -> None:
    """Set all dropout probabilities of the family, in place."""
    for config in all_configs(model_config):
        for field in DROPOUT_FIELDS:
            if hasattr(config, field):
                setattr(config, field, dropout)


def all_configs(model_config: PreTrainedConfig) -> list[PreTrainedConfig]:
    """The model's config, and those of encoder and decoder where it consists of two (T5Gemma)."""
    parts = (getattr(model_config, name, None) for name in ("encoder", "decoder"))
    return [model_config, *(part for part in parts if isinstance(part, PreTrainedConfig))]


def attend_to_all(model_config: PreTrainedConfig) -> list[str]:
    """Let BigBird-Pegasus attend to whole sources, in place; returns a sentence if that is a change.

    Its sparse attention draws blocks at random, and the stock class leaves it for good at the first short batch: what a
    step computes would depend on the batches before it.
    """
    if getattr(model_config, "attention_type", None) != "block_sparse":
        return []
    model_config.attention_type = "original_full"
    return [
        "attention_type `block_sparse` of the model's config is replaced by `original_full`: the sparse attention depends "
        "on the batches before"
    ]


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
    """The first token of every decoder input; None for mBART and PLBart, which move the last label to the front.

    mBART-cc25's and PLBart's labels `[x…, </s>, language]` become `[language, x…, </s>]`, mBART-50's
    `[language, x…, </s>]` become `[</s>, language, x…]` (`shift_tokens_right` in transformers' modeling_mbart). Raises
    UserError if the model's config does not name the token.
    """
    if _facts(model.config).begins_with_last:
        return None
    start = configured_start_id(model.config)
    if start is None:
        raise UserError(
            f"the config of `{model.config.name_or_path}` has no decoder_start_token_id: add it to its config.json "
            "(M2M100 and BART: the id of </s>; Marian, T5 and Pegasus: the id of <pad>)"
        )
    return int(start)


def configured_start_id(model_config: PreTrainedConfig) -> int | None:
    """The decoder's first token as the stock class finds it in its config; T5Gemma's begins with the decoder's `<bos>`."""
    start: int | None = getattr(model_config, "decoder_start_token_id", None)
    if start is None and model_config.model_type == "t5gemma":
        start = model_config.decoder.bos_token_id
    return start


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

    M2M100, NLLB and mBART-50 force the language as the first token; mBART-cc25 and PLBart start from it; BART forces
    `<s>`, with which its labels begin; Marian and T5 need nothing. Without a target language the tokenizer's default is
    used, as in `Seq2SeqTokenizer.encode`. Beams, length penalty and maximum length are up to the caller. `row_of` is the
    model's row of an id, where it has not all rows. Raises UserError for unknown language codes.
    """
    if not tokenizer.languages:
        first = tokenizer.first_target_id
        return {} if first is None else {"forced_bos_token_id": row_of(first)}
    language_id = tokenizer.language_id(target_language or tokenizer.default_language)
    assert language_id is not None
    language = row_of(language_id)
    if _facts(model.config).begins_with_last and tokenizer.ends_with_language:
        return {"decoder_start_token_id": language, "forced_bos_token_id": None}
    start = configured_start_id(model.config)
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
    config_start = configured_start_id(model.config)
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
    """Whether the head shares its weights with the decoder's embeddings, whatever the config says."""
    return output_head(model).weight is model.get_decoder().get_input_embeddings().weight


def hidden_scale(model: PreTrainedModel) -> float:
    """The factor on hidden states before the head: hidden ** -0.5 for T5 1.0 with its tied head and for umT5, else 1.

    As in `T5ForConditionalGeneration.forward`; mT5 and T5 1.1 do not scale.
    """
    field = _facts(model.config).scaled
    return float(model.config.d_model) ** -0.5 if field is not None and getattr(model.config, field) else 1.0


def logit_cap(model: PreTrainedModel) -> float | None:
    """The bound c of logits that are capped as `c * tanh(logit / c)` (T5Gemma); None if they are not."""
    cap: float | None = getattr(model.get_decoder().config, "final_logit_softcapping", None)
    return cap


def encoder_arguments(model: PreTrainedModel, *, source_ids: Tensor) -> dict[str, Tensor]:
    """What the family's encoder takes beside ids and their mask, `[batch, source]`.

    LED's first token attends to all others, as in its authors' summarisation.
    """
    if not _facts(model.config).is_first_global:
        return {}
    mask = torch.zeros_like(source_ids)
    mask[:, 0] = 1
    return {"global_attention_mask": mask}


def masks_itself(model: PreTrainedModel) -> bool:
    """Whether the decoder makes its own causal mask without a GPU synchronisation."""
    return _facts(model.config).masks_itself


def is_searched(model_config: PreTrainedConfig) -> bool:
    """Whether the built-in search is proved to return what `generate()` does."""
    return _facts(model_config).is_searched


def has_languages(model_config: PreTrainedConfig) -> bool:
    """Whether the family has a token for each language."""
    return _facts(model_config).has_languages
