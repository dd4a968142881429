"""In which scripts languages are written, by the codes of M2M100 (`ko`), mBART (`ko_KR`) and NLLB (`kor_Hang`).

Scripts have the names that `data/characters.py` gives them. A language that is not here is unknown, and
nothing is said of its texts.
"""

from collections.abc import Mapping

_OF_SUFFIX: Mapping[str, str] = {
    "Latn": "Latin",
    "Grek": "Greek",
    "Cyrl": "Cyrillic",
    "Armn": "Armenian",
    "Hebr": "Hebrew",
    "Arab": "Arabic",
    "Deva": "Devanagari",
    "Beng": "Bengali",
    "Guru": "Gurmukhi",
    "Gujr": "Gujarati",
    "Orya": "Odia",
    "Taml": "Tamil",
    "Telu": "Telugu",
    "Knda": "Kannada",
    "Mlym": "Malayalam",
    "Sinh": "Sinhala",
    "Thai": "Thai",
    "Laoo": "Lao",
    "Tibt": "Tibetan",
    "Mymr": "Myanmar",
    "Geor": "Georgian",
    "Hang": "Hangul",
    "Ethi": "Ethiopic",
    "Khmr": "Khmer",
    "Jpan": "Han or Kana",
    "Hans": "Han or Kana",
    "Hant": "Han or Kana",
}
"""The script's code of ISO 15924, which stands in NLLB's codes, to its name."""

_WRITTEN_IN: Mapping[str, str] = {
    "Latin": "af ast az br bs ca ceb cs cy da de en es et eu ff fi fil fr fy ga gd gl ha hr ht hu id ig ilo is it jv lb lg ln "
    "lt lv mg ms mt nb nl nn no ns oc pl pt ro rw sk sl so sq sr ss su sv sw tl tn tr uz vi wo xh yo zu",
    "Greek": "el",
    "Cyrillic": "az ba be bg bs kk ky mk mn ru sr tg tt uk uz",
    "Armenian": "hy",
    "Hebrew": "he iw yi",
    "Arabic": "ar az fa kk ps sd ug ur",
    "Devanagari": "hi mr ne sd",
    "Bengali": "as bn",
    "Gurmukhi": "pa",
    "Gujarati": "gu",
    "Odia": "or",
    "Tamil": "ta",
    "Telugu": "te",
    "Kannada": "kn",
    "Malayalam": "ml",
    "Sinhala": "si",
    "Thai": "th",
    "Lao": "lo",
    "Myanmar": "my",
    "Georgian": "ka",
    "Hangul": "ko",
    "Ethiopic": "am ti",
    "Khmer": "km",
    "Mongolian": "mn",
    "Han or Kana": "ja zh",
}
"""A script to the languages that are written in it; some have several."""


def scripts_of(language: str | None) -> frozenset[str]:
    """The scripts in which a language is written, by its code; empty if that is unknown or no language is given."""
    name, _, suffix = (language or "").strip("_").replace("-", "_").partition("_")
    if suffix in _OF_SUFFIX:
        return frozenset({_OF_SUFFIX[suffix]})
    if suffix and not (len(suffix) == 2 and suffix.isupper()):
        return frozenset()  # another script, as in `zh_Latn_pinyin`, or no code at all
    return frozenset(script for script, languages in _WRITTEN_IN.items() if name in languages.split())
