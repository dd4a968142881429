"""Whole data sources that go the wrong way: their sides are in other scripts than their languages, or than the same languages
elsewhere in the data. Pure.

Row by row nothing is unusual there, because all rows of such a source are alike. Only rows with the same languages, the same
prefix and the same mark in the text are compared: others may mean another direction.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dstrain.run_folder.audit import Audit, Direction
from dstrain.tasks.language_scripts import scripts_of

MAIN_SHARE = 0.8
"""A script is that of a side if so many of the texts have it of those that are clearly of one script."""

MIN_ROWS = 3
"""Texts that are clearly of the script of their side, below which nothing is said."""

NO_SCRIPT = "mixed"

Meant = tuple[str | None, str | None, str, str]
"""Languages of both sides, prefix, and mark in the text."""


@dataclass(frozen=True, slots=True)
class _Part:
    """The rows of a data source that mean the same direction."""

    place: str
    title: str
    """Such as `the training rows of train.tsv`."""
    is_training: bool
    rows: int
    meant: Meant
    scripts: tuple[str | None, str | None]
    """Of the sources and of the targets; None if it is not clear."""

    @property
    def languages(self) -> tuple[str | None, str | None]:
        return self.meant[:2]


def find_wrong_ways(audit: Audit, *, kind: str, names: Mapping[str, str]) -> list[tuple[str, str]]:
    """Place and a sentence for each source whose sides are in the wrong scripts.

    `kind` is that of the task; `names` are short names of the places.
    """
    if kind != "translation":
        return []
    parts = list(_parts(audit, names=names))
    against = [(part, _against_languages(part)) for part in parts]
    others = _against_others([part for part, said in against if said is None])
    return [*((part.place, said) for part, said in against if said is not None), *others]


def _parts(audit: Audit, *, names: Mapping[str, str]) -> Iterator[_Part]:
    for split, rows in (("training", audit.train), ("evaluation", audit.eval)):
        for source in rows.sources:
            for each in source.directions:
                languages = (each.source_language, each.target_language)
                named = (
                    f" from {languages[0]} to {languages[1]}" if len(source.directions) > 1 and any(languages) else ""
                )
                yield _Part(
                    source.place,
                    f"the {split} rows{named} of {names.get(source.place, source.place)}",
                    split == "training",
                    sum(each.scripts.values()),
                    (*languages, each.source_prefix, source.tag),
                    _main_scripts(each),
                )


def _main_scripts(direction: Direction) -> tuple[str | None, str | None]:
    sides: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    for pair, rows in direction.scripts.items():
        for side, script in zip(sides, pair.split(" > "), strict=True):
            if script != NO_SCRIPT:
                side[script] += rows
    source, target = map(_main_script, sides)
    return source, target


def _main_script(clear: Counter[str]) -> str | None:
    script, rows = clear.most_common(1)[0] if clear else (None, 0)
    return script if rows >= max(MIN_ROWS, MAIN_SHARE * clear.total()) else None


def _against_languages(part: _Part) -> str | None:
    """What is wrong with a part by the scripts in which its languages are written; None if nothing is."""
    wrong = []
    for side, language, script in zip(("sources", "targets"), part.languages, part.scripts, strict=True):
        written = scripts_of(language)
        if script is not None and written and script not in written:
            wrong.append(
                f"most {side} are in {script}, and their language {language} is written in {' or '.join(sorted(written))}"
            )
    if not wrong:
        return None
    way_out = "swap its columns, or correct the languages" if len(wrong) == 2 else "correct the rows or the language"
    return f"{part.title}: {'; '.join(wrong)}: {way_out}"


def _against_others(parts: list[_Part]) -> list[tuple[str, str]]:
    """Place and a sentence for each part whose sides are in the scripts of the other sides elsewhere."""
    alike: defaultdict[tuple[Meant, frozenset[str | None]], list[_Part]] = defaultdict(list)
    for part in parts:
        if None not in part.scripts and part.scripts[0] != part.scripts[1]:
            alike[part.meant, frozenset(part.scripts)].append(part)
    found = []
    for same in alike.values():
        # an evaluation set is wrong beside the training rows, and never the other way round
        known = [part for part in same if part.is_training] or same
        rows: Counter[tuple[str | None, str | None]] = Counter()
        for part in known:
            rows[part.scripts] += part.rows
        usual = rows.most_common(1)[0][0]
        beside = max((part for part in known if part.scripts == usual), key=lambda part: part.rows)
        found += [
            (
                part.place,
                f"the sides of {part.title} look swapped beside {beside.title}: {' > '.join(map(str, part.scripts))}, and "
                f"{' > '.join(map(str, usual))}: swap the columns of one, or give each its languages or prefix",
            )
            for part in same
            if part.scripts != usual
        ]
    return found
