"""The points of a run: every number under its name, and each step once."""

import math
from dataclasses import replace

from dstrain.run_folder.average import Average
from dstrain.run_folder.record import RunRecord, build_record
from dstrain.run_folder.rows import EvalRow, EventRow, Row, TrainRow
from dstrain.run_folder.scores import OutputRate, ScoreFile
from dstrain.tracking.points import points_of
from tests.unit.reporting.reporting_cases import run_info, translation_config
from tests.unit.tracking.tracking_cases import START, START_SECONDS

BEGIN = EventRow("start", 0, START)


def record(*rows: Row, **config: object) -> RunRecord:
    return build_record(translation_config(**config), info=run_info(), rows=[BEGIN, *rows])


def test_a_training_row_shows_all_of_its_numbers_but_those_that_are_not_known() -> None:
    (point,) = points_of(record(TrainRow(50, 0.5, 2.0, learning_rate=1e-4, skipped_steps=3, lease=7)))
    assert (point.part, point.step) == ("train", 50)
    assert (point.values["train/loss"], point.values["train/learning_rate"]) == (2.0, 1e-4)
    assert (point.values["train/skipped_steps"], point.values["train/epoch"]) == (3.0, 0.5)
    assert not {"train/grad_norm", "train/lease", "train/step"} & point.values.keys()
    assert all(type(value) is float for value in point.values.values())


def test_an_evaluation_shows_every_score_its_sets_groups_intervals_and_output_rates() -> None:
    row = EvalRow(
        step=100,
        epoch=1.0,
        train_loss=1.75,
        scores={"bleu": 30.0, "flores/bleu": 20.0},
        groups={"flores": {"bleu": 20.0, "chrf": 44.0}, "날짜": {"bleu": 9.0}},
        intervals={"bleu": 1.5},
        outputs={"empty": OutputRate(0.25, 0.0)},
    )
    (point,) = points_of(record(row))
    assert point.values == {
        "eval/bleu": 30.0,
        "eval/flores/bleu": 20.0,
        "eval/flores/chrf": 44.0,
        "eval/날짜/bleu": 9.0,
        "eval_intervals/bleu": 1.5,
        "eval_outputs/empty": 0.25,
        "eval/epoch": 1.0,
        "eval/train_loss": 1.75,
    }


def test_scores_of_other_programs_are_points_of_their_own_because_they_come_later() -> None:
    external = {"external": {"comet": {"command": ["x", "{hypotheses}"]}}}
    row = EvalRow(step=100, epoch=1.0, scores={"bleu": 30.0})
    (first,) = points_of(record(row, evaluation=external))
    later = points_of(record(replace(row, scores={"bleu": 30.0, "comet": 0.8}), evaluation=external))
    assert later == [first, replace(first, part="eval/comet", values={"eval/comet": 0.8})]


def test_other_test_sets_and_the_average_have_their_names() -> None:
    found = replace(
        record(),
        test_sets={"flores": (ScoreFile(step=100, scores={"bleu": 21.0}),), "empty": (ScoreFile(step=100, scores={}),)},
        average=Average((50, 100), ScoreFile(step=100, scores={"bleu": 33.0})),
    )
    assert [(each.part, each.step, each.values) for each in points_of(found)] == [
        ("average", 100, {"average/bleu": 33.0}),
        ("test_sets/flores", 100, {"test_sets/flores/bleu": 21.0}),
    ]


def test_rows_that_a_resume_repeated_count_once_and_points_go_by_step() -> None:
    rows: list[Row] = [
        TrainRow(50, 0.5, 2.0),
        TrainRow(100, 1.0, 1.9),
        EvalRow(step=100, epoch=1.0, scores={"bleu": 1.0}),
    ]
    again: list[Row] = [EventRow("resume", 50, lease=1), TrainRow(100, 1.0, 1.8, lease=1)]
    points = points_of(record(EvalRow(step=50, epoch=0.5, scores={"bleu": 2.0}), *rows, *again))
    assert [(each.part, each.step) for each in points] == [("train", 50), ("eval", 50), ("train", 100)]
    assert points[-1].values["train/loss"] == 1.8


def test_the_time_of_a_point_is_the_start_and_the_seconds_trained_until_then() -> None:
    rows = [TrainRow(50, 0.5, 2.0, elapsed_seconds=30.0), TrainRow(100, 1.0, 1.9, elapsed_seconds=61.0)]
    scored = [EvalRow(step=step, epoch=1.0, scores={"bleu": 1.0}) for step in (10, 75)]
    resume = EventRow("resume", 100, "2026-12-24T10:00:00Z")
    times = {each.key: each.time - START_SECONDS for each in points_of(record(*rows, *scored, resume))}
    assert times == {("train", 50): 30.0, ("train", 100): 61.0, ("eval", 10): 0.0, ("eval", 75): 30.0}


def test_a_number_that_is_not_finite_stays_what_it_is() -> None:
    (point,) = points_of(record(TrainRow(50, 0.5, math.nan, grad_norm=math.inf)))
    assert math.isnan(point.values["train/loss"])
    assert point.values["train/grad_norm"] == math.inf
