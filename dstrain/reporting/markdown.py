"""Text, numbers and tables as Markdown. Owns the escaping, so that no name is read as markup; independent of runs."""

import math
import re
from collections.abc import Iterable, Sequence

NOT_RECORDED = "not recorded"


class Markdown(str):
    """Text that is Markdown already; any other text is escaped before it enters the card."""

    __slots__ = ()


def render(value: object) -> Markdown:
    """`value` for use in a card: Markdown unchanged, anything else escaped."""
    return value if isinstance(value, Markdown) else plain(str(value))


def one_line(text: str) -> str:
    """`text` on one line: no line breaks, control characters or lone surrogates, white space collapsed."""
    encodable = text.encode("utf-8", "replace").decode("utf-8")
    return " ".join("".join(char if char.isprintable() else " " for char in encodable).split())


def plain(text: str) -> Markdown:
    """`text` as one line that a Markdown renderer shows literally. Underscores inside words need no escape."""
    escaped = re.sub(r"([\\`*\[\]|~$#])", r"\\\1", one_line(text).replace("&", "&amp;"))
    escaped = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", escaped)
    escaped = re.sub(r"^([-+=])(?=[-+=\s]|$)|^(\d+)(?=[.)]\s)", _escape_list_mark, escaped)
    return Markdown(escaped.replace("<", "&lt;").replace(">", "&gt;"))


def _escape_list_mark(match: re.Match[str]) -> str:
    return f"\\{match[1]}" if match[1] else f"{match[2]}\\"


def code(text: str) -> Markdown:
    """`text` as inline code, in backticks longer than any in it."""
    line = one_line(text) or " "
    fence = "`" * (_longest_run_of_backticks(line) + 1)
    padding = " " if line.startswith("`") or line.endswith("`") else ""
    return Markdown(f"{fence}{padding}{line}{padding}{fence}")


def code_block(text: str, *, language: str) -> Markdown:
    """`text` as a fenced block, in a fence longer than any run of backticks in it; all but what is drawn becomes a space."""
    lines = text.encode("utf-8", "replace").decode("utf-8").split("\n")
    shown = ("".join(char if char.isprintable() else " " for char in line) for line in lines)
    return program("\n".join(shown), language=language)


def program(text: str, *, language: str) -> Markdown:
    """`text` as a fenced block, as it is; foreign text in it must be quoted for that language already."""
    fence = "`" * max(3, _longest_run_of_backticks(text) + 1)
    return Markdown("\n".join([f"{fence}{language}", text, fence]))


def join(parts: Iterable[object], *, separator: str) -> Markdown:
    """The rendered parts with Markdown `separator` between them."""
    return Markdown(separator.join(render(part) for part in parts))


def phrase(template: str, *parts: object) -> Markdown:
    """`template`, Markdown with `{}` in it, filled with the rendered parts."""
    return Markdown(template.format(*(render(part) for part in parts)))


def table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> Markdown:
    """A centred table whose columns are as wide as their widest cell."""
    lines = [[_cell(value) for value in line] for line in [header, *rows]]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    ruled = [[f":{'-' * width}:" for width in widths]]
    texts = [[f" {cell:<{width}} " for cell, width in zip(line, widths, strict=True)] for line in lines]
    return Markdown("\n".join(f"|{'|'.join(line)}|" for line in [texts[0], *ruled, *texts[1:]]))


def number(value: float | None, *, decimals: int = 4) -> str:
    """`value` with fixed decimals, or in words if it is None, infinite or not a number."""
    if value is None:
        return NOT_RECORDED
    if math.isfinite(value):
        return f"{value:.{decimals}f}"
    return "not a number (NaN)" if math.isnan(value) else f"{'-' if value < 0 else ''}infinite"


def count(value: int | None) -> str:
    """`value` with a comma between thousands."""
    return NOT_RECORDED if value is None else f"{value:,}"


def things_were(number: int, things: str) -> str:
    """`1 training row was`, `1,200 training rows were`: the plural `things` with its verb."""
    return f"1 {things.removesuffix('s')} was" if number == 1 else f"{number:,} {things} were"


def percent(share: float) -> str:
    """A share of 1 in percent."""
    return f"{100 * share:.1f} %"


def _cell(value: object) -> str:
    # in GFM a pipe ends a cell even inside inline code; pipes of plain text are already escaped
    return re.sub(r"(?<!\\)((?:\\\\)*)\|", r"\1\\|", render(value))


def _longest_run_of_backticks(text: str) -> int:
    return max(map(len, re.findall(r"`+", text)), default=0)
