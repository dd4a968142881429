"""Which columns hold the source and the target of a row, by their names and by what is in them. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dstrain.data.peek import Peek
from dstrain.data.records import Column
from dstrain.draft.languages import M2M100, is_code
from dstrain.errors import UserError

SOURCES = (
    "source", "src", "source_text", "input", "inputs", "input_text", "text", "document", "article", "dialogue", "question",
    "utterance", "query", "prompt", "sentence", "original", "incorrect", "x",
)  # fmt: skip
TARGETS = (
    "target", "tgt", "target_text", "output", "outputs", "output_text", "summary", "highlights", "answer", "parse",
    "logical_form", "decoupled_logical_form", "response", "completion", "reference", "corrected", "correct", "translation",
    "label", "y",
)  # fmt: skip
"""Names of columns in small letters, the surest first."""
LANGUAGES = (
    "arabic", "bengali", "chinese", "czech", "danish", "dutch", "english", "finnish", "french", "german", "greek", "hebrew",
    "hindi", "hungarian", "indonesian", "italian", "japanese", "korean", "norwegian", "persian", "polish", "portuguese",
    "romanian", "russian", "spanish", "swahili", "swedish", "thai", "turkish", "ukrainian", "urdu", "vietnamese",
)  # fmt: skip
SOURCE_WORDS = frozenset("from source src input".split())
TARGET_WORDS = frozenset("to target tgt trg output".split())
"""Words in the names of columns of languages."""
_WORDS = frozenset(
    {*SOURCES, *TARGETS, *SOURCE_WORDS, *TARGET_WORDS, *LANGUAGES, "id", "idx", "index", "lang", "language"}
)
"""Words that stand in a header; a row of texts has hardly one of them as a cell."""
MIN_KINDS = 2
MOST_SHOWN = 4
"""Most cells of a first row that are shown."""
_NAME = re.compile(r"[^\W\d]\w*(?:[.\- ]\w+){0,2}")
MOST_NAME = 40
"""Characters of the longest name of a column."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of the source and the target, as a data source names them, and why these."""

    source: Column
    target: Column
    why: str
    source_language: Column | None = None
    """The column with the language of each source, if there is one."""
    target_language: Column | None = None
    codes: frozenset[str] = frozenset()
    """The codes in both of these columns."""
    first_row: str = ""
    """A sentence about whether the first row is a header, where that is not plain."""
    unused: tuple[Column, ...] = ()
    """Columns that hold text, and of which nothing is made."""


def choose_columns(
    peek: Peek, *, place: str, pair: tuple[str | None, str | None] = (None, None), hint: str = ""
) -> Columns:
    """The columns of a file or dataset; `pair` are the language codes that the user has named.

    Raises UserError if fewer than two columns hold text, with `hint` in its message.
    """
    header, rows = _split_header(peek)
    names: list[Column] = list(header or peek.columns)
    texts = [number for number in range(len(peek.columns)) if _holds_text(rows, number)]
    if len(texts) < 2:
        found = ", ".join(f"`{names[number]}`" for number in texts) or "none"
        raise UserError(
            f"{place}: a row needs a source and a target, and of {len(names)} columns these hold text: {found}{hint}; name both "
            "with --source-column and --target-column, or the file of the other side as a further FILE"
        )
    of_languages = _language_columns(rows, names=names, texts=texts)
    source, target, why = _by_name(names, texts=[each for each in texts if each not in of_languages], pair=pair)
    kind = "the header names" if header else "the fields are" if isinstance(names[0], str) else "no header; columns are"
    shown = ", ".join(f"`{name}`" for name in names[:8]) + (" …" if len(names) > 8 else "")
    languages = [names[number] if number is not None else None for number in of_languages]
    used = {source, target, *of_languages}
    unused = tuple(name for number, name in enumerate(names) if number not in used)
    first_row = _on_first_row(peek, header=header)
    codes = frozenset(row[number] for row in rows for number in of_languages if number is not None and row[number])
    return Columns(
        names[source], names[target], f"{kind} {shown}: {why}", languages[0], languages[1], codes, first_row, unused
    )


def _split_header(peek: Peek) -> tuple[tuple[str, ...] | None, Sequence[tuple[Any, ...]]]:
    """The header of numbered columns, if the first row is one, and the other rows."""
    if isinstance(peek.columns[0], str):
        return None, peek.rows
    first, rows = peek.rows[0], peek.rows[1:]
    names = [str(cell).strip() for cell in first]
    if not _may_be_names(names):
        return None, peek.rows
    is_longer = _are_longer(rows)
    known = sum(bool(_WORDS & {*_words_of(name)}) for name in names if is_longer or " " not in name)
    codes = sum(is_code(name) for name in names)
    # one code alone may be a word of a text, such as `no`
    is_header = known + codes >= 2 or (known > 0 and _are_words(names) and is_longer)
    return (tuple(str(cell) for cell in first), rows) if is_header else (None, peek.rows)


def _on_first_row(peek: Peek, *, header: tuple[str, ...] | None) -> str:
    """What to say of a first row that may be a header or not."""
    if isinstance(peek.columns[0], str):
        return ""
    cells = [str(cell).strip() for cell in peek.rows[0]]
    shown = ", ".join(f"`{cell}`" for cell in cells[:MOST_SHOWN]) + (" …" if len(cells) > MOST_SHOWN else "")
    if header is not None:
        return f"the first row ({shown}) is its header, and no row"
    if _may_be_names(cells) and _are_words(cells) and _are_longer(peek.rows[1:]):
        return f"the first row ({shown}) counts as a row; if it is a header, name --source-column and --target-column"
    return ""


def _may_be_names(cells: Sequence[str]) -> bool:
    return len({*cells}) == len(cells) and all(len(cell) <= MOST_NAME and _NAME.fullmatch(cell) for cell in cells)


def _are_words(cells: Sequence[str]) -> bool:
    return not any(" " in cell for cell in cells)


def _words_of(name: str) -> list[str]:
    return re.split(r"[^a-z]+", name.lower())


def _are_longer(rows: Sequence[tuple[Any, ...]]) -> bool:
    """Whether most rows have a cell of several words, as texts and no names."""
    return sum(any(len(str(cell).split()) > 3 for cell in row) for row in rows) > 0.5 * len(rows)


def _holds_text(rows: Sequence[tuple[Any, ...]], number: int) -> bool:
    """Whether the cells of a column are texts with letters, not numbers, lists of numbers or empty."""
    cells = [row[number] for row in rows if row[number] is not None and row[number] != ""]
    texts = [cell if isinstance(cell, str) else cell[0] if isinstance(cell, list) and cell else None for cell in cells]
    with_letters = sum(isinstance(text, str) and any(map(str.isalpha, text)) for text in texts)
    return bool(cells) and with_letters > 0.5 * len(cells)


def _language_columns(
    rows: Sequence[tuple[Any, ...]], *, names: Sequence[Column], texts: Sequence[int]
) -> tuple[int, int] | tuple[None, None]:
    """The numbers of the columns with the languages of the source and of the target: two that hold codes alone.

    The names say which is which, and where they do not, the first is that of the source. At least two other columns must hold
    text.
    """
    found = [number for number in texts if _holds_codes(rows, number)]
    if len(found) != 2 or len(texts) < 4:
        return None, None
    first, second = found
    words = [{*_words_of(str(names[number]))} for number in found]
    is_swapped = bool(words[0] & TARGET_WORDS and words[1] & SOURCE_WORDS)
    return (second, first) if is_swapped else (first, second)


def _holds_codes(rows: Sequence[tuple[Any, ...]], number: int) -> bool:
    """Whether every cell of a column is the code of a language, of few kinds."""
    codes = [row[number] for row in rows if row[number] not in (None, "")]
    kinds = {*codes} if all(isinstance(code, str) for code in codes) else set()
    is_few = 0 < len(kinds) <= max(MIN_KINDS, len(codes) // 4)
    return is_few and all(map(is_code, kinds))


def _by_name(
    names: Sequence[Column], *, texts: Sequence[int], pair: tuple[str | None, str | None]
) -> tuple[int, int, str]:
    """The numbers of both columns, and why these."""
    last = {number: str(names[number]).rpartition(".")[2].lower() for number in texts}
    languages = [number for number in texts if isinstance(names[number], str) and _is_language(str(names[number]))]
    wanted = [next((each for each in languages if code and _speaks(last[each], code)), None) for code in pair]
    if wanted[0] is not None and wanted[1] is not None:
        return wanted[0], wanted[1], "those of the languages that were named"
    source = next((number for name in SOURCES for number in texts if last[number] == name), None)
    target = next((number for name in TARGETS for number in texts if last[number] == name and number != source), None)
    if source is not None and target is not None:
        return source, target, f"`{names[source]}` and `{names[target]}` are usual names"
    if len(languages) == 2:
        first, second = languages
        return first, second, "both are language codes, the first one taken for the source"
    if source is None and target is None:
        return texts[0], texts[1], "the first with text is the source, the next the target"
    other = next(number for number in texts if number not in (source, target))
    known = source if source is not None else target
    why = (
        f"`{names[known]}` is a usual name, and the other is the first with text beside it" if known is not None else ""
    )
    return (source, other, why) if source is not None else (other, target if target is not None else other, why)


def _is_language(name: str) -> bool:
    last = name.rpartition(".")[2]
    return is_code(last) or last.lower().partition("_")[0] in M2M100


def _speaks(name: str, code: str) -> bool:
    return name.partition("_")[0] == code.lower().partition("_")[0] or name == code.lower()
