"""By how much the best evaluations of runs differ, from the files that they left. No torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dstrain.errors import UserError
from dstrain.evaluation.significance import find_difference
from dstrain.reporting.differences import Against, ScoreDifference
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.row_statistics import Statistics, differing_rows, read_statistics
from dstrain.run_folder.rows import EvalRow
from dstrain.run_folder.scores import HYPOTHESES, reference_files


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A run as the command line names it, with its best evaluation."""

    run: str
    folder: RunFolder
    best: EvalRow | None


def compare_with_first(runs: Sequence[Evaluated]) -> list[Against]:
    """Every other run beside the first; where rows are others or files are missing, the reason.

    Two runs that both have no row statistics, as those of earlier versions, are left out.
    """
    first, *others = runs
    found = (_compare(first, second) for second in others)
    return [against for against in found if against is not None]


def _compare(first: Evaluated, second: Evaluated) -> Against | None:
    try:
        statistics = [_read(first), _read(second)]
        return _find_differences(first, second, statistics=statistics) if any(statistics) else None
    except UserError as error:
        return Against(first.run, second.run, refusal=str(error))
    except OSError as error:
        return Against(first.run, second.run, refusal=f"{error.filename}: {error.strerror}")


def _read(each: Evaluated) -> Statistics:
    return read_statistics(each.folder, step=each.best.step) if each.best else {}


def _find_differences(first: Evaluated, second: Evaluated, *, statistics: Sequence[Statistics]) -> Against:
    for each, of_run in zip((first, second), statistics, strict=True):
        if each.best is None:
            raise UserError(f"{each.run} has no evaluation yet")
        if not of_run:
            raise UserError(f"{each.run} has no row statistics of its best evaluation: score it again")
    assert first.best is not None
    assert second.best is not None
    num_rows = _check_rows(first.folder, first.best, second.folder, second.best)
    scores = first.best.scores, second.best.scores
    shared = [
        name
        for name in statistics[0]
        if name in statistics[1] and all(math.isfinite(each.get(name, math.nan)) for each in scores)
    ]
    alike = [name for name in shared if first.best.signature_of(name) == second.best.signature_of(name)]
    unlike = [name for name in shared if name not in alike]
    is_same = _has_same_hypotheses(first.folder.hypotheses(first.best.step), second.folder.hypotheses(second.best.step))
    differences = []
    for name in alike:
        rows = [each[name] for each in statistics]
        if len(rows[0]) != len(rows[1]):
            raise UserError(f"`{name}` was computed over {len(rows[0]):,} and {len(rows[1]):,} rows")
        found = find_difference(name, first=rows[0], second=rows[1])
        one, other = (each[name] for each in scores)
        p, test = (None, "the same hypotheses") if is_same and rows[0] == rows[1] else (found.p, found.test)
        differences.append(
            ScoreDifference(name, one, other, found.value, low=found.low, high=found.high, p=p, test=test)
        )
    left_out = f"not compared, because they were computed in different ways: {', '.join(unlike)}" if unlike else None
    return Against(first.run, second.run, num_rows, tuple(differences), left_out=left_out)


def _has_same_hypotheses(first: Path, second: Path) -> bool:
    files = [folder / HYPOTHESES for folder in (first, second)]
    return all(file.is_file() for file in files) and not differing_rows([files[0]], [files[1]])[1]


def _check_rows(first: RunFolder, best: EvalRow, second: RunFolder, other: EvalRow) -> int:
    """The number of rows; raises UserError if the references differ."""
    files = [reference_files(folder.hypotheses(row.step)) for folder, row in ((first, best), (second, other))]
    if len(files[0]) != len(files[1]):
        raise UserError(f"rows have {len(files[0])} and {len(files[1])} references")
    num_rows, differing = differing_rows(*files)
    if differing:
        raise UserError(
            f"{len(differing):,} of {num_rows:,} rows have other references, the first in line {differing[0]:,} of "
            f"{files[1][0].name}: score both on the same rows"
        )
    return num_rows
