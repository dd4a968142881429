"""Whether an evaluation of a run is better than an earlier one beyond chance. Reads the row statistics of both from the run
folder, so that a run which was killed and started again decides as before."""

from dstrain.errors import UserError
from dstrain.evaluation.significance import find_difference
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.row_statistics import read_statistics


def is_tied(folder: RunFolder, *, metric: str, step: int, other: int) -> bool:
    """Whether the 95 % interval of the difference between the scores of two steps holds 0.

    Raises:
        UserError: the row statistics of a step are missing, damaged or of other rows.
        OSError: they cannot be read.
    """
    found = []
    for each in (other, step):
        rows = read_statistics(folder, step=each).get(metric)
        if rows is None:
            raise UserError(f"{folder.hypotheses(each)} has no row statistics of `{metric}`")
        found.append(rows)
    first, second = found
    if len(first) != len(second):
        raise UserError(f"{folder.hypotheses(step)} has {len(second)} rows, and step {other} {len(first)}")
    return find_difference(metric, first=first, second=second).is_tie
