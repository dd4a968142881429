"""In which script and language texts are: scripts by Unicode's names of letters, languages by py3langid, if it is installed."""

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from importlib import metadata
from importlib.util import find_spec
from typing import Any

DETECTOR = "py3langid"
"""Of the extra `langid`: its model is in the package, so that nothing is downloaded."""

CJK = "CJK"
_SAME_SCRIPT = dict.fromkeys(("HIRAGANA", "KATAKANA", "BOPOMOFO", "IDEOGRAPHIC"), CJK)
"""Japanese mixes them in one text, so that they count as one."""

ISO_639_1: Mapping[str, str] = dict(
    pair.split(":")
    for pair in (
        "afr:af als:sq sqi:sq amh:am arb:ar ara:ar acm:ar acq:ar aeb:ar ajp:ar apc:ar ars:ar ary:ar arz:ar asm:as azj:az aze:az "
        "bel:be ben:bn bos:bs bul:bg cat:ca ces:cs cym:cy dan:da deu:de ell:el eng:en epo:eo est:et ekk:et eus:eu fao:fo fin:fi "
        "fra:fr gle:ga glg:gl guj:gu hat:ht heb:he hin:hi hrv:hr hun:hu hye:hy ind:id isl:is ita:it jav:jv jpn:ja kan:kn kat:ka "
        "kaz:kk khm:km kin:rw kir:ky kor:ko kmr:ku lao:lo lvs:lv lav:lv lit:lt ltz:lb mal:ml mar:mr mkd:mk mlt:mt khk:mn mon:mn "
        "zsm:ms msa:ms nld:nl nno:nn nob:no nor:no npi:ne nep:ne oci:oc ory:or ori:or pan:pa pes:fa prs:fa fas:fa pbt:ps pus:ps "
        "pol:pl por:pt quy:qu que:qu ron:ro rus:ru sin:si slk:sk slv:sl sme:se spa:es srp:sr swe:sv swh:sw swa:sw tam:ta tel:te "
        "tgl:tl fil:tl tha:th tur:tr uig:ug ukr:uk urd:ur uzn:uz uzb:uz vie:vi vol:vo wln:wa wol:wo xho:xh yid:yi yor:yo zho:zh "
        "cmn:zh yue:zh zul:zu plt:mg mlg:mg nb:no iw:he in:id"
    ).split()
)
"""Language part of a code in three letters (NLLB's, mostly), or a former one in two, to that in two letters."""

ALIKE = (frozenset({"no", "nn", "da"}), frozenset({"hr", "bs", "sr"}), frozenset({"id", "ms", "jv"}))
"""Languages that short texts do not tell apart: one for another is no mistake."""


def find_wrong_scripts(
    hypotheses: Sequence[str], references: Sequence[str], *, languages: Sequence[str | None]
) -> tuple[list[bool], list[bool]]:
    """Which texts of either side have their letters mostly in another script than most references of their language.

    A text without letters has no script, and so no wrong one.
    """
    of_references = [main_script(text) for text in references]
    expected: dict[str | None, Counter[str]] = {}
    for language, script in zip(languages, of_references, strict=True):
        if script is not None:
            expected.setdefault(language, Counter())[script] += 1
    main = {language: counts.most_common(1)[0][0] for language, counts in expected.items()}

    def is_wrong(script: str | None, language: str | None) -> bool:
        return script is not None and language in main and script != main[language]

    of_hypotheses = [main_script(text) for text in hypotheses]
    wrong = [list(map(is_wrong, scripts, languages)) for scripts in (of_hypotheses, of_references)]
    return wrong[0], wrong[1]


def main_script(text: str) -> str | None:
    """The script of most letters, as the first word of their names in Unicode (`LATIN`, `HANGUL`); None without letters."""
    scripts = Counter(map(_script, unicodedata.normalize("NFKC", text)))
    scripts.pop("", None)
    return scripts.most_common(1)[0][0] if scripts else None


@lru_cache(maxsize=1 << 16)
def _script(letter: str) -> str:
    if not letter.isalpha():
        return ""
    name = unicodedata.name(letter, "").partition(" ")[0]
    return _SAME_SCRIPT.get(name, name)


def find_wrong_languages(
    hypotheses: Sequence[str], references: Sequence[str], *, languages: Sequence[str | None], among: Sequence[str]
) -> tuple[list[bool], list[bool]]:
    """Which texts of either side are in another language than they should be, where only the languages `among` are distinguished.

    A text without letters is in no language, and so in no wrong one.
    """
    detector = _load_detector()
    detector.set_languages(list(among))

    def is_wrong(text: str, language: str | None) -> bool:
        if main_script(text) is None:
            return False
        found, code = detector.classify(text)[0], iso_code(language)
        return found != code and not any({found, code} <= alike for alike in ALIKE)

    wrong = [list(map(is_wrong, texts, languages)) for texts in (hypotheses, references)]
    return wrong[0], wrong[1]


def find_candidates(languages: Sequence[str | None], *, others: Sequence[str]) -> list[str]:
    """The codes among which the languages of texts are looked for: their own, `languages`, and `others`.

    Empty where the detector is not installed, where a text names no language or one that it does not know, or where there is but
    one language.
    """
    if not find_spec(DETECTOR):
        return []
    detector = _load_detector()
    detector.set_languages(None)
    known, wanted = {*detector.labels}, {iso_code(language) for language in languages}
    found = {code for code in (*wanted, *map(iso_code, others)) if code in known}
    return sorted(found) if wanted <= known and len(found) > 1 else []


def detector_signature(among: Sequence[str]) -> str:
    """Name and version of the detector, and the languages that it distinguished."""
    return f"{DETECTOR}:{metadata.version(DETECTOR)}|among:{','.join(among)}"


def iso_code(language: str | None) -> str:
    """The code in two letters of a language as a family names it (`ko`, `ko_KR`, `kor_Hang`), else its own; empty without one."""
    part = (language or "").replace("-", "_").partition("_")[0].lower()
    return ISO_639_1.get(part, part)


@cache
def _load_detector() -> Any:
    # an identifier of our own: that of the module belongs to whoever else uses it
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE)
