"""Languages: how model families write their codes, which one a text is probably in, and which a name speaks of. Pure."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

M2M100 = frozenset(
    "af am ar ast az ba be bg bn br bs ca ceb cs cy da de el en es et fa ff fi fr fy ga gd gl gu ha he hi hr ht hu hy id "
    "ig ilo is it ja jv ka kk km kn ko lb lg ln lo lt lv mg mk ml mn mr ms my ne nl no ns oc or pa pl ps pt ro ru sd si "
    "sk sl so sq sr ss su sv sw ta th tl tn tr uk ur uz vi wo xh yi yo zh zu".split()
)
"""The codes of M2M100, which are those of ISO 639 but for `ns`."""
MBART = {
    code.partition("_")[0]: code
    for code in (
        "ar_AR cs_CZ de_DE en_XX es_XX et_EE fi_FI fr_XX gu_IN hi_IN it_IT ja_XX kk_KZ ko_KR lt_LT lv_LV my_MM ne_NP nl_XX ro_RO "
        "ru_RU si_LK tr_TR vi_VN zh_CN af_ZA az_AZ bn_IN fa_IR he_IL hr_HR id_ID ka_GE km_KH mk_MK ml_IN mn_MN mr_IN pl_PL ps_AF "
        "pt_XX sv_SE sw_KE ta_IN te_IN th_TH tl_XX uk_UA ur_PK xh_ZA gl_ES sl_SI"
    ).split()
}
"""ISO 639 code to that of mBART-50."""
NLLB = {
    "ar": "arb_Arab", "bg": "bul_Cyrl", "bn": "ben_Beng", "ca": "cat_Latn", "cs": "ces_Latn", "da": "dan_Latn", "de": "deu_Latn",
    "el": "ell_Grek", "en": "eng_Latn", "es": "spa_Latn", "et": "est_Latn", "fa": "pes_Arab", "fi": "fin_Latn", "fr": "fra_Latn",
    "he": "heb_Hebr", "hi": "hin_Deva", "hr": "hrv_Latn", "hu": "hun_Latn", "hy": "hye_Armn", "id": "ind_Latn", "is": "isl_Latn",
    "it": "ita_Latn", "ja": "jpn_Jpan", "ka": "kat_Geor", "km": "khm_Khmr", "ko": "kor_Hang", "lo": "lao_Laoo", "lt": "lit_Latn",
    "lv": "lvs_Latn", "mk": "mkd_Cyrl", "ml": "mal_Mlym", "ms": "zsm_Latn", "my": "mya_Mymr", "ne": "npi_Deva", "nl": "nld_Latn",
    "no": "nob_Latn", "pl": "pol_Latn", "pt": "por_Latn", "ro": "ron_Latn", "ru": "rus_Cyrl", "si": "sin_Sinh", "sk": "slk_Latn",
    "sl": "slv_Latn", "sq": "als_Latn", "sr": "srp_Cyrl", "sv": "swe_Latn", "sw": "swh_Latn", "ta": "tam_Taml", "th": "tha_Thai",
    "tl": "tgl_Latn", "tr": "tur_Latn", "uk": "ukr_Cyrl", "ur": "urd_Arab", "vi": "vie_Latn", "zh": "zho_Hans",
}  # fmt: skip
"""ISO 639 code to that of NLLB, for the languages that are asked for most."""

_NLLB_FORM = re.compile(r"[a-z]{3}_[A-Z][a-z]{3}")
_MBART_FORM = re.compile(r"[a-z]{2}[-_][A-Z]{2}")

_PLAIN = {written: code for table in (MBART, NLLB) for code, written in table.items()}
"""The code of a family to that of ISO 639."""

SCRIPTS = {
    "HANGUL": "ko", "HIRAGANA": "ja", "KATAKANA": "ja", "CJK": "zh", "THAI": "th", "LAO": "lo", "KHMER": "km", "MYANMAR": "my",
    "HEBREW": "he", "GREEK": "el", "GEORGIAN": "ka", "ARMENIAN": "hy", "ETHIOPIC": "am", "TAMIL": "ta", "TELUGU": "te",
    "KANNADA": "kn", "MALAYALAM": "ml", "SINHALA": "si", "BENGALI": "bn", "GUJARATI": "gu", "GURMUKHI": "pa", "ORIYA": "or",
    "DEVANAGARI": "hi", "ARABIC": "ar", "CYRILLIC": "ru", "LATIN": "en",
}  # fmt: skip
"""Script, the first word of its characters' Unicode names, to the most common language that is written with it."""
SHARED_SCRIPTS = frozenset({"DEVANAGARI", "ARABIC", "CYRILLIC", "LATIN", "CJK", "ETHIOPIC"})
"""Scripts of several widespread languages."""
WORDS = {
    "en": "the of and to is in that it you for was with this not are",
    "de": "der die und das nicht ist ein ich zu den mit es sich auf eine",
    "fr": "le la les de et est des que un une pas pour dans il vous",
    "es": "el los que de la en es un por una no con para las se",
    "it": "il che di non la un per una sono con del si della gli",
    "pt": "o que de não um uma os para com do da se em por as",
    "nl": "de het een en van ik niet dat is je zijn op te voor met",
    "sv": "och att det är jag en som inte på för har med av den till",
    "pl": "nie się na to jest że do w jak z co i ale tak za",
    "tr": "bir bu ve ne için çok da de ama o var değil mi gibi daha",
    "ro": "nu este de şi să în la un că o cu pe ce mai din",
    "id": "yang dan di ini itu tidak untuk dengan dari saya akan ada ke",
    "vi": "không là có và của tôi một được cho người này trong các",
    "fi": "on ja ei se että hän oli mutta en olen tämä kun niin mitä",
    "cs": "je se že na to v a ne si jsem co ale jako za tak",
}
"""Frequent words of languages that share the Latin script."""
FEW_WORDS = 3
"""So many different ones must occur for a guess."""


def spell(code: str, *, family: str) -> str | None:
    """A code as a family writes it; None for a language that it has no code for in the tables.

    A code in the family's own form stays, for the user may know one that is not in the tables. Others are ISO 639, or in the form
    of another family.
    """
    if (family, True) in (("nllb", bool(_NLLB_FORM.fullmatch(code))), ("mbart", bool(_MBART_FORM.fullmatch(code)))):
        return code
    plain = _PLAIN.get(code) or (code[:2] if _MBART_FORM.fullmatch(code) else code)
    tables = {"nllb": NLLB, "mbart": MBART}
    if family in tables:
        return tables[family].get(plain)
    if family == "m2m100":
        return plain if plain in M2M100 else None
    return plain


def is_code(text: str) -> bool:
    """Whether a text is the code of a language in one of the families' forms."""
    has_region = _MBART_FORM.fullmatch(text) is not None and text[:2] in M2M100
    return text in M2M100 or _NLLB_FORM.fullmatch(text) is not None or has_region


def family_that_spells(codes: Iterable[str]) -> str | None:
    """`m2m100`, `nllb` or `mbart`: the family that has all these codes; None if none has."""
    codes = list(codes)
    if all(code in M2M100 for code in codes):
        return "m2m100"
    if all(_NLLB_FORM.fullmatch(code) for code in codes):
        return "nllb"
    return "mbart" if all(code in MBART.values() for code in codes) else None


def guess_language(texts: Iterable[str]) -> tuple[str, str] | None:
    """(ISO 639 code, the evidence) of the language that most of the texts are in; None without any letter."""
    texts = list(texts)
    scripts = Counter(script for text in texts for char in text[:500] if (script := script_of(char)) is not None)
    if not scripts:
        return None
    total = scripts.total()
    if (scripts["HIRAGANA"] + scripts["KATAKANA"]) > 0.1 * total:
        return "ja", "kana"
    script, most = scripts.most_common(1)[0]
    # a few Latin names stand in texts of every language, but hardly a letter of theirs in one in Latin script
    others = [(other, number) for other, number in scripts.most_common() if other != "LATIN" and number > 0.2 * total]
    if script == "LATIN" and others:
        script, most = others[0]
    evidence = f"{100 * most // total} % of the letters are {script.title()}"
    if script != "LATIN":
        return SCRIPTS[script], evidence + (
            ", which other languages are written with too" if script in SHARED_SCRIPTS else ""
        )
    return _by_words(texts, evidence=evidence)


def script_of(char: str) -> str | None:
    """The script of a letter, as a key of SCRIPTS; None for other characters."""
    if not char.isalpha():
        return None
    if char.isascii():
        return "LATIN"
    name = unicodedata.name(char, "").partition(" ")[0]
    return name if name in SCRIPTS else None


def language_pair(name: str) -> tuple[str, str] | None:
    """The two languages that a name speaks of, such as `ko-en-m2m` or `opus-mt-de-en`; None if it does not."""
    parts = [part for part in re.split(r"[^a-z]+", name.lower()) if part not in ("to", "mt", "opus")]
    known = [part if part in M2M100 and len(part) == 2 else None for part in parts]
    pairs = [
        (first, second)
        for first, second in pairwise(known)
        if first is not None and second is not None and first != second
    ]
    return pairs[0] if len(pairs) == 1 else None


def _by_words(texts: Sequence[str], *, evidence: str) -> tuple[str, str]:
    words = Counter(word for text in texts for word in re.findall(r"[^\W\d_]+", text[:500].lower()))
    shares = {code: sum(words[word] for word in frequent.split()) for code, frequent in WORDS.items()}
    code = max(shares, key=lambda each: shares[each])
    seen = sorted((word for word in WORDS[code].split() if words[word]), key=lambda word: -words[word])
    if len(seen) < FEW_WORDS:  # one word, such as `a`, is frequent in several languages
        return "en", f"{evidence}, and hardly a frequent word of a language in the table occurs"
    return code, f"frequent words such as {', '.join(seen[:3])}"
