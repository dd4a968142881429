"""The whole evaluation: scores that do not depend on the ranks, checks, warnings and files."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from dstrain.cluster.messages import decode, encode
from dstrain.config.device_defaults import BATCH_TOKENS
from dstrain.errors import UserError
from dstrain.evaluation.evaluate import (
    IncompleteEvaluationError,
    collect_results,
)
from dstrain.evaluation.generate import BatchResult, Hypothesis, plan_batches
from dstrain.evaluation.own_metrics import MetricFailed
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.scores import sacrebleu_command, write_scores
from tests.unit.evaluation.evaluation_cases import (
    END,
    LANGUAGES,
    WordTokenizer,
    build_config,
    build_model,
    build_tokens,
    run_evaluation,
)
from tests.unit.run_folder.scores_cases import run_sacrebleu

MIXED: list[str | None] = ["en", "ko", "en", "en", "zh"] * 5


@pytest.mark.parametrize("family", ["m2m100", "t5"])
@pytest.mark.parametrize("num_beams", [1, 3])
def test_the_result_is_identical_on_one_two_and_three_ranks(family: str, num_beams: int) -> None:
    tokens = build_tokens(MIXED if family == "m2m100" else [None] * 23)
    results = [
        run_evaluation(
            build_model(family), tokens, config=build_config(num_beams=num_beams, batch_size=3), world_size=world_size
        )
        for world_size in (1, 2, 3)
    ]
    assert results[0] == results[1] == results[2]
    assert results[0].scores.num_rows == tokens.num_rows
    assert results[0].scores.scores["gen_len"] > 2


def test_more_ranks_than_batches_leave_some_idle_and_change_nothing() -> None:
    model, tokens = build_model("t5"), build_tokens([None] * 5)
    assert run_evaluation(model, tokens, world_size=1) == run_evaluation(model, tokens, world_size=5)


@pytest.mark.parametrize("family", ["m2m100", "t5"])
def test_the_loss_is_the_mean_over_all_target_tokens_of_the_stock_models_loss(family: str) -> None:
    model, tokens = build_model(family), build_tokens(["en"] * 31 if family == "m2m100" else [None] * 31)
    result = run_evaluation(model, tokens, config=build_config(batch_size=20), world_size=2)
    model.eval()
    sums = []
    for row in range(tokens.num_rows):
        source, labels = (torch.from_numpy(ids(row)).long()[None] for ids in (tokens.source, tokens.target))
        with torch.no_grad():
            sums.append(float(model(input_ids=source, labels=labels).loss) * labels.numel())
    assert result.scores.scores["loss"] == pytest.approx(math.fsum(sums) / int(tokens.target_lengths.sum()), rel=1e-6)


def test_sources_are_encoded_once_for_loss_and_hypotheses() -> None:
    model, tokens = build_model("t5"), build_tokens([None] * 40)
    encoded, decoded = [], []
    model.encoder.register_forward_hook(lambda *arguments: encoded.append(len(arguments[-1].last_hidden_state)))
    model.decoder.register_forward_hook(lambda *_: decoded.append(1))
    result = run_evaluation(model, tokens, config=build_config(batch_size=30))
    assert sum(encoded) == 40
    num_parts, num_passes = len(encoded), len(decoded)
    assert num_parts > 2  # batches
    encoded.clear()
    decoded.clear()
    without = run_evaluation(model, tokens, config=build_config(batch_size=30, loss=False))
    assert encoded == [30, 10]
    assert len(decoded) == num_passes - num_parts
    assert without.texts.hypotheses == result.texts.hypotheses
    assert without.scores.scores == {name: value for name, value in result.scores.scores.items() if name != "loss"}


def test_the_loss_must_be_computed_if_it_chooses_the_best_model() -> None:
    with pytest.raises(ValidationError, match="best_metric `loss` needs `loss: true`"):
        build_config(best_metric="loss", loss=False)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_batches_by_a_token_budget_have_the_same_hypotheses_as_batches_of_a_fixed_size(num_beams: int) -> None:
    model, tokens = build_model("m2m100"), build_tokens(MIXED)
    fixed = run_evaluation(model, tokens, config=build_config(num_beams=num_beams))
    config = build_config(num_beams=num_beams, batch_size=None)
    filled = run_evaluation(model, tokens, config=config, world_size=2)
    assert filled.texts.hypotheses == fixed.texts.hypotheses
    assert filled.scores.scores == pytest.approx(fixed.scores.scores, rel=1e-6)
    assert (fixed.scores.generation["batch_size"], filled.scores.generation["batch_size"]) == (4, None)
    assert filled.scores.generation["batch_tokens"] == BATCH_TOKENS["cpu"]
    assert "batch_tokens" not in fixed.scores.generation


def test_a_warning_says_when_transformers_generates_and_the_hypotheses_are_the_same() -> None:
    model, tokens = build_model("t5"), build_tokens([None] * 9)
    own = run_evaluation(model, tokens)
    model.set_attn_implementation("eager")
    stock = run_evaluation(model, tokens)
    sentence = (
        "hypotheses come from transformers' generate(), which is slower: the built-in search does not support attention "
        "implementation `eager`"
    )
    assert [warning for warning in stock.scores.warnings if "generate()" in warning] == [sentence]
    assert not any("generate()" in warning for warning in own.scores.warnings)
    assert stock.texts.hypotheses == own.texts.hypotheses


def test_dropout_is_off_and_the_model_is_in_training_mode_afterwards() -> None:
    model, tokens = build_model("t5"), build_tokens([None] * 6)
    first = run_evaluation(model.train(), tokens)
    assert model.training
    assert run_evaluation(model.eval(), tokens) == first
    assert not model.training


def test_hypotheses_may_be_longer_than_twenty_tokens() -> None:
    model, tokens = build_model("t5"), build_tokens([None] * 8, longest=50)
    model.generation_config.max_length = 20
    result = run_evaluation(model, tokens)
    longest = int(tokens.target_lengths.max())
    assert result.scores.generation["max_new_tokens"] == longest + 8 > 28
    assert f"longest reference, {longest} tokens" in result.scores.generation["max_new_tokens_from"]
    assert max(len(text.split()) for text in result.texts.hypotheses) > 20


def test_truncated_hypotheses_are_counted_and_cause_a_warning() -> None:
    result = run_evaluation(build_model("t5"), build_tokens([None] * 8), config=build_config(max_new_tokens=3))
    num_cut = round(result.scores.scores["hit_cap_rate"] * 8)
    assert num_cut >= 4
    assert any(
        warning.startswith(f"{num_cut} of 8 hypotheses were cut at 3 tokens") for warning in result.scores.warnings
    )
    assert max(len(text.split()) for text in result.texts.hypotheses) == 3


def test_a_forced_end_token_does_not_hide_a_truncation() -> None:
    model, tokens = build_model("t5"), build_tokens([None] * 8)
    plain = run_evaluation(model, tokens, config=build_config(max_new_tokens=3))
    model.generation_config.forced_eos_token_id = END  # as in Marian and mBART
    result = run_evaluation(model, tokens, config=build_config(max_new_tokens=3))
    assert result == plain
    assert result.scores.scores["hit_cap_rate"] > 0


def test_every_row_begins_with_its_own_target_language(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = build_model("m2m100"), build_tokens(MIXED)
    result = run_evaluation(model, tokens)
    assert result.scores.generation["target_languages"] == {
        language: {"decoder_start_token_id": END, "forced_bos_token_id": LANGUAGES[language]}
        for language in ("en", "ko", "zh")
    }
    assert not any("language" in warning and "begin" in warning for warning in result.scores.warnings)
    monkeypatch.setattr("dstrain.evaluation.evaluate.generation_arguments", lambda *model, **given: {})
    with pytest.raises(
        UserError, match=r"evaluation\.rehearsal: .* do not begin with the code of their target language"
    ):
        run_evaluation(model, tokens, max_batches=2)
    free = run_evaluation(model, tokens)
    assert any("do not begin with the code of their target language" in warning for warning in free.scores.warnings)
    assert "target_languages" not in free.scores.generation


def test_scores_are_computed_by_group_and_by_language_pair() -> None:
    tokens = build_tokens(MIXED)
    result = run_evaluation(build_model("m2m100"), tokens)
    sizes = {name: scores["num_rows"] for name, scores in result.scores.groups.items()}
    assert sizes == {"even": 13, "odd": 12, "ko-en": 15, "ko-ko": 5, "ko-zh": 5}
    chinese = [row for row, language in enumerate(MIXED) if language == "zh"]
    only = replace_rows(tokens, chinese)
    alone = run_evaluation(
        build_model("m2m100"), only, config=build_config(max_new_tokens=result.scores.generation["max_new_tokens"])
    )
    assert result.scores.groups["ko-zh"]["bleu"] == alone.scores.scores["bleu"]
    assert "tok:zh" in result.scores.signatures["bleu"]  # it splits English and Korean as well
    assert "tok:13a" in result.scores.signatures["bleu (ko-en)"]
    assert "tok:zh" in alone.scores.signatures["bleu"]
    assert any("mixes references" in warning for warning in result.scores.warnings)
    assert not any("mixes" in warning for warning in alone.scores.warnings)


def replace_rows(tokens: Any, rows: list[int]) -> Any:
    return type(tokens)(
        [tokens.sources[row] for row in rows],
        [tokens.targets[row] for row in rows],
        [tokens.examples[row] for row in rows],
    )


def test_every_named_set_has_the_scores_of_its_rows_beside_those_of_all_rows() -> None:
    tokens = build_tokens(["en"] * 6)
    tokens.examples = [replace(row, group=None, eval_set="news") for row in tokens.examples[:4]] + tokens.examples[4:]
    found = run_evaluation(build_model("m2m100"), tokens).scores
    assert {name for name in found.scores if "/" in name} == {"news/bleu", "news/chrf"}
    assert found.groups["news"]["num_rows"] == 4
    assert found.scores["news/chrf"] == found.groups["news"]["chrf"] != found.scores["chrf"]


def test_one_pair_without_groups_has_no_group_table() -> None:
    tokens = build_tokens(["en"] * 4)
    tokens.examples = [replace(example, group=None) for example in tokens.examples]
    assert run_evaluation(build_model("m2m100"), tokens).scores.groups == {}


def test_max_rows_of_the_recipe_takes_the_first_rows_and_the_result_says_so() -> None:
    model, tokens = build_model("t5"), build_tokens([None] * 9)
    result = run_evaluation(model, tokens, config=build_config(max_rows=5))
    assert result.texts.sources == [f"source {row}" for row in range(5)]
    assert "only the first 5 of 9 evaluation rows were scored" in result.scores.warnings
    assert run_evaluation(model, tokens, config=build_config(max_rows=50)).scores.num_rows == 9


def test_a_rehearsal_takes_the_batches_with_the_longest_sources() -> None:
    tokens = build_tokens([None] * 20)
    result = run_evaluation(build_model("t5"), tokens, max_batches=2, world_size=3)
    longest = sorted(np.argsort(-tokens.source_lengths, kind="stable")[:8])
    assert result.texts.sources == [f"source {row}" for row in longest]


def test_a_metric_that_fails_ends_a_rehearsal_and_later_costs_its_score_alone() -> None:
    tokens = build_tokens([None] * 9)
    config = build_config(metrics=["chrf", "dstrain.evaluation.metrics:one_line"])
    with pytest.raises(MetricFailed, match=r"evaluation\.metrics `dstrain\.evaluation\.metrics:one_line` failed on"):
        run_evaluation(build_model("t5"), tokens, config=config, max_batches=2)
    scores = run_evaluation(build_model("t5"), tokens, config=config).scores
    assert "one_line" not in scores.scores
    assert "chrf" in scores.scores
    assert sum("one_line` failed on 9 rows" in warning for warning in scores.warnings) == 1


def test_padding_labels_never_reach_the_decoder_or_the_model() -> None:
    class Watchful(WordTokenizer):
        seen: set[int] = set()  # noqa: RUF012

        def decode(self, ids: list[int]) -> str:
            self.seen.update(ids)
            return super().decode(ids)

    tokenizer = Watchful()
    run_evaluation(build_model("m2m100"), build_tokens(["en"] * 7), tokenizer=tokenizer)
    assert tokenizer.seen
    assert min(tokenizer.seen) >= 0
    with pytest.raises(AssertionError, match="no tokens"):
        tokenizer.decode([-100])


def results_of(batches: list[Any]) -> list[BatchResult]:
    return [
        BatchResult(batch.index, 1.0, 3, tuple(Hypothesis(row, (5, END), 2, False) for row in batch.rows))
        for batch in batches
    ]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda results: results[1:], r"missing: 2 rows, \[1, 2\]"),
        (lambda results: [*results, results[0]], r"more than once: 2 rows, \[1, 2\]"),
        (
            lambda results: [*results, replace(results[0], hypotheses=(Hypothesis(77, (), 0, False),))],
            r"not in any batch: .*77",
        ),
        (lambda results: [], r"missing: 5 rows"),
    ],
)
def test_a_missing_a_repeated_and_an_unknown_row_are_refused_by_number(spoil: Any, message: str) -> None:
    batches = plan_batches([3, 9, 8, 4, 2], languages=[None] * 5, batch_size=2, max_tokens=1)
    results = results_of(batches)
    assert collect_results(batches, results=reversed(results)) == results
    form = list[BatchResult] | None
    assert decode(encode(results, form), form, sender=1) == results
    with pytest.raises(IncompleteEvaluationError, match=message):
        collect_results(batches, results=spoil(results))


def test_a_rank_that_returns_the_rows_of_another_ends_the_evaluation() -> None:
    def gather(share: list[BatchResult], form: Any) -> list[list[BatchResult]]:
        return [share, share]

    with pytest.raises(IncompleteEvaluationError, match="more than once"):
        run_evaluation(build_model("t5"), build_tokens([None] * 4), gather=gather)


def test_the_files_of_a_real_evaluation_reproduce_its_scores(tmp_path: Path) -> None:
    tokens = build_tokens(["en"] * 12)
    tokens.examples = [
        replace(example, raw_target=f"w5\n{example.raw_target} w6 \n", raw_source="a\nb") for example in tokens.examples
    ]
    result = run_evaluation(build_model("m2m100"), tokens)
    folder = tmp_path / write_scores(result.scores, result.texts, folder=RunFolder(tmp_path), step=1200)
    assert folder == tmp_path / "hypotheses" / "step-00001200"
    texts = result.texts
    written = {"hypotheses": texts.hypotheses, "references": texts.references[0], "sources": texts.sources}
    for name, lines in (written | {"index": [f"eval.tsv:{row + 1}" for row in range(12)]}).items():
        assert (folder / f"{name}.txt").read_text(encoding="utf-8").split("\n") == [*lines, ""]
    printed = run_sacrebleu(folder, sacrebleu_command(result.scores))
    assert printed[0]["score"] == round(result.scores.scores["bleu"], 4)
    record = json.loads((tmp_path / "scores" / "step-00001200.json").read_text(encoding="utf-8"))
    assert record["scores"] == result.scores.scores
    assert record["generation"] == result.scores.generation
    assert record["signatures"] == result.scores.signatures
    assert record["warnings"] == list(result.scores.warnings)
    assert (record["step"], record["num_rows"], record["hypotheses"]) == (1200, 12, "hypotheses/step-00001200")


@pytest.mark.parametrize("family", ["m2m100", "t5"])
def test_hypotheses_do_not_depend_on_the_references(family: str) -> None:
    tokens = build_tokens(["en", "ko", "en"] if family == "m2m100" else [None] * 3)
    others = build_tokens(["en", "ko", "en"] if family == "m2m100" else [None] * 3, seed=1)
    model, config = build_model(family), build_config(max_new_tokens=20)
    found = run_evaluation(model, tokens, config=config)
    tokens.targets, tokens.target_lengths, tokens.examples = others.targets, others.target_lengths, others.examples
    again = run_evaluation(model, tokens, config=config)
    assert found.texts.references != again.texts.references
    assert found.texts.hypotheses == again.texts.hypotheses
    assert len(set(found.texts.hypotheses)) == 3
