"""Characters of scripts that put no spaces between words, as parts of a class of `regex`. Knows no text."""

CHINESE = r"\p{Han}\p{Bopomofo}"
KANA = r"\p{Hiragana}\p{Katakana}"
UNSPACED = "".join(
    rf"\p{{Script={script}}}"
    for script in "Thai Lao Khmer Myanmar Tibetan Yi Tai_Le New_Tai_Lue Tai_Tham Tai_Viet Javanese Balinese".split()
)
"""Neither Chinese nor Japanese."""
WITHOUT_SPACES = f"{CHINESE}{KANA}{UNSPACED}"
"""All of them."""
