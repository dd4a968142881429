"""Text to token ids and back, the same way for every family's tokenizer class. Knows nothing of models or rows."""

import difflib
import hashlib
import json
import warnings
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from dstrain.errors import UserError
from dstrain.models.batch_encoding import build_batch_encoder
from dstrain.models.control_tokens import ControlTokens
from dstrain.models.foreign import told_in_one_line
from dstrain.models.languages import add_languages, can_be_default, default_language, language_ids, register_languages

QUIET = {"padding": False, "truncation": False, "return_attention_mask": False, "verbose": False}
"""Arguments of a tokenizer call: returns plain lists of ids, without warnings about lengths, which the caller checks."""


class Seq2SeqTokenizer:
    """A family's tokenizer behind one interface. Sets the current languages of the wrapped tokenizer.

    Raises UserError when two tokens share an id, because training one would train the other.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.languages = language_ids(tokenizer)
        """Language code -> token id; empty for families without language tokens (T5, mT5, Marian)."""
        self.default_language: str | None = default_language(tokenizer) if self.languages else None
        self.pad_token_id: int = tokenizer.pad_token_id
        self.unk_token_id: int | None = tokenizer.unk_token_id
        vocabulary = {**tokenizer.get_vocab(), **tokenizer.get_added_vocab()}
        _check_distinct(vocabulary, languages=self.languages, name=tokenizer.name_or_path)
        self.vocabulary_size: int = 1 + max(*vocabulary.values(), *self.languages.values(), self.pad_token_id)
        """Highest id + 1: the number of rows the embeddings need. `len(tokenizer)` counts tokens and can be smaller."""
        self._batch = build_batch_encoder(tokenizer)
        self._controls = ControlTokens(tokenizer, languages=list(self.languages))
        self._special = frozenset({*tokenizer.all_special_ids, *self.languages.values()} - {self.unk_token_id})

    @property
    def ends_with_language(self) -> bool:
        """Whether sequences end with `</s> language` (mBART-cc25, PLBart) instead of beginning with the language."""
        return type(self.tokenizer).__name__.startswith(("MBartTokenizer", "PLBart"))

    @cached_property
    def first_target_id(self) -> int | None:
        """The token with which every target of a family without languages begins: BART's `<s>`; None if there is none."""
        _, (ids,) = self.encode([""], [""], source_language=None, target_language=None)
        return ids[0] if len(ids) > 1 else None

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of everything that decides ids; the same in every process, and whatever languages are set."""
        content = {
            "class": type(self.tokenizer).__name__,
            "vocabulary": sorted(self.tokenizer.get_vocab().items()),
            "added": sorted((i, repr(token)) for i, token in self.tokenizer.added_tokens_decoder.items()),
            "languages": sorted(self.languages.items()),
            "special": sorted(self._special),
            "rules": _rules(self.tokenizer),
        }
        return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()

    def language_id(self, code: str | None) -> int | None:
        """Token id of a language code; None for families without language tokens. Raises UserError if unknown."""
        if not self.languages:
            return None
        if code not in self.languages:
            owner = type(self.tokenizer).__name__
            raise UserError(describe_unknown_language(code, known=self.languages, owner=owner))
        return self.languages[code]

    def encode(
        self, sources: list[str], targets: list[str], *, source_language: str | None, target_language: str | None
    ) -> tuple[list[list[int]], list[list[int]]]:
        """Token ids of the sources and of the targets, special tokens included, untruncated.

        A language of None is the tokenizer's default; families without language tokens ignore both. Raises UserError for
        unknown language codes.
        """
        self._set_languages(source_language, target_language)
        source_ids = self._encode_side(sources, keyword="text", language=source_language)
        target_ids = self._encode_side(targets, keyword="text_target", language=target_language)
        return source_ids, target_ids

    @cached_property
    def _lacks_end(self) -> int | None:
        """How many tokens the class puts before a target if it puts none behind it, as those of decoders do; else None."""
        if self.languages:
            return None
        (ends,) = self.tokenizer(text_target=[""], **QUIET)["input_ids"]
        return None if self.tokenizer.eos_token_id in ends else len(ends)

    def _encode_side(self, texts: list[str], *, keyword: str, language: str | None) -> list[list[int]]:
        def call(some: list[str], **options: bool) -> list[list[int]]:
            return list(self.tokenizer(**{keyword: some}, **QUIET, **options)["input_ids"]) if some else []

        found: list[list[int] | None] = [None] * len(texts)
        if self._batch is not None:
            language_id = self.language_id(language or self.default_language)
            assert language_id is not None
            found = self._batch.encode(texts, language_id=language_id)
        left = [text for text, ids in zip(texts, found, strict=True) if ids is None]
        spelling = [text for text in left if self._controls.are_in(text)]
        encoded = dict(zip(spelling, self._controls.encode(spelling, call=call), strict=True))
        rest = [text for text in left if text not in encoded]
        encoded |= zip(rest, call(rest), strict=True)
        if keyword == "text_target" and self._lacks_end is not None:
            end: int = self.tokenizer.eos_token_id
            encoded = {text: [*ids[self._lacks_end :], end] for text, ids in encoded.items()}
        return [encoded[text] if ids is None else ids for text, ids in zip(texts, found, strict=True)]

    def spells_control_token(self, text: str) -> bool:
        """Whether a text spells a control token, which `encode` reads as text and the wrapped tokenizer as the token."""
        return self._controls.are_in(text)

    def is_empty(self, ids: Sequence[int]) -> bool:
        """Whether ids give no text: special tokens alone, or a blank beside them."""
        if len(ids) > 6:  # at most two special tokens at each end; decoding every row would be slow
            return False
        return not self.decode(ids)

    def truncate(self, ids: list[int], *, max_tokens: int) -> list[int]:
        """The first tokens of the text between the special tokens of both ends, at most max_tokens in all.

        Raises UserError when max_tokens leaves no room for the special tokens.
        """
        if len(ids) <= max_tokens:
            return list(ids)
        head = _count_leading(ids, members=self._special)
        tail = _count_leading(reversed(ids[head:]), members=self._special)
        room = max_tokens - head - tail
        if room < 0:
            tokens = "1 token" if max_tokens == 1 else f"{max_tokens} tokens"
            raise UserError(f"a limit of {tokens} leaves no room for {head + tail} special tokens: raise it")
        return [*ids[: head + room], *ids[len(ids) - tail :]]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids; drops padding (-100 too), end and language tokens, but keeps task tokens and `<unk>`.

        `<unk>` is kept because without it a wrong parse could equal its reference. Most families decode added tokens
        without spaces around them.
        """
        unknown = self.unk_token_id if self.unk_token_id is not None else self.pad_token_id
        within = (i if i < self.vocabulary_size else unknown for i in map(int, ids) if i >= 0)
        kept = [i for i in within if i not in self._special]
        text: str = self.tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text.strip()

    def save(self, folder: Path, *, source_language: str | None = None, target_language: str | None = None) -> None:
        """Write the tokenizer to folder, with these languages as its defaults as far as its class can load with them."""
        self._set_languages(self._loadable(source_language), self._loadable(target_language))
        self.tokenizer.save_pretrained(str(folder))

    def _loadable(self, code: str | None) -> str | None:
        if code is None or self.language_id(code) is None:
            return None
        return code if can_be_default(self.tokenizer, code) else None

    def _set_languages(self, source: str | None, target: str | None) -> None:
        if not self.languages:
            return
        for key, code in (("src_lang", source or self.default_language), ("tgt_lang", target or self.default_language)):
            self.language_id(code)
            setattr(self.tokenizer, key, code)
            self.tokenizer.init_kwargs[key] = code


def describe_unknown_language(code: str | None, *, known: Collection[str], owner: str) -> str:
    """What is wrong with a language code that is not among those `known`, and which ones may be meant."""
    codes = list(known)
    prefix = (code or "")[:2].lower()
    near = [c for c in codes if prefix and c.lower().startswith(prefix)]
    near += difflib.get_close_matches(code or "", codes, n=3)
    examples = ", ".join(f"`{c}`" for c in dict.fromkeys([*near[:5], *codes[:3]]))
    return f"language `{code}` is not a code of {owner}; use for example {examples}"


def load_tokenizer(
    name_or_folder: str,
    *,
    revision: str | None = None,
    added_tokens: Sequence[str] = (),
    added_languages: Iterable[str] = (),
) -> Seq2SeqTokenizer:
    """The tokenizer of a hub name or local folder, with those of these tokens added that it lacks, and these languages.

    Raises UserError if it cannot be read or take tokens, has no language tokens, or has one of the added languages already.
    """
    with warnings.catch_warnings(), told_in_one_line(f"`{name_or_folder}` has no tokenizer that can be read"):
        # Marian recommends sacremoses, but its tokenizer no longer calls the normaliser that needs it
        warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
        tokenizer = AutoTokenizer.from_pretrained(name_or_folder, revision=revision, trust_remote_code=False)
        if getattr(tokenizer, "legacy_behaviour", False):
            # NLLB's old form puts the language last, unlike the paper and unlike the forced first token of hypotheses
            tokenizer.legacy_behaviour = False
            tokenizer.init_kwargs["legacy_behaviour"] = False
        register_languages(tokenizer)
        _add_new_languages(tokenizer, added_languages)
        known = tokenizer.get_vocab()
        if added_tokens and type(tokenizer).__name__.startswith("PLBart"):
            raise UserError(
                "model.name: PLBart's tokenizer takes some of the tokens that parses need for control tokens when it is loaded "
                "again: use a model of another family, such as BART"
            )
        tokenizer.add_tokens([token for token in added_tokens if token not in known])
        return Seq2SeqTokenizer(tokenizer)


def _add_new_languages(tokenizer: PreTrainedTokenizerBase, codes: Iterable[str]) -> None:
    known, new = language_ids(tokenizer), list(codes)
    for code in new:
        if not known:
            raise UserError(
                f"model.add_languages: {type(tokenizer).__name__} has no language tokens: tell languages apart by source_prefix"
            )
        if code in known:
            raise UserError(
                f"model.add_languages: `{tokenizer.name_or_path}` has the language `{code}` already: leave it out"
            )
    if new:
        add_languages(tokenizer, new)


def _check_distinct(vocabulary: dict[str, int], *, languages: dict[str, int], name: str) -> None:
    owner = {i: token for token, i in vocabulary.items()}
    shared = [(token, owner[i], i) for token, i in vocabulary.items() if owner[i] != token]
    shared += [(code, owner[i], i) for code, i in languages.items() if i in owner and code not in owner[i]]
    if shared:
        raise UserError(
            f"tokenizer `{name}`: tokens `{shared[0][0]}` and `{shared[0][1]}` share id {shared[0][2]} and "
            "would be trained as one: its files are inconsistent; download them again from where the model was published"
        )


def _rules(tokenizer: PreTrainedTokenizerBase) -> Any:
    """What splits text into pieces: digests of the sentencepiece models, or the fast tokenizer's pipeline."""
    if tokenizer.is_fast:
        pipeline = json.loads(tokenizer.backend_tokenizer.to_str())
        # the post-processor depends on the current languages, the other two on the last call's arguments
        return {k: v for k, v in pipeline.items() if k not in ("post_processor", "padding", "truncation")}
    models = [getattr(tokenizer, name, None) for name in ("sp_model", "spm_source", "spm_target")]
    return [hashlib.sha256(m.serialized_model_proto()).hexdigest() for m in models if m is not None]


def _count_leading(ids: Iterable[int], *, members: frozenset[int]) -> int:
    count = 0
    for i in ids:
        if i not in members:
            break
        count += 1
    return count
