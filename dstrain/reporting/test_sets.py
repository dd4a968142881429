"""Other test sets on the card: their scores, and for each row what one must know to compare it with another.

Pure functions of a RunRecord; independent of the card's layout.
"""

import json
from collections.abc import Iterator

from dstrain.reporting.markdown import Markdown, code, count, join, phrase, table
from dstrain.reporting.metadata import label
from dstrain.reporting.results import by_reason, headline_row, number_with_interval, order_scores
from dstrain.run_folder.layout import NAMES
from dstrain.run_folder.record import RunRecord
from dstrain.run_folder.scores import ScoreFile, Scores

SEARCH = ("num_beams", "length_penalty")
"""Generation settings in which the scoring of another test set may differ from the evaluations of the run."""
NONE = Markdown("-")
"""In cells of scores that were not computed for a test set, such as those of its parts."""


def build_test_sets_table(record: RunRecord) -> Markdown | None:
    """One row per test set and step; None if no other test set was scored."""
    rows = list(_rows(record))
    if not rows:
        return None
    present = {metric for _, found in rows for metric in found.scores}
    metrics = ["loss", *order_scores(present - {"loss"}, config=record.config)]
    header = [
        "Test set",
        "Data",
        "Step",
        "Rows",
        *map(label, metrics),
        "Search",
        "Unlike the run",
        "Signatures",
        "Hypotheses",
    ]
    lines = [
        [
            name,
            join(map(code, found.data.places if found.data else ()), separator=", "),
            str(found.step),
            _count_rows(found),
            *(number_with_interval(found, metric) if metric in found.scores else NONE for metric in metrics),
            join([code(f"{key}={found.generation[key]}") for key in SEARCH if key in found.generation], separator=", "),
            _changes(found),
            join(
                [phrase("{} {}", label(metric), code(text)) for metric, text in _signatures(found).items()],
                separator=", ",
            ),
            code(f"{NAMES.test_set(name).path}/{found.hypotheses}"),
        ]
        for name, found in rows
    ]
    return table(header, lines)


def explain_test_sets(record: RunRecord) -> list[Markdown]:
    """Sentences under the table: which scores cannot be compared, and the warnings of each evaluation."""
    row = headline_row(record)
    sentences = []
    for metric in ("bleu", "chrf"):
        all_scores: list[Scores] = [*([row] if row else []), *(found for _, found in _rows(record))]
        signatures = {scores.signatures[metric] for scores in all_scores if metric in scores.signatures}
        if len(signatures) > 1:
            template = (
                "**{} was computed in {} ways over the run's evaluation rows and these test sets: compare only scores with "
                "the same signature.**"
            )
            sentences.append(phrase(template, label(metric), str(len(signatures))))
    for name, found in _rows(record):
        sentences += [phrase("{} at step {}: {}.", name, count(found.step), warning) for warning in found.warnings]
    return sentences


def _rows(record: RunRecord) -> Iterator[tuple[str, ScoreFile]]:
    return ((name, scores) for name, found in record.test_sets.items() for scores in found)


def _signatures(found: ScoreFile) -> dict[str, str]:
    """Those of the scores over all rows."""
    return {metric: text for metric, text in found.signatures.items() if metric in found.scores}


def _changes(found: ScoreFile) -> Markdown:
    """The keys whose values are not those of the run's own evaluations."""
    changes = found.data.changes if found.data else None
    if changes is None:
        return Markdown("not recorded")
    shown = [code(f"{key}={value if isinstance(value, str) else json.dumps(value)}") for key, value in changes.items()]
    return join(shown, separator=", ") if shown else Markdown("nothing but the rows")


def _count_rows(found: ScoreFile) -> str:
    """Rows scored, and those that were read but not scored, or cut."""
    if found.num_rows is None:
        return ""
    data = found.data
    if data is None or (data.rows_read in (None, found.num_rows) and not data.truncated):
        return count(found.num_rows)
    reasons = [by_reason(data.skipped)] if data.skipped else []
    reasons += [f"{count(data.truncated)} truncated"] if data.truncated else []
    left_out = f" ({', '.join(reasons)})" if reasons else ""
    return f"{count(found.num_rows)} of {count(data.rows_read)}{left_out}"
