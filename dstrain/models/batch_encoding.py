"""Token ids of many texts by one call of sentencepiece, for the family whose own tokenizer is slow: M2M100.

Its class walks through every text in Python, over ten times as slow as sentencepiece's batch call. Owns for which tokenizers
and texts the call gives the same ids; whoever asks keeps the tokenizer's own way for all others.
"""

import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

SERVED_CLASS = "M2M100Tokenizer"
"""Of the supported families Marian is the other without a tokenizer in Rust; it has two models and codes in its texts."""


class BatchEncoder:
    """Asks the sentencepiece model of a tokenizer for many texts at once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._unknown: int = tokenizer.unk_token_id
        self._end: int = tokenizer.eos_token_id
        added = tokenizer.added_tokens_encoder
        # as the class looks a piece up: added tokens before languages before the vocabulary
        self._ids = {**tokenizer.encoder, **tokenizer.lang_token_to_id, **added}
        self._own = _any_of(added)

    def encode(self, texts: Sequence[str], *, language_id: int) -> list[list[int] | None]:
        """`language text </s>` of each text; None where a text has one of the tokenizer's own tokens in it."""
        plain = [place for place, text in enumerate(texts) if not self._own.search(text)]
        found: list[list[int] | None] = [None] * len(texts)
        pieces = self._tokenizer.sp_model.encode([texts[place] for place in plain], out_type=str)
        get, unknown = self._ids.get, self._unknown
        for place, row in zip(plain, pieces, strict=True):
            found[place] = [language_id, *[get(piece, unknown) for piece in row], self._end]
        return found


def build_batch_encoder(tokenizer: PreTrainedTokenizerBase) -> BatchEncoder | None:
    """The encoder of a tokenizer whose ids it gives; None for all others."""
    samples = getattr(tokenizer, "sp_model_kwargs", {}).get("enable_sampling", False)
    if type(tokenizer).__name__ != SERVED_CLASS or samples or getattr(tokenizer, "split_special_tokens", False):
        return None
    return BatchEncoder(tokenizer)


def _any_of(tokens: Sequence[str] | dict[str, int]) -> re.Pattern[str]:
    # the first characters once more, because trying every token at every place is slow
    first = re.escape("".join(sorted({token[0] for token in tokens if token})))
    longest_first = sorted(filter(None, tokens), key=len, reverse=True)
    return re.compile(f"(?=[{first}])(?:{'|'.join(map(re.escape, longest_first))})")
