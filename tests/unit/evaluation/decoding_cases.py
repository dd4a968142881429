"""Tiny models of every architecture with random weights under which hypotheses differ, and end early, late or not at all."""

from typing import Any

import torch
from transformers import (
    GenerationConfig,
    M2M100Config,
    M2M100ForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    MBartConfig,
    MBartForConditionalGeneration,
    MT5Config,
    MT5ForConditionalGeneration,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from dstrain.evaluation.generate import evaluation_mode, generate
from dstrain.models.families import configured_start_id

VOCABULARY = 120
LANGUAGE = 50
CAP = 36
FAMILIES = ("m2m100", "mbart", "marian", "t5", "mt5")
BART = {"m2m100": (M2M100ForConditionalGeneration, M2M100Config), "mbart": (MBartForConditionalGeneration, MBartConfig)}


def build_model(family: str, *, seed: int = 0) -> PreTrainedModel:
    """T5 and mT5 pad with token 0 and end with 1, the others with 1 and 2."""
    torch.manual_seed(seed)
    bart = {
        "vocab_size": VOCABULARY,
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": 64,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 1 if family == "marian" else 2,
    }
    t5 = {
        "vocab_size": VOCABULARY,
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 64,
        "num_layers": 2,
        "num_heads": 4,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
    }
    model: PreTrainedModel
    if family == "marian":
        model = MarianMTModel(MarianConfig(**bart))
    elif family in BART:
        kind, config = BART[family]
        model = kind(config(**bart))
    elif family == "t5":
        model = T5ForConditionalGeneration(T5Config(**t5))
    else:
        model = MT5ForConditionalGeneration(MT5Config(**t5))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "embed_positions" not in name:
                parameter.normal_(std=0.5 if "shared" in name else 1.0)
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.normal_()
            model.final_logits_bias[:, model.config.eos_token_id] = 2.5
        else:
            model.get_output_embeddings().weight[model.config.eos_token_id] *= 3.0 if family == "m2m100" else 1.5
    return model.eval()


def build_generation(model: PreTrainedModel, *, num_beams: int = 1, **settings: Any) -> GenerationConfig:
    """As `build_generation_config` makes them, with the settings of the architecture."""
    config = model.config
    given: dict[str, Any] = {
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
        "decoder_start_token_id": configured_start_id(config),
        "do_sample": False,
        "num_beams": num_beams,
        "max_new_tokens": CAP,
    }
    if num_beams > 1:
        given |= {"length_penalty": 1.0, "early_stopping": False}
    if config.model_type == "m2m_100":
        given["forced_bos_token_id"] = LANGUAGE
    if config.model_type == "marian":
        given["bad_words_ids"] = [[config.pad_token_id]]
    return GenerationConfig(**(given | settings))


def build_sources(model: PreTrainedModel, *, num_rows: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random sources of 2 to 24 tokens, padded on the right, and their mask."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 25, (num_rows, 1), generator=generator)
    ids = torch.randint(4, VOCABULARY, (num_rows, 24), generator=generator)
    mask = (torch.arange(24) < lengths).long()
    return torch.where(mask == 1, ids, model.config.pad_token_id), mask


def search(model: PreTrainedModel, generation: GenerationConfig, *, num_rows: int) -> list[list[int]]:
    """Our hypotheses, as lists of tokens up to the end."""
    ids, mask = build_sources(model, num_rows=num_rows)
    with evaluation_mode(model, loss_module=model):
        sequences = generate(model, source_ids=ids, source_mask=mask, encoded=None, generation=generation)
    return read(sequences, generation)


def stock(model: PreTrainedModel, generation: GenerationConfig, *, num_rows: int) -> list[list[int]]:
    """The hypotheses of transformers, in the same form."""
    ids, mask = build_sources(model, num_rows=num_rows)
    with evaluation_mode(model, loss_module=model):
        sequences: torch.Tensor = model.generate(input_ids=ids, attention_mask=mask, generation_config=generation)
    return read(sequences, generation)


def read(sequences: torch.Tensor, generation: GenerationConfig) -> list[list[int]]:
    """Tokens up to the end, including the start token."""
    ends = generation.eos_token_id if isinstance(generation.eos_token_id, list) else [generation.eos_token_id]
    hypotheses = []
    for tokens in sequences.tolist():
        stop = next((place for place, token in enumerate(tokens) if place and token in ends), len(tokens) - 1)
        hypotheses.append(tokens[: stop + 1])
    return hypotheses
