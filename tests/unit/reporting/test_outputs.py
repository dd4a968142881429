"""The table of failing hypotheses on the card: always beside the references, and only what was recorded."""

from dataclasses import replace

from dstrain.reporting.card import build_card
from dstrain.reporting.outputs import NAMES_OF_RATES
from dstrain.run_folder.record import build_record
from dstrain.run_folder.rows import EvalRow
from dstrain.run_folder.scores import OutputRate
from tests.unit.reporting.reporting_cases import run_info, translation_config, translation_record, translation_row

HEADING = "### Hypotheses that fail"


def card_of(row: EvalRow) -> str:
    return build_card(build_record(translation_config(), info=run_info(), rows=[row]))


def test_the_card_has_the_rates_of_the_headline_beside_those_of_the_references() -> None:
    outputs = {"empty": OutputRate(0.0, 0.0), "copy": OutputRate(0.125, 0.004), "wrong_script": OutputRate(1.0, 0.01)}
    card = card_of(replace(translation_row(50, bleu=3.0, loss=1.0), outputs=outputs))
    rows = [
        line.split("|")[1:4] for line in card.split(HEADING)[1].split("\n### ")[0].splitlines() if line.startswith("|")
    ]
    assert [[cell.strip() for cell in row] for row in rows if ":--" not in row[0]] == [
        ["Texts", "Hypotheses", "References"],
        ["Empty", "0.0 %", "0.0 %"],
        ["Are their source", "12.5 %", "0.4 %"],
        ["In another script than most references", "100.0 %", "1.0 %"],
    ]
    assert "pip install 'dstrain[langid]'" in card


def test_the_detector_of_languages_is_named() -> None:
    row = translation_row(50, bleu=3.0, loss=1.0)
    outputs = {"wrong_language": OutputRate(0.5, 0.1)}
    card = card_of(replace(row, outputs=outputs, signatures=row.signatures | {"wrong_language": "py3langid:0.4.0|x"}))
    assert "Languages were distinguished by `py3langid:0.4.0|x`." in card
    assert "pip install 'dstrain[langid]'" not in card


def test_an_evaluation_of_an_earlier_version_and_unknown_names_have_no_table() -> None:
    assert HEADING not in build_card(translation_record())
    card = card_of(replace(translation_row(5, bleu=3.0, loss=1.0), outputs={"<x>": OutputRate(0.5, 0.5)}))
    assert HEADING not in card


def test_every_rate_of_an_evaluation_has_a_name_on_the_card() -> None:
    from dstrain.evaluation.output_rates import MEANINGS

    assert list(NAMES_OF_RATES) == list(MEANINGS)


def check_of(row: EvalRow) -> str:
    card = card_of(row)
    return next(line for line in card.splitlines() if line.startswith("| Language check of the hypotheses"))


def test_the_card_says_what_the_hypotheses_were_checked_for() -> None:
    row = translation_row(50, bleu=3.0, loss=1.0)
    assert "not checked by the version" in check_of(row)
    script = {"wrong_script": OutputRate(0.25, 0.0)}
    found = check_of(replace(row, outputs=script))
    assert (
        "in another script than most references: 25.0 % (references 0.0 %); languages of one script were not" in found
    )
    both = script | {"wrong_language": OutputRate(0.5, 0.1)}
    found = check_of(replace(row, outputs=both, signatures={"wrong_language": "py3langid:0.4.0|among:en,ko"}))
    assert "in another language, told by py3langid:0.4.0: 50.0 % (references 10.0 %)" in found
    assert "outputs of this task are no language" in check_of(replace(row, outputs={"empty": OutputRate(0.0, 0.0)}))
