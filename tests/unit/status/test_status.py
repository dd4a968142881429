"""What `dstrain status` says of a run, from files alone: every state, on this host and on others, whole files and broken ones."""

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from dstrain.attempt.rank_records import RankRecord
from dstrain.cli import app
from dstrain.cluster.processes import Holder
from dstrain.cluster.walltime import ALLOCATION_ENDS
from dstrain.config.load import dump_config, load_config
from dstrain.reporting.terminal import duration, to_iso
from dstrain.run_folder.record import write_run_info
from dstrain.run_folder.rows import EvalRow, EventRow, TrainRow, append_row
from dstrain.slurm.evaluation_jobs import MAX_JOBS, note_job
from dstrain.slurm.requeue import Cause, JobEnd, JobStart, append_entry
from dstrain.status.inspect import RunStatus, inspect_status
from dstrain.status.pace import Pace, measure_pace, remaining_seconds
from dstrain.status.text import as_json, describe_status

NOW = 1_800_000_000.0
LEASE_SECONDS = 60.0
OBSERVER = Holder("login", 1, 1, "pid:[1] boot", since="")
NODE = Holder("node1", 500, 77, "pid:[9] other", since="2027-01-15T07:00:00+00:00")
HERE = replace(NODE, host="login", pid_namespace="pid:[1] boot")


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def write_claim(
    run: Path,
    number: int = 1,
    *,
    holder: Holder = NODE,
    base_step: int | None = 0,
    released: bool = False,
    renewed: float = NOW - 10,
    job: str = "",
    restart: int = 0,
) -> None:
    path = run / "lease" / f"{number:08d}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    values = {"number": number, "holder": asdict(holder), "base_step": base_step, "beat": 4, "released": released}
    values |= {"job": job, "restart": restart}
    path.write_text(json.dumps(values))
    os.utime(path, (renewed, renewed))


def write_rank(run: Path, rank: int = 0, **changes: Any) -> None:
    """A rank of NODE in a step, that made progress and was heard of 10 seconds ago."""
    record = RankRecord(
        rank=rank,
        host=NODE.host,
        pid_namespace=NODE.pid_namespace,
        pid=NODE.pid + rank,
        process_start=NODE.process_start,
        attempt=1,
        tracks={"main": "step", "save": "idle"},
        step=120,
        beats=7,
        changed=NOW - 10,
        heartbeat=NOW - 10,
        ended=None,
    )
    path = run / "ranks" / f"rank-{rank:05d}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(replace(record, **changes))))


def write_outcome(run: Path, outcome: str, *, attempt: int = 1, time: float = NOW - 300, **values: Any) -> None:
    content = {"outcome": outcome, "exit_code": None, "message": "", "attempt": attempt, "time": iso(time)} | values
    (run / "outcome.json").write_text(json.dumps(content))


def write_row(run: Path, row: TrainRow | EvalRow | EventRow) -> None:
    kind = {TrainRow: "train", EvalRow: "eval", EventRow: "event"}[type(row)]
    append_row(run / "metrics.jsonl", {"kind": kind, **asdict(row)})


def look(run: Path, *, processes: dict[int, int] | None = None, **options: Any) -> RunStatus:
    """The status as seen from OBSERVER's host, whose process table is `processes` (id to start)."""
    return inspect_status(run, now=NOW, observer=OBSERVER, find_start=(processes or {}).get, **options)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of two ranks on another node, 120 of 1000 steps done, with scores and a checkpoint."""
    config = load_config("debug", overrides=["machine.lease_seconds=60", "name=mine"])
    (tmp_path / "config.yaml").write_text(dump_config(config))
    write_run_info(tmp_path, {"total_steps": 1000, "world_size": 2})
    write_row(tmp_path, EventRow("start", 0, iso(NOW - 3600), lease=1))
    for step in (50, 100):
        write_row(tmp_path, TrainRow(step, step / 100, 3.0 - step / 100, elapsed_seconds=step * 2.0, lease=1))
    write_row(tmp_path, EvalRow(100, 1.0, {"loss": 2.5, "bleu": 12.5}, seconds=30.0, lease=1))
    write_claim(tmp_path)
    write_outcome(tmp_path, "running")
    write_rank(tmp_path, 0)
    write_rank(tmp_path, 1, step=119, changed=NOW - 20)
    add_checkpoint(tmp_path, "step-00000100.lease-1", saved=NOW - 120)
    return tmp_path


def add_checkpoint(run: Path, name: str, *, saved: float) -> None:
    manifest = run / "checkpoints" / name / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    os.utime(manifest, (saved, saved))


def test_a_run_on_another_node_is_running_with_its_phase_step_slowest_rank_scores_and_checkpoint(run: Path) -> None:
    status = look(run)
    assert (status.state, status.step, status.total_steps) == ("running", 120, 1000)
    assert status.ranks
    assert status.ranks.phases == {"step": 2}
    assert status.ranks.quiet_seconds == 10
    assert [(rank.rank, rank.step, rank.quiet_seconds) for rank in status.ranks.slowest] == [(1, 119, 20), (0, 120, 10)]
    text = describe_status(status)
    for part in (
        "running since 2027-01-15 07:00:00 UTC (1 h ago), last progress 10 s ago",
        "120 of 1,000 (12.0%)",
        "2: 2 in 'step'",
        "rank 1 on node1: 'step', step 119, last progress 20 s ago",
        "2.0000 at step 100",
        "bleu 12.5000  loss 2.5000 at step 100",
        "step-00000100.lease-1, saved 2 min ago, the newest of 1",
    ):
        assert part in text


def test_the_eta_is_that_of_recent_trained_seconds_and_of_the_evaluations_to_come(run: Path) -> None:
    # 880 steps of 2 s, and nine evaluations of 30 s, one every 100 steps
    assert look(run).eta_seconds == 880 * 2 + 9 * 30


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
def test_how_long_a_run_may_show_no_progress_goes_by_its_phase(run: Path, phase: str, quiet: float, state: str) -> None:
    for rank in (0, 1):
        write_rank(run, rank, tracks={"main": phase, "save": "idle"}, changed=NOW - quiet)
    assert look(run).state == state


def test_a_silent_run_names_since_when_and_the_rank_that_the_others_wait_for(run: Path) -> None:
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


def test_one_rank_that_gets_on_is_progress(run: Path) -> None:
    write_rank(run, 1, changed=NOW - 5000)
    assert look(run).state == "running"


def test_a_rank_that_waits_for_a_save_is_where_the_save_is(run: Path) -> None:
    for rank in (0, 1):
        write_rank(run, rank, tracks={"main": "wait for save", "save": "write part"})
    ranks = look(run).ranks
    assert ranks
    assert (ranks.phases, ranks.num_saving) == ({"write part": 2}, 2)
    assert "2 in 'write part'; a checkpoint in flight on 2" in describe_status(look(run))


def test_a_start_whose_ranks_have_not_met_yet_is_running(run: Path) -> None:
    """It has taken the lease over from a preempted start, and written nothing else so far."""
    write_claim(run, released=True)
    write_outcome(run, "preempted")
    write_claim(run, 2, holder=replace(NODE, since=iso(NOW - 5)), base_step=None)
    status = look(run)
    assert (status.state, status.message, status.ranks) == ("running", "its ranks have not met yet", None)
    assert status.since == NOW - 5


def test_ranks_of_an_earlier_start_on_more_ranks_do_not_count(run: Path) -> None:
    write_claim(run, 2, base_step=100)
    write_outcome(run, "running", attempt=2)
    write_rank(run, 0, attempt=2, step=None)
    status = look(run)
    assert status.ranks
    assert status.ranks.num_ranks == 1
    assert status.step == 100


def test_a_run_of_another_host_is_killed_once_lease_and_heartbeats_are_stale(run: Path) -> None:
    silence = LEASE_SECONDS + 61
    write_claim(run, renewed=NOW - silence)
    assert look(run).state == "running", "its ranks were heard of"
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
    assert look(run, processes={500: 78}).state == "killed", "its process id is another's by now"
    status = look(run)
    assert (status.state, status.since) == ("killed", NOW - 10)
    assert status.message == "no process of it is left on login"
    assert status.step == 120
    assert status.ranks
    assert status.ranks.missing == (), "all are gone, and none is missing"


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
def test_a_run_that_wants_to_be_started_again_says_so_and_why(run: Path, outcome: str, state: str) -> None:
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
def test_what_ended_the_job_of_a_run_that_was_told_to_stop_is_its_state(
    run: Path, cause: Cause, again: bool, state: str, comes_again: str | None
) -> None:
    write_claim(run, released=True, job="cluster/12", restart=1)
    write_outcome(run, "preempted", message="received SIGTERM", step=130)
    append_entry(run, JobEnd("12", 1, cause, "squeue, by its restart count", again))
    status = look(run)
    assert (status.state, status.step, status.comes_again, status.ranks) == (state, 130, comes_again, None)
    assert status.starts[-1].ended == state
    text = describe_status(status)
    assert (f"{cause}; says squeue, by its restart count" in text) == (cause not in ("its own end", "unknown"))
    coming = "Slurm starts job 12 again, as squeue --jobs 12 shows; if it does not, start it again: the same command"
    assert (coming in text) == (comes_again is not None)
    assert "start it again: the same command goes on" in text


@pytest.mark.parametrize("outcome", ["running", "lost"])
def test_what_ended_the_job_is_told_of_a_run_that_was_killed_or_lost_too(run: Path, outcome: str) -> None:
    write_claim(run, job="/12", renewed=NOW - 9000)
    for rank in (0, 1):
        write_rank(run, rank, changed=NOW - 9000, heartbeat=NOW - 9000)
    write_outcome(run, outcome, message="lost rank 1")
    append_entry(run, JobEnd("12", 0, "node failure", "sinfo, by node2, which is down", again=False))
    status = look(run)
    assert status.state == {"running": "killed", "lost": "lost"}[outcome]
    assert status.comes_again == "12"
    assert "node failure; says sinfo, by node2, which is down" in describe_status(status)


@pytest.mark.parametrize(("job", "restart"), [("", 0), ("cluster/13", 0), ("cluster/12", 2)])
def test_the_end_of_an_earlier_start_says_nothing_of_one_that_wrote_no_history(
    run: Path, job: str, restart: int
) -> None:
    append_entry(run, JobEnd("12", 1, "cancelled", "squeue, by its restart count", again=False))
    write_claim(run, 2, job=job, restart=restart, released=True)
    write_outcome(run, "preempted", attempt=2, message="received SIGTERM")
    status = look(run)
    assert (status.state, status.cause, status.comes_again) == ("stopped", None, None)


def test_a_job_that_is_starting_again_is_not_to_be_started_by_hand(run: Path) -> None:
    append_entry(run, JobEnd("12", 0, "time limit", "Slurm", again=True))
    append_entry(run, JobStart("12", 1, 100, ""))
    write_claim(run, job="cluster/12", released=True)
    write_outcome(run, "preempted", message="received SIGUSR1")
    assert (look(run).state, look(run).comes_again) == ("at its time limit", "12")


def test_a_job_whose_script_has_not_decided_yet_may_go_on_by_itself(run: Path) -> None:
    append_entry(run, JobStart("12", 0, 0, ""))
    write_claim(run, job="cluster/12", released=True)
    write_outcome(run, "preempted", message="received SIGUSR1")
    assert (look(run).state, look(run).comes_again) == ("stopped", "12")
    append_entry(run, JobEnd("12", 0, "cancelled", "Slurm", again=False))
    assert (look(run).state, look(run).comes_again) == ("cancelled", None)


def test_a_start_that_was_cancelled_before_it_had_the_folder_tells_when(run: Path) -> None:
    write_claim(run, job="cluster/12", released=True)
    write_outcome(run, "preempted", message="received SIGTERM")
    append_entry(run, JobEnd("12", 0, "requeue by hand", "Slurm", again=False, time=to_iso(NOW - 40) or ""))
    append_entry(run, JobStart("12", 1, 100, ""))
    append_entry(run, JobEnd("12", 1, "cancelled", "Slurm", again=False, time=to_iso(NOW - 5) or ""))
    assert (look(run).state, look(run).since) == ("cancelled", NOW - 5)


def test_a_run_that_saw_the_end_of_its_allocation_needs_no_batch_script_to_say_so(run: Path) -> None:
    write_outcome(run, "preempted", message=ALLOCATION_ENDS)
    assert look(run).state == "at its time limit"


def test_evaluations_without_scores_are_told_by_their_jobs_and_with_the_way_out(run: Path) -> None:
    for step in (10, 20, 30, 40):
        append_row(run / "metrics.jsonl", {"kind": "due", "step": step, "epoch": 1.0, "lease": 1})
    for number in range(MAX_JOBS):
        note_job(run, job=str(20 + number), evaluations=[(10, 1), (20, 1)] if number == 0 else [(10, 1)])
    (note,) = look(run).notes
    assert note == (
        "evaluations of other jobs without scores so far: step 10 (jobs 20, 21, 22, given up); step 20 (job 20); "
        f"step 30, 40 (no job submitted); by hand: dstrain evaluate {run} --pending"
    )


def test_a_failed_run_gives_its_message_and_no_advice_to_start_again(run: Path) -> None:
    """Whoever fails by himself does not know the number of the lease."""
    for rank in (0, 1):
        write_rank(run, rank, changed=NOW - 301, heartbeat=NOW - 299)
    write_outcome(run, "failed", attempt=0, message="rank 1: no\x1b[31m such column\nfound 'x'", exit_code=1)
    status = look(run)
    assert status.state == "failed"
    text = describe_status(status)
    assert "no [31m such column\n" in text
    assert "found 'x'" in text
    assert "start it again" not in text


def test_a_failed_second_start_does_not_hide_the_run_that_goes_on(run: Path) -> None:
    write_outcome(run, "failed", attempt=0, message="could not join", time=NOW - 300)
    assert look(run).state == "running"


def test_an_outcome_of_an_earlier_start_is_not_that_of_the_newest(run: Path) -> None:
    write_outcome(run, "finished", attempt=1)
    write_claim(run, 2, renewed=NOW - 9000)
    assert look(run).state == "killed"


def test_a_finished_run_has_no_ranks_and_no_eta(run: Path) -> None:
    write_outcome(run, "finished", step=1000, exit_code=0, message="early stopping")
    status = look(run)
    assert (status.state, status.step, status.ranks, status.eta_seconds) == ("finished", 1000, None, None)


@pytest.mark.parametrize(("event", "state"), [("finish", "finished"), ("stop", "stopped"), ("resume", "killed")])
def test_without_an_outcome_a_run_that_gave_its_folder_free_is_known_by_its_last_event(
    run: Path, event: Any, state: str
) -> None:
    (run / "outcome.json").unlink()
    write_claim(run, released=True)
    write_row(run, EventRow(event, 120, iso(NOW - 50), "as it was told", lease=1))
    assert look(run).state == state


def test_folders_that_hold_nothing_were_never_started(tmp_path: Path) -> None:
    assert look(tmp_path).state == "never started"
    assert describe_status(look(tmp_path)) == f"{tmp_path}: never started"


def test_a_folder_that_does_not_exist_is_no_run_that_never_started(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "nowhere", tmp_path / "file"):
        assert look(folder).state == "no such folder"
        headline, advice = describe_status(look(folder)).splitlines()
        assert headline == f"{folder}: no such folder"
        assert "output_dir" in advice


def test_every_start_tells_how_it_ended(run: Path) -> None:
    write_row(run, EventRow("stop", 60, iso(NOW - 900), "received SIGTERM", lease=1))
    (run / "hangs" / "2").mkdir(parents=True)
    hang = {"rank": 3, "track": "main", "phase": "step", "seconds": 900.0, "noticed": NOW - 600}
    (run / "hangs" / "2" / "hang.json").write_text(json.dumps(hang))
    for number, base in ((2, 60), (3, 60), (4, 100)):
        write_claim(run, number, base_step=base)
    write_outcome(run, "running", attempt=4)
    assert [(start.number, start.from_step, start.ended) for start in look(run).starts] == [
        (1, 0, "stopped at step 60: received SIGTERM"),
        (2, 60, "hang: rank 3 made no progress for 900.0 s in main phase 'step'"),
        (3, 60, "killed, lost or failed: it left no last word"),
        (4, 100, None),
    ]


def test_a_start_tells_why_it_was_made_where_its_launcher_said_so(run: Path) -> None:
    write_claim(run, 2, base_step=100)
    write_row(run, EventRow("resume", 100, iso(NOW), "after a preemption", lease=2))
    status = look(run)
    assert [start.cause for start in status.starts] == [None, "after a preemption"]
    assert "from step 100 (after a preemption): goes on" in describe_status(status)


def test_a_checkpoint_that_was_left_aside_is_not_the_last_one(run: Path) -> None:
    add_checkpoint(run, "step-00000110.lease-1", saved=NOW)
    write_claim(run, 2, base_step=100)
    (run / "checkpoints" / "step-00000130.lease-2.tmp").mkdir()
    status = look(run)
    assert status.checkpoint
    assert status.checkpoint.name == "step-00000100.lease-1"
    assert any("1 checkpoint(s) do not count" in note for note in status.notes)


def test_a_checkpoint_that_could_not_be_saved_is_said_until_a_later_one_is(run: Path) -> None:
    write_row(run, EventRow("unsaved", 110, iso(NOW), "no space", lease=1))
    assert look(run).notes == ("the checkpoint of step 110 could not be saved: no space",)
    add_checkpoint(run, "step-00000120.lease-1", saved=NOW)
    assert look(run).notes == ()


def test_512_ranks_are_told_in_a_few_lines(run: Path) -> None:
    for rank in range(512):
        phase = "evaluation" if rank % 100 == 0 else "step"
        late = {"step": 110, "heartbeat": NOW - 1000} if rank in (17, 18, 200, 300, 400) else {}
        write_rank(run, rank, host=f"node{rank // 8}", tracks={"main": phase, "save": "idle"}, **late)
    for number in range(1, 41):
        write_claim(run, number)
    for rank in range(512):
        path = run / "ranks" / f"rank-{rank:05d}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"attempt": 40}))
    text = describe_status(look(run))
    assert "512: 506 in 'step', 6 in 'evaluation'" in text
    assert next(line for line in text.splitlines() if "rank 17 " in line).split()[0] == "slowest"
    assert "… and 2 more" in text
    assert "… 35 earlier" in text
    assert len(text.splitlines()) <= 25


def test_broken_lines_of_the_log_are_passed_over_and_said_but_a_torn_last_one_is_not(run: Path) -> None:
    whole = (run / "metrics.jsonl").read_bytes()
    (run / "metrics.jsonl").write_bytes(whole + b'{"kind": "train", "st')
    assert look(run).notes == ()
    (run / "metrics.jsonl").write_bytes(b"\xff\n[1]\n" + whole)
    status = look(run)
    assert status.notes == ("metrics.jsonl: 2 broken line(s) passed over, the first is line 1",)
    assert status.last_loss
    assert status.last_loss.step == 100


@pytest.mark.parametrize("name", ["config.yaml", "run.json", "outcome.json", "metrics.jsonl", "lease/00000001.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"null", b"\x00" * 1024, b"[" * 100_000, b'{"total_steps": NaN}'])
def test_a_broken_file_hides_what_it_held_and_no_more(run: Path, name: str, content: bytes) -> None:
    (run / name).write_bytes(content)
    status = look(run)
    assert status.state == "running"
    assert status.checkpoint
    assert "rank 1 on node1" in describe_status(status)
    json.dumps(as_json(status), allow_nan=False)


@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl", "checkpoints", "ranks", "lease", "outcome.json"])
def test_a_file_in_place_of_a_folder_or_the_other_way_round_is_no_crash(run: Path, name: str) -> None:
    path = run / name
    path.rename(run / "aside")
    path.write_text("x") if (run / "aside").is_dir() else path.mkdir()
    describe_status(look(run))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_is_null_in_json(run: Path, value: float) -> None:
    write_row(run, TrainRow(110, 1.1, value, elapsed_seconds=math.nan, lease=1))
    status = look(run)
    assert status.eta_seconds == 880 * 2 + 9 * 30
    assert as_json(status)["last_loss"] == {"step": 110, "metric": "loss", "value": None}
    json.dumps(as_json(status), allow_nan=False)


@pytest.mark.parametrize("change", [{"changed": math.nan}, {"heartbeat": math.inf}, {"step": 10**400}])
def test_a_rank_whose_record_holds_impossible_numbers_is_passed_over(run: Path, change: dict[str, Any]) -> None:
    write_rank(run, 1, **change)
    ranks = look(run).ranks
    assert ranks
    assert [rank.rank for rank in ranks.slowest] == [0]


@pytest.mark.parametrize("step", [-1, 10**400])
def test_a_row_of_an_impossible_step_is_a_broken_line(run: Path, step: int) -> None:
    write_row(run, TrainRow(step, 1.0, 1.0, elapsed_seconds=400.0, lease=1))
    status = look(run)
    assert status.notes == ("metrics.jsonl: 1 broken line(s) passed over, the first is line 5",)
    assert status.eta_seconds == 880 * 2 + 9 * 30


@given(
    name=st.sampled_from(["config.yaml", "run.json", "outcome.json", "metrics.jsonl", "lease", "ranks"]),
    at=st.integers(0, 4000),
    patch=st.one_of(st.binary(max_size=8), st.sampled_from([b"NaN", b"-1", b"1e999", b"9" * 400, b"null", b"{}"])),
    cut=st.integers(0, 12),
)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_damage_to_a_file_crashes_it(run: Path, name: str, at: int, patch: bytes, cut: int) -> None:
    path = {"lease": run / "lease" / "00000001.json", "ranks": run / "ranks" / "rank-00001.json"}.get(name, run / name)
    whole, times = path.read_bytes(), (path.stat().st_atime, path.stat().st_mtime)
    at %= len(whole)
    try:
        path.write_bytes(whole[:at] + patch + whole[at + cut :])
        status = look(run)
        describe_status(status)
        json.dumps(as_json(status), allow_nan=False)
    finally:
        path.write_bytes(whole)
        os.utime(path, times)


def test_pace_needs_a_row_and_takes_the_recent_ones() -> None:
    slow = [TrainRow(step, 0.0, 1.0, elapsed_seconds=step * 9.0) for step in range(10, 110, 10)]
    fast = [TrainRow(100 + step, 0.0, 1.0, elapsed_seconds=900 + step * 2.0) for step in range(10, 310, 10)]
    assert measure_pace([], []) is None
    assert measure_pace([TrainRow(5, 0.0, 1.0)], []) is None
    assert measure_pace(slow[:1], []) == Pace(9.0)
    assert measure_pace(slow + fast, []) == Pace(2.0)
    assert remaining_seconds(Pace(2.0, 30.0, 100.0), step=150, total_steps=300) == 150 * 2 + 2 * 30
    assert remaining_seconds(Pace(2.0, 30.0, 100.0), step=300, total_steps=300) == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s"), (59.4, "59 s"), (60, "1 min"), (61, "1 min 1 s"), (3600 * 3 + 725, "3 h 12 min"), (1e5, "1 d 3 h")],
)
def test_time_spans_read_in_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@contextmanager
def rank_of_this_host(run: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the run's lease and writes a rank's record, as training does."""
    code = """
import sys
from pathlib import Path
from dstrain.cluster.processes import this_process
from dstrain.attempt.lease import acquire
from dstrain.run_folder.outcome import RunOutcome, write_outcome
from dstrain.attempt.rank_records import Phases, ranks_dir
run = Path(sys.argv[1])
lease = acquire(run, holder=this_process(), stale_seconds=60)
phases = Phases(ranks_dir(run), rank=0, attempt=lease.number)
write_outcome(run, RunOutcome("running", None, attempt=lease.number))
phases.enter("step", step=3)
print("ready", flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", code, str(run)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def test_the_command_follows_a_real_process_from_running_to_killed_with_its_exit_codes(tmp_path: Path) -> None:
    runner = CliRunner()
    never = runner.invoke(app, ["status", str(tmp_path), "--json"])
    assert (never.exit_code, json.loads(never.stdout)["state"]) == (1, "never started")
    with rank_of_this_host(tmp_path) as process:
        running = runner.invoke(app, ["status", str(tmp_path)])
        assert running.exit_code == 0, running.output
        assert f"{tmp_path}: running since" in running.stdout
        assert "'step', step 3" in running.stdout
        silent = runner.invoke(app, ["status", str(tmp_path), "--quiet-seconds", "0", "--json"])
        assert (silent.exit_code, json.loads(silent.stdout)["state"]) == (1, "silent")
        process.send_signal(signal.SIGKILL)
        process.wait()
    killed = runner.invoke(app, ["status", str(tmp_path)])
    assert killed.exit_code == 1
    assert "killed" in killed.stdout


def test_a_finished_run_ends_the_command_with_0(run: Path) -> None:
    write_outcome(run, "finished", step=1000, exit_code=0)
    result = CliRunner().invoke(app, ["status", str(run), "--json"])
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert (told["state"], told["since"]) == ("finished", iso(NOW - 300))
    assert told["best"] == {"step": 100, "metric": "bleu", "value": 12.5}
    assert told["last_scores"] == {"step": 100, "scores": {"loss": 2.5, "bleu": 12.5}}


def test_status_and_compare_need_no_torch(run: Path) -> None:
    code = (
        "import sys\nfrom dstrain.cli import app\n"
        "try: app(sys.argv[1:])\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'deepspeed', 'transformers', 'numpy', 'matplotlib') if m in sys.modules])"
    )
    for command in ("status", "compare"):
        done = subprocess.run(
            [sys.executable, "-c", code, command, str(run)], capture_output=True, text=True, check=True
        )
        assert "120" in done.stdout or "100" in done.stdout
        assert done.stdout.splitlines()[-1] == "[]"
