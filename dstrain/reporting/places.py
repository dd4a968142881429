"""Short names for the files of a run's data: the end of each path, as much as distinguishes it from the others. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping

from dstrain.run_folder.audit import Audit


def name_places(audit: Audit) -> dict[str, str]:
    """The data sources of an audit, as they stand before the colon of `file:line`, to their short names."""
    return shorten_places(source.place for rows in (audit.train, audit.eval) for source in rows.sources)


def shorten_places(places: Iterable[str]) -> dict[str, str]:
    """Paths to the shortest ends of them that are distinct: `a/train.tsv` and `b/train.tsv` keep their folder."""
    parts = {place: place.split("/") for place in places}
    short = {place: each[-1] for place, each in parts.items()}
    for kept in range(2, 1 + max(map(len, parts.values()), default=0)):
        often = Counter(short.values())
        short = {place: "/".join(parts[place][-kept:]) if often[name] > 1 else name for place, name in short.items()}
    return short


def shorten_row(where: str, names: Mapping[str, str]) -> str:
    """`file:line` with the short name of the file; as it is if the file has none."""
    place, colon, line = where.rpartition(":")
    return f"{names.get(place, place)}{colon}{line}"
