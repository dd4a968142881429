"""Text for a terminal: aligned tables, times, and foreign text without control characters. Independent of runs."""

from collections.abc import Sequence
from datetime import UTC, datetime

UNKNOWN = "?"
MAX_LINES = 20
"""Most lines shown of a message; an error of a library may have hundreds."""
MAX_LINE = 2000
"""Most characters shown of a line."""


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """One line per row, columns as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def to_iso(seconds: float | None) -> str | None:
    """Seconds since 1970 as an ISO time in UTC; None if they are out of range."""
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return None


def from_iso(text: str) -> float | None:
    """An ISO time as seconds since 1970; None if the text is not one."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def moment(seconds: float | None) -> str:
    """Seconds since 1970 as `2026-11-23 10:00:00 UTC`."""
    text = to_iso(seconds)
    return UNKNOWN if text is None else f"{text[:10]} {text[11:19]} UTC"


def printable(text: str) -> str:
    """Foreign text without control characters: at most MAX_LINES lines of MAX_LINE characters."""
    lines = text.strip().splitlines()
    shown = ["".join(letter if letter.isprintable() else " " for letter in line[:MAX_LINE]) for line in lines]
    more = [f"… {len(lines) - MAX_LINES} more lines"] if len(lines) > MAX_LINES else []
    return "\n".join(shown[:MAX_LINES] + more)
