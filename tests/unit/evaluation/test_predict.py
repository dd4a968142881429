"""Predictions of a small real model: the hypotheses of an evaluation, with scores where they are wanted."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from dstrain.config.evaluation import Evaluation
from dstrain.config.recipe import Task
from dstrain.data.vocabulary import WHOLE
from dstrain.errors import OutOfMemory, UserError
from dstrain.evaluation.generate import evaluation_mode
from dstrain.evaluation.predict import Candidate, Found, Search, Source, cut_source, encode_sources, read_text
from tests.unit.evaluation.evaluation_cases import (
    END,
    LANGUAGES,
    WordTokenizer,
    build_config,
    build_model,
    build_tokens,
    run_evaluation,
)

ROWS = build_tokens(["en", "ko", "en", "zh", "ko", "en", "en", "ko", "zh"])
SOURCES = [Source(ids, example.target_language) for ids, example in zip(ROWS.sources, ROWS.examples, strict=True)]


def build_search(**changes: Any) -> Search:
    tokenizer: Any = WordTokenizer()
    search = Search(
        model=build_model("m2m100"),
        tokenizer=tokenizer,
        vocabulary=WHOLE,
        evaluation=Evaluation(batch_size=4, num_beams=3),
        max_new_tokens=12,
        batch_tokens=4096,
        num_best=None,
        device=torch.device("cpu"),
    )
    return replace(search, **changes)


def predict(search: Search) -> list[Found]:
    found = []
    for batch in search.plan(SOURCES):
        generation = search.generation(batch.target_language)
        with evaluation_mode(search.model, loss_module=search.model):
            found += search.predict(batch, sources=SOURCES, generation=generation)
    return sorted(found, key=lambda each: each.row)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_predictions_are_the_hypotheses_of_an_evaluation_of_these_rows(num_beams: int) -> None:
    search = build_search(evaluation=Evaluation(batch_size=4, num_beams=num_beams))
    config = build_config(num_beams=num_beams, max_new_tokens=12, loss=False)
    expected = run_evaluation(search.model, ROWS, config=config).texts.hypotheses
    found = predict(search)
    task = Task(kind="translation")
    texts = [
        read_text(
            row.candidates[0], source="", where="x:1", task=task, keeps_pointers=False, decode=search.tokenizer.decode
        )
        for row in found
    ]
    assert texts == expected
    assert len(set(texts)) > 5, "the model says the same of every row: the comparison shows nothing"
    assert [row.candidates[0].token_ids[0] for row in found] == [
        LANGUAGES[source.target_language or ""] for source in SOURCES
    ]
    assert all(row.candidates[0].score is None and len(row.candidates) == 1 for row in found)
    assert [row.candidates[0].was_cut for row in found] == [row.candidates[0].token_ids[-1] != END for row in found]


def test_the_best_of_several_is_the_one_that_is_predicted_alone() -> None:
    alone, several = predict(build_search()), predict(build_search(num_best=3))
    for one, row in zip(alone, several, strict=True):
        assert one.candidates[0].token_ids == row.candidates[0].token_ids
        assert len({candidate.token_ids for candidate in row.candidates}) == 3
        scores = [candidate.score for candidate in row.candidates if candidate.score is not None]
        assert len(scores) == 3
        assert scores == sorted(scores, reverse=True)


def test_a_hypothesis_that_the_search_does_not_have_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    search = build_search(num_best=2)
    sequences = torch.full((4, 2, 3), END)
    scores = torch.tensor([[-0.5, -1.0e9], [-0.5, -torch.inf], [-0.5, -0.6], [-0.1, -2e9]])
    monkeypatch.setattr("dstrain.evaluation.predict.generate_best", lambda *_, **__: (sequences, scores))
    (batch,) = [each for each in search.plan(SOURCES) if len(each.rows) == 4][:1]
    found = search.predict(batch, sources=SOURCES, generation=search.generation("en"))
    assert [len(row.candidates) for row in found] == [1, 1, 2, 1]


def test_memory_that_runs_out_names_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("dstrain.evaluation.predict.generate", fail)
    with pytest.raises(OutOfMemory, match=r"a batch of 4 rows with 3 beams .* Lower --batch-tokens \(now 4096\)"):
        predict(build_search())


def test_texts_are_encoded_with_the_languages_of_their_rows_in_order() -> None:
    class Recorder:
        def encode(self, sources: list[str], targets: list[str], **languages: Any) -> tuple[list[list[int]], list[Any]]:
            assert targets == []
            return [[len(source), len(languages["source_language"] or "")] for source in sources], []

    tokenizer: Any = Recorder()
    pairs: Any = [("ko", "en"), (None, "en"), ("ko", "en"), ("kor_Hang", "en")]
    found = encode_sources(["a", "bb", "ccc", "dddd"], languages=pairs, tokenizer=tokenizer)
    assert found == [[1, 2], [2, 0], [3, 2], [4, 8]]


def test_a_limit_without_room_for_special_tokens_is_named_by_its_key() -> None:
    class Narrow:
        def truncate(self, ids: list[int], *, max_tokens: int) -> list[int]:
            raise UserError(f"a limit of {max_tokens} tokens leaves no room")

    tokenizer: Any = Narrow()
    with pytest.raises(UserError, match=r"task.max_source_tokens: a limit of 1 tokens leaves no room"):
        cut_source([4, 5], task=Task(kind="translation", max_source_tokens=1), tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("task", "decoded", "expected"),
    [
        (Task(kind="translation"), "two\nlines\u2028here ", "two lines here"),
        (Task(kind="translation"), "[IN:A<pt-0>]", "[IN:A<pt-0>]"),
        (Task(kind="parsing"), "[IN:A[SL:B<pt-1><pt-join><pt-2>]]", "[IN:A [SL:B 5pm ] ]"),
        (Task(kind="parsing"), "[IN:A<pt-9>]", "[IN:A <pt-9> ]"),
        (Task(kind="parsing", form="plain"), "[IN:A x]", "[IN:A x ]"),
    ],
)
def test_a_text_is_one_line_and_words_are_put_back_in_the_pointer_form(task: Task, decoded: str, expected: str) -> None:
    candidate = Candidate((4, END), was_cut=False, score=None)
    given: dict[str, Any] = {"source": "at 5 pm", "where": "x:1", "task": task, "decode": lambda ids: decoded}
    assert read_text(candidate, keeps_pointers=False, **given) == expected
    if task.has_pointers:
        assert "<pt-" in read_text(candidate, keeps_pointers=True, **given)


def test_batches_are_those_of_an_evaluation_with_as_many_tokens() -> None:
    search = build_search(evaluation=Evaluation(num_beams=2), batch_tokens=64)
    batches = search.plan(SOURCES)
    assert sorted(row for batch in batches for row in batch.rows) == [*range(len(SOURCES))]
    assert max(len(batch.rows) for batch in batches) == 2  # 64 tokens, 2 beams, rows of at least 16
    lengths = np.array([len(SOURCES[row].ids) for row in batches[0].rows])
    assert list(lengths) == sorted(lengths, reverse=True)
