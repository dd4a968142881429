"""Looks at every row while it is in memory, as it is tokenised: lengths, scripts, copies, control characters, numbers.

Counts only, batch by batch in numpy, because it must cost little beside tokenising. What is unusual follows from the counts of
all rows, at the end. Knows nothing of files.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dstrain.data.characters import CONTROL, DIGIT, SCRIPTS, count_kinds, count_letters, main_scripts
from dstrain.data.encoding import Encoded
from dstrain.data.identity import Identities
from dstrain.data.tally import NUM_SHOWN, Array, Tally
from dstrain.run_folder.audit import NUM_LISTED, Direction, Found, Lengths, SourceAudit
from dstrain.tasks.language_scripts import scripts_of

MIN_COPIED_LETTERS = 20
"""Shorter texts, such as names, are often the same on both sides."""

SMOOTHING = 10
"""Characters added to both sides, so that the ratio of short rows is no surprise."""

STEPS_OF_RATIO = 4
"""Steps in which ratios are counted, for a factor of two."""

MOST_OCTAVES = 3
"""The ratio of a row is extreme if it is 2 to this power times that of the middle row, or as small a part of it."""

NUMBER = re.compile(r"\d[\d.,]{0,30}\d")
"""Numbers of two digits or more: smaller ones are often words on the other side."""

MARKS = ("copied", "source_control", "target_control", "numbers")
"""What is true of a row whatever the others are."""

SCRIPT_SHARE = 0.5
"""A script is that of a side if at least so many of the rows with a clear one have it."""


Meant = tuple[str | None, str | None, str]
"""The languages of source and target, and the prefix: rows in which they are the same mean the same direction."""


def _listing() -> Tally:
    return Tally(most=NUM_LISTED)


@dataclass(slots=True)
class _Source:
    """Counts of one data source."""

    place: str = ""
    lengths: tuple[Tally, Tally] = field(default_factory=lambda: (Tally(), Tally()))
    ratios: Tally = field(default_factory=_listing)
    """By the logarithm of target characters to source characters, in steps."""
    marks: Tally = field(default_factory=_listing)
    """By the place in MARKS."""
    scripts: dict[Meant, Tally] = field(default_factory=dict)
    """For each direction: by len(SCRIPTS) × script of the source + script of the target."""

    @property
    def tallies(self) -> tuple[Tally, ...]:
        return (*self.lengths, self.ratios, self.marks)


@dataclass(slots=True)
class RowAudit:
    """What is known of the rows of each data source."""

    sources: dict[int, _Source] = field(default_factory=dict)

    def add(self, rows: Sequence[Encoded], identities: Identities) -> None:
        """Look at some rows."""
        if not rows:
            return
        kinds = [count_kinds(texts) for texts in zip(*map(_texts, rows), strict=True)]
        lengths = np.array(
            [(len(row.source_ids) + row.source_lost, len(row.target_ids) + row.target_lost) for row in rows]
        )
        scripts = main_scripts(kinds[0]) * len(SCRIPTS) + main_scripts(kinds[1])
        characters = [side.sum(axis=1) + SMOOTHING for side in kinds]
        ratios = np.rint(np.log2(characters[1] / characters[0]) * STEPS_OF_RATIO).astype(np.int64)
        marks = {
            "copied": (identities["source"] == identities["target"]) & (count_letters(kinds[0]) >= MIN_COPIED_LETTERS),
            "source_control": kinds[0][:, CONTROL] > 0,
            "target_control": kinds[1][:, CONTROL] > 0,
            "numbers": _have_other_numbers(rows, where=(kinds[0][:, DIGIT] > 1) & (kinds[1][:, DIGIT] > 1)),
        }
        lines = identities["line"]
        directions = _by_direction(rows)
        of_sources = np.empty(len(rows), dtype=np.int64)
        for (number, *_), places in directions.items():
            of_sources[places] = number
        for number in dict.fromkeys(of_sources.tolist()):
            mine = of_sources == number
            first = rows[int(mine.argmax())].example
            source = self.sources.setdefault(number, _Source(first.where.rpartition(":")[0]))
            for tally, numbers in zip(source.tallies, (*lengths.T, ratios), strict=False):
                tally.add(numbers[mine], lines[mine])
            for place, name in enumerate(MARKS):
                marked = lines[mine & marks[name]]
                source.marks.add(np.full(len(marked), place), marked)
        for (number, *languages, prefix), places in directions.items():
            tally = self.sources[number].scripts.setdefault((languages[0], languages[1], prefix), _listing())
            tally.add(scripts[places], lines[places])

    def join(self, later: "RowAudit") -> None:
        """Add rows that come after these."""
        for number, source in later.sources.items():
            known = self.sources.setdefault(number, _Source(source.place))
            for tally, other in zip(known.tallies, source.tallies, strict=True):
                tally.join(other)
            for meant, scripts in source.scripts.items():
                known.scripts.setdefault(meant, _listing()).join(scripts)

    def as_json(self) -> list[Any]:
        """The counts for a file, as `from_json` reads them."""
        return [
            [
                number,
                source.place,
                [[*meant, tally.as_json()] for meant, tally in source.scripts.items()],
                *(tally.as_json() for tally in source.tallies),
            ]
            for number, source in sorted(self.sources.items())
        ]

    @classmethod
    def from_json(cls, values: Iterable[Any]) -> "RowAudit":
        """The counts that `as_json` has given."""
        found = {}
        for number, place, directions, source, target, *tallies in values:
            ratios, marks = (Tally.from_json(each, most=NUM_LISTED) for each in tallies)
            scripts = {tuple(meant): Tally.from_json(each, most=NUM_LISTED) for *meant, each in directions}
            lengths = (Tally.from_json(source), Tally.from_json(target))
            found[number] = _Source(place, lengths, ratios, marks, scripts)
        return cls(found)

    def place(self, number: int) -> str:
        """What stands before the colon of the `file:line` of a data source."""
        return self.sources[number].place

    def report(self, more: Mapping[int, Mapping[str, Found]], *, tags: Mapping[int, str]) -> Iterator[SourceAudit]:
        """The audit of each data source, in order; `more` has checks that were made elsewhere, `tags` what sources begin with."""
        for number, source in sorted(self.sources.items()):
            place = source.place
            directions = tuple(Direction(*meant, _scripts([tally])) for meant, tally in source.scripts.items())
            scripts = _scripts(source.scripts.values())
            checks = dict(more.get(number, {}))
            checks |= _other_scripts(source.scripts, place=place)
            for index, name in enumerate(MARKS):
                checks[name] = _found(source.marks, [index], place=place)
            checks["length_ratio"] = _extreme(source.ratios, place=place)
            lengths = [_lengths(tally, place=place) for tally in source.lengths]
            rows = sum(scripts.values())
            yield SourceAudit(place, rows, lengths[0], lengths[1], scripts, checks, directions, tags.get(number, ""))


def _texts(row: Encoded) -> tuple[str, str]:
    return row.example.raw_source, row.example.raw_target


def _have_other_numbers(rows: Sequence[Encoded], *, where: Array) -> Array:
    """Rows `[rows]` of which either side has a number that the other lacks, among those at `where` `[rows]`."""
    found = np.zeros(len(rows), dtype=np.bool_)
    for index in np.flatnonzero(where).tolist():
        written = [NUMBER.findall(text) for text in _texts(rows[index])]
        if written[0] != written[1]:  # mostly they are the same, and nothing more is to be done
            source, target = map(_numbers, _texts(rows[index]))
            found[index] = bool(source - target) and bool(target - source)
    return found


def _numbers(text: str) -> set[str]:
    """The digits of the numbers in a text, without the marks between them."""
    digits = unicodedata.normalize("NFKC", text)
    found = (match.translate({ord("."): None, ord(","): None}) for match in NUMBER.findall(digits))
    return {str(int(number)) for number in found}


def _found(tally: Tally, numbers: Iterable[int], *, place: str) -> Found:
    count, lines = tally.among(numbers)
    return Found(count, tuple(f"{place}:{line}" for line in lines))


def _by_direction(rows: Sequence[Encoded]) -> dict[tuple[int, str | None, str | None, str], Array]:
    """The places of rows by the number of their data source and their direction."""
    meant = [
        (each.data_source, each.source_language, each.target_language, each.source_prefix)
        for each in (row.example for row in rows)
    ]
    if meant.count(meant[0]) == len(meant):  # mostly
        return {meant[0]: np.arange(len(meant))}
    found: dict[tuple[int, str | None, str | None, str], list[int]] = {}
    for place, each in enumerate(meant):
        found.setdefault(each, []).append(place)
    return {each: np.array(places) for each, places in found.items()}


def _scripts(tallies: Iterable[Tally]) -> dict[str, int]:
    """Rows by the names of both scripts, the most frequent first."""
    named: Counter[str] = Counter()
    for tally in tallies:
        for number, count in tally.counts.items():
            source, target = divmod(number, len(SCRIPTS))
            named[f"{SCRIPTS[source] or 'mixed'} > {SCRIPTS[target] or 'mixed'}"] += count
    return dict(named.most_common())


def _other_scripts(directions: Mapping[Meant, Tally], *, place: str) -> dict[str, Found]:
    """Rows whose source or target is clearly of another script than its language, or than most of its side."""
    sides: tuple[Callable[[int], int], ...] = (lambda cell: cell // len(SCRIPTS), lambda cell: cell % len(SCRIPTS))
    found = {}
    for side, (name, script_of) in enumerate(zip(("source", "target"), sides, strict=True)):
        parts = []
        for meant, tally in directions.items():
            right = _right_scripts(tally, script_of=script_of, language=meant[side])
            others = [cell for cell in tally.counts if right and script_of(cell) and script_of(cell) not in right]
            parts.append(tally.among(others))
        lines = sorted(line for _, listed in parts for line in listed)[:NUM_LISTED]
        number = sum(count for count, _ in parts)
        found[f"{name}_script"] = Found(number, tuple(f"{place}:{line}" for line in lines))
    return found


def _right_scripts(tally: Tally, *, script_of: Callable[[int], int], language: str | None) -> set[int]:
    """The scripts that are no mistake on a side; empty if that is unknown: several may be meant."""
    clear: Counter[int] = Counter()
    for cell, count in tally.counts.items():
        if script_of(cell):
            clear[script_of(cell)] += count
    of_language = {SCRIPTS.index(script) for script in scripts_of(language)}
    main, number = clear.most_common(1)[0] if clear else (0, 0)
    is_main = number >= SCRIPT_SHARE * clear.total() > 0 and (main in of_language or not of_language)
    return {main} if is_main else of_language


def _extreme(tally: Tally, *, place: str) -> Found:
    (middle,) = tally.percentiles([0.5])
    most = MOST_OCTAVES * STEPS_OF_RATIO
    return _found(tally, [number for number in tally.counts if abs(number - middle) > most], place=place)


def _lengths(tally: Tally, *, place: str) -> Lengths:
    median, most, nearly_all = tally.percentiles([0.5, 0.9, 0.99])
    rows = sum(tally.counts.values())
    histogram: Counter[int] = Counter()
    for length, count in tally.counts.items():
        histogram[1 << max(0, length - 1).bit_length()] += count
    longest = [
        (length, f"{place}:{line}")
        for length in sorted(tally.counts, reverse=True)[:NUM_SHOWN]
        for line in tally.lines[length]
    ]
    return Lengths(
        shortest=min(tally.counts),
        mean=sum(length * count for length, count in tally.counts.items()) / rows,
        median=median,
        percentile_90=most,
        percentile_99=nearly_all,
        longest=max(tally.counts),
        histogram=tuple(sorted(histogram.items())),
        longest_rows=tuple(longest[:NUM_SHOWN]),
    )
