"""The origin of a model and the warnings on its card."""

from pathlib import Path
from typing import Any

import pytest

from dstrain.reporting.card import build_card
from tests.unit.reporting.card_cases import load, tables
from tests.unit.reporting.reporting_cases import (
    parsing_record,
    run_info,
    translation_config,
    translation_record,
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
def test_a_model_that_is_not_from_the_hub_links_nowhere(
    model: dict[str, Any], origin: str | None, sentence: str, tmp_path: Path
) -> None:
    card = build_card(translation_record(translation_config(model=model), info=run_info(model={"origin": origin})))
    assert f"This model {sentence} the" in card
    assert "huggingface.co" not in card
    assert load(card, folder=tmp_path).data.base_model is None


def test_data_are_counted_with_their_fingerprints_and_rules() -> None:
    card = build_card(translation_record())
    counts = next(table for table in tables(card) if table[0][1] == "Rows read")
    assert counts[1][:5] == ["training", "110", "100", "7 empty, 3 too_long", "2"]
    assert counts[1][-1] == "`5f3a9c`"
    assert counts[2][3] == "0"
    assert "- 10 training rows were skipped (7 empty, 3 too_long)" in card
    assert "unknown_token: keep" in card


def test_checks_to_come_have_their_place_and_cut_hypotheses_are_warned_of() -> None:
    card = build_card(parsing_record())
    checks = dict(next(table for table in tables(card) if table[0] == ["Check", "Result"]))
    assert checks["Train/evaluation overlap"] == "not checked by this version of dstrain"
    assert checks["Language check of data and hypotheses"] == "not checked by this version of dstrain"
    assert checks["Hypotheses cut at the length limit"].startswith(
        "25.0 % of the hypotheses of the evaluation reported"
    )
    assert (
        "- hypotheses were cut at the length limit: hit_cap_rate 0.2500 in the evaluation reported at the top" in card
    )
