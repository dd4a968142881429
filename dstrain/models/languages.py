"""The language tokens of a tokenizer: those that its class knows, and those that were added to its vocabulary.

The classes of M2M100 and mBART keep a fixed list of languages. Languages beside it are registered here after loading, since
the classes cannot load with one of them as the default.
"""

import re
from collections.abc import Collection, Iterable, Sequence

from transformers import PreTrainedTokenizerBase
from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES as M2M100_CODES
from transformers.models.mbart.tokenization_mbart import FAIRSEQ_LANGUAGE_CODES as MBART_CODES
from transformers.models.mbart50.tokenization_mbart50 import FAIRSEQ_LANGUAGE_CODES as MBART50_CODES
from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES as NLLB_CODES

LANGUAGE_CODES: dict[str, Sequence[str]] = {
    "m2m100": M2M100_CODES["m2m100"],
    "nllb": NLLB_CODES,
    "mbart": MBART_CODES,
    "mbart50": MBART50_CODES,
}
"""Family to the language codes that its class knows; families without language tokens are left out."""

_CODE = re.compile(r"[a-z]{2,3}(?:[_-][A-Za-z0-9]{2,8})*")
_M2M100_TOKEN = re.compile(rf"__({_CODE.pattern})__")


def language_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Language code to token id; empty for families without language tokens (T5, mT5, Marian)."""
    name = type(tokenizer).__name__
    if name.startswith("M2M100"):
        return dict(tokenizer.lang_code_to_id)
    if name.startswith("PLBart"):  # `__java__` is a token, and `java` the code that its class is called with
        return {token.strip("_"): index for token, index in tokenizer.lang_code_to_id.items()}
    if name.startswith("MBart"):
        codes = [*tokenizer.lang_code_to_id, *_added_codes(tokenizer)]
        return {code: tokenizer.convert_tokens_to_ids(code) for code in codes}
    if name.startswith("Nllb"):
        return {code: tokenizer.convert_tokens_to_ids(code) for code in _added_codes(tokenizer)}
    return {}


def default_language(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The code that a tokenizer with languages encodes sources in by default."""
    if type(tokenizer).__name__.startswith("PLBart"):
        return (tokenizer.src_lang or "en_XX").strip("_")
    code: str | None = tokenizer.src_lang
    return code


def register_languages(tokenizer: PreTrainedTokenizerBase) -> None:
    """Make M2M100's vocabulary and its class agree on the languages, in place; does nothing for other families.

    Published folders list the tokens of all languages. The class alone has ids for them but does not count them as tokens, so
    that the next added token would get the first language's id. In turn the class does not know added languages.
    """
    if not type(tokenizer).__name__.startswith("M2M100"):
        return
    known = tokenizer.get_added_vocab()
    missing = [token for token in tokenizer.lang_token_to_id if token not in known]
    tokenizer.add_tokens(missing, special_tokens=True)
    for token, index in tokenizer.get_added_vocab().items():
        match = _M2M100_TOKEN.fullmatch(token)
        if match and token not in tokenizer.lang_token_to_id:
            tokenizer.lang_code_to_token[match[1]] = token
            tokenizer.lang_token_to_id[token] = tokenizer.lang_code_to_id[match[1]] = index
            tokenizer.id_to_lang_token[index] = token


def add_languages(tokenizer: PreTrainedTokenizerBase, codes: Iterable[str]) -> None:
    """Add a token for each of these languages, in place."""
    is_m2m100 = type(tokenizer).__name__.startswith("M2M100")
    tokens = [f"__{code}__" if is_m2m100 else code for code in codes]
    tokenizer.add_special_tokens({"extra_special_tokens": tokens}, replace_extra_special_tokens=False)
    register_languages(tokenizer)


def can_be_default(tokenizer: PreTrainedTokenizerBase, code: str) -> bool:
    """Whether the class can load with this language as its default: not with one that was added to M2M100 or mBART."""
    known: dict[str, Collection[str]] = {
        "M2M100": [code for codes in M2M100_CODES.values() for code in codes],
        "MBart": {*MBART_CODES, *MBART50_CODES},
    }
    name = type(tokenizer).__name__
    return all(code in codes for start, codes in known.items() if name.startswith(start))


def _added_codes(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The special tokens beside those with a role, such as `</s>`, that are spelt like a language code."""
    return [token for token in tokenizer.extra_special_tokens if _CODE.fullmatch(token)]
