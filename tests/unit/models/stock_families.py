"""Tiny models and tokenizers of the families that recipes cannot train from scratch: made of transformers' classes alone."""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import sentencepiece
import torch
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

STOCK_FAMILIES = (
    "bart",
    "pegasus",
    "umt5",
    "byt5",
    "longt5",
    "led",
    "plbart",
    "mvp",
    "blenderbot",
    "pegasus_x",
    "bigbird_pegasus",
    "t5gemma",
)
VOCABULARY = 480


def build_stock_tokenizer(family: str, *, texts: Sequence[str], folder: Path) -> PreTrainedTokenizerBase:
    """A tokenizer of the class that the family's published models have, trained on the texts."""
    if family == "byt5":
        return tf.ByT5Tokenizer()
    if family in ("bart", "led", "mvp", "blenderbot"):
        vocabulary, merges = _train_pairs(texts, special=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
        kind = tf.BlenderbotTokenizer if family == "blenderbot" else tf.BartTokenizer
        return kind(vocab=vocabulary, merges=merges)
    if family == "t5gemma":
        vocabulary, merges = _train_pairs(texts, special=["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"], spaces=True)
        return tf.GemmaTokenizer(vocab=vocabulary, merges=merges)
    if family == "plbart":
        file = folder / "sentencepiece.bpe.model"
        file.write_bytes(_train_pieces(texts, unk_id=0, bos_id=1, eos_id=2, pad_id=-1))
        return tf.PLBartTokenizer(vocab_file=str(file), src_lang="java", tgt_lang="en_XX")
    if family in ("umt5", "longt5"):
        return tf.T5Tokenizer(vocab=_pieces(_train_pieces(texts, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)), extra_ids=0)
    pieces = _pieces(_train_pieces(texts, pad_id=0, eos_id=1, unk_id=2, bos_id=-1))
    return tf.PegasusTokenizer(vocab=pieces, offset=4)


def _train_pairs(texts: Sequence[str], *, special: list[str], spaces: bool = False) -> tuple[Any, Any]:
    """Vocabulary and merges of a byte-pair encoding: over bytes, or over characters with `▁` for a space."""
    tokenizer = Tokenizer(models.BPE())
    if not spaces:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = [f"<0x{byte:02X}>" for byte in range(256)] if spaces else []
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[*special, *alphabet],
        initial_alphabet=[] if spaces else pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text.replace(" ", "▁") if spaces else text for text in texts], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def _train_pieces(texts: Sequence[str], **ids: int) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=VOCABULARY,
        hard_vocab_limit=False,
        character_coverage=1.0,
        normalization_rule_name="identity",
        num_threads=1,
        minloglevel=2,
        **ids,
    )
    return model.getvalue()


def _pieces(model: bytes) -> list[tuple[str, float]]:
    read = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [(read.id_to_piece(i), read.get_score(i)) for i in range(read.get_piece_size())]


BART_SIZES = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "dropout": 0.0,
    "attention_dropout": 0.0,
}
T5_SIZES = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "dropout_rate": 0.0}
GEMMA_SIZES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
    "sliding_window": 8,
    "attn_logit_softcapping": 5.0,
    "final_logit_softcapping": 3.0,
}


def _bart(kind: Callable[..., Any], config: Callable[..., Any], **more: Any) -> Callable[[int], PreTrainedModel]:
    return lambda rows: kind(config(**(BART_SIZES | {"vocab_size": rows, "max_position_embeddings": 96} | more)))


def _t5(kind: Callable[..., Any], config: Callable[..., Any], **more: Any) -> Callable[[int], PreTrainedModel]:
    return lambda rows: kind(config(**(T5_SIZES | {"vocab_size": rows, "decoder_start_token_id": 0} | more)))


def _led(rows: int) -> PreTrainedModel:
    places = {"max_encoder_position_embeddings": 96, "max_decoder_position_embeddings": 80}
    return tf.LEDForConditionalGeneration(tf.LEDConfig(**BART_SIZES, **places, vocab_size=rows, attention_window=8))


def _t5gemma(rows: int) -> PreTrainedModel:
    part = {**GEMMA_SIZES, "vocab_size": rows}
    config = tf.T5GemmaConfig(encoder=dict(part), decoder=dict(part), vocab_size=rows)
    return tf.T5GemmaForConditionalGeneration(config)


BUILDERS: dict[str, Callable[[int], PreTrainedModel]] = {
    "bart": _bart(tf.BartForConditionalGeneration, tf.BartConfig),
    "pegasus": _bart(tf.PegasusForConditionalGeneration, tf.PegasusConfig, scale_embedding=True),
    "umt5": _t5(tf.UMT5ForConditionalGeneration, tf.UMT5Config),
    "byt5": _t5(tf.T5ForConditionalGeneration, tf.T5Config, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "longt5": _t5(
        tf.LongT5ForConditionalGeneration,
        tf.LongT5Config,
        local_radius=3,
        global_block_size=4,
        encoder_attention_type="transient-global",
    ),
    "led": _led,
    "plbart": _bart(tf.PLBartForConditionalGeneration, tf.PLBartConfig),
    "mvp": _bart(tf.MvpForConditionalGeneration, tf.MvpConfig),
    "blenderbot": _bart(
        tf.BlenderbotForConditionalGeneration,
        tf.BlenderbotConfig,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=0,
    ),
    "pegasus_x": _bart(tf.PegasusXForConditionalGeneration, tf.PegasusXConfig, block_size=8, num_global_tokens=4),
    "bigbird_pegasus": _bart(
        tf.BigBirdPegasusForConditionalGeneration, tf.BigBirdPegasusConfig, block_size=2, num_random_blocks=1
    ),
    "t5gemma": _t5gemma,
}


def build_stock_model(family: str, *, num_rows: int, seed: int = 0) -> PreTrainedModel:
    """A tiny model of transformers' class with random weights and no dropout; biases of logits are not zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BUILDERS[family](num_rows)
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.normal_()
    model.generation_config.max_length = None
    return model
