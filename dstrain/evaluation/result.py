"""Rows with their hypotheses to the result of an evaluation: scores over all rows, by set and by group, how sure they are, and
how the model fails. Knows no model and writes nothing."""

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from dstrain.config.metrics import is_of_set, set_metric
from dstrain.config.schema import RunConfig
from dstrain.errors import UserError
from dstrain.evaluation.metrics import Score, one_line
from dstrain.evaluation.output_rates import OutputRates, Texts, find_rates
from dstrain.evaluation.scoring import ScoredRow, group_rows, score_rows
from dstrain.evaluation.significance import find_intervals
from dstrain.evaluation.text_metrics import reference_columns
from dstrain.run_folder.row_statistics import Statistics
from dstrain.run_folder.scores import ScoredTexts, Scores

MOST_GROUPS = 20
"""Groups whose scores get intervals: each takes as long as 1,000 scores of its rows."""


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """Scores, and the texts they were computed from."""

    scores: Scores
    texts: ScoredTexts
    failures: tuple[UserError, ...] = ()
    """Why metrics of the user's own have no score."""


def build_result(
    rows: Sequence[ScoredRow],
    *,
    loss: float | None,
    loss_signature: str | None,
    config: RunConfig,
    generation: dict[str, Any],
    warnings: Sequence[str],
    held: Set[int] = frozenset(),
) -> EvaluationResult:
    """Scores of these rows: all, by set and group, with a signature where it is another, and without those `held` in training."""
    failures: dict[str, UserError] = {}

    def score_these(rows: Sequence[ScoredRow]) -> list[Score]:
        found = score_rows(rows, task=config.task, evaluation=config.evaluation)
        failures.update((str(each.failure), each.failure) for each in found if each.failure is not None)
        return [each for each in found if not math.isnan(each.value)]

    overall, grouped = score_these(rows), group_rows(rows, held=held)
    scored = {name: {each.name: each for each in score_these(members)} for name, members in grouped.items()}
    signatures = {} if loss is None or loss_signature is None else {"loss": loss_signature}
    signatures |= _signatures(overall, groups=scored)
    sets = dict.fromkeys(row.example.eval_set for row in rows if row.example.eval_set is not None)
    found = {each.name: each for each in overall} | {
        set_metric(name, each.name): each
        for name in sets
        for each in scored[name].values()
        if each.name in config.choosing
    }
    statistics = _statistics(found)
    outputs = _find_rates(rows, config=config)
    return EvaluationResult(
        Scores(
            scores=({} if loss is None else {"loss": loss}) | {name: each.value for name, each in found.items()},
            groups={
                name: {each.name: each.value for each in scores.values()} | {"num_rows": len(grouped[name])}
                for name, scores in scored.items()
            },
            signatures=signatures | outputs.signatures,
            generation=generation,
            num_rows=len(rows),
            warnings=(*warnings, *outputs.warnings, *failures),
            intervals=find_intervals(statistics),
            group_intervals={name: find_intervals(_statistics(scored[name])) for name in list(scored)[:MOST_GROUPS]},
            outputs=outputs.rates,
        ),
        ScoredTexts(
            hypotheses=[row.text for row in rows],
            references=reference_columns([row.references for row in rows]),
            sources=[one_line(row.example.raw_source) for row in rows],
            index=[one_line(row.example.where) for row in rows],
            statistics=_by_row(statistics, rows=rows),
            groups=_groups_of(rows, grouped=grouped),
        ),
        tuple(failures.values()),
    )


def _signatures(overall: Sequence[Score], *, groups: Mapping[str, Mapping[str, Score]]) -> dict[str, str]:
    """Signatures by score; that of a group (`bleu (flores)`) where it differs."""
    found = {each.name: each.signature for each in overall if each.signature}
    for name, scores in groups.items():
        for each in scores.values():
            if each.signature and each.signature != found.get(each.name):
                found[f"{each.name} ({name})"] = each.signature
    return found


def _statistics(scores: Mapping[str, Score]) -> Statistics:
    """What each row adds to each score, for the scores that are computed from rows."""
    return {name: each.rows for name, each in scores.items() if each.rows is not None}


def _find_rates(rows: Sequence[ScoredRow], *, config: RunConfig) -> OutputRates:
    examples = [row.example for row in rows]
    texts = Texts(
        hypotheses=[row.text for row in rows],
        references=[row.reference for row in rows],
        sources=[each.raw_source for each in examples],
        languages=[each.target_language for each in examples],
        other_languages=[*dict.fromkeys(each.source_language for each in examples if each.source_language)],
        has_script=config.task.kind != "parsing",
    )
    return find_rates(texts)


def _groups_of(rows: Sequence[ScoredRow], *, grouped: Mapping[str, Sequence[ScoredRow]]) -> list[list[str]]:
    """The names of the groups of each row; empty if there are no groups."""
    if not grouped:
        return []
    found: dict[int, list[str]] = {id(row): [] for row in rows}
    for name, members in grouped.items():
        for row in members:
            found[id(row)].append(name)
    return list(found.values())


def _by_row(statistics: Statistics, *, rows: Sequence[ScoredRow]) -> list[Mapping[str, Sequence[float]]]:
    """The numbers of each row by score; a row outside an evaluation set has none of the set's scores."""
    found: list[dict[str, Sequence[float]]] = [{} for _ in rows]
    for metric, numbers in statistics.items():
        name = metric.rpartition("/")[0]
        members = [place for place, row in enumerate(rows) if not is_of_set(metric) or row.example.eval_set == name]
        for place, of_row in zip(members, numbers, strict=True):
            found[place][metric] = of_row
    return [*found]
