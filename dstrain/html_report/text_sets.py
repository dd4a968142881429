"""The rows of a set with all that the run's evaluations made of them, in as much room as a report has for them.

Where that is too little, evaluations are thinned and rows are drawn, and a note says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dstrain.config.metrics import is_lower_better
from dstrain.config.schema import RunConfig
from dstrain.html_report.curves import OWN_SET, list_scores
from dstrain.html_report.document import Evaluation, Numbers, Rows, TextSet
from dstrain.html_report.files import UNREADABLE, Notes, RunFiles
from dstrain.html_report.privacy import shown_path
from dstrain.html_report.rarity import rarest, words_of
from dstrain.html_report.row_scores import choose_metric, row_score
from dstrain.html_report.texts import (
    EvaluatedRows,
    Key,
    count_bytes,
    has_texts,
    read_hypotheses,
    read_row_statistics,
    read_rows,
)
from dstrain.html_report.thinning import draw, spread
from dstrain.reporting.metadata import title
from dstrain.run_folder.audit import NOT_IN_TRAINING
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.row_statistics import Statistics
from dstrain.run_folder.rows import EvalRow
from dstrain.run_folder.scores import ScoreFile

MAX_EVALUATIONS = 20
"""Most evaluations of a set whose texts are in a report."""
MAX_ROWS = 5000
"""Most rows of a set in a report."""


@dataclass(frozen=True, slots=True)
class EvaluatedSet:
    """A set, the folder of its texts, and its evaluations that have texts, by step."""

    name: str
    folder: RunFolder
    scored: tuple[EvalRow | ScoreFile, ...]

    @property
    def num_bytes(self) -> int:
        """The size of its texts."""
        return count_bytes(self.folder, steps=[each.step for each in self.scored])


@dataclass(frozen=True, slots=True)
class _Columns:
    """What one evaluation made of the rows."""

    hypotheses: Sequence[str | None]
    places: Sequence[int | None]
    statistics: Statistics


def list_sets(files: RunFiles) -> list[EvaluatedSet]:
    """The run's own evaluation rows and its test sets, as far as they have texts; evaluations are thinned."""
    record = files.record
    best = record.best.step if record.best is not None else None
    found = [_thin(OWN_SET, files.folder, record.eval_rows, best_step=best)]
    for name, scores in record.test_sets.items():
        found.append(_thin(name, files.folder.test_set(name), scores, best_step=best))
    return [each for each in found if each.scored]


def _thin(
    name: str, folder: RunFolder, scored: Sequence[EvalRow | ScoreFile], *, best_step: int | None
) -> EvaluatedSet:
    present = [each for each in scored if has_texts(folder, step=each.step)]
    best = [place for place, each in enumerate(present) if each.step == best_step]
    places = spread(len(present), most=MAX_EVALUATIONS, keep=best)
    return EvaluatedSet(name, folder, tuple(present[place] for place in places))


def note_missing(files: RunFiles, sets: Sequence[EvaluatedSet]) -> Notes:
    """A sentence for each set whose evaluations are not all in `sets`, because there are too many or they have no texts."""
    shown = {each.name: len(each.scored) for each in sets}
    notes = []
    for name, scored in {OWN_SET: files.record.eval_rows, **files.record.test_sets}.items():
        number = shown.get(name, 0)
        if number < len(scored):
            is_thinned = number == MAX_EVALUATIONS
            which = "the first, the last, the best and some between" if is_thinned else "the others have none"
            notes.append(f"of {len(scored):,} evaluations of `{name}` the texts of {number} are shown: {which}")
    return Notes(others=tuple(notes))


def build_set(
    found: EvaluatedSet, *, config: RunConfig, counts: Mapping[str, int], max_bytes: int
) -> tuple[TextSet | None, Notes]:
    """The texts of a set in at most about `max_bytes`, before they are compressed; and notes.

    None if they cannot be read.

    Args:
        counts: how often words occur in the training targets; empty if that is not known.
    """
    try:
        rows = read_rows(found.folder, step=found.scored[-1].step)
    except UNREADABLE as error:
        return None, Notes(damage=(f"the texts of `{found.name}` are left out: {error}",))
    room = max(1, int(max_bytes * len(rows.keys) / max(1, found.num_bytes)))
    # by what a report shows of a place: the same data may lie elsewhere for another run
    names = [f"{shown_path(where)}\0{source}\0{number}" for where, source, number in rows.keys]
    chosen = draw(names, most=min(MAX_ROWS, room))
    notes = Notes()
    if len(chosen) < len(rows.keys):
        notes += Notes(
            others=(
                f"of the {len(rows.keys):,} rows of `{found.name}` {len(chosen):,} are shown, drawn by a hash; scores and "
                "intervals are of all rows",
            )
        )
    evaluations, columns = [], []
    for scored in found.scored:
        try:
            columns.append(_read_columns(found.folder, step=scored.step, keys=[rows.keys[row] for row in chosen]))
        except UNREADABLE as error:
            notes += Notes(damage=(f"the texts of step {scored.step:,} of `{found.name}` are left out: {error}",))
        else:
            evaluations.append(Evaluation(scored.step, f"step {scored.step:,}", list_scores(scored, config=config)))
    metric = choose_metric(config, known={name for each in columns for name in each.statistics})
    shown = metric or config.best_metric.rpartition("/")[2]
    return (
        TextSet(
            name=found.name,
            score_name=title(shown),
            score_higher_is_better=not is_lower_better(shown),
            rows=_describe_rows(rows, chosen=chosen, counts=counts),
            evaluations=evaluations,
            hypotheses=[[each.hypotheses[row] for each in columns] for row in range(len(chosen))],
            row_scores=_score_rows(columns, metric=metric, num_rows=len(chosen)),
            num_rows=len(rows.keys),
            is_sampled=len(chosen) < len(rows.keys),
        ),
        notes,
    )


def _read_columns(folder: RunFolder, *, step: int, keys: Sequence[Key]) -> _Columns:
    hypotheses, places, num_rows = read_hypotheses(folder, step=step, keys=keys)
    statistics = read_row_statistics(folder, step=step)
    # of a metric of one evaluation set the file does not say which rows its numbers belong to
    whole = {name: rows for name, rows in statistics.items() if len(rows) == num_rows}
    return _Columns(hypotheses, places, whole)


def _score_rows(columns: Sequence[_Columns], *, metric: str | None, num_rows: int) -> list[Numbers]:
    """The score of every row, by evaluation."""
    found = []
    for row in range(num_rows):
        scores: list[float | None] = []
        for each in columns:
            place, numbers = each.places[row], each.statistics.get(metric or "")
            scores.append(
                None if metric is None or place is None or numbers is None else row_score(metric, numbers[place])
            )
        found.append(scores)
    return [*found]


def _describe_rows(rows: EvaluatedRows, *, chosen: Sequence[int], counts: Mapping[str, int]) -> Rows:
    keys = [rows.keys[row] for row in chosen]
    references = [rows.references[row] for row in chosen]
    return Rows(
        id=[shown_path(where) for where, _, _ in keys],
        source=[source for _, source, _ in keys],
        reference=references,
        group=[_name_group(rows.groups[row]) for row in chosen],
        length=[len(words_of(texts[0])) for texts in references],
        rarity=[rarest(texts[0], counts=counts) if counts else None for texts in references],
    )


def _name_group(names: Sequence[str]) -> str | None:
    """The groups of a row as one; that of rows which are not in training goes across the others."""
    return " · ".join(name for name in names if name != NOT_IN_TRAINING) or None
