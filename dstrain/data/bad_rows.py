"""Rows that cannot be used as they are: what the recipe's rules do with them, and the list of them all.

Knows nothing of where rows come from or what is wrong with them.
"""

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from dstrain.errors import UserError

Reason = Literal["empty", "undecodable", "unpointable", "too_long", "unknown_token"]
Action = Literal["skip", "truncate", "keep"]

MAX_SHOWN = 200
"""Characters of a row's text in an error message."""

WAYS_OUT: dict[Reason, str] = {
    "empty": "fill the row, or set data.rules.empty=skip",
    "undecodable": "correct the row, or set data.rules.undecodable=skip",
    "unpointable": "correct the row, set data.rules.unpointable=skip, or take task.form=plain",
    "too_long": "raise task.max_source_tokens or max_target_tokens, or set data.rules.too_long to skip or truncate",
    "unknown_token": "take a tokenizer that covers the text, or set data.rules.unknown_token to skip or keep",
}


class UnusableRowError(UserError):
    """A row that the recipe's rules do not let pass."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that was not used as it is: `file:line`, why, its text, and what was done."""

    where: str
    reason: Reason
    text: str
    action: Action


OnBad = Callable[[BadRow], None]


def apply_rule(
    rule: Literal["error"] | Action, *, where: str, reason: Reason, problem: str, text: str, on_bad: OnBad
) -> None:
    """Report the row to on_bad, or raise UnusableRowError where the rule is `error`."""
    if rule == "error":
        shown = text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
        raise UnusableRowError(
            f"{where}: {problem}; found {shown!r}. data.rules.{reason} is `error`: {WAYS_OUT[reason]}"
        )
    on_bad(BadRow(where=where, reason=reason, text=text, action=rule))


class BadRowLog:
    """Counts bad rows and keeps the list of them on disk, because it may be as long as the data."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[Reason, Action]] = Counter()
        # Half a surrogate pair in a bad row must not stop its being listed: JSON reads the backslash form.
        self._file = tempfile.TemporaryFile("w+", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115

    def __call__(self, row: BadRow) -> None:
        """Take up one row."""
        self.counts[row.reason, row.action] += 1
        self._file.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")

    def count(self, action: Action) -> dict[str, int]:
        """Number of rows for each reason that ended in action."""
        return {reason: number for (reason, done), number in sorted(self.counts.items()) if done == action}

    def save(self, path: Path) -> None:
        """Write the list to path, one JSON object a line."""
        self._file.seek(0)
        with path.open("w", encoding="utf-8") as file:
            shutil.copyfileobj(self._file, file)
        self._file.seek(0, 2)
