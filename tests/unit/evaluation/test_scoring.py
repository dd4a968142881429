"""Rows with their hypotheses: which texts and tokens are compared, how rows are grouped, and what a result warns about."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from dstrain.config.recipe import Task
from dstrain.evaluation.generate import Cap, Hypothesis
from dstrain.evaluation.scoring import ScoredRow, find_warnings, group_rows, read_rows, score_rows
from tests.unit.evaluation.evaluation_cases import END, LANGUAGES, UNKNOWN, Tokens, WordTokenizer, build_tokens

TRANSLATION = Task(kind="translation")
PLAIN_PARSING = Task(kind="parsing", form="plain")
CAP = Cap(60, "test")


def answer(tokens: Tokens, *, num_cut: int = 0) -> list[Hypothesis]:
    """The references as hypotheses, of which the first `num_cut` were cut."""
    targets = [tuple(tokens.target(row).tolist()) for row in range(tokens.num_rows)]
    return [Hypothesis(row, ids, len(ids) + 1, row < num_cut) for row, ids in enumerate(targets)]


def read(tokens: Tokens, hypotheses: Sequence[Hypothesis], *, task: Task = TRANSLATION) -> list[ScoredRow]:
    given: dict[str, Any] = {"tokens": tokens, "tokenizer": WordTokenizer()}
    return read_rows(hypotheses, task=task, **given)


def warn(tokens: Tokens, hypotheses: Sequence[Hypothesis], *, task: Task = TRANSLATION) -> list[str]:
    given: dict[str, Any] = {"tokens": tokens, "tokenizer": WordTokenizer()}
    return find_warnings(read(tokens, hypotheses, task=task), task=task, cap=CAP, **given)


def test_content_tokens_leave_out_special_ones_but_keep_the_unknown_token() -> None:
    tokens = build_tokens(["en"])
    (row,) = read(tokens, [Hypothesis(0, (LANGUAGES["en"], 5, UNKNOWN, 6, END), 6, False)])
    assert row.content_ids == [5, UNKNOWN, 6]
    assert row.reference_ids == tokens.targets[0][1:-1]
    assert row.text == "w5 w6"


def test_a_translation_is_compared_with_the_text_in_the_data_and_a_parse_with_its_decoded_tokens() -> None:
    tokens = build_tokens([None])
    decoded = tokens.examples[0].raw_target
    tokens.examples = [replace(tokens.examples[0], raw_target="as it is\nin the data ")]
    hypotheses = answer(tokens)
    assert [row.reference for row in read(tokens, hypotheses)] == ["as it is in the data"]
    assert [row.reference for row in read(tokens, hypotheses, task=PLAIN_PARSING)] == [decoded]


def test_other_white_space_inside_a_quoted_string_is_another_parse_in_the_plain_form() -> None:
    class QueryTokenizer(WordTokenizer):
        def decode(self, ids: list[int]) -> str:  # like most: white space is single
            return {5: "n = 'A B'", 6: "n = 'A  B'", 7: "n  = 'A  B'"}[ids[0]]

    tokens = build_tokens([None] * 3)
    tokens.targets = [[5, END]] * 3
    tokens.examples = [replace(example, target="n = 'A  B'", raw_target="n = 'A  B'") for example in tokens.examples]
    given: dict[str, Any] = {"tokens": tokens, "tokenizer": QueryTokenizer(), "task": PLAIN_PARSING}
    rows = read_rows([Hypothesis(row, (5 + row, END), 2, False) for row in range(3)], **given)
    assert [row.text for row in rows] == ["n = 'A B'", "n = 'A  B'", "n = 'A  B'"]
    assert [row.reference for row in rows] == ["n = 'A  B'"] * 3
    scores = {score.name: score.value for score in score_rows(rows, task=PLAIN_PARSING)}
    assert scores["exact_match"] == pytest.approx(2 / 3)
    (warning,) = find_warnings(rows, cap=CAP, **given)
    assert warning.startswith("the tokenizer does not reproduce 3 of 3 references; the first, eval.tsv:1:")


@pytest.mark.parametrize(
    ("languages", "tokenizer"), [(["en"], "13a"), (["zh", "zh"], "zh"), (["en", "zh"], "13a"), (["en", "en"], "13a")]
)
def test_bleu_uses_the_tokenizer_that_all_target_languages_share_else_13a(
    languages: list[str | None], tokenizer: str
) -> None:
    tokens = build_tokens(languages * 4)  # BLEU of a few words is 0
    scores = {score.name: score for score in score_rows(read(tokens, answer(tokens)), task=TRANSLATION)}
    assert f"tok:{tokenizer}" in str(scores["bleu"].signature)
    assert scores["bleu"].value == pytest.approx(100.0)


def test_lengths_and_cut_hypotheses_are_scored_for_every_task() -> None:
    tokens = build_tokens([None] * 4)
    for task in (TRANSLATION, PLAIN_PARSING):
        rows = read(tokens, answer(tokens, num_cut=1), task=task)
        scores = {score.name: score.value for score in score_rows(rows, task=task)}
        assert scores["hit_cap_rate"] == 0.25
        assert scores["gen_len"] == tokens.target_lengths.mean() + 1
    assert "exact_match_parse" not in scores


def test_rows_are_grouped_by_name_and_by_language_pair_where_there_are_several() -> None:
    tokens = build_tokens(["en", "zh", "en"])
    groups = group_rows(read(tokens, answer(tokens)))
    assert {name: [row.hypothesis.row for row in rows] for name, rows in groups.items()} == {
        "even": [0, 2],
        "ko-en": [0, 2],
        "ko-zh": [1],
        "odd": [1],
    }
    tokens = build_tokens(["en", "en"])
    assert list(group_rows(read(tokens, answer(tokens)))) == ["even", "odd"]


@pytest.mark.parametrize("task", [TRANSLATION, PLAIN_PARSING])
def test_correct_hypotheses_are_not_warned_about(task: Task) -> None:
    tokens = build_tokens([None] * 3 if task.kind == "parsing" else ["en"] * 3)
    assert warn(tokens, answer(tokens), task=task) == []


def test_cut_hypotheses_are_warned_about_above_one_in_a_hundred() -> None:
    tokens = build_tokens(["en"] * 100)
    assert warn(tokens, answer(tokens, num_cut=1)) == []
    (warning,) = warn(tokens, answer(tokens, num_cut=2))
    assert warning.startswith("2 of 100 hypotheses were cut at 60 tokens (test)")


def test_hypotheses_in_another_language_are_counted_with_the_first_row() -> None:
    tokens = build_tokens(["en"] * 5)
    hypotheses = answer(tokens)
    for row in (2, 4):
        hypotheses[row] = replace(hypotheses[row], token_ids=(LANGUAGES["ko"], *hypotheses[row].token_ids[1:]))
    (warning,) = warn(tokens, hypotheses)
    assert warning.startswith("2 of 5 hypotheses do not begin with the code of their target language")
    assert "the first in row 2" in warning


def test_a_parse_that_the_tokenizer_changes_is_shown_with_its_place() -> None:
    tokens = build_tokens([None] * 3)
    tokens.examples[1] = replace(tokens.examples[1], target="[IN:LOST ]")
    (warning,) = warn(tokens, answer(tokens), task=PLAIN_PARSING)
    assert warning.startswith("the tokenizer does not reproduce 1 of 3 references; the first, eval.tsv:2: '[IN:LOST ]'")


def test_bleu_over_languages_with_different_tokenizers_is_warned_about() -> None:
    tokens = build_tokens(["en", "zh"])
    (warning,) = warn(tokens, answer(tokens))
    assert warning.startswith("BLEU over all rows mixes the target languages ['en', 'zh']")
