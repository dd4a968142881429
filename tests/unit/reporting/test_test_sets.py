"""Other test sets on the card: nothing in their table can be compared by mistake."""

from dataclasses import replace
from typing import Any

from dstrain.reporting.card import build_card
from dstrain.reporting.test_sets import build_test_sets_table, explain_test_sets
from dstrain.run_folder.record import RunRecord
from dstrain.run_folder.scores import ScoredData, ScoreFile
from tests.unit.reporting.reporting_cases import BLEU_SIGNATURE, CHRF_SIGNATURE, translation_record

CHAR = BLEU_SIGNATURE.replace("13a", "char")


def record_with(**sets: ScoreFile) -> RunRecord:
    return replace(translation_record(), test_sets={name: (found,) for name, found in sets.items()})


def score_file(*, changes: dict[str, Any] | None, bleu: str = BLEU_SIGNATURE, **scores: float) -> ScoreFile:
    return ScoreFile(
        step=5000,
        scores={"bleu": 20.0, "chrf": 40.0, **scores},
        signatures={"bleu": bleu, "chrf": CHRF_SIGNATURE, "bleu (a)": "of a part"},
        data=ScoredData(("other.tsv",), "f", changes=changes),
        hypotheses="h",
        num_rows=9,
    )


def cells(record: RunRecord) -> dict[str, dict[str, str]]:
    header, _, *rows = [
        [cell.strip() for cell in line.replace("\\|", "/").split("|")[1:-1]]
        for line in str(build_test_sets_table(record)).splitlines()
    ]
    return {row[0]: dict(zip(header, row, strict=True)) for row in rows}


def test_every_row_has_its_signatures_and_what_differs_from_the_run() -> None:
    changes = {"evaluation.bleu_tokenizer": "char", "task.max_source_tokens": 8, "target_language": "fr"}
    found = cells(record_with(same=score_file(changes={}), tok=score_file(changes=changes, bleu=CHAR)))
    assert found["same"]["Unlike the run"] == "nothing but the rows"
    assert found["tok"]["Unlike the run"] == (
        "`evaluation.bleu_tokenizer=char`, `task.max_source_tokens=8`, `target_language=fr`"
    )
    assert found["tok"]["Signatures"] == f"Bleu `{CHAR}`, chrF `{CHRF_SIGNATURE}`".replace("|", "/")
    assert cells(record_with(old=score_file(changes=None)))["old"]["Unlike the run"] == "not recorded"


def test_the_score_of_a_part_that_a_test_set_lacks_is_a_dash() -> None:
    found = cells(record_with(whole=score_file(changes={}), parts=score_file(changes={}, **{"a/bleu": 7.0})))
    assert (found["whole"]["Bleu (a)"], found["parts"]["Bleu (a)"]) == ("-", "7.0000")
    assert found["whole"]["Loss"] == "-"


def test_scores_that_were_computed_in_different_ways_are_named_and_warnings_are_listed() -> None:
    assert explain_test_sets(record_with(same=score_file(changes={}))) == []
    warned = replace(score_file(changes={}, bleu=CHAR), warnings=("these rows are training rows",))
    card = build_card(record_with(tok=warned))
    assert "**Bleu was computed in 2 ways over the run's evaluation rows and these test sets" in card
    assert "chrF was computed" not in card
    assert "tok at step 5,000: these rows are training rows." in card


def test_a_run_without_other_test_sets_has_no_such_table() -> None:
    assert build_test_sets_table(translation_record()) is None
