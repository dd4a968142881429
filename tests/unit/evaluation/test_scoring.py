"""Rows with their hypotheses: which texts and tokens are compared, how rows are grouped, and what a result warns about."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dstrain.config.evaluation import Evaluation
from dstrain.config.recipe import Task
from dstrain.evaluation.generate import Cap, Hypothesis
from dstrain.evaluation.scoring import ScoredRow, find_warnings, find_wrong_start, group_rows, read_rows, score_rows
from dstrain.run_folder.audit import NOT_IN_TRAINING
from tests.unit.evaluation.evaluation_cases import END, LANGUAGES, UNKNOWN, Tokens, WordTokenizer, build_tokens
from tests.unit.tasks.own_module import write_module

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
    return find_warnings(read(tokens, hypotheses, task=task), task=task, cap=CAP, evaluation=Evaluation(), **given)


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
    scores = {score.name: score.value for score in score_rows(rows, task=PLAIN_PARSING, evaluation=Evaluation())}
    assert scores["exact_match"] == pytest.approx(2 / 3)
    (warning,) = find_warnings(rows, cap=CAP, evaluation=Evaluation(), **given)
    assert warning.startswith("the tokenizer does not reproduce 3 of 3 references; the first, eval.tsv:1:")


@pytest.mark.parametrize(
    ("languages", "tokenizer"), [(["en"], "13a"), (["zh", "zh"], "zh"), (["en", "zh"], "zh"), (["en", "en"], "13a")]
)
def test_bleu_uses_a_tokenizer_for_all_target_languages(languages: list[str | None], tokenizer: str) -> None:
    tokens = build_tokens(languages * 4)  # BLEU of a few words is 0
    scores = {
        score.name: score
        for score in score_rows(read(tokens, answer(tokens)), task=TRANSLATION, evaluation=Evaluation())
    }
    assert f"tok:{tokenizer}" in str(scores["bleu"].signature)
    assert scores["bleu"].value == pytest.approx(100.0)


def test_lengths_and_cut_hypotheses_are_scored_for_every_task() -> None:
    tokens = build_tokens([None] * 4)
    for task in (TRANSLATION, PLAIN_PARSING):
        rows = read(tokens, answer(tokens, num_cut=1), task=task)
        scores = {score.name: score.value for score in score_rows(rows, task=task, evaluation=Evaluation())}
        assert scores["hit_cap_rate"] == 0.25
        assert scores["gen_len"] == tokens.target_lengths.mean() + 1
    assert "exact_match_parse" not in scores


def test_a_text_is_compared_with_the_text_in_the_data_by_the_metrics_that_the_recipe_names() -> None:
    tokens = build_tokens([None] * 3)
    first = tokens.examples[0]
    tokens.examples = [replace(first, raw_target=f"{first.raw_target}\n"), *tokens.examples[1:]]
    task = Task(kind="text")

    def names(**settings: Any) -> list[str]:
        rows = read(tokens, answer(tokens), task=task)
        return [score.name for score in score_rows(rows, task=task, evaluation=Evaluation(**settings))]

    lengths = ["gen_len", "hit_cap_rate"]
    assert names() == ["rouge_l", "rouge_1", "rouge_2", "exact_match", *lengths]
    assert names(metrics=["ter", "accuracy"]) == ["ter", "accuracy", *lengths]
    rows = read(tokens, answer(tokens), task=task)
    assert [row.reference for row in rows] == [row.text for row in rows]


def test_a_parse_has_its_own_scores_and_those_that_the_recipe_adds() -> None:
    tokens = build_tokens([None] * 3)
    rows = read(tokens, answer(tokens), task=PLAIN_PARSING)
    evaluation = Evaluation(metrics=["chrf", "exact_match"])
    names = [score.name for score in score_rows(rows, task=PLAIN_PARSING, evaluation=evaluation)]
    own = ["exact_match", "exact_match_tokens", "exact_match_disagreements", "valid_brackets"]
    assert names == [*own, "chrf", "gen_len", "hit_cap_rate"]


def test_a_metric_of_the_users_own_gets_sources_as_they_are_in_the_data_and_a_failed_one_says_why() -> None:
    tokens = build_tokens(["en"] * 2)
    tokens.examples = [replace(row, raw_source=row.raw_target) for row in tokens.examples]
    rows = read(tokens, answer(tokens))
    here = "dstrain.tasks.demo.metric:left_alone"
    evaluation = Evaluation(metrics=["bleu", here, "dstrain.evaluation.metrics:one_line"])
    scores = {score.name: score for score in score_rows(rows, task=TRANSLATION, evaluation=evaluation)}
    assert scores["left_alone"].value == 1.0
    assert math.isnan(scores["one_line"].value)
    failure = scores["one_line"].failure
    assert str(failure).startswith("evaluation.metrics `dstrain.evaluation.metrics:one_line` failed on 2 rows (")
    assert failure is not None
    assert isinstance(failure.__cause__, TypeError), "a failure report shows the user's frames"


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


def test_rows_are_grouped_by_evaluation_set_before_all_other_groups() -> None:
    tokens = build_tokens(["en"] * 4)
    names = ["news", "even", "news", None]
    tokens.examples = [replace(row, eval_set=name) for row, name in zip(tokens.examples, names, strict=True)]
    groups = group_rows(read(tokens, answer(tokens)))
    assert [(name, [row.hypothesis.row for row in rows]) for name, rows in groups.items()] == [
        ("news", [0, 2]),
        ("even", [1]),
        ("even (group)", [0, 2]),
        ("odd", [1, 3]),
    ]


def test_a_set_of_the_rows_of_one_pair_has_no_second_group() -> None:
    tokens = build_tokens(["en", "zh", "en"])
    names = ["ko-en", "there", "ko-en"]
    tokens.examples = [replace(row, eval_set=name) for row, name in zip(tokens.examples, names, strict=True)]
    assert list(group_rows(read(tokens, answer(tokens)))) == ["ko-en", "there", "even", "odd"]


def test_rows_that_are_not_in_training_are_the_last_group_unless_all_or_none_are() -> None:
    rows = read(tokens := build_tokens(["en"] * 4), answer(tokens))
    groups = group_rows(rows, held={1, 2, 77})
    assert list(groups)[-1] == NOT_IN_TRAINING
    assert [row.hypothesis.row for row in groups[NOT_IN_TRAINING]] == [0, 3]
    for held in (set(), {77}, {0, 1, 2, 3}):
        assert NOT_IN_TRAINING not in group_rows(rows, held=held)


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
    assert warning.startswith("BLEU over all rows mixes references that need the tokenizers `13a` and `zh`")


def test_the_text_of_the_references_and_the_recipe_decide_on_the_tokenizer_of_bleu() -> None:
    tokens = build_tokens([None])
    tokens.examples = [replace(tokens.examples[0], raw_target="我喜欢吃炒饭")]
    rows = read(tokens, answer(tokens))
    for pinned, tokenizer in ((None, "zh"), ("char", "char")):
        scores = {
            score.name: score
            for score in score_rows(rows, task=TRANSLATION, evaluation=Evaluation(bleu_tokenizer=pinned))
        }
        assert f"tok:{tokenizer}|" in str(scores["bleu"].signature)


def test_bleu_and_chrf_use_every_reference_and_rows_with_fewer_are_said() -> None:
    tokens = build_tokens(["en"] * 2)
    texts = [row.raw_target for row in tokens.examples]
    tokens.examples = [
        replace(tokens.examples[0], raw_target="other words", other_targets=(texts[0],)),
        tokens.examples[1],
    ]
    scores = {
        score.name: score
        for score in score_rows(read(tokens, answer(tokens)), task=TRANSLATION, evaluation=Evaluation())
    }
    assert scores["chrf"].value == pytest.approx(100.0)
    assert str(scores["bleu"].signature).startswith("nrefs:2|")
    (warning,) = warn(tokens, answer(tokens))
    assert warning.startswith("rows have 1 to 2 references; nrefs of the signatures is 2")


def test_a_parse_matches_exactly_if_it_equals_any_of_its_references() -> None:
    tokens = build_tokens([None] * 2)
    hypotheses = answer(tokens)
    other = "w4 w5 w6"
    changed = Hypothesis(0, (4, 5, 6, END), 5, was_cut=False)
    tokens.examples[0] = replace(tokens.examples[0], other_targets=("w9", other))
    rows = read(tokens, [changed, hypotheses[1]], task=PLAIN_PARSING)
    scores = {score.name: score.value for score in score_rows(rows, task=PLAIN_PARSING, evaluation=Evaluation())}
    assert (scores["exact_match"], scores["exact_match_tokens"]) == (1.0, 1.0)
    assert rows[0].references == [tokens.examples[0].raw_target, "w9", other]


OWN = """
class Words:
    def source(self, text):
        return text
    def target(self, text, source):
        return text
    def answer(self, text, source):
        if "w9" in text:
            raise ValueError("nine")
        return f"{source}: {text}"
"""


def test_the_answer_of_a_class_of_the_users_own_is_compared_with_the_text_in_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task(kind=f"{write_module(tmp_path, OWN, monkeypatch=monkeypatch)}:Words")
    tokens = build_tokens([None] * 3)
    tokens.targets = [[5, END], [6, END], [9, END]]
    tokens.examples = [
        replace(example, raw_source=f"s{row}", raw_target=f"s{row}: w{ids[0]}")
        for row, (example, ids) in enumerate(zip(tokens.examples, tokens.targets, strict=True))
    ]
    hypotheses = [
        Hypothesis(0, (5, END), 2, False),
        Hypothesis(1, (9, END), 2, False),
        Hypothesis(2, (9, END), 2, False),
    ]
    rows = read(tokens, hypotheses, task=task)
    assert [row.text for row in rows] == ["s0: w5", "w9", "w9"]
    assert [row.is_unread for row in rows] == [False, True, True]
    scores = {score.name: score.value for score in score_rows(rows, task=task, evaluation=Evaluation())}
    assert scores["exact_match"] == pytest.approx(1 / 3)
    unread, changed = warn(tokens, hypotheses, task=task)
    assert unread.startswith(
        "task.kind refuses 2 of 3 hypotheses, which are scored as the model wrote them; the first, eval"
    )
    assert "does not give back 1 of 3 references" in changed
    assert changed.endswith("eval.tsv:3: 's2: w9' comes back as None")


def test_a_first_token_that_is_forced_on_a_family_without_languages_is_missed_as_well() -> None:
    class Tokenizer(WordTokenizer):
        first_target_id = 0  # BART's `<s>`

    tokens = build_tokens([None] * 4)
    tokens.targets = [[0, *ids] for ids in tokens.targets]
    given: dict[str, Any] = {"tokens": tokens, "tokenizer": Tokenizer(has_languages=False)}
    hypotheses = answer(tokens)
    rows = read_rows(hypotheses, task=TRANSLATION, **given)
    assert find_wrong_start(rows, **given) is None
    hypotheses[3] = replace(hypotheses[3], token_ids=hypotheses[3].token_ids[1:])
    rows = read_rows(hypotheses, task=TRANSLATION, **given)
    assert find_wrong_start(rows, **given) == (
        "1 of 4 hypotheses do not begin with the first token of their labels, the first in row 3"
    )
