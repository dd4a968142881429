"""The origin of a model and the warnings on its card."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dstrain.reporting.card import build_card
from dstrain.reporting.provenance import build_checks_table, collect_warnings, describe_model
from dstrain.run_folder.record import QuarantinedRow, build_record
from dstrain.run_folder.rows import EventRow, Row
from tests.unit.reporting.card_cases import load, tables
from tests.unit.reporting.reporting_cases import (
    parsing_record,
    run_info,
    train_row,
    translation_config,
    translation_record,
    translation_row,
)

SCRATCH = {"architecture": "m2m100"}


@pytest.mark.parametrize(
    ("model", "origin", "sentence"),
    [
        ({"scratch": SCRATCH}, None, "was trained from scratch (`m2m100` architecture, random initial weights) on"),
        ({"name": "/models/tiny"}, None, "is a fine-tuned version of `/models/tiny` (a local folder) on"),
        ({"name": "models/tiny"}, "folder", "is a fine-tuned version of `models/tiny` (a local folder) on"),
    ],
)
def test_a_model_that_is_not_from_the_hub_has_no_link(
    model: dict[str, Any], origin: str | None, sentence: str, tmp_path: Path
) -> None:
    card = build_card(translation_record(translation_config(model=model), info=run_info(model={"origin": origin})))
    assert f"This model {sentence} the" in card
    assert "huggingface.co" not in card
    assert load(card, folder=tmp_path).data.base_model is None


def test_a_model_of_part_of_the_vocabulary_says_so() -> None:
    model = {"trained_ids": 4013, "num_ids": 250100, "num_parameters": 1200, "num_exported_parameters": 8300}
    card = build_card(translation_record(info=run_info(model=model)))
    assert "number of parameters: 8,300, in training 1,200. " in card
    assert "Trained on 4,013 of 250,100 token ids" in card
    assert "token ids" not in build_card(translation_record())


def test_a_model_that_was_trained_in_part_says_which_part() -> None:
    model = {"num_parameters": 9000, "num_exported_parameters": 8000, "num_trained_parameters": 2000, "new_tokens": 12}
    base = {"name": "facebook/m2m100_418M", "freeze": ["embeddings", "*norm*"]}
    card = build_card(translation_record(translation_config(model=base), info=run_info(model=model)))
    assert "2,000 parameters (25.0 %); frozen: `embeddings`, `*norm*`; the rows of 12 new tokens were trained" in card
    adapter = {"rank": 4, "targets": ["q_proj", "v_proj"]}
    config = translation_config(model={"name": "facebook/m2m100_418M", "adapter": adapter})
    card = build_card(translation_record(config, info=run_info(model=model)))
    assert (
        "2,000 parameters (22.2 % of those in training): LoRA of rank 4, alpha 16, dropout 0, of `q_proj, v_proj`; the"
        in card
    )
    assert "number of parameters: 8,000, in training 9,000 with the adapter" in card
    assert "`best/adapter/` has the adapter alone" in card
    assert "Trained part" not in build_card(translation_record())


def test_data_are_counted_with_their_fingerprints_and_rules() -> None:
    card = build_card(translation_record())
    counts = next(table for table in tables(card) if table[0][1] == "Rows read")
    assert counts[1][:5] == ["training", "110", "100", "7 empty, 3 too long", "2"]
    assert counts[1][-1] == "`5f3a9c`"
    assert counts[2][3] == "0"
    assert "- 10 training rows were skipped (7 empty, 3 too long)" in card
    assert "unknown_token: keep" in card


def test_checks_that_are_not_made_are_listed_and_cut_hypotheses_are_warned_of() -> None:
    card = build_card(parsing_record())
    checks = dict(next(table for table in tables(card) if table[0] == ["Check", "Result"]))
    names = ("Train/evaluation overlap", "Language check of the data", "Language check of the hypotheses")
    assert {checks[name] for name in names} == {"not checked by the version of dstrain that made the run"}
    assert checks["Hypotheses cut at the length limit"].startswith(
        "25.0 % of the hypotheses of the evaluation reported"
    )
    assert (
        "- hypotheses were cut at the length limit: hit_cap_rate 0.2500 in the evaluation reported at the top" in card
    )


def test_quarantined_rows_and_unsaved_checkpoints_are_listed_and_warned_of() -> None:
    rows: list[Row] = [
        train_row(50),
        EventRow("unsaved", 60, message="no space"),
        EventRow("unsaved", 60, message="full"),
    ]
    quarantine = [
        QuarantinedRow(line, 30, "loss is nan", f"train.tsv:{line}", "source", "target") for line in range(1, 8)
    ]
    record = build_record(translation_config(), info=run_info(), rows=rows, quarantine=quarantine)
    checks = build_checks_table(record)
    limit = record.config.training.max_quarantined_rows
    assert f"7 (at most {limit} allowed), listed in `quarantine.jsonl`: `train.tsv:1` (step 30: loss is nan)" in checks
    assert "`train.tsv:5` (step 30: loss is nan) and 2 more" in checks
    warnings = collect_warnings(record)
    assert "checkpoints could not be saved: step 60 (full)" in warnings
    assert "7 training rows were quarantined, because no step with them could be applied" in warnings


def test_where_rows_are_missing_it_is_not_said_that_every_checkpoint_was_saved() -> None:
    record = build_record(translation_config(), info=run_info(), rows=[train_row(50)], unwritten={2: 41})
    missing = "not known from step 41 of attempt 2 on: the rows that say so could not be written, as on a full disk"
    assert re.search(rf"Checkpoints that could not be saved +\| {missing} +\|", build_checks_table(record))
    assert any(
        "rows of metrics.jsonl are missing from step 41 of attempt 2 on" in str(w) for w in collect_warnings(record)
    )


def test_a_warning_that_is_recorded_twice_is_shown_once() -> None:
    rows: list[Row] = [translation_row(50, bleu=1.0, loss=2.0, warnings=("short", "slow"))]
    record = build_record(translation_config(), info=run_info(warnings=("slow",), data={}), rows=rows)
    assert collect_warnings(record) == ["slow", "short"]


def test_a_record_without_warnings_says_so() -> None:
    record = build_record(translation_config(), info=run_info(data={}), rows=[train_row(50, skipped_steps=0)])
    assert collect_warnings(record) == ["No warnings were recorded."]


@pytest.mark.parametrize(
    "name", ["x](https://evil.example) <img src=x>\n\n# Forged heading", "owner/näme", "a/b/c", "owner/name\n"]
)
def test_a_name_that_cannot_be_one_of_the_hub_is_no_link_whatever_the_run_says(name: str) -> None:
    record = translation_record(translation_config(model={"name": name}), info=run_info(model={"origin": "hub"}))
    card = build_card(record)
    assert "huggingface.co" not in card
    assert "base_model" not in card
    assert "\n# Forged heading" not in card


def test_an_architecture_of_no_family_is_called_experimental() -> None:
    info = run_info()
    tested = replace(info, model=replace(info.model, architecture="NewModel", passed_self_test=True))
    record = build_record(translation_config(), info=tested, rows=[])
    assert "NewModel (experimental, self-test passed), number of parameters:" in str(dict(describe_model(record)))
    assert "experimental" not in str(describe_model(build_record(translation_config(), info=info, rows=[])))
