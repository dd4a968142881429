"""The scores of each direction of translation beside those of all rows, which mix target languages. Pure: of a record."""

import re

from dstrain.reporting.markdown import Markdown, code, join, phrase
from dstrain.reporting.metadata import label, pairs_of
from dstrain.reporting.results import MORE_SCORES, headline_row, number_of_group
from dstrain.run_folder.record import RunRecord
from dstrain.run_folder.rows import EvalRow
from dstrain.tasks.pairs import distinct_languages

SHOWN_SCORES = ("bleu", *(name for name in MORE_SCORES if name in ("chrf", "ter")))
MOST_DIRECTIONS = 12


def explain_pair_scores(record: RunRecord) -> list[Markdown]:
    """Sentences: that the headline mixes target languages, and the scores of each direction; none where there is one target."""
    row = headline_row(record)
    pairs = distinct_languages(pairs_of(record))
    if row is None or record.config.task.kind != "translation" or len({pair.target for pair in pairs}) < 2:
        return []
    names = _directions(record, row)
    if len(names) < 2:
        return []
    listed = [phrase("{}: {}", code(name), _scores(row, name)) for name in names[:MOST_DIRECTIONS]]
    template = (
        "The scores of all rows mix target languages, whose words BLEU cuts in different ways, and are not comparable with those "
        "of one language. By direction, each with its own tokenizer: {}{}."
    )
    more = ", and more in the table of groups" if len(names) > MOST_DIRECTIONS else ""
    return [phrase(template, join(listed, separator="; "), more)]


def _directions(record: RunRecord, row: EvalRow) -> list[str]:
    """The groups of the language pairs; the named evaluation sets where these stand for them."""
    pairs = [f"{pair.source}-{pair.target}" for pair in distinct_languages(pairs_of(record))]
    found = [name for pair in pairs for name in (f"{pair} (group)", pair) if name in row.groups]
    # a set whose rows are one pair has no second group
    sets = [name for name in record.config.data.eval_sets if name in row.groups and name not in found]
    return found if len(found) == len(pairs) else [*sets, *found]


def _scores(row: EvalRow, name: str) -> str:
    shown = []
    for metric in SHOWN_SCORES:
        if metric in row.groups[name]:
            signature = row.signatures.get(f"{metric} ({name})", row.signatures.get(metric, ""))
            tokenizer = re.search(r"(?:^|\|)(tok:[^|]+)", signature)
            by = f" ({tokenizer[1]})" if tokenizer else ""
            shown.append(f"{label(metric)} {number_of_group(row, name, metric)}{by}")
    return ", ".join(shown)
