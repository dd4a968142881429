"""What an evaluation returns beside its scores: numbers of each row that give the scores again, intervals, and failing texts."""

from dataclasses import replace
from typing import Any

import pytest

from dstrain.config.metrics import has_rows
from dstrain.config.schema import RunConfig
from dstrain.evaluation.generate import Hypothesis
from dstrain.evaluation.result import EvaluationResult, build_result
from dstrain.evaluation.scoring import read_rows
from dstrain.evaluation.significance import find_intervals
from dstrain.run_folder.scores import OutputRate
from tests.unit.evaluation.evaluation_cases import Tokens, WordTokenizer, build_config, build_tokens


def build(tokens: Tokens, *, config: RunConfig | None = None, **changes: list[int]) -> EvaluationResult:
    """The references as hypotheses, of which every third lacks its last word and `empty` rows lack all."""
    given: dict[str, Any] = {"tokens": tokens, "tokenizer": WordTokenizer()}
    config = config or build_config(metrics=["bleu", "chrf", "ter", "exact_match"])
    hypotheses = []
    for row in range(tokens.num_rows):
        ids = tokens.target(row).tolist()
        kept = ids[:1] if row in changes.get("empty", []) else ids[:-2] if row % 3 == 0 else ids
        hypotheses.append(Hypothesis(row, tuple(kept), len(kept), False))
    rows = read_rows(hypotheses, task=config.task, **given)
    return build_result(rows, loss=1.5, loss_signature=None, config=config, generation={}, warnings=["said before"])


def test_the_numbers_of_the_rows_give_every_score_but_those_of_the_table_without_rows() -> None:
    result = build(build_tokens(["en"] * 30))
    columns: dict[str, list[tuple[float, ...]]] = {}
    for row in result.texts.statistics:
        for metric, numbers in row.items():
            columns.setdefault(metric, []).append(tuple(numbers))
    scores = result.scores.scores
    assert set(columns) == {metric for metric in scores if has_rows(metric)} == set(result.scores.intervals)
    assert {metric for metric in scores if not has_rows(metric)} == {"loss", "gen_len", "hit_cap_rate"}
    assert scores["exact_match"] == sum(number for (number,) in columns["exact_match"]) / 30
    edits, length = (sum(column) for column in zip(*columns["ter"], strict=True))
    assert scores["ter"] == pytest.approx(100 * edits / length)
    assert result.scores.intervals == find_intervals(columns)


def test_a_set_has_numbers_of_its_rows_and_an_interval_of_its_own() -> None:
    tokens = build_tokens(["en"] * 12)
    tokens.examples = [
        replace(example, group=None, eval_set="news" if row % 2 else None)
        for row, example in enumerate(tokens.examples)
    ]
    result = build(tokens)
    assert [("news/bleu" in row) for row in result.texts.statistics] == [bool(row % 2) for row in range(12)]
    assert {"news/bleu", "bleu"} <= set(result.scores.intervals)
    assert result.texts.groups == [["news"] if row % 2 else [] for row in range(12)]
    odd = [row["bleu"] for row in result.texts.statistics[1::2]]
    assert result.scores.intervals["news/bleu"] == find_intervals({"bleu": odd})["bleu"]


def test_failing_hypotheses_are_counted_beside_the_references_and_warned_about() -> None:
    result = build(build_tokens(["en"] * 30), empty=list(range(8)))
    assert result.scores.outputs["empty"] == OutputRate(8 / 30, 0.0)
    assert result.scores.outputs["copy"] == OutputRate(0.0, 0.0)
    (before, warning) = result.scores.warnings
    assert before == "said before"
    assert warning.startswith("8 of 30 hypotheses are empty, and of the references 0; the first is in row 1")


def test_a_metric_of_ones_own_has_an_interval_only_if_it_returns_a_number_for_each_row(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows_or_not.py").write_text(
        "def each(hypotheses, references, sources):\n    return [float(len(text)) for text in hypotheses]\n"
        "def whole(hypotheses, references, sources):\n    return 3.5\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = build_config(metrics=["rows_or_not:each", "rows_or_not:whole"])
    result = build(build_tokens(["en"] * 9), config=config)
    assert set(result.scores.intervals) == {"each"}
    assert result.scores.scores["whole"] == 3.5
