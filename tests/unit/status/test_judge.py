"""The state of a run: on this host and on others, while it runs and after each kind of end."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dstrain.cluster.processes import Holder
from dstrain.cluster.walltime import ALLOCATION_ENDS
from dstrain.reporting.terminal import to_iso
from dstrain.run_folder.claims import Claim
from dstrain.run_folder.outcome import RunOutcome
from dstrain.run_folder.rows import EventRow, TrainRow
from dstrain.slurm.requeue import Cause, JobEnd, JobStart, append_entry
from dstrain.status.judge import CLOCK_SECONDS, KILLED_EARLY, START_SECONDS, find_slowest, is_current
from dstrain.status.text import describe_status
from tests.unit.status.status_cases import (
    HERE,
    LEASE_SECONDS,
    NODE,
    NOW,
    iso,
    look,
    rank_record,
    write_claim,
    write_outcome,
    write_rank,
    write_row,
    write_start_mark,
)


@pytest.mark.parametrize(
    ("phase", "quiet", "state"),
    [
        ("step", 110, "running"),
        ("step", 130, "silent"),
        ("evaluation", 290, "running"),
        ("evaluation", 310, "silent"),
        ("set-up", 1700, "running"),
        ("set-up", 1900, "silent"),
        ("a phase of a later version", 110, "running"),
    ],
)
def test_how_long_a_run_may_make_no_progress_depends_on_its_phase(
    run: Path, phase: str, quiet: float, state: str
) -> None:
    for rank in (0, 1):
        write_rank(run, rank, tracks={"main": phase, "save": "idle"}, changed=NOW - quiet)
    assert look(run).state == state


def test_a_silent_run_names_the_time_and_the_rank_that_the_others_wait_for(run: Path) -> None:
    write_rank(run, 0, changed=NOW - 840)
    write_rank(run, 1, step=119, changed=NOW - 900, tracks={"main": "evaluation", "save": "idle"}, host="node2")
    status = look(run)
    assert (status.state, status.since, status.eta_seconds) == ("silent", NOW - 840, None)
    assert "no progress for 14 min: rank 1 on node2 is in phase 'evaluation' after step 119" in status.message
    assert "machine.watchdog" in describe_status(status)


def test_steps_that_take_minutes_do_not_make_a_run_silent(run: Path) -> None:
    for step in (200, 300):
        write_row(run, TrainRow(step, 1.0, 2.0, elapsed_seconds=200.0 + (step - 100) * 100, lease=1))
    for rank in (0, 1):
        write_rank(run, rank, changed=NOW - 200)
    assert look(run).state == "running"
    assert look(run, quiet_seconds=100).state == "silent"


def test_progress_of_one_rank_is_progress_of_the_run(run: Path) -> None:
    write_rank(run, 1, changed=NOW - 5000)
    assert look(run).state == "running"


def test_an_attempt_whose_ranks_have_not_connected_yet_is_running(run: Path) -> None:
    """It has taken over the lease from a preempted attempt and written nothing else so far."""
    write_claim(run, released=True)
    write_outcome(run, "preempted")
    write_claim(run, 2, holder=replace(NODE, since=iso(NOW - 5)), base_step=None)
    status = look(run)
    assert (status.state, status.message, status.ranks) == ("running", "its ranks have not connected yet", None)
    assert status.since == NOW - 5


def start(*, host: str = HERE.host, pid: int = 700, seconds: float = 3.0) -> Holder:
    """A process that has been starting the run for some seconds."""
    return replace(HERE if host == HERE.host else NODE, host=host, pid=pid, since=iso(NOW - seconds))


@pytest.mark.parametrize(
    ("outcome", "before"), [("preempted", "stopped"), ("failed", "failed"), ("finished", "finished")]
)
def test_a_run_is_starting_again_before_it_acquires_the_lease(run: Path, outcome: str, before: str) -> None:
    write_claim(run, released=True)
    write_outcome(run, outcome)
    write_start_mark(run, start())
    status = look(run, processes={700: HERE.process_start})
    assert (status.state, status.since, status.ranks) == ("starting", NOW - 3, None)
    assert status.starts[-1].ended is not None
    assert "start it again" not in describe_status(status)
    assert look(run).state == before, "the process that was starting it is gone"


def test_the_first_start_is_not_one_that_never_was(tmp_path: Path) -> None:
    write_start_mark(tmp_path, start())
    assert look(tmp_path, processes={700: HERE.process_start}).state == "starting"
    shown = describe_status(look(tmp_path, processes={700: HERE.process_start}))
    assert "message  process 700 on login imports libraries and connects its ranks" in shown


def test_a_first_start_that_was_killed_before_the_lease_is_not_one_that_never_was(tmp_path: Path) -> None:
    write_start_mark(tmp_path, start())
    status = look(tmp_path)
    assert (status.state, status.message, status.since, status.notes) == ("killed", KILLED_EARLY, NOW - 3, ())
    assert "start it again: the same command begins at the first step" in describe_status(status)
    write_start_mark(tmp_path, start(host="node7", seconds=START_SECONDS + 1))
    assert look(tmp_path).state == "never started", "a process on another host may live"


@pytest.mark.parametrize("outcome", ["preempted", "failed", "finished"])
def test_a_later_start_that_was_killed_before_the_lease_is_a_note(run: Path, outcome: str) -> None:
    write_claim(run, released=True)
    write_outcome(run, outcome)
    before = look(run)
    write_start_mark(run, start())
    status = look(run)
    assert (status.state, status.message) == (before.state, before.message)
    assert status.notes == (
        "the last start, of 2027-01-15 07:59:57 UTC, ended before it acquired the run folder, and recorded no reason",
    )
    assert look(run, processes={700: HERE.process_start}).notes == (), "it lives"


def test_a_start_that_said_how_it_failed_keeps_its_own_state(tmp_path: Path) -> None:
    write_start_mark(tmp_path, start())
    write_outcome(tmp_path, "failed", attempt=0, time=NOW - 1, message="rank 0: no usable row")
    status = look(tmp_path)
    assert (status.state, status.message, status.notes) == ("failed", "rank 0: no usable row", ())


def test_a_start_that_left_only_a_report_of_its_failure_has_left_word(run: Path) -> None:
    write_claim(run, released=True)
    write_outcome(run, "finished")
    write_start_mark(run, start())
    report = run / "failures" / "rank-0.txt"
    report.parent.mkdir()
    report.write_text("UserError: the recipe has changed")
    os.utime(report, (NOW - 1, NOW - 1))
    assert look(run).notes == ()
    os.utime(report, (NOW - 60, NOW - 60))
    assert look(run).notes != (), "that of an earlier start"


def test_a_start_that_was_refused_while_another_ran_is_no_news_once_that_one_has_ended(run: Path) -> None:
    write_start_mark(run, start(seconds=400.0))
    assert (look(run).state, look(run).notes) == ("running", ())
    write_claim(run, released=True)
    write_outcome(run, "finished", time=NOW - 300)
    assert (look(run).state, look(run).notes) == ("finished", ())


def test_a_claim_that_cannot_be_read_may_be_that_of_the_last_start(run: Path) -> None:
    write_outcome(run, "finished")
    (run / "lease" / "00000001.json").write_text("{")
    write_start_mark(run, start())
    assert look(run).notes == ()


def test_a_second_start_does_not_hide_the_running_attempt(run: Path) -> None:
    write_start_mark(run, start())
    assert look(run, processes={700: HERE.process_start}).state == "running"


def test_the_process_that_acquired_the_lease_is_not_starting_any_more(run: Path) -> None:
    write_claim(run, holder=start(), released=True)
    write_outcome(run, "finished")
    write_start_mark(run, start(seconds=9.0))
    assert look(run, processes={700: HERE.process_start}).state == "finished"


def test_a_refused_start_on_another_host_is_not_starting(run: Path) -> None:
    write_claim(run, released=True)
    write_outcome(run, "preempted", time=NOW - 2000)
    write_start_mark(run, start(host="node7"))
    assert look(run).state == "starting"
    end = {"outcome": "refused", "exit_code": 1, "message": "changed", "attempt": 2, "time": iso(NOW - 1)}
    write_claim(run, 2, holder=replace(NODE, host="node8"), released=True)
    (run / "lease" / "00000002.end").write_text(json.dumps(end))
    assert look(run).state == "stopped"


def test_a_start_on_another_host_counts_for_a_while_unless_it_has_recorded_its_end(run: Path) -> None:
    write_claim(run, released=True)
    write_outcome(run, "preempted", time=NOW - 2000)
    write_start_mark(run, start(host="node7", seconds=START_SECONDS - 1))
    assert look(run).state == "starting"
    write_outcome(run, "failed", attempt=0, time=NOW - 1)
    assert look(run).state != "starting"
    write_outcome(run, "preempted", time=NOW - 2000)
    write_start_mark(run, start(host="node7", seconds=START_SECONDS + 1))
    assert look(run).state == "stopped"


def test_a_run_of_another_host_is_killed_once_lease_and_heartbeats_are_stale(run: Path) -> None:
    silence = LEASE_SECONDS + 61
    write_claim(run, renewed=NOW - silence)
    assert look(run).state == "running", "the heartbeats of its ranks are recent"
    for rank in (0, 1):
        write_rank(run, rank, changed=NOW - silence, heartbeat=NOW - silence)
    status = look(run)
    assert (status.state, status.since) == ("killed", NOW - silence)
    assert "no sign of life for 2 min 1 s: its lease (process 500 on node1, since" in status.message
    assert "start it again" in describe_status(status)


def test_a_run_of_this_host_is_killed_as_soon_as_its_processes_are_gone(run: Path) -> None:
    write_claim(run, holder=HERE)
    for rank in (0, 1):
        write_rank(run, rank, host=HERE.host, pid_namespace=HERE.pid_namespace)
    assert look(run, processes={500: 77, 501: 77}).state == "running"
    assert look(run, processes={500: 78}).state == "killed", "another process has its id by now"
    status = look(run)
    assert (status.state, status.since) == ("killed", NOW - 10)
    assert status.message == "none of its processes is left on login"
    assert status.step == 120
    assert status.ranks
    assert status.ranks.missing == (), "all are gone, so none counts as missing"


def test_a_stopped_process_of_this_host_is_silent_and_not_killed(run: Path) -> None:
    write_claim(run, holder=HERE, renewed=NOW - 9000)
    for rank in (0, 1):
        write_rank(
            run, rank, host=HERE.host, pid_namespace=HERE.pid_namespace, changed=NOW - 9000, heartbeat=NOW - 9000
        )
    assert look(run, processes={500: 77, 501: 77}).state == "silent"


def test_a_rank_without_a_sign_of_life_is_named_while_others_run(run: Path) -> None:
    write_rank(run, 1, host=HERE.host, pid_namespace=HERE.pid_namespace)
    write_rank(run, 2, host="node3", heartbeat=NOW - 1000)
    status = look(run)
    assert status.state == "running"
    assert status.ranks
    assert [(rank.rank, rank.problem) for rank in status.ranks.missing] == [
        (1, "its process is gone"),
        (2, "no heartbeat for 16 min 40 s"),
    ]


@pytest.mark.parametrize(("outcome", "state"), [("preempted", "stopped"), ("lost", "lost")])
def test_a_run_that_needs_another_start_says_so_and_why(run: Path, outcome: str, state: str) -> None:
    write_outcome(run, outcome, message="received SIGUSR1", step=130, exit_code=85)
    status = look(run)
    assert (status.state, status.message, status.since, status.step) == (state, "received SIGUSR1", NOW - 300, 130)
    assert status.eta_seconds is None
    assert "start it again" in describe_status(status)


@pytest.mark.parametrize(
    ("cause", "again", "state", "comes_again"),
    [
        ("time limit", True, "at its time limit", "12"),
        ("time limit", False, "at its time limit", None),
        ("preemption", False, "preempted", "12"),
        ("requeue by hand", False, "requeued", "12"),
        ("cancelled", False, "cancelled", None),
        ("node failure", False, "stopped", "12"),
        ("its own end", True, "stopped", "12"),
        ("unknown", False, "stopped", None),
    ],
)
def test_the_state_of_a_run_that_was_signalled_to_stop_is_what_ended_its_job(
    run: Path, cause: Cause, again: bool, state: str, comes_again: str | None
) -> None:
    write_claim(run, released=True, job="cluster/12", restart=1)
    write_outcome(run, "preempted", message="received SIGTERM", step=130)
    append_entry(run, JobEnd("12", 1, cause, "squeue, by its restart count", again))
    status = look(run)
    assert (status.state, status.step, status.comes_again, status.ranks) == (state, 130, comes_again, None)
    assert status.starts[-1].ended == state
    text = describe_status(status)
    assert (f"{cause}, according to squeue, by its restart count" in text) == (cause not in ("its own end", "unknown"))
    coming = "Slurm starts job 12 again (see squeue --jobs 12); if it does not, start it again: the same command"
    assert (coming in text) == (comes_again is not None)
    assert "start it again: the same command resumes" in text


@pytest.mark.parametrize("outcome", ["running", "lost"])
def test_what_ended_the_job_is_shown_for_a_killed_or_lost_run_too(run: Path, outcome: str) -> None:
    write_claim(run, job="/12", renewed=NOW - 9000)
    for rank in (0, 1):
        write_rank(run, rank, changed=NOW - 9000, heartbeat=NOW - 9000)
    write_outcome(run, outcome, message="lost rank 1")
    append_entry(run, JobEnd("12", 0, "node failure", "sinfo, by node2, which is down", again=False))
    status = look(run)
    assert status.state == {"running": "killed", "lost": "lost"}[outcome]
    assert status.comes_again == "12"
    assert "node failure, according to sinfo, by node2, which is down" in describe_status(status)


def test_a_job_cancelled_before_it_acquired_the_lease_sets_the_time_of_the_end(run: Path) -> None:
    write_claim(run, job="cluster/12", released=True)
    write_outcome(run, "preempted", message="received SIGTERM")
    append_entry(run, JobEnd("12", 0, "requeue by hand", "Slurm", again=False, time=to_iso(NOW - 40) or ""))
    append_entry(run, JobStart("12", 1, 100, ""))
    append_entry(run, JobEnd("12", 1, "cancelled", "Slurm", again=False, time=to_iso(NOW - 5) or ""))
    assert (look(run).state, look(run).since) == ("cancelled", NOW - 5)


def test_a_run_that_stopped_for_the_end_of_its_allocation_is_at_its_time_limit_without_a_batch_script(
    run: Path,
) -> None:
    write_outcome(run, "preempted", message=ALLOCATION_ENDS)
    assert look(run).state == "at its time limit"


def test_a_failed_second_start_does_not_hide_the_running_attempt(run: Path) -> None:
    write_outcome(run, "failed", attempt=0, message="could not join", time=NOW - 300)
    assert look(run).state == "running"


def test_the_outcome_of_an_earlier_attempt_is_not_that_of_the_newest(run: Path) -> None:
    write_outcome(run, "finished", attempt=1)
    write_claim(run, 2, renewed=NOW - 9000)
    assert look(run).state == "killed"


@pytest.mark.parametrize(("event", "state"), [("finish", "finished"), ("stop", "stopped"), ("resume", "killed")])
def test_without_an_outcome_the_last_event_of_a_run_that_released_its_lease_decides(
    run: Path, event: Any, state: str
) -> None:
    (run / "outcome.json").unlink()
    write_claim(run, released=True)
    write_row(run, EventRow(event, 120, iso(NOW - 50), "as it was told", lease=1))
    assert look(run).state == state


def test_an_empty_folder_is_a_run_that_never_started(tmp_path: Path) -> None:
    assert look(tmp_path).state == "never started"
    assert describe_status(look(tmp_path)) == f"{tmp_path}: never started"


def test_the_slowest_rank_has_the_fewest_steps_and_then_the_oldest_progress() -> None:
    records = [
        rank_record(rank, step=step, changed=changed) for rank, step, changed in ((0, 5, 9.0), (1, 4, 9.0), (2, 4, 8.0))
    ]
    records.append(rank_record(3, step=None, changed=9.0))
    assert [record.rank for record in find_slowest(records)] == [3, 2, 1, 0]


def test_without_an_attempt_number_an_outcome_is_current_unless_the_attempt_was_active_well_after_it() -> None:
    claim = Claim(number=3, holder=replace(NODE, since=iso(NOW - 1000)))
    outcome = RunOutcome("failed", 1, attempt=0, time=iso(NOW))
    assert is_current(outcome, claim=claim, records=[rank_record(0, changed=NOW + CLOCK_SECONDS)])
    assert not is_current(outcome, claim=claim, records=[rank_record(0, changed=NOW + CLOCK_SECONDS + 1)])
    assert not is_current(replace(outcome, attempt=2), claim=claim, records=[])
    assert is_current(replace(outcome, attempt=2), claim=None, records=[])
