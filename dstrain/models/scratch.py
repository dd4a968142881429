"""Models without pretrained weights: a tokenizer trained on the training text, and random weights of a family's shape.

Tokenizers are written in the family's ordinary class, so that `AutoTokenizer.from_pretrained(folder)` loads them. Text is
not normalised, so that decoding returns what was encoded. M2M100 and Marian have byte fallback and cover every character;
the classes of T5, mT5, NLLB and mBART do not, and cover the characters of the training text. Knows nothing of where texts
come from.
"""

import io
import json
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from transformers import (
    M2M100Config,
    M2M100ForConditionalGeneration,
    M2M100Tokenizer,
    MarianConfig,
    MarianMTModel,
    MarianTokenizer,
    MBart50Tokenizer,
    MBartConfig,
    MBartForConditionalGeneration,
    MBartTokenizer,
    MT5Config,
    MT5ForConditionalGeneration,
    NllbTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    T5Config,
    T5ForConditionalGeneration,
    T5Tokenizer,
)
from transformers.models.mbart.tokenization_mbart import FAIRSEQ_LANGUAGE_CODES as MBART_CODES
from transformers.models.mbart50.tokenization_mbart50 import FAIRSEQ_LANGUAGE_CODES as MBART50_CODES
from transformers.tokenization_utils_base import generate_merges

from dstrain.config.recipe import Scratch
from dstrain.errors import UserError
from dstrain.models.families import set_dropout, set_layerdrop
from dstrain.models.languages import register_languages
from dstrain.models.tokenizer import Seq2SeqTokenizer

MAX_SENTENCES = 1_000_000
"""Texts that sentencepiece is trained on at most: a fixed sample of them, so that memory stays bounded."""

SPECIAL_IDS = {
    "t5": {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
    "mt5": {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
    "marian": {"eos_id": 0, "unk_id": 1, "pad_id": 2, "bos_id": -1},
    "m2m100": {"bos_id": 0, "pad_id": 1, "eos_id": 2, "unk_id": 3},
    "nllb": {"bos_id": 0, "pad_id": 1, "eos_id": 2, "unk_id": 3},
    "mbart": {"bos_id": 0, "pad_id": 1, "eos_id": 2, "unk_id": 3},
    "mbart50": {"bos_id": 0, "pad_id": 1, "eos_id": 2, "unk_id": 3},
}
"""Family to the ids of its special tokens, as its class expects them."""

BYTE_FALLBACK = ("m2m100", "marian")
"""Families whose class encodes with sentencepiece; the fast classes of the others turn byte fallback off."""


def train_tokenizer(
    scratch: Scratch, *, texts: Iterable[str], languages: Sequence[str], task_tokens: Sequence[str], folder: Path
) -> None:
    """Train a tokenizer on the texts and write it to the folder in the family's ordinary format.

    The same texts lead to the same files. Task tokens are not trained on, but added as tokens. The first and last of
    `languages` become the default source and target language. Raises UserError for unknown language codes, for empty texts,
    and for a vocabulary smaller than the number of characters in the texts.
    """
    write_tokenizer(
        scratch.architecture,
        vocabulary_size=scratch.vocabulary_size,
        texts=texts,
        languages=languages,
        task_tokens=task_tokens,
        folder=folder,
    )


def write_tokenizer(
    architecture: str,
    *,
    vocabulary_size: int,
    texts: Iterable[str],
    languages: Sequence[str],
    task_tokens: Sequence[str],
    folder: Path,
) -> None:
    """As `train_tokenizer`, but also for `mbart50`, which recipes cannot choose as a scratch architecture."""
    folder.mkdir(parents=True, exist_ok=True)
    learned = _without_tokens(texts, tokens=task_tokens)
    model = _train_sentencepiece(architecture, vocabulary_size=vocabulary_size, texts=learned)
    build = TOKENIZER_BUILDERS[architecture]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
        tokenizer = build(model, folder)
    register_languages(tokenizer)
    tokenizer.add_tokens(list(task_tokens))
    wrapped = Seq2SeqTokenizer(tokenizer)
    first, last = (languages[0], languages[-1]) if languages else (None, None)
    wrapped.save(folder, source_language=first, target_language=last)


def build_scratch_model(
    scratch: Scratch,
    *,
    tokenizer: Seq2SeqTokenizer,
    seed: int,
    dropout: float | None = None,
    layerdrop: float = 0.0,
) -> PreTrainedModel:
    """A model of the family with random fp32 weights, the same for the same seed. Dropout None is the family's default."""
    family_class, config = CONFIG_BUILDERS[scratch.architecture](scratch, tokenizer)
    set_layerdrop(config, layerdrop=layerdrop)
    if dropout is not None:
        set_dropout(config, dropout=dropout)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = family_class(config)
    if scratch.architecture == "mt5":
        # mT5 does not scale hidden states before its head, which is tied to embeddings of standard deviation 1 here.
        # Unscaled, logits of deviation sqrt(hidden) would start with a loss far above that of a uniform guess.
        with torch.no_grad():
            model.get_input_embeddings().weight.mul_(scratch.hidden_size**-0.5)
    return model


def _without_tokens(texts: Iterable[str], *, tokens: Sequence[str]) -> Iterator[str]:
    if not tokens:
        yield from texts
        return
    longest_first = sorted(tokens, key=len, reverse=True)
    pattern = re.compile("|".join(re.escape(token) for token in longest_first))
    for text in texts:
        yield pattern.sub(" ", text)


def _train_sentencepiece(architecture: str, *, vocabulary_size: int, texts: Iterable[str]) -> bytes:
    """The trained model, serialised. One thread and a fixed seed, so that the same texts lead to the same model."""
    model = io.BytesIO()
    special_ids: dict[str, Any] = SPECIAL_IDS[architecture]
    sentencepiece.set_random_generator_seed(0)
    failures: list[Exception] = []
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_sentences(texts, failures=failures),
            model_writer=model,
            model_type="bpe" if architecture == "nllb" else "unigram",
            vocab_size=vocabulary_size,
            hard_vocab_limit=False,
            character_coverage=1.0,
            required_chars="[]",
            byte_fallback=architecture in BYTE_FALLBACK,
            normalization_rule_name="identity",
            input_sentence_size=MAX_SENTENCES,
            shuffle_input_sentence=True,
            max_sentence_length=1 << 20,
            num_threads=1,
            minloglevel=2,
            **special_ids,
        )
    except RuntimeError as error:
        if failures:
            raise failures[0] from None
        raise _explain(error, vocabulary_size=vocabulary_size) from error
    return model.getvalue()


def _sentences(texts: Iterable[str], *, failures: list[Exception]) -> Iterator[str]:
    # sentencepiece replaces what is raised here by its own RuntimeError, so that the caller needs the original
    try:
        yield from (text for text in texts if text.strip())
    except Exception as error:
        failures.append(error)
        raise


def _explain(error: RuntimeError, *, vocabulary_size: int) -> UserError:
    needed = re.search(r"smaller than required_chars\. \d+ vs (\d+)", str(error))
    if needed:
        return UserError(
            f"model.scratch.vocabulary_size {vocabulary_size} is smaller than the {needed[1]} characters and "
            "special tokens that the training text needs: raise it well above that"
        )
    return UserError(f"sentencepiece cannot train a tokenizer on the training text ({error}): add more text")


def _scored_pieces(model: bytes) -> list[tuple[str, float]]:
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(pieces.get_piece_size())]


def _write_vocabulary(model: bytes, file: Path) -> None:
    ids = {piece: i for i, (piece, _) in enumerate(_scored_pieces(model))}
    file.write_text(json.dumps(ids, ensure_ascii=False, indent=2), encoding="utf-8")


def _m2m100_tokenizer(model: bytes, folder: Path) -> PreTrainedTokenizerBase:
    vocabulary, pieces = folder / "vocab.json", folder / "sentencepiece.bpe.model"
    pieces.write_bytes(model)
    _write_vocabulary(model, vocabulary)
    # without made-up words, which only round up the published model's vocabulary
    return M2M100Tokenizer(vocab_file=str(vocabulary), spm_file=str(pieces), num_madeup_words=0)


def _marian_tokenizer(model: bytes, folder: Path) -> PreTrainedTokenizerBase:
    vocabulary, source, target = folder / "vocab.json", folder / "source.spm", folder / "target.spm"
    source.write_bytes(model)
    target.write_bytes(model)
    _write_vocabulary(model, vocabulary)
    return MarianTokenizer(source_spm=str(source), target_spm=str(target), vocab=str(vocabulary))


def _t5_tokenizer(model: bytes, folder: Path) -> PreTrainedTokenizerBase:
    # Sentinels `<extra_id_N>` serve T5's pre-training only.
    return T5Tokenizer(vocab=_scored_pieces(model), extra_ids=0)


def _nllb_tokenizer(model: bytes, folder: Path) -> PreTrainedTokenizerBase:
    vocabulary = {piece: i for i, (piece, _) in enumerate(_scored_pieces(model))}
    return NllbTokenizer(vocab=vocabulary, merges=generate_merges(vocabulary))


def _mbart_tokenizer(model: bytes, folder: Path) -> PreTrainedTokenizerBase:
    return MBartTokenizer(vocab=[*_scored_pieces(model), *((token, 0.0) for token in [*MBART_CODES, "<mask>"])])


def _mbart50_tokenizer(model: bytes, folder: Path) -> PreTrainedTokenizerBase:
    return MBart50Tokenizer(vocab=[*_scored_pieces(model), *((token, 0.0) for token in [*MBART50_CODES, "<mask>"])])


TOKENIZER_BUILDERS: dict[str, Callable[[bytes, Path], PreTrainedTokenizerBase]] = {
    "m2m100": _m2m100_tokenizer,
    "nllb": _nllb_tokenizer,
    "mbart": _mbart_tokenizer,
    "mbart50": _mbart50_tokenizer,
    "marian": _marian_tokenizer,
    "t5": _t5_tokenizer,
    "mt5": _t5_tokenizer,
}


def _bart_shape(scratch: Scratch, tokenizer: Seq2SeqTokenizer) -> dict[str, Any]:
    return {
        "vocab_size": tokenizer.vocabulary_size,
        "d_model": scratch.hidden_size,
        "encoder_layers": scratch.num_layers,
        "decoder_layers": scratch.num_layers,
        "encoder_attention_heads": scratch.num_heads,
        "decoder_attention_heads": scratch.num_heads,
        "encoder_ffn_dim": scratch.feed_forward_size,
        "decoder_ffn_dim": scratch.feed_forward_size,
        "max_position_embeddings": scratch.max_positions,
        "scale_embedding": True,
        "bos_token_id": tokenizer.tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.tokenizer.eos_token_id,
        "tokenizer_class": type(tokenizer.tokenizer).__name__,
    }


def _t5_shape(scratch: Scratch, tokenizer: Seq2SeqTokenizer) -> dict[str, Any]:
    return {
        "vocab_size": tokenizer.vocabulary_size,
        "d_model": scratch.hidden_size,
        "d_kv": scratch.hidden_size // scratch.num_heads,
        "d_ff": scratch.feed_forward_size,
        "num_layers": scratch.num_layers,
        "num_heads": scratch.num_heads,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.tokenizer.eos_token_id,
        "decoder_start_token_id": tokenizer.pad_token_id,
    }


ModelShape = tuple[type[PreTrainedModel], PreTrainedConfig]


def _m2m100_model(scratch: Scratch, tokenizer: Seq2SeqTokenizer) -> ModelShape:
    shape = _bart_shape(scratch, tokenizer)
    config = M2M100Config(**shape, decoder_start_token_id=tokenizer.tokenizer.eos_token_id)
    return M2M100ForConditionalGeneration, config


def _mbart_model(scratch: Scratch, tokenizer: Seq2SeqTokenizer) -> ModelShape:
    return MBartForConditionalGeneration, MBartConfig(**_bart_shape(scratch, tokenizer), forced_eos_token_id=None)


def _marian_model(scratch: Scratch, tokenizer: Seq2SeqTokenizer) -> ModelShape:
    config = MarianConfig(
        **_bart_shape(scratch, tokenizer),
        activation_function="swish",
        decoder_start_token_id=tokenizer.pad_token_id,
        forced_eos_token_id=None,
    )
    return MarianMTModel, config


def _t5_model(scratch: Scratch, tokenizer: Seq2SeqTokenizer) -> ModelShape:
    return T5ForConditionalGeneration, T5Config(**_t5_shape(scratch, tokenizer), feed_forward_proj="relu")


def _mt5_model(scratch: Scratch, tokenizer: Seq2SeqTokenizer) -> ModelShape:
    return MT5ForConditionalGeneration, MT5Config(**_t5_shape(scratch, tokenizer), feed_forward_proj="gated-gelu")


CONFIG_BUILDERS: dict[str, Callable[[Scratch, Seq2SeqTokenizer], ModelShape]] = {
    "m2m100": _m2m100_model,
    "nllb": _m2m100_model,
    "mbart": _mbart_model,
    "marian": _marian_model,
    "t5": _t5_model,
    "mt5": _mt5_model,
}
