"""Published results against the run's own: which steps meet, and what the card says of them."""

from typing import Any

import pytest

from dstrain.config.card import Card, Published
from dstrain.reporting.card import build_card
from dstrain.reporting.published import build_published_table, explain_published, pair_steps
from dstrain.run_folder.record import RunRecord, build_record
from dstrain.run_folder.rows import EventRow, Row
from tests.unit.reporting.card_cases import tables
from tests.unit.reporting.reporting_cases import (
    parsing_config,
    parsing_record,
    run_info,
    translation_config,
    translation_record,
    translation_row,
)

CURVE = ((5000, 12.0, 0.8), (50_000, 17.0, 0.6), (95_000, 26.0, 0.4))


def published(steps: tuple[tuple[int, float, float], ...] = CURVE, **changes: Any) -> Card:
    rows = [{"step": step, "epoch": step / 16544, "scores": {"loss": loss, "bleu": bleu}} for step, bleu, loss in steps]
    values = {"name": "ko-en-m2m", "scores": {"bleu": 26.0, "loss": 0.4}, "steps": rows}
    return Card(published=Published.model_validate(values | changes))


def record_of(card: Card, steps: tuple[int, ...] = (5000, 50_000, 95_000)) -> RunRecord:
    rows: list[Row] = [EventRow("start", 0), *(translation_row(step, bleu=20.0, loss=0.5) for step in steps)]
    return build_record(translation_config(card=card), info=run_info(), rows=rows)


def shown(record: RunRecord) -> list[list[str]]:
    found = [table for table in tables(build_card(record)) if "published" in " ".join(table[0])]
    assert len(found) == 1
    return found[0]


def test_every_published_step_stands_beside_ours_with_the_difference() -> None:
    table = shown(translation_record(translation_config(card=published())))
    assert table[0] == [
        "Step", "Loss published", "Loss here", "Loss difference", "Bleu published", "Bleu here", "Bleu difference",
    ]  # fmt: skip
    assert table[1] == ["5,000", "0.8000", "0.7640", "-0.0360", "12.0000", "12.7212", "+0.7212"]
    assert table[3] == ["95,000", "0.4000", "0.4282", "+0.0282", "26.0000", "25.8137", "-0.1863"]
    assert table[4] == ["opening", "0.4000", "0.4282", "+0.0282", "26.0000", "25.8137", "-0.1863"]


def test_a_card_without_published_results_has_no_such_section() -> None:
    assert "Published against ours" not in build_card(translation_record())
    assert build_published_table(translation_record()) is None
    assert explain_published(translation_record()) == []


def test_the_nearest_evaluation_stands_in_and_is_named() -> None:
    record = record_of(published(), steps=(4000, 51_000, 95_000))
    assert [row[:2] for row in shown(record)][1:4] == [["5,000", "4,000"], ["50,000", "51,000"], ["95,000", "95,000"]]
    assert "the nearest stands beside it (2 rows)" in " ".join(explain_published(record))


@pytest.mark.parametrize(
    ("own", "met"),
    [
        ((5,), []),
        ((6200,), [5000]),
        ((6300,), []),
        ((38_000,), []),
        ((), []),
        ((95_000, 200_000), [95_000]),
        ((140_000,), []),
    ],
)
def test_an_evaluation_farther_than_a_quarter_of_the_interval_is_none(own: tuple[int, ...], met: list[int]) -> None:
    record = record_of(published(), steps=own)
    card = record.config.card.published
    assert card is not None
    assert [pair.published.step for pair in pair_steps(card, rows=record.eval_rows)] == met
    build_card(record)


def test_a_run_that_is_not_there_yet_says_so() -> None:
    record = record_of(published(scores={}), steps=(5,))
    assert "None of its 3 steps is near an evaluation of this run yet." in explain_published(record)
    assert build_published_table(record) is None
    assert "Published against ours" in build_card(record)


def test_scores_that_only_one_side_has_are_said_or_left_empty() -> None:
    rows = [{"step": 5000, "scores": {"bleu": 12.0, "meteor": 0.4}}, {"step": 50_000, "scores": {"chrf": 30.0}}]
    record = record_of(published(steps=(), scores={"meteor": 0.5}).model_copy(), steps=(5000,))
    assert build_published_table(record) is None
    record = record_of(Card(published=Published.model_validate({"steps": rows})), steps=(5000, 50_000))
    table = shown(record)
    assert table[1] == ["5,000", "12.0000", "20.0000", "+8.0000", "", "40.0000", ""]
    assert table[2] == ["50,000", "", "20.0000", "", "30.0000", "40.0000", "+10.0000"]
    assert "Published and not computed here: `meteor`." in explain_published(record)


def test_data_of_another_size_are_noticed_by_the_epochs() -> None:
    record = record_of(published())
    assert "the data differ in size" not in " ".join(explain_published(record))
    rows = [{"step": 95_000, "epoch": 3.0, "scores": {"bleu": 26.0}}]
    record = record_of(Card(published=Published.model_validate({"steps": rows})))
    said = "At step 95,000 the published run had passed 3 times over its training rows, this one 5.74 times"
    assert said in " ".join(explain_published(record))


def test_the_name_of_a_stranger_is_text_on_the_card() -> None:
    card = published(name="a_b/c.d")
    assert "`a_b/c.d`" in build_card(record_of(card))


def test_parses_are_compared_by_exact_match() -> None:
    rows = [{"step": 1200, "scores": {"exact_match": 0.5365}}]
    card = Card(published=Published.model_validate({"scores": {"exact_match": 0.7445}, "steps": rows}))
    table = shown(parsing_record(parsing_config(card=card)))
    assert table[1:] == [["1,200", "0.5365", "0.5365", "+0.0000"], ["opening", "0.7445", "0.5539", "-0.1906"]]
