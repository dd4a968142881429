"""Rows that cannot be used as they are: applies the recipe's rule (`data.rules`) to each, and keeps a list of all.

Does not decide what is wrong with a row, and knows nothing of where rows come from.
"""

import json
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from dstrain.errors import UserError
from dstrain.run_folder.audit import NUM_LISTED

Reason = Literal["empty", "undecodable", "unpointable", "too_long", "unknown_token", "overlap", "duplicate"]
Action = Literal["skip", "truncate", "keep"]

MAX_SHOWN = 200
"""Characters of a row's text in an error message."""

WAYS_OUT: dict[Reason, str] = {
    "empty": "fill the row, or set data.rules.empty=skip",
    "undecodable": "correct the row, or set data.rules.undecodable=skip",
    "unpointable": "correct the row, or set data.rules.unpointable=skip or task.form=plain",
    "too_long": "raise task.max_source_tokens or max_target_tokens, or set data.rules.too_long to skip or truncate",
    "unknown_token": "use a tokenizer that covers the text, or set data.rules.unknown_token to skip or keep",
    "overlap": "remove these rows from training or evaluation, or set data.rules.overlap to skip_train or keep",
    "duplicate": "remove the row, or set data.rules.duplicates=keep",
}
"""Reason to the ways out that the error message names."""


class UnusableRowError(UserError):
    """A bad row whose rule is `error`."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that was not used as it is: its `file:line`, the reason, its text, and the action taken."""

    where: str
    reason: Reason
    text: str
    action: Action
    data_source: int = 0
    """Number of its data source."""


Kind = tuple[Reason, Action, int]
"""Reason, action and number of the data source."""

OnBad = Callable[[BadRow], None]


def of_source(on_bad: OnBad, number: int) -> OnBad:
    """`on_bad` for the rows of one data source."""
    return lambda row: on_bad(replace(row, data_source=number))


def apply_rule(
    rule: Literal["error"] | Action, *, where: str, reason: Reason, problem: str, text: str, on_bad: OnBad
) -> None:
    """Report the row to on_bad, or raise UnusableRowError where the rule is `error`."""
    if rule == "error":
        shown = text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
        raise UnusableRowError(
            f"{where}: {problem}; found {_quote(shown)}. data.rules.{reason} is `error`: {WAYS_OUT[reason]}"
        )
    on_bad(BadRow(where=where, reason=reason, text=text, action=rule))


def _quote(text: str) -> str:
    # bytes that are no text are escapes by now, which are not escaped again
    return repr(text).replace("\\\\", "\\")


class BadRowLog:
    """Counts bad rows and lists them on disk, because the list may be as long as the data."""

    def __init__(self) -> None:
        self.counts: Counter[Kind] = Counter()
        self.places: defaultdict[Kind, list[str]] = defaultdict(list)
        """The first rows of each kind, as `file:line`."""
        # a lone surrogate cannot be encoded as UTF-8; written with a backslash it is still valid JSON
        self._file = tempfile.TemporaryFile("w+", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115

    def __call__(self, row: BadRow) -> None:
        """Count and list one row."""
        kind = (row.reason, row.action, row.data_source)
        self.counts[kind] += 1
        if self.counts[kind] <= NUM_LISTED:
            self.places[kind].append(row.where)
        listed = {name: value for name, value in asdict(row).items() if name != "data_source"}
        self._file.write(json.dumps(listed, ensure_ascii=False) + "\n")

    def join(self, counts: Iterable[tuple[Reason, Action, int, int, list[str]]], *, path: Path) -> None:
        """Add rows that another log has counted and placed, by reason, action and data source, and saved to path."""
        for reason, action, data_source, number, places in counts:
            kind = (reason, action, data_source)
            self.counts[kind] += number
            self.places[kind] = [*self.places[kind], *places][:NUM_LISTED]
        with path.open(encoding="utf-8", newline="\n") as file:
            shutil.copyfileobj(file, self._file)

    def count(self, action: Action, *, data_source: int | None = None) -> dict[str, int]:
        """Number of rows with this action, by reason; of one data source or of all."""
        found: Counter[str] = Counter()
        for (reason, done, source), number in sorted(self.counts.items()):
            if done == action and data_source in (None, source):
                found[reason] += number
        return dict(found)

    def listed(self) -> dict[str, list[str]]:
        """The first rows by action and reason, such as `skip empty`."""
        found: dict[str, list[str]] = {}
        for (reason, action, _), places in sorted(self.places.items(), key=lambda each: each[0][2]):
            name = f"{action} {reason}"
            found[name] = [*found.get(name, []), *places][:NUM_LISTED]
        return found

    def save(self, path: Path) -> None:
        """Write the list to path, one JSON object per line."""
        self._file.seek(0)
        with path.open("w", encoding="utf-8") as file:
            shutil.copyfileobj(self._file, file)
        self._file.seek(0, 2)
