"""The evaluations on the card: headline, tables, groups and the sacrebleu command."""

import math
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sacrebleu.metrics import BLEU, CHRF

from dstrain.config.schema import RunConfig
from dstrain.reporting.card import build_card
from dstrain.run_folder.record import build_record
from dstrain.run_folder.rows import EventRow, Row
from tests.unit.reporting.card_cases import load, results_table, tables
from tests.unit.reporting.reporting_cases import (
    parsing_config,
    parsing_record,
    parsing_row,
    run_info,
    train_row,
    translation_config,
    translation_record,
    translation_row,
)


def test_the_headline_names_its_step_the_reason_for_it_and_the_last_evaluation() -> None:
    card = build_card(parsing_record())
    assert "scores at step 2,400 (epoch 80.00), the best of 4 evaluations by `exact_match`" in card
    assert "All 2,235 rows of the evaluation set were scored." in card
    assert "The folder `best/` holds these weights." in card
    assert "The last evaluation, at step 3,000, has Loss 0.1505, Exact Match 0.5512." in card


def test_the_score_on_utterances_as_typed_stands_beside_scores_on_utterances_cut_by_their_references() -> None:
    task = parsing_config().task.model_copy(update={"segmentation": "published"})
    data = {"eval": {"rows": 2235, "cut_by_reference": 726}}
    row = parsing_row(3000, exact_match=0.614, loss=0.1)
    rows: list[Row] = [EventRow("start", 0), replace(row, scores=row.scores | {"exact_match_typed": 0.441})]
    card = build_card(build_record(parsing_config(task=task), info=run_info(data=data), rows=rows))
    assert "- Exact Match Typed: 0.4410\n" in card.split("These are the scores")[0]
    assert "**For these scores 726 of the evaluation utterances were cut at the words of their reference parses" in card
    assert "On all utterances as users type them, 44.1 % of the parses are exact (Exact Match Typed)." in card
    earlier = build_card(parsing_record(parsing_config(task=task)))
    assert "some evaluation utterances were cut" in earlier
    assert "were not scored by the version that made this evaluation" in earlier
    assert "reference parses" not in build_card(parsing_record())


def test_a_headline_chosen_by_loss_says_where_the_score_was_higher() -> None:
    card = build_card(parsing_record(parsing_config(evaluation={"best_metric": "loss"})))
    assert "- Loss: 0.1202\n- Exact Match: 0.5365\n" in card
    assert (
        "Exact Match was better at another step: 0.5539 at step 2,400; the recipe selects the best checkpoint by `loss`."
        in card
    )


def test_a_best_evaluation_that_is_also_the_last_says_so() -> None:
    assert "checkpoint, and also the last evaluation. All" in build_card(translation_record())


def test_scores_from_before_a_change_are_not_presented_as_the_best() -> None:
    old = translation_row(50, bleu=9.0, loss=2.0)
    rows: list[Row] = [EventRow("start", 0), old, EventRow("resume", 50, scores_since=1)]
    card = build_card(build_record(translation_config(), info=run_info(), rows=rows))
    assert "the last evaluation; since then the metric, the search or the evaluation rows have changed" in card
    rows += [replace(translation_row(step, bleu=bleu, loss=2.0), lease=1) for step, bleu in ((60, 2.0), (70, 1.0))]
    card = build_card(build_record(translation_config(), info=run_info(), rows=rows))
    assert "These are the scores at step 60" in card
    assert "the best of 2 evaluations" in card
    assert "was higher at another step" not in card


def test_scores_of_a_part_of_the_evaluation_set_are_marked_as_such() -> None:
    card = build_card(parsing_record(parsing_config(evaluation={"max_rows": 2235})))
    assert "Only the first 2,235 rows of the evaluation set were scored." in card
    assert "- only the first 2,235 evaluation rows were scored" in card


def test_a_folder_with_the_weights_of_another_step_is_not_presented_as_the_best() -> None:
    rows: list[Row] = [EventRow("start", 0), translation_row(50, bleu=1.0, loss=2.0), EventRow("finish", 50)]
    card = build_card(build_record(translation_config(), info=run_info(), rows=rows, exports={"best": 20}))
    assert "holds these weights" not in card
    assert "**The folder `best/` does not hold these weights but those of step 20.**" in card


def test_numbers_that_are_not_finite_are_never_shown_as_numbers(tmp_path: Path) -> None:
    rows: list[Row] = [
        train_row(50, loss=math.nan, loss_scale=None),
        translation_row(50, bleu=math.nan, loss=math.inf, train_loss=math.nan),
        EventRow("finish", 50),
    ]
    card = build_card(build_record(translation_config(), info=run_info(), rows=rows))
    assert "the last evaluation, because no evaluation has a finite `bleu`" in card
    assert results_table(card)[1][:5] == ["not a number (NaN)", "0.00", "50", "infinite", "not a number (NaN)"]
    assert "- non-finite losses and scores (logged training losses: 1; evaluations: 1)" in card
    results = load(card, folder=tmp_path).data.eval_results
    assert results is not None
    assert {result.metric_type for result in results} == {"gen_len", "hit_cap_rate"}
    assert not re.search(r"\bnan\b", card)


def test_an_evaluation_before_the_first_training_loss_says_no_log() -> None:
    rows: list[Row] = [translation_row(0, bleu=1.0, loss=2.0, train_loss=None)]
    assert results_table(build_card(build_record(translation_config(), info=run_info(), rows=rows)))[1][0] == "No log"


def test_every_group_has_its_scores_and_a_long_list_is_cut_with_a_note() -> None:
    groups = {f"kind {number}": {"exact_match": 0.5, "num_rows": 10.0} for number in range(70)}
    intervals = {"kind 1": {"exact_match": 0.31}}
    rows: list[Row] = [parsing_row(10, exact_match=0.5, loss=1.0, groups=groups, group_intervals=intervals)]
    card = build_card(build_record(parsing_config(), info=run_info(), rows=rows))
    table = next(table for table in tables(card) if table[0][0] == "Group")
    assert table[:2] == [["Group", "Rows", "Exact Match"], ["kind 0", "10", "0.5000"]]
    assert table[2] == ["kind 1", "10", "0.5000 ± 0.3100"]
    assert len(table) == 61
    assert "And 10 more groups in `scores/step-00000010.json`." in card


def test_the_sacrebleu_command_prints_the_numbers_of_the_card(tmp_path: Path) -> None:
    hypotheses = ["the cat sat on the mat .", "two cups of coffee", "half past three in the afternoon"]
    references = ["the cat sat on a mat .", "two cups of coffee", "half past four in the afternoon"]
    bleu, chrf = BLEU(tokenize="13a"), CHRF()
    scores = {
        "bleu": bleu.corpus_score(hypotheses, [references]).score,
        "chrf": chrf.corpus_score(hypotheses, [references]).score,
    }
    signatures = {"bleu": str(bleu.get_signature()), "chrf": str(chrf.get_signature())}
    row = translation_row(10, bleu=0.0, loss=1.0, scores={"loss": 1.0, **scores}, signatures=signatures)
    folder = tmp_path / str(row.hypotheses)
    folder.mkdir(parents=True)
    (folder / "hypotheses.txt").write_text("\n".join(hypotheses) + "\n")
    (folder / "references.txt").write_text("\n".join(references) + "\n")
    card = build_card(build_record(translation_config(), info=run_info(), rows=[row]))
    command = next(line for line in card.splitlines() if line.startswith("sacrebleu "))
    words = [sys.executable, "-m", *shlex.split(command), "-f", "text"]
    printed = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    for name in ("bleu", "chrf"):
        assert f"= {scores[name]:.4f}" in printed
        assert f": {scores[name]:.4f}" in card
    assert all(signature in printed for signature in (signatures["bleu"],))


@pytest.mark.parametrize(
    ("signature", "options"),
    [
        (
            "nrefs:1|case:mixed|eff:no|tok:ko-mecab-0.996/ko-0.9.2-KO|smooth:exp|version:2.6.0",
            "-m bleu -w 4 -tok ko-mecab",
        ),
        ("nrefs:1|case:lc|eff:no|tok:zh|smooth:exp|version:2.6.0", "-m bleu -w 4 -tok zh -lc"),
    ],
)
def test_the_sacrebleu_command_follows_the_signature(signature: str, options: str) -> None:
    row = translation_row(10, bleu=1.0, loss=1.0, signatures={"bleu": signature})
    assert f"hypotheses.txt {options}\n" in build_card(build_record(translation_config(), info=run_info(), rows=[row]))


def test_a_parsing_card_has_no_sacrebleu_command() -> None:
    assert "sacrebleu" not in build_card(parsing_record())


def test_the_card_says_what_decided_between_evaluations_with_the_same_best_metric() -> None:
    rows: list[Row] = [translation_row(step, bleu=0.0, loss=loss) for step, loss in ((50, 2.0), (100, 1.0), (150, 1.5))]
    card = build_card(build_record(translation_config(), info=run_info(), rows=rows))
    assert "These are the scores at step 100" in card
    assert "(3 evaluations have this value; among them `chrf`, `loss` decide, in this order)" in card
    assert "- bleu was 0.0000 in 3 evaluations in a row" in card


def test_rows_that_were_read_and_not_scored_are_counted_beside_the_headline() -> None:
    data = run_info().data
    skipped = {"eval": replace(data["eval"], skipped={"empty": 2, "too_long": 1})}
    rows: list[Row] = [translation_row(50, bleu=1.0, loss=2.0)]
    card = build_card(build_record(translation_config(), info=replace(run_info(), data=data | skipped), rows=rows))
    assert "1,000 of 1,003 rows of the evaluation set were scored (2 empty, 1 too_long skipped)." in card


def test_the_metric_of_a_set_is_in_the_headline_where_it_chooses_and_in_the_table_of_groups_otherwise() -> None:
    groups = {name: {"bleu": bleu, "num_rows": 5} for name, bleu in (("flores", 4.0), ("news", 8.0))}
    scores = {"loss": 2.0, "bleu": 6.0, "flores/bleu": 4.0, "news/bleu": 8.0}
    sets: Any = [{"demo": "translation", "split": "eval", "name": name} for name in groups]
    values = translation_config().model_dump()
    values["data"]["eval"], values["evaluation"]["best_metric"] = sets, "flores/bleu"
    rows: list[Row] = [translation_row(50, bleu=6.0, loss=2.0, scores=scores, groups=groups)]
    card = build_card(build_record(RunConfig.model_validate(values), info=run_info(), rows=rows))
    assert results_header(card) == ["Training Loss", "Epoch", "Step", "Validation Loss", "Bleu", "Bleu (flores)"]
    assert "the best of 1 evaluations by `flores/bleu`" in card
    assert re.search(r"^\| +news +\| +5 +\| +8\.0000", card, flags=re.MULTILINE)
    assert "evaluation (news)" in card


def results_header(card: str) -> list[str]:
    line = next(line for line in card.splitlines() if "Validation Loss" in line and line.startswith("|"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_scores_stand_with_half_their_interval_in_headline_and_table_and_the_card_says_what_it_is() -> None:
    rows: list[Row] = [
        translation_row(50, bleu=39.5, loss=1.0, intervals={"bleu": 0.9}),
        translation_row(100, bleu=30.0, loss=1.0),
    ]
    card = build_card(build_record(translation_config(), info=run_info(), rows=rows))
    assert "- Bleu: 39.5000 ± 0.9000\n- Gen Len: 10.9556\n" in card
    assert "What follows ± is half the 95 % interval" in card
    header, *lines = results_table(card)
    assert [line[header.index("Bleu")] for line in lines] == ["39.5000 ± 0.9000", "30.0000"]
    assert "±" not in build_card(translation_record())


def test_a_better_evaluation_that_is_tied_with_the_best_is_named() -> None:
    rows: list[Row] = [
        translation_row(50, bleu=39.5, loss=1.0),
        translation_row(100, bleu=39.9, loss=1.0, is_tied=True),
    ]
    config = translation_config(evaluation={"best_by": "tied_keeps_older"})
    record = build_record(config, info=run_info(), rows=rows)
    assert record.best is rows[0]
    assert (
        "Bleu was better at another step, but not beyond chance: 39.9000 at step 100. The recipe keeps the older of two such "
        "evaluations (`evaluation.best_by: tied_keeps_older`)." in build_card(record)
    )


def test_a_metric_of_the_users_own_without_a_value_is_missing_and_decides_nothing() -> None:
    config = translation_config(evaluation={"metrics": ["bleu", "my_scores:novelty", "my_scores:kept"]})
    rows: list[Row] = [EventRow("start", 0)]
    for step in (50, 100):
        row = translation_row(step, bleu=9.0, loss=2.0)
        rows.append(replace(row, scores={"loss": 2.0, "bleu": 9.0, "kept": 0.5}))
    card = build_card(build_record(config, info=run_info(), rows=rows))
    assert "Novelty has no value there; a warning says why, if it failed." in card
    assert "(2 evaluations have this value; among them `kept`, `loss` decide, in this order)" in card
    rows = [
        EventRow("start", 0),
        *(replace(translation_row(step, bleu=9.0, loss=2.0), scores={"bleu": 9.0}) for step in (5, 9)),
    ]
    card = build_card(build_record(config, info=run_info(), rows=rows))
    assert "Novelty and Kept have no value there" in card
    assert "(2 evaluations have this value, and none of them another metric)" in card


def test_a_number_of_rows_is_a_whole_one_and_a_group_without_a_score_says_so() -> None:
    row = parsing_row(50, exact_match=0.5, loss=1.0)
    groups = {"a": {"exact_match": 0.5, "num_rows": 2}, "b": {"num_rows": 1}}
    row = replace(row, scores={**row.scores, "exact_match_disagreements": 3.0}, groups=groups)
    card = build_card(build_record(parsing_config(), info=run_info(), rows=[EventRow("start", 0), row]))
    assert "- Exact Match Disagreements: 3\n" in card
    group = next(table for table in tables(card) if table[0][0] == "Group")
    assert group[2][-1] == "no value"
