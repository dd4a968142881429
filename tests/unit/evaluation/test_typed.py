"""The published pointer form: the score on utterances as typed, beside those on sources that the references cut."""

from pathlib import Path
from typing import Any

import pytest

from dstrain.data.tokens import TokenSet
from dstrain.evaluation.generate import Batch, BatchResult, Hypothesis
from dstrain.evaluation.result import EvaluationResult
from dstrain.evaluation.typed import plan_typed_batches
from tests.unit.evaluation.test_families import Case, build_case

ROWS = [
    ("please call Ann", "[IN:CALL [SL:WHO Ann ] ]"),
    ("call Ann at 7pm", "[IN:CALL [SL:WHO Ann ] [SL:TIME 7 pm ] ]"),
    ("Ann messaged me", "[IN:READ [SL:WHO me ] ]"),
    ("hello", "[IN:GREET ]"),
]
CUT_ROWS = [1, 2]
CUT_SOURCES = ["please call Ann", "call Ann at 7 pm", "Ann me ssaged me", "hello"]
TYPED_ANSWERS = {1: "[IN:CALL [SL:WHO <pt-1> ] [SL:TIME <pt-3> ] ]", 2: "[IN:READ [SL:WHO <pt-2> ] ]"}
"""What the model of these tests says of the sources as typed: wrong, since `7pm` is one token, and right."""


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    task = {"kind": "parsing", "form": "pointer", "segmentation": "published", "source_prefix": "parse: "}
    return build_case(tmp_path_factory.mktemp("typed"), family="t5", rows=ROWS, task=task)


def score(
    case: Case, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> tuple[EvaluationResult, list[tuple[str, int]]]:
    """The result for a model that is right about every source that the references cut, and what it has read."""
    read: list[tuple[str, int]] = []

    def answer(batch: Batch, *, tokens: TokenSet, loss: Any, **arguments: Any) -> BatchResult:
        hypotheses = []
        for row in batch.rows:
            read.append((tokens.examples[row].source, row))
            ids = tokens.target(row).tolist()
            if tokens is case.tokens.typed:
                assert loss is None
                (ids,) = case.tokenizer.encode([], [TYPED_ANSWERS[row]], source_language=None, target_language=None)[1]
            hypotheses.append(Hypothesis(row, tuple(ids), len(ids), was_cut=False))
        return BatchResult(batch.index, None if loss is None else 1.0, 10, tuple(hypotheses))

    monkeypatch.setattr("dstrain.evaluation.evaluate.evaluate_batch", answer)
    return case.evaluate(**options), read


@pytest.mark.parametrize("world_size", [1, 2])
def test_rows_that_the_references_cut_are_searched_once_more_as_typed(
    case: Case, monkeypatch: pytest.MonkeyPatch, world_size: int
) -> None:
    result, read = score(case, monkeypatch, world_size=world_size)
    as_typed = [(f"parse: {ROWS[row][0]}", row) for row in CUT_ROWS]
    assert sorted(read) == sorted([*((f"parse: {source}", row) for row, source in enumerate(CUT_SOURCES)), *as_typed])
    scores = result.scores
    assert (scores.num_rows, scores.scores["exact_match"], scores.scores["exact_match_parse"]) == (4, 1.0, 1.0)
    assert scores.scores["exact_match_typed"] == 0.75
    (warning,) = scores.warnings
    assert warning.startswith("task.segmentation `published` cut 2 of 4 evaluation sources at the words of their ref")


def test_the_token_set_counts_the_rows_that_the_references_cut(case: Case) -> None:
    assert case.tokens.cut_rows == CUT_ROWS
    assert case.tokens.report["cut_by_reference"] == len(CUT_ROWS)
    assert case.tokens.typed is not None
    assert [example.source for example in case.tokens.typed.examples] == [f"parse: {source}" for source, _ in ROWS]
    assert [example.target for example in case.tokens.typed.examples] == [
        example.target for example in case.tokens.examples
    ]


def test_only_rows_that_are_scored_are_searched_again(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = case.config.evaluation.model_copy(update={"max_rows": 2})
    result, read = score(case, monkeypatch, config=case.config.model_copy(update={"evaluation": evaluation}))
    assert sorted(row for _, row in read) == [0, 1, 1]
    assert result.scores.scores["exact_match_typed"] == 0.5
    assert any("cut 1 of 2 evaluation sources" in warning for warning in result.scores.warnings)


def test_batches_of_sources_as_typed_are_numbered_on_from_the_others(case: Case) -> None:
    batches = [Batch(0, (0, 1), None), Batch(1, (2,), None)]
    typed = plan_typed_batches(batches, tokens=case.tokens, batch_size=1, max_tokens=100)
    assert [(batch.index, sorted(batch.rows)) for batch in typed] == [(2, [1]), (3, [2])]


def test_other_segmentations_are_searched_once(tmp_path: Path) -> None:
    task = {"kind": "parsing", "form": "pointer", "segmentation": "words"}
    tokens = build_case(tmp_path, family="t5", rows=ROWS, task=task).tokens
    assert tokens.typed is None
    assert "cut_by_reference" not in tokens.report
    assert plan_typed_batches([Batch(0, (0, 1, 2, 3), None)], tokens=tokens, batch_size=4, max_tokens=100) == []
