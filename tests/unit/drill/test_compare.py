"""How runs are compared with the straight run, how scenarios are judged, and how the table looks."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from dstrain.drill.compare import (
    HEADER,
    Difference,
    Exit,
    Result,
    as_json,
    cells,
    compare,
    find_fault,
    markdown_report,
    text_table,
)
from dstrain.drill.scenarios import (
    Scenario,
)
from dstrain.run_folder.rows import EvalRow, TrainRow
from tests.unit.drill.drill_cases import (
    CONFIG,
    CONTROL,
    EXITS,
    FEWER,
    KILLED,
    SAME,
    STOPPED,
    STRAIGHT,
    finished_run,
    rows_of,
)


def judge(
    scenario: Scenario,
    *,
    exits: Sequence[Exit] | None = None,
    difference: Difference | None = SAME,
    noise: Difference | None = SAME,
    resumed_at: int = 4,
    precision: str = "fp32",
) -> str | None:
    config = CONFIG.model_copy(update={"precision": precision})
    return find_fault(
        scenario,
        exits=EXITS[scenario.name] if exits is None else exits,
        run=finished_run(rows_of(resumed_at=resumed_at), config=config),
        difference=difference,
        noise=noise,
    )


def test_equal_runs_do_not_differ_even_if_one_was_resumed() -> None:
    assert compare(finished_run(rows_of(resumed_at=6)), straight=finished_run(rows_of())) == SAME


def test_the_largest_relative_difference_of_any_loss_is_found() -> None:
    rows = [
        replace(row, loss=row.loss * 1.01) if isinstance(row, TrainRow) and row.step == 9 else row for row in rows_of()
    ]
    difference = compare(finished_run(rows, weights="b"), straight=finished_run(rows_of()))
    assert difference.losses == pytest.approx(0.01, rel=0.02)
    assert (difference.scores, difference.same_weights, difference.missing) == (0.0, False, ())


@pytest.mark.parametrize(
    ("change", "losses", "scores"),
    [
        ({"train_loss": 9.0}, 0.5, 0.0),
        ({"scores": {"loss": 5.0, "bleu": 1.5, "gen_len": 9.0}}, 0.2, 0.0),
        ({"scores": {"loss": 4.0, "bleu": 2.5, "gen_len": 9.0}}, 0.0, 0.01),
        ({"scores": {"loss": 4.0, "bleu": 1.5, "gen_len": 12.0}}, 0.0, 0.25),
        ({"scores": {"loss": math.nan, "bleu": 1.5, "gen_len": 9.0}}, math.inf, 0.0),
    ],
)
def test_evaluations_are_compared_too(change: dict[str, Any], losses: float, scores: float) -> None:
    rows = [replace(row, **change) if isinstance(row, EvalRow) and row.step == 8 else row for row in rows_of()]
    difference = compare(finished_run(rows), straight=finished_run(rows_of()))
    assert (difference.losses, difference.scores) == pytest.approx((losses, scores))


def test_two_losses_that_are_nan_are_equal() -> None:
    rows = [replace(row, loss=math.nan) if isinstance(row, TrainRow) and row.step == 1 else row for row in rows_of()]
    assert compare(finished_run(rows), straight=finished_run(rows)) == SAME
    assert compare(finished_run(rows), straight=finished_run(rows_of())).losses == math.inf


def test_values_that_only_one_run_logged_are_named() -> None:
    rows = [row for row in rows_of() if not (isinstance(row, TrainRow | EvalRow) and row.step == 8)]
    for difference in (
        compare(finished_run(rows), straight=finished_run(rows_of())),
        compare(finished_run(rows_of()), straight=finished_run(rows)),
    ):
        assert set(difference.missing) >= {"training loss of step 8", "bleu of step 8"}
        fault = judge(KILLED, difference=difference)
        assert fault is not None
        assert "logged different values: loss of step 8" in fault


@pytest.mark.parametrize("scenario", [KILLED, STOPPED, FEWER, CONTROL], ids=lambda scenario: scenario.name)
def test_a_scenario_with_the_result_of_the_straight_run_is_ok(scenario: Scenario) -> None:
    assert judge(scenario) is None


def test_the_straight_run_only_needs_to_finish() -> None:
    assert judge(STRAIGHT, difference=None, noise=None, resumed_at=0) is None
    assert judge(STRAIGHT, exits=[Exit((0, 1))], difference=None, noise=None) == (
        "launch 1 of 1: it did not finish (exit codes 0 1)"
    )


@pytest.mark.parametrize(
    ("scenario", "exits", "fault"),
    [
        (
            KILLED,
            [Exit((0, 0)), Exit((0, 0))],
            "launch 1 of 2: phase 'manifest' was entered fewer than 3 times (exit codes 0 0)",
        ),
        (KILLED, [Exit((-9, 85)), Exit((0, 0))], "launch 1 of 2: it was killed, but no rank's record shows it in"),
        (KILLED, [Exit((-9, 1), "manifest"), Exit((0, 0))], "launch 1 of 2: a rank that was not killed failed"),
        (KILLED, [Exit((-9, 85), "manifest"), Exit((0, 85))], "launch 2 of 2: it did not finish (exit codes 0 85)"),
        (KILLED, [Exit((-9, -9), timed_out=True)], "launch 1 of 2: it exceeded its time limit and was killed"),
        (STOPPED, [Exit((0, 0)), Exit((0, 0))], "launch 1 of 2: it finished before the signal was sent"),
        (STOPPED, [Exit((85, -15)), Exit((0, 0))], "launch 1 of 2: it did not shut down cleanly after SIGTERM"),
    ],
)
def test_a_launch_that_ended_otherwise_than_planned_is_not_ok(
    scenario: Scenario, exits: list[Exit], fault: str
) -> None:
    found = judge(scenario, exits=exits)
    assert found is not None
    assert found.startswith(fault)


def test_resuming_before_a_saved_step_is_not_ok() -> None:
    assert judge(KILLED, resumed_at=2) == "it resumed from step 2 although step 4 was saved"
    assert judge(KILLED, resumed_at=6) is None


def test_a_run_folder_that_is_unreadable_or_unfinished_is_not_ok() -> None:
    arguments: dict[str, Any] = {"exits": EXITS["manifest"], "difference": SAME, "noise": SAME}
    assert find_fault(KILLED, run=None, **arguments) == "its run folder cannot be read"
    unfinished = finished_run(rows_of(resumed_at=4)[:-1])
    assert find_fault(KILLED, run=unfinished, **arguments) == "its run folder says interrupted instead of finished"


@pytest.mark.parametrize(
    ("scenario", "precision", "allowed"),
    [(KILLED, "fp32", 1e-6), (FEWER, "fp32", 1e-5), (KILLED, "bf16", 2e-2), (FEWER, "fp16", 2e-2)],
)
@pytest.mark.parametrize("kind", ["losses", "scores"])
def test_more_than_rounding_is_not_ok(scenario: Scenario, precision: str, allowed: float, kind: str) -> None:
    within = replace(SAME, same_weights=False, **{kind: 0.9 * allowed})
    beyond = replace(SAME, same_weights=False, **{kind: 1.1 * allowed})
    unlike = replace(SAME, same_weights=False)
    assert judge(scenario, difference=within, noise=unlike, precision=precision) is None
    for noise in (SAME, unlike, None):
        fault = judge(scenario, difference=beyond, noise=noise, precision=precision)
        assert fault == f"{kind} differ by {1.1 * allowed:.2g}, more than {allowed:.2g}"


def test_a_machine_that_is_not_deterministic_is_allowed_twice_its_noise() -> None:
    noise = Difference(losses=1e-3, scores=2e-3, same_weights=False)
    assert judge(KILLED, difference=Difference(1.9e-3, 3.9e-3, False), noise=noise) is None
    assert judge(KILLED, difference=Difference(2.1e-3, 0.0, False), noise=noise) is not None
    assert judge(KILLED, difference=Difference(0.0, 4.1e-3, False), noise=noise) is not None


def test_a_machine_that_is_all_noise_proves_nothing() -> None:
    noise = Difference(losses=0.04, scores=0.0, same_weights=False)
    assert judge(CONTROL, difference=noise, noise=None) is None
    assert judge(CONTROL, difference=replace(noise, losses=0.06), noise=None) == "losses differ by 0.06, more than 0.05"


def test_equal_losses_with_other_final_weights_are_not_ok_where_straight_runs_repeat() -> None:
    other = replace(SAME, same_weights=False)
    fault = judge(KILLED, difference=other)
    assert fault is not None
    assert "final weights" in fault
    assert judge(KILLED, difference=other, noise=other) is None
    assert judge(KILLED, difference=other, noise=None) is None
    assert judge(FEWER, difference=other) is None


RESULTS = [
    Result(STRAIGHT, EXITS["straight"], 0),
    Result(KILLED, EXITS["manifest"], 4, Difference(2.5e-9, 0.0, True)),
    Result(STOPPED, EXITS["sigterm"], 4, Difference(math.inf, 0.25, False), "losses differ by inf, more than 1e-06"),
    Result(FEWER, (Exit((1, 1)),)),
]


def test_the_table_has_one_row_per_scenario() -> None:
    header, *lines = text_table(RESULTS).splitlines()
    columns = [header.index(name) for name in HEADER]
    table = [
        [line[start:end].strip() for start, end in zip(columns, [*columns[1:], None], strict=True)] for line in lines
    ]
    assert table == [
        ["straight run", "-", "-", "0 0", "-", "-", "-", "reference"],
        [KILLED.title, "manifest, step 6", "step 4", "-9 85, then 0 0", "2.5e-09", "0", "bit-equal", "ok"],
        [STOPPED.title, "step 4", "step 4", "85 85, then 0 0", "inf", "0.25", "differ", "NOT OK"],
        [FEWER.title, "?", "-", "1 1", "-", "-", "-", "ok"],
    ]
    assert [list(cells(result)) for result in RESULTS] == table


def test_the_report_lists_the_failed_scenarios() -> None:
    report = markdown_report(RESULTS, title="Drill of debug")
    assert report.startswith("# Drill of debug\n\n| scenario ")
    assert "- stopped by SIGTERM: losses differ by inf, more than 1e-06" in report
    assert report.count("\n- ") == 1
    assert "NOT OK" not in markdown_report(RESULTS[:2], title="Drill")


def test_the_rows_are_strict_json() -> None:
    rows = json.loads(json.dumps([as_json(result) for result in RESULTS], allow_nan=False))
    assert [row["ok"] for row in rows] == [True, True, False, True]
    assert rows[1]["stopped_in"] == ["manifest, step 6", None]
    assert rows[1]["exit_codes"] == [[-9, 85], [0, 0]]
    assert (rows[2]["losses"], rows[2]["scores"], rows[2]["went_on_from"]) == (None, 0.25, 4)
