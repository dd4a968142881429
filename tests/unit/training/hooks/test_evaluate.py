"""When the model is scored, which score is the best, and when scores stop improving; also after a restart."""

import json
import math
from collections.abc import Callable, Iterable
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest

from dstrain.checkpoint.changes import Part
from dstrain.cluster.walltime import ALLOCATION_ENDS, WallTime
from dstrain.data.plan import Position
from dstrain.errors import UserError
from dstrain.evaluation.result import EvaluationResult
from dstrain.run_folder.rows import EvalRow, best_evaluation, untied
from dstrain.run_folder.scores import ScoredTexts, Scores
from dstrain.training.hooks.evaluate import REHEARSAL_BATCHES, EvaluateHook
from dstrain.training.save_clock import SaveClock
from dstrain.training.state import Progress
from tests.distributed.steps import build_config
from tests.unit.training.training_cases import Recorder, Watch, alone, build_step, endless

TOTAL_STEPS = 40
SIGNATURE = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"


class Scorer:
    """Returns the next of some values as the score, and records its calls."""

    def __init__(self, values: Iterable[float], *, losses: Iterable[float], metric: str) -> None:
        self.values = iter(values)
        self.losses = iter(losses)
        self.metric = metric
        self.has_rows = True
        self.asked: list[int | None] = []
        self.cut_short = False

    def __call__(self, max_batches: int | None) -> EvaluationResult | None:
        self.asked.append(max_batches)
        if self.cut_short:
            return None
        value = next(self.values) if max_batches is None else -1.0
        if self.metric == "exact_match":
            return self.match_rows(value, is_rehearsal=max_batches is not None)
        scores = Scores(
            scores={"loss": next(self.losses), "bleu": 9.0, self.metric: value},
            signatures={"bleu": SIGNATURE},
            generation={"num_beams": 1},
            num_rows=1,
            warnings=("a warning",),
        )
        return EvaluationResult(scores, ScoredTexts(["h"], [["r"]], ["s"], ["f:1"]))

    def match_rows(self, value: float, *, is_rehearsal: bool) -> EvaluationResult:
        """The first rows of 100 match, as many as the score says."""
        texts = ["x"] * 100
        statistics = [{"exact_match": (float(row < 100 * value),)} for row in range(100)] if self.has_rows else []
        intervals = {"exact_match": 0.1} if self.has_rows else {}
        scores = Scores(scores={"loss": next(self.losses), "exact_match": value}, intervals=intervals, num_rows=100)
        return EvaluationResult(scores, ScoredTexts(texts, [texts], texts, texts, statistics))


class Case:
    """A hook and everything that it needs."""

    def __init__(
        self,
        run_dir: Path,
        *,
        values: Iterable[float] = (1.0,) * 99,
        losses: Iterable[float] = repeat(9.0),
        metric: str = "bleu",
        walltime: WallTime | None = None,
        save_clock: SaveClock | None = None,
        **changes: Any,
    ) -> None:
        config = build_config(output_dir=str(run_dir), evaluation__best_metric=metric, **changes)
        self.score = Scorer(values, losses=losses, metric=metric)
        self.exported: list[int] = []
        self.step = 0
        self.recorder = Recorder()
        self.hook = EvaluateHook(
            config=config,
            ranks=alone(),
            walltime=walltime or endless(),
            save_clock=save_clock or SaveClock(0.0),
            evaluate=self.score,
            export_best=self.exported.append,
            agree_on_stop=lambda control: control.request_stop("received SIGTERM", preempted=True),
        )

    @property
    def evaluated(self) -> list[int]:
        return [row["step"] for row in self.recorder.rows]

    def start(self, step: int = 0) -> "Case":
        self.step = step
        self.hook.on_start(Progress(step, Position(0, step)), self.recorder.control)
        return self

    def run(self, first: int, last: int, *, before: Callable[[int], None] = lambda step: None) -> "Case":
        """Takes steps of a tenth of an epoch, until a stop is requested."""
        for step in range(first, last + 1):
            self.step = step
            before(step)
            info = build_step(step, total_steps=TOTAL_STEPS, loss_sum=float(step))
            self.hook.on_step(info, self.recorder.control)
            if self.recorder.control.stop_reason is not None:
                break
        return self

    def saved(self) -> Any:
        return json.loads(json.dumps(self.hook.state()))


@pytest.mark.parametrize(
    ("cadence", "expected"),
    [
        ({}, [40]),
        ({"evaluation__every_steps": 15}, [15, 30, 40]),
        ({"evaluation__every_steps": 20}, [20, 40]),
        ({"evaluation__every_epochs": 1.0}, [10, 20, 30, 40]),
        ({"evaluation__every_epochs": 0.5}, [5, 10, 15, 20, 25, 30, 35, 40]),
        ({"evaluation__every_epochs": 1.5}, [15, 30, 40]),
        ({"evaluation__every_epochs": 0.3}, [3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 33, 36, 39, 40]),
        ({"evaluation__every_epochs": 0.25}, [3, 5, 8, 10, 13, 15, 18, 20, 23, 25, 28, 30, 33, 35, 38, 40]),
        ({"evaluation__every_epochs": 0.01}, list(range(1, 41))),
    ],
)
def test_evaluates_at_its_cadence_and_at_the_end_once(
    cadence: dict[str, Any], expected: list[int], tmp_path: Path
) -> None:
    assert Case(tmp_path, **cadence).start().run(1, TOTAL_STEPS).evaluated == expected


@pytest.mark.parametrize(
    ("rehearsal", "step", "asked"), [(True, 0, [REHEARSAL_BATCHES]), (False, 0, []), (True, 7, [])]
)
def test_a_new_run_rehearses_the_evaluation_without_a_score(
    rehearsal: bool, step: int, asked: list[int], tmp_path: Path
) -> None:
    case = Case(tmp_path, evaluation__rehearsal=rehearsal).start(step)
    assert case.score.asked == asked
    assert case.recorder.rows == []
    assert case.hook.best is None


def test_a_row_has_what_is_needed_to_interpret_the_score_and_the_training_loss_since_the_last_one(
    tmp_path: Path,
) -> None:
    case = Case(tmp_path, evaluation__every_steps=2).run(1, 4)
    row = case.recorder.rows[1]
    assert (row["kind"], row["step"], row["epoch"]) == ("eval", 4, 0.4)
    assert row["train_loss"] == pytest.approx((3 + 4) / 20)
    assert row["scores"]["bleu"] == 1.0
    assert (row["signatures"], row["generation"]) == ({"bleu": SIGNATURE}, {"num_beams": 1})
    assert row["warnings"] == ("a warning",)
    assert (tmp_path / row["hypotheses"] / "hypotheses.txt").read_text() == "h\n"
    json.dumps(case.recorder.rows)


@pytest.mark.parametrize(
    ("metric", "values", "best", "exported"),
    [
        ("bleu", [1.0, 3.0, 2.0], 2, [1, 2]),
        ("bleu", [2.0, 2.0, 2.0], 1, [1]),
        ("bleu", [0.0, 0.0, 0.0], 1, [1]),
        ("loss", [3.0, 1.0, 2.0], 2, [1, 2]),
        ("loss", [1.0, 1.0, 1.0], 1, [1]),
        ("loss", [math.nan, 5.0, 6.0], 2, [1, 2]),
        ("loss", [5.0, math.nan, 4.0], 3, [1, 3]),
        ("bleu", [math.nan, 0.0, math.nan], 2, [1, 2]),
    ],
)
def test_the_best_evaluation_is_kept_and_the_older_of_equal_ones(
    metric: str, values: list[float], best: int, exported: list[int], tmp_path: Path
) -> None:
    case = Case(tmp_path, values=values, metric=metric, evaluation__every_steps=1).run(1, 3)
    assert case.hook.kept_steps == [best]
    assert case.exported == exported


STOPPING = {"evaluation__every_steps": 1}


def test_while_the_best_metric_ties_the_lower_loss_is_the_best_model_and_a_score_of_0_does_not_stop_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    losses = [9.0, 7.0, 8.0, 5.0, 4.0]
    for bleu, stopped in ((0.0, None), (30.0, 3)):
        changes: dict[str, Any] = {"training__early_stopping": {"patience": 2}, **STOPPING}
        case = Case(tmp_path, values=repeat(bleu), losses=losses, **changes).run(1, len(losses))
        assert case.exported == [1, 2, 4, 5][: 2 if stopped else 4]
        assert (case.step if case.recorder.control.stop_reason else None) == stopped
    assert caplog.text.count("bleu was 0.0000 in 3 evaluations in a row") == 1


def test_the_scores_that_show_a_constant_metric_survive_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = Case(tmp_path, values=[0.0, 0.0], **STOPPING).run(1, 2)
    assert "in a row" not in caplog.text
    second = Case(tmp_path, values=[0.0], **STOPPING)
    second.hook.load_state(first.saved())
    second.run(3, 3)
    assert "bleu was 0.0000 in 3 evaluations in a row" in caplog.text


@pytest.mark.parametrize(
    ("metric", "values", "patience", "min_delta", "stopped_at"),
    [
        ("bleu", [1, 2, 2, 2, 9], 2, 0.0, 4),
        ("bleu", [1, 2, 1, 3, 1, 1, 1], 3, 0.0, 7),
        ("bleu", [5, 4], 1, 0.0, 2),
        ("bleu", [1, 1.4, 1.8, 9], 2, 0.5, 3),
        ("bleu", [1, 1.6, 2.2, 2.8], 1, 0.5, None),
        ("loss", [3, 2, 2.5, 2.1], 2, 0.0, 4),
        ("loss", [3, 2, 1, 0.5], 1, 0.0, None),
        ("loss", [math.nan, math.nan, math.nan], 2, 0.0, 3),
    ],
)
def test_the_run_stops_when_the_metric_no_longer_improves(
    metric: str, values: list[float], patience: int, min_delta: float, stopped_at: int | None, tmp_path: Path
) -> None:
    stopping = {"patience": patience, "min_delta": min_delta}
    case = Case(tmp_path, values=values, metric=metric, training__early_stopping=stopping, **STOPPING)
    case.run(1, len(values))
    control = case.recorder.control
    assert (case.step if control.stop_reason else None) == stopped_at
    assert not control.preempted
    if stopped_at:
        assert control.stop_reason == f"early stopping: {metric} has not improved in {patience} evaluations"


def test_a_gain_below_min_delta_is_still_the_best_model(tmp_path: Path) -> None:
    case = Case(tmp_path, values=[1, 1.4], training__early_stopping={"patience": 5, "min_delta": 0.5}, **STOPPING)
    assert case.run(1, 2).hook.kept_steps == [2]


@pytest.mark.parametrize(("every_steps", "asked"), [(None, True), (7, False)])
def test_a_checkpoint_follows_an_evaluation_unless_it_has_a_cadence_of_its_own(
    every_steps: int | None, asked: bool, tmp_path: Path
) -> None:
    values = [2.0, 1.0]
    case = Case(tmp_path, values=values, evaluation__every_steps=1, checkpoint__every_steps=every_steps).run(1, 1)
    case.recorder.control.checkpoint_requested = False  # the first is the best so far, which is always saved
    assert case.run(2, 2).recorder.control.checkpoint_requested is asked


CADENCES = [{"evaluation__every_steps": 3}, {"evaluation__every_epochs": 0.7}, {}]
VALUES = [float((7 * i) % 11) for i in range(TOTAL_STEPS)]


@pytest.mark.parametrize("cadence", CADENCES)
@pytest.mark.parametrize("stopped_at", [1, 2, 3, 6, 7, 8, 39, TOTAL_STEPS])
def test_a_run_interrupted_anywhere_has_the_rows_and_the_best_of_the_straight_run(
    stopped_at: int, cadence: dict[str, Any], tmp_path: Path
) -> None:
    straight = Case(tmp_path / "straight", values=VALUES, **cadence).start().run(1, TOTAL_STEPS)
    first = Case(tmp_path / "cut", values=VALUES, **cadence).start()

    def stop(step: int) -> None:
        if step == stopped_at:
            first.recorder.control.request_stop("received SIGTERM", preempted=True)

    first.run(1, TOTAL_STEPS, before=stop)
    assert first.step == stopped_at
    second = Case(tmp_path / "cut", values=first.score.values, **cadence)
    second.hook.load_state(first.saved())
    second.start(stopped_at).run(stopped_at + 1, TOTAL_STEPS)

    def comparable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]

    assert comparable(first.recorder.rows + second.recorder.rows) == comparable(straight.recorder.rows)
    assert second.hook.best == straight.hook.best
    assert first.exported + second.exported == straight.exported


def test_a_run_that_was_signalled_to_stop_does_not_spend_its_last_minutes_on_an_evaluation(tmp_path: Path) -> None:
    case = Case(tmp_path, evaluation__every_steps=1)
    case.recorder.control.request_stop("received SIGTERM", preempted=True)
    assert case.run(1, 1).score.asked == []


def test_a_run_that_stopped_early_does_not_continue_when_it_is_started_again(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"training__early_stopping": {"patience": 1}, **STOPPING}
    first = Case(tmp_path, values=[2.0, 1.0], **changes).start().run(1, 2)
    assert first.recorder.control.stop_reason is not None
    second = Case(tmp_path, **changes)
    second.hook.load_state(first.saved())
    second.start(2)
    assert second.recorder.control.stop_reason == first.recorder.control.stop_reason
    assert second.score.asked == []


def test_scores_of_another_metric_do_not_compete_with_the_new_ones(tmp_path: Path) -> None:
    first = Case(tmp_path, values=[0.9, 0.8, 0.7], **STOPPING).start().run(1, 3)
    changes = STOPPING | {"training__early_stopping": {"patience": 2}}
    second = Case(tmp_path, metric="loss", values=[6.0, 5.0, 4.0], losses=[0.0] * 3, **changes)
    second.hook.load_state(first.saved())
    said = second.hook.reset({Part.SCORES}, attempt=2)
    assert [sentence.split(";")[0].split(":")[0] for sentence in said] == [
        "the best score is reset", "early stopping is reset",
    ]  # fmt: skip
    assert "at step 1," in said[0]
    assert said[1].endswith("so far: 2")
    second.start(3).run(4, 6)
    assert second.exported == [4, 5, 6]
    assert second.recorder.control.stop_reason is None
    third = Case(tmp_path, metric="loss", **changes)
    third.hook.load_state(second.saved())
    assert (third.hook.best, third.hook.scores_since) == (second.hook.best, 2)


def test_patience_starts_anew_alone_where_only_early_stopping_has_changed(tmp_path: Path) -> None:
    first = Case(tmp_path, values=[0.9, 0.8, 0.7], **STOPPING).start().run(1, 3)
    second = Case(tmp_path, values=[0.6, 0.5], **STOPPING | {"training__early_stopping": {"patience": 2}})
    second.hook.load_state(first.saved())
    assert second.hook.reset({Part.PATIENCE}, attempt=2) == [
        "early stopping is reset; evaluations without improvement so far: 2"
    ]
    assert second.hook.best == first.hook.best
    assert second.start(3).recorder.control.stop_reason is None
    assert second.run(4, 9).step == 5
    assert second.hook.scores_since == 0


def test_a_training_loss_of_another_scale_does_not_enter_the_mean(tmp_path: Path) -> None:
    first = Case(tmp_path, evaluation__every_steps=4).start().run(1, 2)
    second = Case(tmp_path, evaluation__every_steps=4)
    second.hook.load_state(first.saved())
    assert second.hook.reset({Part.LOSS}, attempt=2) == []
    (row,) = second.start(2).run(3, 4).recorder.rows
    assert row["train_loss"] == pytest.approx((3 + 4) / 20)


def test_an_evaluation_interrupted_by_a_signal_runs_first_after_the_restart(tmp_path: Path) -> None:
    straight = Case(tmp_path / "straight", evaluation__every_steps=5).start().run(1, 10)
    case = Case(tmp_path / "cut", evaluation__every_steps=5).start()
    case.score.cut_short = True
    case.run(1, 10)
    assert (case.step, case.recorder.rows) == (5, [])
    assert case.recorder.control.preempted
    again = Case(tmp_path / "cut", evaluation__every_steps=5)
    again.hook.load_state(case.saved())
    again.start(5).run(6, 10)
    assert [(row["step"], row["train_loss"]) for row in again.recorder.rows] == [
        (row["step"], row["train_loss"]) for row in straight.recorder.rows
    ]


def test_a_checkpoint_from_before_ties_were_broken_goes_on_with_its_best_score(tmp_path: Path) -> None:
    first = Case(tmp_path, values=[3.0], **STOPPING).run(1, 1)
    old = {key: value for key, value in first.saved().items() if key != "recent"} | {"best": {"step": 1, "value": 3.0}}
    second = Case(tmp_path, values=[2.0, 4.0], **STOPPING)
    second.hook.load_state(old)
    second.run(2, 3)
    assert second.exported == [3]


def test_the_best_evaluation_requests_a_checkpoint_whatever_the_cadence(tmp_path: Path) -> None:
    values = [1.0, 0.5, 2.0]
    case = Case(tmp_path, values=values, evaluation__every_steps=5, checkpoint__every_steps=1000).start()
    asked = []
    for step in (5, 10, 15):
        case.run(step, step)
        asked.append(case.recorder.control.checkpoint_requested)
        case.recorder.control.checkpoint_requested = False
    assert asked == [True, False, True]
    assert [case.hook.scores_of(step) is not None for step in (10, 15, 16)] == [False, True, False]


def test_hypotheses_that_cannot_be_written_cause_a_warning_and_do_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **settings: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dstrain.training.hooks.evaluate.write_scores", fail)
    (row,) = Case(tmp_path, evaluation__every_steps=5).start().run(1, 5).recorder.rows
    assert row["hypotheses"] is None
    assert row["warnings"][-1] == "the hypotheses of step 5 could not be written: No space left on device"


def test_an_evaluation_that_would_not_finish_in_time_runs_first_after_the_restart(tmp_path: Path) -> None:
    clock = [0.0]
    walltime = WallTime(1000.0, reserve_seconds=10.0, now=lambda: clock[0])
    case = Case(tmp_path, walltime=walltime, evaluation__every_steps=10).start()
    walltime.record_duration("evaluation", 300.0)
    walltime.record_duration("save", 20.0)
    case.run(1, 10)
    assert case.evaluated == [10]
    walltime.record_duration("evaluation", 300.0)
    clock[0] = 700.0  # 300 s are left
    case.run(11, 20)
    assert case.evaluated == [10]
    assert (case.step, case.recorder.control.stop_reason) == (20, ALLOCATION_ENDS)
    assert case.recorder.control.preempted

    after = Case(tmp_path, evaluation__every_steps=10)
    after.hook.load_state(case.saved())
    assert after.start(20).evaluated == [20]


def test_the_duration_of_evaluations_is_measured(tmp_path: Path) -> None:
    walltime = WallTime(None, reserve_seconds=0.0, now=lambda: 0.0)
    Case(tmp_path, walltime=walltime, evaluation__every_steps=10).start().run(1, 10)
    assert walltime.durations["evaluation"] > 0.0


@pytest.mark.parametrize(
    "broken",
    [{"best": {"value": "x", "step": 1}}, {"best": {"scores": [1], "step": 1}}, {"best": "x"}, {"num_worse": "x"}],
)
def test_the_state_of_a_forged_checkpoint_is_refused_when_it_is_loaded(broken: dict[str, Any], tmp_path: Path) -> None:
    saved = Case(tmp_path, values=[3.0], **STOPPING).run(1, 1).saved()
    with pytest.raises((ValueError, TypeError, AttributeError)):
        Case(tmp_path, **STOPPING).hook.load_state(saved | broken)


@pytest.mark.parametrize("cadence", [{"evaluation__every_steps": 20}, {"evaluation__every_epochs": 2.0}])
def test_before_an_evaluation_that_would_hold_up_a_save_the_run_is_saved(
    cadence: dict[str, Any], tmp_path: Path
) -> None:
    watch, walltime = Watch(10.0), endless()
    walltime.record_duration("evaluation", 60.0)
    case = Case(tmp_path, walltime=walltime, save_clock=watch.save_clock, checkpoint__every_steps=1000, **cadence)
    requested = []
    for step, seconds in ((1, 0.0), (18, 0.0), (19, 0.0), (20, 70.0), (38, 700.0), (39, 700.0)):
        watch.seconds = seconds
        if step == 20:
            watch.save()  # the next is due at 670 s
        case.hook._epoch = (step - 1) / 10
        case.run(step, step)
        if case.recorder.control.checkpoint_requested:
            requested.append(step)
        case.recorder.control.checkpoint_requested = False
    # at 0 s the first save is due within the 60 s of an evaluation; step 20 is the best so far; 40 is the last step
    assert requested == [19, 20, 39]


TIES: dict[str, Any] = {
    "metric": "exact_match",
    "evaluation__metrics": ["exact_match"],
    "evaluation__every_steps": 1,
    "evaluation__best_by": "tied_keeps_older",
}
CURVE = [0.0, 0.0, 0.10, 0.13, 0.12, 0.16, 0.40, 0.41, 0.30]
"""Of 100 rows: a gain of 3 may be chance, one of 6 or more of the same rows is not."""


def test_a_tied_evaluation_is_recorded_as_such_and_the_older_stays_the_best(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    case = Case(tmp_path, values=CURVE, losses=[9, 9, 8] + [7] * 7, **TIES).start().run(1, len(CURVE))
    assert case.exported == [1, 2, 3, 6, 7]  # while both are 0, the lower loss decides
    assert [row["step"] for row in case.recorder.rows if row["is_tied"]] == [4, 5, 8]
    assert "step 8 is better than step 7, but not beyond chance: the older stays the best" in caplog.text
    rows = [EvalRow(**{name: value for name, value in row.items() if name != "kind"}) for row in case.recorder.rows]
    best = best_evaluation(untied(rows), metrics=("exact_match", "loss"))
    assert best is not None
    assert case.hook.best == {"step": best.step, "scores": best.scores}
    by_point = Case(
        tmp_path / "point", values=CURVE, losses=[9, 9, 8] + [7] * 7, **TIES | {"evaluation__best_by": "point"}
    )
    assert by_point.start().run(1, len(CURVE)).exported == [1, 2, 3, 4, 6, 7, 8]
    assert not any(row["is_tied"] for row in by_point.recorder.rows)


@pytest.mark.parametrize("stopped_at", range(1, len(CURVE)))
def test_a_run_that_was_killed_finds_the_ties_of_the_straight_run(stopped_at: int, tmp_path: Path) -> None:
    changes = TIES | {"training__early_stopping": {"patience": 4, "significant": True}}
    straight = Case(tmp_path / "straight", values=CURVE, losses=[7] * 99, **changes).start().run(1, len(CURVE))
    first = Case(tmp_path / "cut", values=CURVE, losses=[7] * 99, **changes).start().run(1, stopped_at)
    saved = first.saved()
    first.run(stopped_at + 1, stopped_at + 1)  # evaluated and recorded, but killed before a checkpoint
    second = Case(tmp_path / "cut", values=CURVE[stopped_at:], losses=[7] * 99, **changes)
    second.hook.load_state(saved)
    second.start(stopped_at).run(stopped_at + 1, len(CURVE))
    tied = [(row["step"], row["is_tied"]) for row in first.recorder.rows[:stopped_at] + second.recorder.rows]
    assert tied == [(row["step"], row["is_tied"]) for row in straight.recorder.rows]
    assert second.saved() == straight.saved()


@pytest.mark.parametrize(
    ("values", "stopped_at"),
    [
        ([0.10, 0.12, 0.13, 0.99], 3),  # the second and the third may be chance
        ([0.10, 0.13, 0.16, 0.19, 0.22], None),  # each is tied with the one before, every second beyond chance
        ([0.10, 0.20, 0.30, 0.40], None),
    ],
)
def test_early_stopping_counts_a_tie_with_the_last_improvement_as_none(
    values: list[float], stopped_at: int | None, tmp_path: Path
) -> None:
    stopping = {"patience": 2, "significant": True}
    changes = TIES | {"evaluation__best_by": "point", "training__early_stopping": stopping}
    case = Case(tmp_path, values=values, losses=repeat(9.0), **changes).start().run(1, len(values))
    assert (case.step if case.recorder.control.stop_reason else None) == stopped_at
    assert case.exported == list(range(1, (stopped_at or len(values)) + 1))  # the best is still the better one
    without = changes | {"training__early_stopping": {"patience": 2}}
    case = Case(tmp_path / "point", values=values, losses=repeat(9.0), **without).start().run(1, len(values))
    assert case.recorder.control.stop_reason is None


def test_without_row_statistics_the_better_evaluation_is_the_best_and_a_warning_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    case = Case(tmp_path, values=[0.1, 0.11, 0.12], losses=repeat(9.0), **TIES, evaluation__rehearsal=False)
    case.score.has_rows = False
    assert case.start().run(1, 3).exported == [1, 2, 3]
    assert caplog.text.count("tied or not (logged once): ") == 1
    assert "has no row statistics of `exact_match`" in caplog.text


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({}, "evaluation.best_by"),
        (
            {"evaluation__best_by": "point", "training__early_stopping": {"patience": 1, "significant": True}},
            "training.early_stopping.significant",
        ),
    ],
)
def test_a_metric_without_row_statistics_is_refused_at_the_rehearsal(
    changes: dict[str, Any], key: str, tmp_path: Path
) -> None:
    case = Case(tmp_path, losses=repeat(9.0), **TIES | changes)
    case.score.has_rows = False
    with pytest.raises(UserError, match=f"{key}: `exact_match` has no numbers of each row"):
        case.start()
    Case(tmp_path, losses=repeat(9.0), **TIES | changes).start()


def test_every_evaluation_shows_the_same_rows_beside_their_references(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    Case(tmp_path, evaluation__every_steps=20).start().run(1, TOTAL_STEPS)
    shown = [message for message in caplog.messages if message.startswith("  ")]
    assert shown == ["  f:1: s", "    hypothesis  h", "    reference   r"] * 2


def test_samples_can_be_switched_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    Case(tmp_path, logging__samples=0).start().run(1, TOTAL_STEPS)
    assert not [message for message in caplog.messages if message.startswith("  ")]
    assert any(message.startswith("evaluation at step 40 ") for message in caplog.messages)
