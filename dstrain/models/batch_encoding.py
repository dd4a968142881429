"""Encodes many texts with one call of sentencepiece, for the family whose own tokenizer is slow: M2M100.

M2M100's class walks through each text in Python, over ten times slower than sentencepiece's batch call. Decides for which
tokenizers and texts the batch call returns the same ids; the caller must use the tokenizer itself for all others.
"""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from dstrain.models.control_tokens import any_of

SERVED_CLASS = "M2M100Tokenizer"
"""Marian, the other supported family without a Rust tokenizer, is not served: it has two models, and codes in its texts."""


class BatchEncoder:
    """Encodes many texts at once with the sentencepiece model of a tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._unknown: int = tokenizer.unk_token_id
        self._end: int = tokenizer.eos_token_id
        added = tokenizer.added_tokens_encoder
        # in the order in which the class looks up a piece: added tokens, languages, vocabulary
        self._ids = {**tokenizer.encoder, **tokenizer.lang_token_to_id, **added}
        self._own = any_of(added)

    def encode(self, texts: Sequence[str], *, language_id: int) -> list[list[int] | None]:
        """`language text </s>` for each text; None if the text contains one of the tokenizer's added tokens."""
        plain = [index for index, text in enumerate(texts) if not self._own.search(text)]
        found: list[list[int] | None] = [None] * len(texts)
        pieces = self._tokenizer.sp_model.encode([texts[index] for index in plain], out_type=str)
        get, unknown = self._ids.get, self._unknown
        for index, row in zip(plain, pieces, strict=True):
            found[index] = [language_id, *[get(piece, unknown) for piece in row], self._end]
        return found


def build_batch_encoder(tokenizer: PreTrainedTokenizerBase) -> BatchEncoder | None:
    """The batch encoder of a tokenizer, or None if it would not return the same ids as the tokenizer."""
    samples = getattr(tokenizer, "sp_model_kwargs", {}).get("enable_sampling", False)
    if type(tokenizer).__name__ != SERVED_CLASS or samples or getattr(tokenizer, "split_special_tokens", False):
        return None
    return BatchEncoder(tokenizer)
