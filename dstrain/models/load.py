"""Loads a model to train: from the hub, a local folder, or with random weights. Knows nothing of engines or devices.

Every change to the stored model (layerdrop, dropout, new embedding rows) is reported. No code from the hub is run, and
`.bin` weights are read as tensors only, never as pickled objects.
"""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM, GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from dstrain.config.recipe import Model
from dstrain.errors import UserError
from dstrain.models.families import (
    all_configs,
    attend_to_all,
    decoder_start_id,
    family_of,
    hidden_scale,
    is_experiment,
    is_head_tied,
    max_positions,
    output_head,
    reset_generation_config,
    set_dropout,
    set_layerdrop,
)
from dstrain.models.foreign import told_in_one_line
from dstrain.models.kernels import fuse_gelu
from dstrain.models.scratch import build_scratch_model
from dstrain.models.tokenizer import Seq2SeqTokenizer
from dstrain.run_folder.layout import EXPORTED_STEP

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Precision to the type of the weights in evaluation and generation."""
KEY = "model.name"
"""Where a recipe names a model."""


def _ignore(sentence: str) -> None:
    pass


def load_config(name: str, *, revision: str | None = None, key: str = KEY) -> PreTrainedConfig:
    """The config of a hub name or local folder. Raises UserError if it has none or its family is not supported, naming `key`."""
    with told_in_one_line(f"{key}: `{name}` has no config that can be read"):
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
        family_of(config)
        max_positions(config)  # an infinite number, which JSON can have, is none
    return config


def load_model(
    section: Model,
    *,
    tokenizer: Seq2SeqTokenizer,
    seed: int,
    report: Callable[[str], None] = _ignore,
    keeps_suppression: bool = False,
    key: str = KEY,
) -> PreTrainedModel:
    """The model that the config section describes, in fp32 on the CPU; the same weights for the same seed.

    An export of a run that trained part of the vocabulary says which tokens it must not write; `keeps_suppression` keeps that.
    `report` is called with a sentence for each difference from the stored model. Raises UserError for an unsupported
    architecture, and if weights are missing.
    """
    if section.scratch is not None:
        model = build_scratch_model(
            section.scratch, tokenizer=tokenizer, seed=seed, dropout=section.dropout, layerdrop=section.layerdrop
        )
    else:
        assert section.name is not None  # the schema requires exactly one of name and scratch
        with told_in_one_line(f"{key}: `{section.name}` has no weights that can be read"):
            model = _load_named(
                section,
                name=section.name,
                tokenizer=tokenizer,
                seed=seed,
                report=report,
                keeps_suppression=keeps_suppression,
                key=key,
            )
    fuse_gelu(model)
    return model


def _load_named(
    section: Model,
    *,
    name: str,
    tokenizer: Seq2SeqTokenizer,
    seed: int,
    report: Callable[[str], None],
    keeps_suppression: bool,
    key: str,
) -> PreTrainedModel:
    config = load_config(name, revision=section.revision, key=key)
    if not is_experiment(config):
        # transformers then ties what is equal in the files, and not what differs: a folder written with `false` keeps the
        # embeddings of encoder and decoder tied, and a head of its own stays its own
        config.tie_word_embeddings = True
    if config._attn_implementation is not None:
        report(f"attn_implementation {config._attn_implementation!r} of the model's config is ignored")
    # they may name code on the Hub, which transformers would load whatever trust_remote_code says
    config._attn_implementation = config._experts_implementation = None
    for sentence in set_layerdrop(config, layerdrop=section.layerdrop):
        report(sentence)
    for sentence in attend_to_all(config):
        report(sentence)
    if section.dropout is not None:
        set_dropout(config, dropout=section.dropout)
        report(f"all dropout of the model's config is set to {section.dropout:g}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _read_weights(name, revision=section.revision, config=config, key=key)
        grow_embeddings(model, num_rows=tokenizer.vocabulary_size, report=report)
    for code, like in (section.add_languages or {}).items():
        copy_language(model, tokenizer=tokenizer, code=code, like=like)
        report(f"the language `{code}` is added; its embedding begins as that of `{like}`")
    for sentence in _unscale_head(model, section=section):
        report(sentence)
    is_export = os.path.isfile(Path(name) / EXPORTED_STEP)
    for sentence in _describe_head(model, section=section, is_export=is_export):
        report(sentence)
    for sentence in reset_generation_config(model, is_export=is_export, keeps_suppression=keeps_suppression):
        report(sentence)
    start, num_rows = decoder_start_id(model), model.get_input_embeddings().weight.shape[0]
    if start is not None and not 0 <= start < num_rows:
        raise UserError(f"{key}: `{name}` has {num_rows} tokens, and its decoder_start_token_id is {start}")
    return model


def load_shape(name: str) -> PreTrainedModel:
    """The model of a folder that dstrain has exported without its weights, with the settings of its search.

    Raises UserError as `load_config`.
    """
    config = load_config(name)
    config._attn_implementation = config._experts_implementation = None  # as in `_load_named`
    with told_in_one_line(f"`{name}` has no settings that can be read"), torch.device("meta"):
        model: PreTrainedModel = AutoModelForSeq2SeqLM.from_config(config, trust_remote_code=False)
        model.generation_config = GenerationConfig.from_pretrained(name)
    reset_generation_config(model, is_export=True, keeps_suppression=True)
    return model


def enable_activation_checkpointing(model: PreTrainedModel) -> None:
    """Recompute each layer in the backward pass instead of keeping its activations; the gradient is unchanged."""
    with warnings.catch_warnings():
        # the oldest supported transformers lacks the method's new name
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing_enable.* is deprecated")
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def grow_embeddings(model: PreTrainedModel, *, num_rows: int, report: Callable[[str], None] = _ignore) -> None:
    """Enlarge embeddings and head to at least num_rows rows, in place; never shrinks them.

    New rows are drawn around the mean of the old ones (Hewitt 2021, "Initializing new word embeddings").
    """
    num_before = model.get_input_embeddings().weight.shape[0]
    if num_rows <= num_before:
        return
    tied_in_config = model.config.tie_word_embeddings
    # transformers ties head and embeddings if the config says so, and makes the configs of T5 and mT5 always say so.
    # Resizing would then overwrite the trained, untied heads of T5 1.1 and mT5 with the input embeddings.
    model.config.tie_word_embeddings = tied_in_config and is_head_tied(model)
    model.resize_token_embeddings(num_rows)
    model.config.tie_word_embeddings = tied_in_config
    for config in all_configs(model.config):
        config.vocab_size = num_rows
    report(f"the embeddings grow from {num_before} to {num_rows} rows for added tokens")


def copy_language(model: PreTrainedModel, *, tokenizer: Seq2SeqTokenizer, code: str, like: str) -> None:
    """Let the token of a language begin as that of another: embedding, output row and bias, in place."""
    new, old = tokenizer.language_id(code), tokenizer.language_id(like)
    tensors = {
        model.get_input_embeddings().weight,
        output_head(model).weight,
        getattr(model, "final_logits_bias", None),
    }
    with torch.no_grad():
        for tensor in tensors - {None}:
            rows = tensor.T if tensor.shape[0] == 1 else tensor  # the bias is [1, vocabulary]
            rows[new] = rows[old]


def _read_weights(name: str, *, revision: str | None, config: PreTrainedConfig, key: str) -> PreTrainedModel:
    with warnings.catch_warnings():
        # of a pickle that is refused anyway, or read as tensors only
        warnings.filterwarnings("ignore", message="Detected pickle protocol")
        model, info = AutoModelForSeq2SeqLM.from_pretrained(
            name,
            config=config,
            revision=revision,
            dtype=torch.float32,
            trust_remote_code=False,
            weights_only=True,
            output_loading_info=True,
        )
    missing = sorted(info["missing_keys"])
    if missing:
        raise UserError(
            f"{key} `{name}`: the weights of {len(missing)} parameters are missing, `{missing[0]}` first: its "
            "files are incomplete or of another architecture; download or export the model again"
        )
    loaded: PreTrainedModel = model
    _freeze_fixed(loaded)
    return loaded


def _freeze_fixed(model: PreTrainedModel) -> None:
    """Freeze what the class itself does not train, in place; transformers 5 forgets that when it reads weights.

    The sine tables of Marian have no gradient either way, but weight decay would change them, and no export holds them.
    """
    with torch.device("meta"):
        fresh = type(model)(model.config)
    fixed = {name for name, parameter in fresh.named_parameters() if not parameter.requires_grad}
    for name, parameter in model.named_parameters():
        if name in fixed:
            parameter.requires_grad_(False)


def _unscale_head(model: PreTrainedModel, *, section: Model) -> list[str]:
    """Multiply a published umT5's own head by what transformers 5 divides its input by, in place; returns a sentence if so.

    transformers 4, with which these models were published, does not scale the hidden states of a model whose config says that
    the head is not tied; transformers 5 scales them all, and writes that the head is tied.
    """
    stored, _ = PreTrainedConfig.get_config_dict(section.name, revision=section.revision)
    is_own = not is_head_tied(model) and not stored.get("tie_word_embeddings", True)
    if model.config.model_type != "umt5" or not is_own:
        return []
    head: Any = output_head(model)
    with torch.no_grad():
        head.weight.div_(hidden_scale(model))
    return [
        "the output head is multiplied by the root of the hidden size, because transformers 5 divides by it and the "
        "transformers 4 that this model was published for does not; an export is for transformers 5"
    ]


def _describe_head(model: PreTrainedModel, *, section: Model, is_export: bool) -> list[str]:
    """A sentence if the head is not what the stored config says."""
    stored, _ = PreTrainedConfig.get_config_dict(section.name, revision=section.revision)
    said, tied = stored.get("tie_word_embeddings", True), is_head_tied(model)
    if tied == said or (tied and is_export):  # an export may say false so that transformers 4 reads it
        return []
    if tied:
        return [
            "the model's config says that the output head is its own, but it equals the embeddings or is missing: it is "
            "trained tied to them"
        ]
    # transformers 4 scales where the config says tied
    remark = "; transformers 4 will not scale the logits of an export" if hidden_scale(model) != 1.0 else ""
    return [
        "the model's config says that the output head is tied to the embeddings, but it is its own: it is trained "
        f"so{remark}"
    ]


def quiet_transformers() -> None:
    """Keep transformers' warnings and progress bars out of the run's log, and pass its errors through that log."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_default_handler()
    transformers_logging.enable_propagation()
    transformers_logging.disable_progress_bar()
