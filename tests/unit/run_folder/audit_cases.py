"""An audit of a few rows, to be changed by tests."""

from collections.abc import Mapping
from typing import Any

from dstrain.run_folder.audit import Audit, Found, Lengths, Losses, Overlap, SetAudit, Shared, SourceAudit, Twins

LENGTHS = Lengths(
    shortest=2,
    mean=8.5,
    median=8,
    percentile_90=12,
    percentile_99=18,
    longest=31,
    histogram=((2, 10), (8, 9_000), (32, 990)),
    longest_rows=((31, "train.tsv:4183"), (30, "train.tsv:7")),
)


def set_audit(place: str, rows: int, *, checks: Mapping[str, int] | None = None, equal: int = 0) -> SetAudit:
    """The audit of a set with one data source; `checks` are numbers of rows by check."""
    found = {name: Found(number, (f"{place}:3",) if number else ()) for name, number in (checks or {}).items()}
    source = SourceAudit(place, rows, LENGTHS, LENGTHS, {"Hangul > Latin": rows}, found)
    twins = Twins(equal, ((f"{place}:9", f"{place}:2"),) if equal else ())
    return SetAudit(rows, (source,), equal=twins, normalised=twins)


def build_audit(
    *, checks: Mapping[str, int] | None = None, equal: int = 0, pairs: int = 0, sources: int | None = None
) -> Audit:
    """An audit of 10,000 training and 1,000 evaluation rows, of which `pairs` and `sources` are in training."""
    held = pairs if sources is None else sources

    def shared(number: int) -> Shared:
        return Shared(number, number, (("eval.tsv:4", "train.tsv:5"),) if number else ())

    ways: dict[str, Any] = {
        f"{level} {view}": shared(number)
        for level in ("equal", "normalised")
        for view, number in (("source", held), ("target", 300), ("pair", pairs))
    }
    overlap = Overlap(1000, "of training", "of evaluation", ways, tuple(range(held)))
    sets = (set_audit("train.tsv", 10_000, checks=checks, equal=equal), set_audit("eval.tsv", 1000))
    return Audit(*sets, overlap, {"train": Losses({"too_long": 2}, source_cut=4, target_unknown=0.25)})
