"""Whether a job is requeued and why one was started, from exit codes, failures, the history and Slurm's answers."""

from pathlib import Path

import pytest

from dstrain.run_folder.layout import RunFolder
from dstrain.slurm.requeue import (
    Cause,
    Decision,
    Entry,
    JobEnd,
    JobStart,
    append_entry,
    count_fruitless,
    decide,
    describe_early_warning,
    describe_start,
    find_end,
    read_cause,
    read_history,
)


def decision(code: int, *, failure: str | None = None, num_fruitless: int = 0, warned: bool = False) -> Decision:
    return decide(code=code, failure=failure, num_fruitless=num_fruitless, max_fruitless=3, warned=warned)


def started(restart: int, *, step: int = 0, job: str = "7", launch: int = 0) -> JobStart:
    return JobStart(job, restart, step, "", launch=launch)


def ended(restart: int, cause: Cause = "its own end", *, job: str = "7", launch: int = 0) -> JobEnd:
    return JobEnd(job, restart, cause, "srun (exit code)", again=True, launch=launch)


@pytest.mark.parametrize("code", [85, 137, 139, 143])
def test_a_job_that_saved_or_was_killed_is_requeued(code: int) -> None:
    assert decision(code).requeue
    assert decision(code).exit_code == 85


@pytest.mark.parametrize("code", [1, 2, 127, 128])
def test_a_failure_is_not_started_again_and_keeps_its_code(code: int) -> None:
    found = decision(code)
    assert (found.requeue, found.exit_code) == (False, code)
    assert f"exit code {code}" in found.reason


@pytest.mark.parametrize(("code", "exit_code"), [(85, 1), (137, 1), (1, 1), (2, 2)])
def test_a_rank_that_reported_its_own_failure_outweighs_peers_that_only_lost_it(code: int, exit_code: int) -> None:
    found = decision(code, failure="rank 3: ValueError: no rows")
    assert (found.requeue, found.exit_code) == (False, exit_code)
    assert found.reason.endswith("it failed: rank 3: ValueError: no rows")


def test_a_finished_run_is_left_alone_whatever_was_reported_before() -> None:
    assert decision(0, failure="rank 1: of old", num_fruitless=9, warned=True) == Decision(False, 0, "finished")


@pytest.mark.parametrize(("num_fruitless", "requeue"), [(0, True), (2, True), (3, False), (4, False)])
def test_starts_that_save_nothing_end_at_the_stated_number(num_fruitless: int, requeue: bool) -> None:
    found = decision(85, num_fruitless=num_fruitless)
    assert found.requeue == requeue
    if not requeue:
        assert found.exit_code == 1
        assert f"{num_fruitless} starts in a row saved nothing new" in found.reason


def test_a_warning_is_named_as_the_reason() -> None:
    assert decision(85, warned=True).reason == "requeued (the time limit is near)"
    assert decision(137).reason == "requeued (exit code 137)"


def test_only_starts_since_the_newest_checkpoint_count() -> None:
    history: list[Entry] = [started(0, step=0), started(1, step=0), started(2, step=50), started(3, step=50)]
    assert count_fruitless(history, job="7", step=50) == 2
    assert count_fruitless(history, job="7", step=60) == 0


@pytest.mark.parametrize(
    ("cause", "counted"),
    [
        ("time limit", True),
        ("node failure", True),
        ("its own end", True),
        ("unknown", True),
        ("preemption", False),
        ("requeue by hand", False),
    ],
)
def test_starts_that_others_cut_short_are_excused(cause: Cause, counted: bool) -> None:
    history: list[Entry] = [started(0), ended(0, cause), started(1)]
    assert count_fruitless(history, job="7", step=0) == 1 + counted


def test_another_job_starts_its_own_count() -> None:
    history: list[Entry] = [started(0), started(1), started(2), ended(0, "preemption", job="8"), started(0, job="8")]
    assert count_fruitless(history, job="8", step=0) == 0
    assert count_fruitless(history, job="7", step=0) == 3


@pytest.mark.parametrize(
    ("queue", "down", "cause"),
    [
        ("TimeLimit N/A 0", "", "time limit"),
        ("TimeLimit N/A 0", "node2", "time limit"),
        ("None N/A 0", "", "cancelled"),
        ("None N/A 0", "node2", "cancelled"),
        ("None 2026-11-25T12:13:15 1", "", "preemption"),
        ("None N/A 1", "node2\n", "node failure"),
        ("None N/A 1", "", "requeue by hand"),
        ("", "", "unknown"),
        ("slurm_load_jobs error: Unable to contact slurm controller", "", "unknown"),
        ("None N/A many", "", "unknown"),
    ],
)
def test_what_a_sigterm_means_is_read_from_slurm(queue: str, down: str, cause: str) -> None:
    assert read_cause(queue, restart=0, down_nodes=down)[0] == cause


def test_a_restart_is_measured_against_the_jobs_own_number() -> None:
    assert read_cause("None N/A 4", restart=4, down_nodes="")[0] == "cancelled"
    assert read_cause("None N/A 5", restart=4, down_nodes="")[0] == "requeue by hand"


def test_the_node_that_failed_is_named() -> None:
    assert read_cause("None N/A 1", restart=0, down_nodes="node2\nnode2\nnode3\n")[1] == "sinfo (down: node2,node3)"


def test_every_start_says_why_and_how_that_is_known() -> None:
    history: list[Entry] = [
        started(0),
        JobEnd("7", 0, "preemption", "squeue (preemption time)", again=False),
        started(1),
    ]
    assert describe_start([], job="7", restart=0) == "job 7, first start"
    assert describe_start(history, job="8", restart=0) == "job 8, submitted to resume the run"
    preempted = "job 7, restart 1 (after preemption, according to squeue (preemption time))"
    assert describe_start(history, job="7", restart=1) == preempted
    history.append(JobEnd("7", 2, "its own end", "lost rank 3", again=True))
    assert describe_start(history, job="7", restart=3) == "job 7, restart 3 (it ended on its own: lost rank 3)"
    assert "restart 2 (its batch script recorded no end" in describe_start(history, job="7", restart=2)


def test_a_start_within_the_same_allocation_says_on_how_many_nodes_and_why() -> None:
    history: list[Entry] = [started(0), JobEnd("7", 0, "node failure", "sinfo (down: node2)", again=True)]
    said = describe_start(history, job="7", restart=0, launch=1, num_nodes=1)
    assert said == "job 7, started again at once on 1 node (after node failure, according to sinfo (down: node2))"
    said = describe_start(history, job="7", name="5_2", restart=0, launch=1, num_nodes=2)
    assert said.startswith("job 5_2, started again at once on 2 nodes (after node failure")


def test_a_restart_gives_the_reason_of_the_last_start_in_the_allocation_before() -> None:
    history: list[Entry] = [started(0), ended(0, "node failure"), started(0, launch=1)]
    assert "its batch script recorded no end" in describe_start(history, job="7", restart=1)
    history.append(ended(0, "preemption", launch=1))
    assert "after preemption" in describe_start(history, job="7", restart=1)


def test_every_start_within_an_allocation_counts_if_it_saves_nothing() -> None:
    history: list[Entry] = [started(0), ended(0, "node failure"), started(0, launch=1)]
    assert count_fruitless(history, job="7", step=0) == 2
    history.append(ended(0, "preemption", launch=1))
    assert count_fruitless(history, job="7", step=0) == 1


def test_the_first_entry_about_an_end_counts() -> None:
    history: list[Entry] = [ended(0, "preemption"), ended(0, "requeue by hand")]
    assert find_end(history, job="7", restart=0) == history[0]
    assert find_end(history, job="7", restart=1) is None
    assert find_end(history, job="7", restart=0, launch=1) is None


def test_a_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    entries: list[Entry] = [started(0, step=3), ended(0, "time limit"), started(1, step=9, job="8")]
    for entry in entries:
        append_entry(tmp_path, entry)
    assert read_history(tmp_path) == entries


def test_torn_and_foreign_lines_of_a_history_are_skipped(tmp_path: Path) -> None:
    append_entry(tmp_path, started(0))
    with RunFolder(tmp_path).slurm_history.open("a") as stream:
        stream.write('{"kind": "later"}\n[]\n{"job": "7", "rest')
    append_entry(tmp_path, started(1))
    assert read_history(tmp_path) == [started(0), started(1)]


def test_a_run_without_a_history_has_an_empty_one(tmp_path: Path) -> None:
    assert read_history(tmp_path) == []


@pytest.mark.parametrize(("elapsed", "left"), [(0, 60), (12, 108), (70, 330)])
def test_a_warning_that_comes_before_half_the_time_is_over_is_explained_with_the_way_out(
    elapsed: float, left: float
) -> None:
    message = describe_early_warning(elapsed_seconds=elapsed, left_seconds=left)
    assert message is not None
    assert f"the time limit of {elapsed + left} s is too short for its warning, which came {elapsed} s after" in message
    assert "--time" in message
    assert "--signal=B:USR1@30" in message


@pytest.mark.parametrize(("elapsed", "left"), [(3300, 300), (30, 30_000_000), (90, 30)])
def test_a_warning_in_time_and_a_signal_by_hand_are_not_explained(elapsed: float, left: float) -> None:
    assert describe_early_warning(elapsed_seconds=elapsed, left_seconds=left) is None


@pytest.mark.parametrize("job", ["1; rm -rf ~ #", "", "a", "1\n2", "--help"])
def test_an_entry_whose_job_is_no_id_of_slurm_is_skipped(job: str, tmp_path: Path) -> None:
    append_entry(tmp_path, JobStart("12_3", 0, 0, "first start"))
    append_entry(tmp_path, JobStart(job, 0, 0, "first start"))
    assert [entry.job for entry in read_history(tmp_path)] == ["12_3"]
