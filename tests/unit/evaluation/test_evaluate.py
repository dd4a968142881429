"""The whole evaluation: scores that do not depend on the ranks, proofs, warnings and files."""

import json
import math
import pickle
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from dstrain.evaluation.evaluate import (
    EvaluationResult,
    IncompleteEvaluationError,
    collect_results,
    sacrebleu_command,
    write_evaluation,
)
from dstrain.evaluation.generate import BatchResult, Hypothesis, plan_batches
from dstrain.evaluation.metrics import one_line, translation_scores
from tests.unit.evaluation.evaluation_cases import (
    END,
    LANGUAGES,
    WordTokenizer,
    build_config,
    build_model,
    build_tokens,
    run_evaluation,
)

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
    assert results[0].num_rows == tokens.num_rows
    assert results[0].scores["gen_len"] > 2


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
    assert result.scores["loss"] == pytest.approx(math.fsum(sums) / int(tokens.target_lengths.sum()), rel=1e-6)


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
    assert without.hypotheses == result.hypotheses
    assert without.scores == {name: value for name, value in result.scores.items() if name != "loss"}


def test_a_loss_that_chooses_the_best_model_has_to_be_computed() -> None:
    with pytest.raises(ValidationError, match="best_metric `loss` needs `loss: true`"):
        build_config(best_metric="loss", loss=False)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_a_budget_of_tokens_gives_the_hypotheses_of_a_fixed_size(num_beams: int) -> None:
    model, tokens = build_model("m2m100"), build_tokens(MIXED)
    fixed = run_evaluation(model, tokens, config=build_config(num_beams=num_beams))
    config = build_config(num_beams=num_beams, batch_size=None)
    filled = run_evaluation(model, tokens, config=config, world_size=2)
    assert filled.hypotheses == fixed.hypotheses
    assert filled.scores == pytest.approx(fixed.scores, rel=1e-6)
    assert (fixed.generation["batch_size"], filled.generation["batch_size"]) == (4, None)
    assert filled.generation["batch_tokens"] == config.machine.evaluation_tokens
    assert "batch_tokens" not in fixed.generation


def test_what_is_left_to_transformers_is_said_and_says_the_same() -> None:
    model, tokens = build_model("t5"), build_tokens([None] * 9)
    own = run_evaluation(model, tokens)
    model.set_attn_implementation("eager")
    stock = run_evaluation(model, tokens)
    sentence = "hypotheses come from transformers' generate(), at its own speed: attention implementation `eager`"
    assert [warning for warning in stock.warnings if "generate()" in warning] == [sentence]
    assert not any("generate()" in warning for warning in own.warnings)
    assert stock.hypotheses == own.hypotheses


def test_dropout_is_off_and_the_model_trains_on_afterwards() -> None:
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
    assert result.generation["max_new_tokens"] == longest + 8 > 28
    assert f"longest reference, {longest} tokens" in result.generation["max_new_tokens_from"]
    assert max(len(text.split()) for text in result.hypotheses) > 20


def test_cut_hypotheses_are_measured_and_warned_of() -> None:
    result = run_evaluation(build_model("t5"), build_tokens([None] * 8), config=build_config(max_new_tokens=3))
    num_cut = round(result.scores["hit_cap_rate"] * 8)
    assert num_cut >= 4
    assert any(warning.startswith(f"{num_cut} of 8 hypotheses were cut at 3 tokens") for warning in result.warnings)
    assert max(len(text.split()) for text in result.hypotheses) == 3


def test_a_forced_end_does_not_hide_a_cut() -> None:
    model, tokens = build_model("t5"), build_tokens([None] * 8)
    plain = run_evaluation(model, tokens, config=build_config(max_new_tokens=3))
    model.generation_config.forced_eos_token_id = END  # as Marian and mBART have it
    result = run_evaluation(model, tokens, config=build_config(max_new_tokens=3))
    assert result == plain
    assert result.scores["hit_cap_rate"] > 0


def test_every_row_begins_with_its_own_target_language() -> None:
    model, tokens = build_model("m2m100"), build_tokens(MIXED)
    result = run_evaluation(model, tokens)
    assert result.generation["target_languages"] == {
        language: {"forced_bos_token_id": LANGUAGES[language]} for language in ("en", "ko", "zh")
    }
    assert not any("language" in warning and "begin" in warning for warning in result.warnings)
    free = run_evaluation(model, tokens, generation_arguments=lambda language: {})
    assert any("do not begin with the code of their target language" in warning for warning in free.warnings)
    assert "target_languages" not in free.generation


def test_scores_are_given_by_group_and_by_language_pair() -> None:
    tokens = build_tokens(MIXED)
    result = run_evaluation(build_model("m2m100"), tokens)
    sizes = {name: scores["num_rows"] for name, scores in result.groups.items()}
    assert sizes == {"even": 13, "odd": 12, "ko-en": 15, "ko-ko": 5, "ko-zh": 5}
    chinese = [row for row, language in enumerate(MIXED) if language == "zh"]
    only = replace_rows(tokens, chinese)
    alone = run_evaluation(
        build_model("m2m100"), only, config=build_config(max_new_tokens=result.generation["max_new_tokens"])
    )
    assert result.groups["ko-zh"]["bleu"] == alone.scores["bleu"]
    assert "tok:13a" in result.signatures["bleu"]
    assert result.signatures["bleu (ko-zh)"] == alone.signatures["bleu"]
    assert "tok:zh" in alone.signatures["bleu"]
    assert any("mixes the target languages" in warning for warning in result.warnings)
    assert not any("mixes" in warning for warning in alone.warnings)


def replace_rows(tokens: Any, rows: list[int]) -> Any:
    return type(tokens)(
        [tokens.sources[row] for row in rows],
        [tokens.targets[row] for row in rows],
        [tokens.examples[row] for row in rows],
    )


def test_one_pair_without_groups_has_no_group_table() -> None:
    tokens = build_tokens(["en"] * 4)
    tokens.examples = [replace(example, group=None) for example in tokens.examples]
    assert run_evaluation(build_model("m2m100"), tokens).groups == {}


def test_the_recipes_max_rows_takes_the_first_rows_and_the_result_says_so() -> None:
    model, tokens = build_model("t5"), build_tokens([None] * 9)
    result = run_evaluation(model, tokens, config=build_config(max_rows=5))
    assert result.sources == [f"source {row}" for row in range(5)]
    assert "only the first 5 of 9 evaluation rows were scored" in result.warnings
    assert run_evaluation(model, tokens, max_rows=5) == result
    assert run_evaluation(model, tokens, max_rows=50).num_rows == 9


def test_a_rehearsal_takes_the_batches_with_the_longest_sources() -> None:
    tokens = build_tokens([None] * 20)
    result = run_evaluation(build_model("t5"), tokens, max_batches=2, world_size=3)
    longest = sorted(np.argsort(-tokens.source_lengths, kind="stable")[:8])
    assert result.sources == [f"source {row}" for row in longest]


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
            r"never asked .*77",
        ),
        (lambda results: [], r"missing: 5 rows"),
    ],
)
def test_a_missing_a_repeated_and_a_foreign_row_are_refused_by_number(spoil: Any, message: str) -> None:
    batches = plan_batches([3, 9, 8, 4, 2], languages=[None] * 5, batch_size=2, max_tokens=1)
    results = results_of(batches)
    assert collect_results(batches, results=reversed(results)) == results
    assert pickle.loads(pickle.dumps(results)) == results, "ranks hand results over as pickles"
    with pytest.raises(IncompleteEvaluationError, match=message):
        collect_results(batches, results=spoil(results))


def test_a_rank_that_hands_over_anothers_rows_ends_the_evaluation() -> None:
    def gather(share: list[BatchResult]) -> list[list[BatchResult]]:
        return [share, share]

    with pytest.raises(IncompleteEvaluationError, match="more than once"):
        run_evaluation(build_model("t5"), build_tokens([None] * 4), gather=gather)


def result_of(hypotheses: list[str], references: list[str], *, target_language: str) -> EvaluationResult:
    """A result whose texts are given, scored as evaluation does."""
    lines, answers = [one_line(text) for text in hypotheses], [one_line(text) for text in references]
    scores = translation_scores(lines, answers, target_language=target_language)
    return EvaluationResult(
        scores={score.name: score.value for score in scores},
        groups={},
        signatures={score.name: str(score.signature) for score in scores},
        generation={},
        num_rows=len(lines),
        hypotheses=lines,
        references=answers,
        sources=answers,
        warnings=[],
    )


def run_sacrebleu(folder: Path, command: str | None) -> list[dict[str, Any]]:
    assert command is not None
    program, *arguments = shlex.split(command)
    assert program == "sacrebleu"
    done = subprocess.run([sys.executable, "-m", "sacrebleu", *arguments], cwd=folder, capture_output=True, check=True)
    scores: list[dict[str, Any]] = json.loads(done.stdout)
    return scores


@pytest.mark.parametrize(
    ("language", "texts"),
    [
        (
            "en",
            [
                "two cups\nof coffee, please.",
                " half past three \r\n",
                "a\u2028line\x85break",
                "",
                "the end .",
                "x\ty z",
            ],
        ),
        ("zho_Hans", ["我 喝两杯咖啡\n。", "三点半", " 明天见", "", "再 见 。", "一\t二"]),
        ("jpn_Jpan", ["コーヒーを二杯\n。", "三時半", " また明日", "", "さようなら 。", "一\t二"]),
    ],
)
def test_the_sacrebleu_command_gives_the_same_scores_from_the_files(
    language: str, texts: list[str], tmp_path: Path
) -> None:
    hypotheses = [texts[0][:-1], texts[1], texts[2] + " more", "\n", texts[4], texts[5]]
    result = result_of(hypotheses, texts, target_language=language)
    folder = tmp_path / write_evaluation(result, run_dir=tmp_path, step=5)
    record = json.loads((tmp_path / "scores" / "step-00000005.json").read_text(encoding="utf-8"))
    printed = run_sacrebleu(folder, record["command"])
    assert {score["name"]: score["score"] for score in printed} == {
        "BLEU": round(result.scores["bleu"], 4),
        "chrF2": round(result.scores["chrf"], 4),
    }
    assert 0 < result.scores["bleu"] < 100


def test_the_files_of_a_real_evaluation_give_its_scores(tmp_path: Path) -> None:
    tokens = build_tokens(["en"] * 12)
    tokens.examples = [
        replace(example, raw_target=f"w5\n{example.raw_target} w6 \n", raw_source="a\nb") for example in tokens.examples
    ]
    result = run_evaluation(build_model("m2m100"), tokens)
    folder = tmp_path / write_evaluation(result, run_dir=tmp_path, step=1200)
    assert folder == tmp_path / "hypotheses" / "step-00001200"
    for name in ("hypotheses", "references", "sources"):
        assert (folder / f"{name}.txt").read_text(encoding="utf-8").split("\n") == [*getattr(result, name), ""]
    printed = run_sacrebleu(folder, sacrebleu_command(result))
    assert printed[0]["score"] == round(result.scores["bleu"], 4)
    record = json.loads((tmp_path / "scores" / "step-00001200.json").read_text(encoding="utf-8"))
    assert record["scores"] == result.scores
    assert record["generation"] == result.generation
    assert record["signatures"] == result.signatures
    assert record["warnings"] == result.warnings
    assert (record["step"], record["num_rows"], record["hypotheses"]) == (1200, 12, "hypotheses/step-00001200")


def test_evaluating_a_step_again_replaces_its_files_and_leaves_no_drafts(tmp_path: Path) -> None:
    first = result_of(["a b c d"], ["a b c d"], target_language="en")
    second = result_of(["e f g h", "i"], ["a b c d", "i"], target_language="en")
    write_evaluation(first, run_dir=tmp_path, step=3)
    (tmp_path / "hypotheses" / "step-00000003.tmp").mkdir()  # a kill left it
    folder = tmp_path / write_evaluation(second, run_dir=tmp_path, step=3)
    assert (folder / "hypotheses.txt").read_text() == "e f g h\ni\n"
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert files == [
        *(f"hypotheses/step-00000003/{name}.txt" for name in ("hypotheses", "references", "sources")),
        "scores/step-00000003.json",
    ]


def test_a_kill_while_writing_never_leaves_a_score_beside_other_hypotheses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_evaluation(result_of(["a b"], ["a b"], target_language="en"), run_dir=tmp_path, step=3)

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dstrain.evaluation.evaluate.os.replace", die)
    with pytest.raises(KeyboardInterrupt):
        write_evaluation(result_of(["c d"], ["a b"], target_language="en"), run_dir=tmp_path, step=3)
    assert not (tmp_path / "scores" / "step-00000003.json").exists()


def test_a_parsing_result_has_no_sacrebleu_command() -> None:
    result = result_of(["a"], ["a"], target_language="en")
    assert sacrebleu_command(replace(result, signatures={})) is None
    mecab = {"bleu": "nrefs:1|case:mixed|eff:no|tok:ja-mecab-0.996-IPA|smooth:exp|version:2.6.0"}
    assert re.search(r"-tok ja-mecab$", str(sacrebleu_command(replace(result, signatures=mecab))))
