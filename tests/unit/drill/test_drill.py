"""A drill without training: how a recipe is shortened, what is planned, how ends are judged, how processes are treated."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dstrain.attempt.rank_records import DRILL_VARIABLE, TRACKS, Drill, read_drill
from dstrain.config.load import dump_config, load_config, recipes_folder
from dstrain.config.schema import RunConfig
from dstrain.drill import drill as perform
from dstrain.drill.compare import (
    HEADER,
    Difference,
    Ended,
    Result,
    Told,
    as_json,
    cells,
    compare,
    find_fault,
    markdown_report,
    text_table,
)
from dstrain.drill.drill import MARKER, Performance, hash_weights, prepare_folder
from dstrain.drill.launch import count_gpus, ended_like_ctrl_c, live, rank_environment
from dstrain.drill.scenarios import MIN_STEPS, Life, Story, announce, drill_value, evaluate_every, plan_stories, shorten
from dstrain.run_folder.record import RunInfo, build_record, write_run_info
from dstrain.run_folder.rows import EvalRow, EventRow, Row, TrainRow, append_row

STEPS = 12
CONFIG = load_config("debug")
KILLED = Story("manifest", "killed before the manifest", (Life(2, Drill("manifest", 3, 0)), Life(2)), kept_step=4)
STOPPED = Story("sigterm", "stopped by SIGTERM", (Life(2, sigterm_after=3), Life(2)), kept_step=3)
FEWER = Story("fewer-ranks", "killed, continued on 1 rank", (Life(2, Drill("step", 8)), Life(1)), kept_step=4)
STRAIGHT = Story("straight", "straight run", (Life(2),))
CONTROL = Story("control", "control: straight again", (Life(2),))
ENDS = {
    "manifest": (Ended((-9, 85), stopped_in="manifest, step 6"), Ended((0, 0))),
    "sigterm": (Ended((85, 85), stopped_in="step 4"), Ended((0, 0))),
    "fewer-ranks": (Ended((-9, -9), stopped_in="step, step 7"), Ended((0,))),
    "straight": (Ended((0, 0)),),
    "control": (Ended((0, 0)),),
}
SAME = Difference(losses=0.0, scores=0.0, same_weights=True)


def plan(num_ranks: int = 2, *, steps: int = STEPS, only: Sequence[str] = ()) -> dict[str, Story]:
    stories = plan_stories(num_ranks=num_ranks, steps=steps, has_rehearsal=True, only=only)
    return {story.name: story for story in stories}


def rows_of(*, change: float = 0.0, resumed_at: int = 0, steps: int = STEPS) -> list[Row]:
    """What a run writes that was killed after `resumed_at` and went on from there; `change` is added to later losses."""
    rows: list[Row] = [EventRow("start", 0)]
    rows += [TrainRow(step, 0.1, 5.0 / step) for step in range(1, resumed_at + 1)]
    if resumed_at:
        rows.append(EventRow("resume", resumed_at))
    for step in range(resumed_at + 1, steps + 1):
        rows.append(TrainRow(step, 0.1, 5.0 / step + change))
    scores = {"loss": 4.0, "bleu": 1.5, "gen_len": 9.0}
    rows += [EvalRow(step=step, epoch=0.1, scores=scores, train_loss=4.5) for step in (4, 8, 12)]
    return [*rows, EventRow("finish", steps)]


def told(rows: Sequence[Row], *, weights: str = "a", config: RunConfig = CONFIG) -> Told:
    return Told(build_record(config, info=RunInfo(), rows=rows), weights)


def judge(
    story: Story,
    *,
    ended: Sequence[Ended] | None = None,
    difference: Difference | None = SAME,
    noise: Difference | None = SAME,
    resumed_at: int = 4,
    precision: str = "fp32",
) -> str | None:
    config = CONFIG.model_copy(update={"precision": precision})
    return find_fault(
        story,
        ended=ENDS[story.name] if ended is None else ended,
        told=told(rows_of(resumed_at=resumed_at), config=config),
        difference=difference,
        noise=noise,
    )


# the recipe


@pytest.mark.parametrize("name", sorted(path.stem for path in recipes_folder().glob("*.yaml")))
def test_a_short_recipe_differs_in_its_length_and_cadences_alone(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    short = shorten(config, steps=STEPS, folder=tmp_path)
    before, after = config.model_dump(), short.model_dump()
    changed = {
        "training": ("epochs", "max_steps", "warmup_steps", "early_stopping"),
        "evaluation": ("every_steps", "every_epochs", "max_rows"),
        "checkpoint": ("every_steps", "keep_last"),
        "logging": ("every_steps",),
    }
    for section, keys in changed.items():
        for key in keys:
            del before[section][key], after[section][key]
    assert {key for key in before if before[key] != after[key]} == {"name", "output_dir"}
    assert (short.training.max_steps, short.training.epochs) == (STEPS, None)
    assert short.training.early_stopping is None
    assert (short.checkpoint.every_steps, short.checkpoint.keep_last, short.logging.every_steps) == (2, 2, 1)
    assert (short.name, short.run_dir) == (f"{config.name}-drill", str(tmp_path))


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("training.warmup_steps=100", ("warmup_steps", 3)),
        ("training.warmup_steps=1", ("warmup_steps", 1)),
        ("evaluation.max_rows=5", ("max_rows", 5)),
        ("evaluation.max_rows=500", ("max_rows", 32)),
        ("evaluation.max_rows=null", ("max_rows", 32)),
    ],
)
def test_what_is_smaller_already_stays(override: str, found: tuple[str, int], tmp_path: Path) -> None:
    short = shorten(load_config("debug", overrides=[override]), steps=STEPS, folder=tmp_path)
    key, value = found
    assert (short.training.model_dump() | short.evaluation.model_dump())[key] == value


def test_a_recipe_in_epochs_that_stops_early_is_counted_in_steps(tmp_path: Path) -> None:
    overrides = ["training.max_steps=null", "training.epochs=3", "training.early_stopping.patience=2"]
    overrides += ["evaluation.every_steps=null", "evaluation.every_epochs=1"]
    short = shorten(load_config("debug", overrides=overrides), steps=7, folder=tmp_path)
    assert (short.training.epochs, short.training.max_steps, short.training.early_stopping) == (None, 7, None)
    assert (short.evaluation.every_epochs, short.evaluation.every_steps) == (None, 3)


# the stories


def test_a_drill_tells_all_its_stories() -> None:
    kills = ["step", "evaluation", "part", "manifest", "rename", "renamed", "prune", "finish"]
    assert list(plan(2)) == ["straight", "control", *kills, "sigterm", "fewer-ranks"]
    assert list(plan(1)) == ["straight", "control", *kills, "sigterm"]
    assert [life.num_ranks for life in plan(5)["fewer-ranks"].lives] == [5, 2]
    assert plan()["step"].folder == "killed-step"
    assert len({story.folder for story in plan().values()}) == len(plan())


def test_every_story_ends_with_a_life_that_nobody_disturbs() -> None:
    for story in plan().values():
        *disturbed, last = story.lives
        assert (last.drill, last.sigterm_after) == (None, None)
        assert all(life.drill or life.sigterm_after for life in disturbed)
        assert (len(story.lives) == 1) == (story.name in ("straight", "control"))


@pytest.mark.parametrize("num_ranks", [1, 2, 8])
def test_the_ranks_understand_every_kill(num_ranks: int) -> None:
    drills = [life.drill for story in plan(num_ranks).values() for life in story.lives if life.drill]
    assert len(drills) == 8 + (num_ranks > 1)
    for drill in drills:
        assert read_drill({DRILL_VARIABLE: drill_value(drill)}) == drill
        assert drill.rank is None or drill.rank < num_ranks
        assert any(drill.phase in phases for phases in TRACKS.values())


def test_twelve_steps_are_killed_and_gone_on_from_where_counting_says() -> None:
    kept = {name: story.kept_step for name, story in plan().items() if len(story.lives) > 1}
    # saves at 2, 4, 6, …; evaluations at 4, 8, 12; killed between steps after 7, when that of 6 may be under way
    assert kept == {
        "step": 4,
        "evaluation": 4,
        "part": 2,
        "manifest": 4,
        "rename": 4,
        "renamed": 6,
        "prune": 6,
        "finish": 12,
        "sigterm": 3,
        "fewer-ranks": 4,
    }


@pytest.mark.parametrize("best", ["none", "all", "every other"])
@pytest.mark.parametrize("steps", range(MIN_STEPS, 41))
def test_no_story_expects_more_to_be_saved_than_is(steps: int, best: str) -> None:
    """Counted out: which saves there are depends on which evaluations are the best so far."""
    evaluations = [step for step in range(1, steps + 1) if step % evaluate_every(steps) == 0 or step == steps]
    also = {"none": [], "all": evaluations, "every other": evaluations[::2]}[best]
    saves = [step for step in range(1, steps + 1) if step % 2 == 0 or step in also or step == steps]
    stories = plan(steps=steps)
    drill = stories["step"].lives[0].drill
    assert drill
    trained = drill.occurrence - 1  # the phase is entered once before step 1
    assert 0 < trained < steps
    assert trained % 2 == 1

    def complete_at(step: int) -> int:
        return ([0, *(save for save in saves if save <= step)])[-2]

    assert stories["step"].kept_step <= complete_at(trained)
    assert stories["evaluation"].kept_step <= complete_at(evaluations[1] - 1)
    assert stories["part"].kept_step <= saves[0]
    assert stories["manifest"].kept_step == stories["rename"].kept_step <= saves[1]
    assert stories["renamed"].kept_step == stories["prune"].kept_step <= saves[2]
    assert stories["finish"].kept_step == steps
    assert 0 < stories["sigterm"].kept_step < evaluations[0]
    assert min(stories[name].kept_step for name in ("step", "evaluation", "part", "manifest", "renamed")) >= (
        2 if steps > 7 else 0
    )


def test_an_evaluation_is_counted_after_the_rehearsal() -> None:
    drills = []
    for has_rehearsal in (False, True):
        stories = plan_stories(num_ranks=1, steps=STEPS, has_rehearsal=has_rehearsal, only=["evaluation"])
        drills.append(stories[-1].lives[0].drill)
    assert drills == [Drill("evaluation", 2, 0), Drill("evaluation", 3, 0)]


def test_chosen_stories_are_told_after_the_straight_run() -> None:
    assert list(plan(only=["manifest", "step"])) == ["straight", "step", "manifest"]
    with pytest.raises(
        ValueError, match=r"no story is called sted, fewer-ranks on 1 ranks: there are straight, .*step"
    ):
        plan(1, only=["step", "sted", "fewer-ranks"])


def test_it_is_said_what_will_be_done(tmp_path: Path) -> None:
    stories = list(plan(only=["control", "step"]).values())
    text = announce(stories, config=CONFIG, steps=STEPS, folder=tmp_path, free_bytes=3_210_000_000)
    for part in ("drill of debug: 12 steps on 2 ranks, 3 stories, 4 starts", f"in {tmp_path}", "3.2 GB are free"):
        assert part in text


# comparing


def test_equal_runs_do_not_differ_even_where_one_went_on() -> None:
    assert compare(told(rows_of(resumed_at=6)), straight=told(rows_of())) == SAME


def test_the_largest_relative_difference_of_any_loss_is_found() -> None:
    rows = [
        replace(row, loss=row.loss * 1.01) if isinstance(row, TrainRow) and row.step == 9 else row for row in rows_of()
    ]
    difference = compare(told(rows, weights="b"), straight=told(rows_of()))
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
    difference = compare(told(rows), straight=told(rows_of()))
    assert (difference.losses, difference.scores) == pytest.approx((losses, scores))


def test_two_losses_that_are_no_numbers_are_equal() -> None:
    rows = [replace(row, loss=math.nan) if isinstance(row, TrainRow) and row.step == 1 else row for row in rows_of()]
    assert compare(told(rows), straight=told(rows)) == SAME
    assert compare(told(rows), straight=told(rows_of())).losses == math.inf


def test_rows_of_one_run_alone_are_named() -> None:
    rows = [row for row in rows_of() if not (isinstance(row, TrainRow | EvalRow) and row.step == 8)]
    for difference in (
        compare(told(rows), straight=told(rows_of())),
        compare(told(rows_of()), straight=told(rows)),
    ):
        assert set(difference.missing) >= {"training loss of step 8", "bleu of step 8"}
        fault = judge(KILLED, difference=difference)
        assert fault is not None
        assert "do not have the same rows: loss of step 8" in fault


# judging


@pytest.mark.parametrize("story", [KILLED, STOPPED, FEWER, CONTROL], ids=lambda story: story.name)
def test_a_story_that_ended_as_the_straight_run_is_ok(story: Story) -> None:
    assert judge(story) is None


def test_the_straight_run_needs_to_finish_alone() -> None:
    assert judge(STRAIGHT, difference=None, noise=None, resumed_at=0) is None
    assert judge(STRAIGHT, ended=[Ended((0, 1))], difference=None, noise=None) == (
        "start 1 of 1: it did not finish (exit codes 0 1)"
    )


@pytest.mark.parametrize(
    ("story", "ended", "fault"),
    [
        (KILLED, [Ended((0, 0)), Ended((0, 0))], "start 1 of 2: 'manifest' 3 was never reached (exit codes 0 0)"),
        (KILLED, [Ended((-9, 85)), Ended((0, 0))], "start 1 of 2: it was killed, but no rank's record says in"),
        (KILLED, [Ended((-9, 1), "manifest"), Ended((0, 0))], "start 1 of 2: a rank that was not killed failed"),
        (KILLED, [Ended((-9, 85), "manifest"), Ended((0, 85))], "start 2 of 2: it did not finish (exit codes 0 85)"),
        (KILLED, [Ended((-9, -9), timed_out=True)], "start 1 of 2: it did not end in time and was killed"),
        (STOPPED, [Ended((0, 0)), Ended((0, 0))], "start 1 of 2: it was over before the signal came"),
        (STOPPED, [Ended((85, -15)), Ended((0, 0))], "start 1 of 2: it did not stop in order at SIGTERM"),
    ],
)
def test_a_life_that_ended_otherwise_than_told_is_not_ok(story: Story, ended: list[Ended], fault: str) -> None:
    found = judge(story, ended=ended)
    assert found is not None
    assert found.startswith(fault)


def test_work_that_was_saved_and_done_again_is_not_ok() -> None:
    assert judge(KILLED, resumed_at=2) == "it went on from step 2 although step 4 was saved"
    assert judge(KILLED, resumed_at=6) is None


def test_a_run_folder_that_tells_nothing_or_of_no_end_is_not_ok() -> None:
    arguments: dict[str, Any] = {"ended": ENDS["manifest"], "difference": SAME, "noise": SAME}
    assert find_fault(KILLED, told=None, **arguments) == "its run folder cannot be read"
    unfinished = told(rows_of(resumed_at=4)[:-1])
    assert find_fault(KILLED, told=unfinished, **arguments) == "its run folder says interrupted, not finished"


@pytest.mark.parametrize(
    ("story", "precision", "allowed"),
    [(KILLED, "fp32", 1e-6), (FEWER, "fp32", 1e-5), (KILLED, "bf16", 2e-2), (FEWER, "fp16", 2e-2)],
)
@pytest.mark.parametrize("kind", ["losses", "scores"])
def test_more_than_rounding_is_not_ok(story: Story, precision: str, allowed: float, kind: str) -> None:
    within = replace(SAME, same_weights=False, **{kind: 0.9 * allowed})
    beyond = replace(SAME, same_weights=False, **{kind: 1.1 * allowed})
    unlike = replace(SAME, same_weights=False)
    assert judge(story, difference=within, noise=unlike, precision=precision) is None
    for noise in (SAME, unlike, None):
        fault = judge(story, difference=beyond, noise=noise, precision=precision)
        assert fault == f"{kind} differ by {1.1 * allowed:.2g}, more than {allowed:.2g}"


def test_a_machine_that_does_not_repeat_itself_is_allowed_twice_its_noise() -> None:
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


# the table

RESULTS = [
    Result(STRAIGHT, ENDS["straight"], 0),
    Result(KILLED, ENDS["manifest"], 4, Difference(2.5e-9, 0.0, True)),
    Result(STOPPED, ENDS["sigterm"], 4, Difference(math.inf, 0.25, False), "losses differ by inf, more than 1e-06"),
    Result(FEWER, (Ended((1, 1)),)),
]


def test_the_table_has_a_row_a_story() -> None:
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


def test_the_report_names_what_is_not_ok() -> None:
    report = markdown_report(RESULTS, title="Drill of debug")
    assert report.startswith("# Drill of debug\n\n| story ")
    assert "- stopped by SIGTERM: losses differ by inf, more than 1e-06" in report
    assert report.count("\n- ") == 1
    assert "NOT OK" not in markdown_report(RESULTS[:2], title="Drill")


def test_the_rows_are_strict_json() -> None:
    rows = json.loads(json.dumps([as_json(result) for result in RESULTS], allow_nan=False))
    assert [row["ok"] for row in rows] == [True, True, False, True]
    assert rows[1]["stopped_in"] == ["manifest, step 6", None]
    assert rows[1]["exit_codes"] == [[-9, 85], [0, 0]]
    assert (rows[2]["losses"], rows[2]["scores"], rows[2]["went_on_from"]) == (None, 0.25, 4)


# processes, with a small program in the place of training

PROGRAM = """
import json, os, signal, sys, time
from pathlib import Path
from dstrain.attempt.rank_records import Phases, ranks_dir, read_drill
folder, rank = Path(sys.argv[1]), os.environ["RANK"]
(folder / f"environment-{rank}.json").write_text(json.dumps(dict(os.environ)))
print("rank", rank, "with", sys.argv[2:], flush=True)
"""
TRAINS = """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(85))
(folder / f"ready-{rank}").touch()
while len(list(folder.glob("ready-*"))) < int(os.environ["WORLD_SIZE"]):
    time.sleep(0.01)
phases = Phases(ranks_dir(folder), rank=int(rank), attempt=1, drill=read_drill(os.environ))
for step in range(1, 100_000):
    if rank == "0":
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"kind": "train", "step": step, "epoch": 0.1, "loss": 1.0}) + "\\n")
    phases.enter("step", step=step)
    time.sleep(0.01)
"""


def start(
    body: str, life: Life, *, folder: Path, minutes: float = 2.0, environment: dict[str, str] | None = None
) -> Ended:
    return live(
        life,
        config=folder / "config.yaml",
        run_dir=folder,
        log=folder / "log.txt",
        minutes=minutes,
        environment={"PYTHONPATH": os.pathsep.join(sys.path)} | (environment or {}),
        program=(sys.executable, "-c", PROGRAM + body, str(folder)),
    )


def ended_processes(folder: Path) -> bool:
    """Whether the process that noted its id there is gone."""
    pid = int((folder / "child.txt").read_text())
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return True
        if stat.rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.02)
    return False


def test_every_rank_finds_its_place_and_one_port(tmp_path: Path) -> None:
    given = {"TORCHELASTIC_RUN_ID": "x", "CROSS_RANK": "0", "RANK": "7", "KEPT": "yes", DRILL_VARIABLE: "kill:step:1"}
    assert start("sys.exit(int(rank))", Life(3), folder=tmp_path, environment=given).codes == (0, 1, 2)
    seen = [json.loads((tmp_path / f"environment-{rank}.json").read_text()) for rank in range(3)]
    for rank, environment in enumerate(seen):
        assert (environment["RANK"], environment["LOCAL_RANK"]) == (str(rank), str(rank))
        assert (environment["WORLD_SIZE"], environment["LOCAL_WORLD_SIZE"]) == ("3", "3")
        assert (environment["MASTER_ADDR"], environment["KEPT"]) == ("127.0.0.1", "yes")
        assert environment.keys() & {"TORCHELASTIC_RUN_ID", "CROSS_RANK", DRILL_VARIABLE} == set()
    assert len({environment["MASTER_PORT"] for environment in seen}) == 1
    printed = (tmp_path / "log.txt").read_text()
    assert printed.startswith("--- ranks: 3; to the end\n")
    for rank in range(3):
        assert f"rank {rank} with ['--config', '{tmp_path / 'config.yaml'}']" in printed


def test_a_drill_is_handed_to_its_life_alone() -> None:
    drill = Drill("write part", 2, 1)
    environment = rank_environment({}, rank=0, num_ranks=2, port=1, life=Life(2, drill))
    assert read_drill(environment) == drill
    assert DRILL_VARIABLE not in rank_environment(environment, rank=0, num_ranks=2, port=1, life=Life(2))


def test_a_kill_is_told_with_the_phase_and_step_of_the_record(tmp_path: Path) -> None:
    ended = start(TRAINS, Life(2, Drill("step", 5)), folder=tmp_path)
    assert ended == Ended((-9, -9), stopped_in="step, step 5")


def test_a_record_of_another_phase_is_no_witness(tmp_path: Path) -> None:
    body = "Phases(ranks_dir(folder), rank=0, attempt=1).enter('export')\nos.kill(os.getpid(), signal.SIGKILL)"
    assert start(body, Life(1, Drill("step", 5)), folder=tmp_path) == Ended((-9,), stopped_in=None)


def test_sigterm_reaches_all_ranks_once_the_step_is_written(tmp_path: Path) -> None:
    ended = start(TRAINS, Life(2, sigterm_after=3), folder=tmp_path)
    assert ended.codes == (85, 85)
    assert not ended.timed_out
    assert '"step": 3' in (tmp_path / "metrics.jsonl").read_text()


CHILD = """
import subprocess
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
(folder / "child.tmp").write_text(str(child.pid))
(folder / "child.tmp").rename(folder / "child.txt")
signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(600)
"""


def test_a_life_that_takes_too_long_is_killed_with_what_it_has_started(tmp_path: Path) -> None:
    clock = iter([0.0, *[1.0] * 5])
    found: list[float] = []

    def monotonic() -> float:
        """A minute passes as soon as the program's own child is there."""
        if (tmp_path / "child.txt").exists():
            found.append(61.0)
        return found[-1] if found else next(clock, 1.0)

    ended = live(
        Life(1),
        config=tmp_path / "config.yaml",
        run_dir=tmp_path,
        log=tmp_path / "log.txt",
        minutes=1.0,
        environment={"PYTHONPATH": os.pathsep.join(sys.path)},
        program=(sys.executable, "-c", PROGRAM + CHILD, str(tmp_path)),
        monotonic=monotonic,
    )
    assert ended == Ended((-9,), timed_out=True)
    assert ended_processes(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_whoever_ends_the_drill_ends_its_ranks(tmp_path: Path, number: signal.Signals) -> None:
    def interrupt() -> None:
        while not (tmp_path / "child.txt").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt, daemon=True).start()
    before = signal.getsignal(signal.SIGTERM)
    # a shell starts what it puts into the background with SIGINT ignored
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with ended_like_ctrl_c(), pytest.raises(KeyboardInterrupt):
            start(CHILD, Life(1), folder=tmp_path)
    finally:
        signal.signal(signal.SIGINT, inherited)
    assert ended_processes(tmp_path)
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, 2),
        ({"CUDA_VISIBLE_DEVICES": ""}, 0),
        ({"CUDA_VISIBLE_DEVICES": "1"}, 1),
        ({"CUDA_VISIBLE_DEVICES": "0, 3,GPU-8a"}, 3),
        ({"CUDA_VISIBLE_DEVICES": "0,-1,2"}, 1),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, 0),
    ],
)
def test_gpus_are_counted_by_files_and_variables(tmp_path: Path, environment: dict[str, str], expected: int) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert count_gpus(environment, devices=tmp_path) == expected


# the folder


def test_the_folder_of_an_earlier_drill_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "drill"
    prepare_folder(folder)
    (folder / "straight").mkdir()
    (folder / "straight" / "metrics.jsonl").touch()
    prepare_folder(folder)
    assert [path.name for path in folder.iterdir()] == [MARKER]


def test_a_folder_of_anything_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"no earlier drill: give another folder with --output"):
        prepare_folder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_folder_of_a_drill_under_way_is_refused_until_it_is_gone(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from dstrain.drill.drill import prepare_folder\n"
        f"prepare_folder(Path({str(tmp_path)!r})); print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdin
        other.stdout.readline()
        with pytest.raises(ValueError, match=f"a drill that is under way .process {other.pid} on"):
            prepare_folder(tmp_path)
        other.stdin.close()
    prepare_folder(tmp_path)


def test_weights_are_told_apart_by_every_byte_of_every_file(tmp_path: Path) -> None:
    assert hash_weights(tmp_path) == ""
    (tmp_path / "model-00001.safetensors").write_bytes(b"abc")
    (tmp_path / "model-00002.safetensors").write_bytes(b"def")
    whole = hash_weights(tmp_path)
    (tmp_path / "config.json").touch()
    assert hash_weights(tmp_path) == whole
    (tmp_path / "model-00002.safetensors").write_bytes(b"deg")
    assert hash_weights(tmp_path) != whole


# the whole, with lives that write what a run would


def write_life(life: Life, *, run_dir: Path, change: float = 0.0) -> Ended:
    """What a life of the story KILLED, or of a straight one, leaves in its run folder."""
    if life.drill:
        return ENDS["manifest"][0]
    run_dir.mkdir()
    (run_dir / "config.yaml").write_text(dump_config(CONFIG))
    write_run_info(run_dir, {})
    for row in rows_of(resumed_at=0 if run_dir.name == "straight" else 4, change=change):
        kind = {TrainRow: "train", EvalRow: "eval", EventRow: "event"}[type(row)]
        values = {name: getattr(row, name) for name in type(row).__dataclass_fields__}
        append_row(run_dir / "metrics.jsonl", values | {"kind": kind})
    for name in ("checkpoints", "best", "final"):
        (run_dir / name).mkdir()
        (run_dir / name / "model.safetensors").write_bytes(b"weights")
    return Ended((0,) * life.num_ranks)


def contents(run_dir: Path) -> set[str]:
    return {path.name for path in run_dir.iterdir() if path.is_dir()}


@pytest.mark.parametrize("change", [0.0, 1e-3])
def test_weights_of_a_story_are_removed_if_it_is_ok_and_kept_if_not(tmp_path: Path, change: float) -> None:
    def fake(life: Life, *, config: Path, run_dir: Path, log: Path) -> Ended:
        assert load_config(str(config)) == shorten(CONFIG, steps=STEPS, folder=run_dir)
        return write_life(life, run_dir=run_dir, change=0.0 if run_dir.name == "straight" else change)

    performance = Performance(CONFIG, tmp_path, STEPS, fake)
    assert performance.tell(STRAIGHT).fault is None
    assert contents(tmp_path / "straight") == {"final"}
    result = performance.tell(KILLED)
    assert (result.fault is None) == (change == 0.0)
    assert contents(tmp_path / "killed-manifest") == (set() if change == 0.0 else {"checkpoints", "best", "final"})
    assert result.went_on_from == 4


@pytest.mark.parametrize("change", [0.0, 1e-3])
def test_the_drill_says_what_it_found_and_writes_it_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: float
) -> None:
    def fake(life: Life, *, run_dir: Path, log: Path, **other: Any) -> Ended:
        log.write_text("the ranks' last words\n")
        return write_life(life, run_dir=run_dir, change=0.0 if run_dir.name == "straight" else change)

    monkeypatch.setattr(perform, "live", fake)
    folder, said = tmp_path / "drill", list[str]()
    found = perform.perform(
        CONFIG,
        stories=[STRAIGHT, KILLED],
        steps=STEPS,
        folder=folder,
        life_minutes=1.0,
        environment={},
        say=said.append,
    )
    assert found == (change == 0.0)
    printed = "\n".join(said)
    assert re.search(
        r"\nstory .* verdict\nstraight run .* reference\nkilled before the manifest .* -9 85, then 0 0", printed
    )
    written = json.loads((folder / "drill.json").read_text())
    assert [written["ok"], *(story["ok"] for story in written["stories"])] == [found, True, found]
    assert "killed before the manifest" in (folder / "drill.md").read_text()
    named = f"{folder / 'killed-manifest.log'} ends with:\n  the ranks' last words"
    assert (named in printed) == (not found)
    assert contents(folder / "straight") == (set() if found else {"final"})


def test_without_a_straight_run_nothing_else_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lives: list[Life] = []

    def fake(life: Life, **other: Any) -> Ended:
        lives.append(life)
        return Ended((1, 1))

    monkeypatch.setattr(perform, "live", fake)
    arguments: dict[str, Any] = {"steps": STEPS, "life_minutes": 1.0, "environment": {}, "say": lambda text: None}
    assert not perform.perform(CONFIG, stories=[STRAIGHT, KILLED], folder=tmp_path / "drill", **arguments)
    assert lives == [Life(2)]
