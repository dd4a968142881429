"""Which rows, records and checkpoints of a folder count, and that no damaged file is more than a note."""

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dstrain.run_folder.rows import TrainRow
from dstrain.slurm.requeue import JobEnd, JobStart, append_entry
from dstrain.status.text import as_json, describe_status
from tests.unit.status.status_cases import (
    NOW,
    add_checkpoint,
    look,
    write_claim,
    write_outcome,
    write_rank,
    write_row,
)


def test_rank_records_of_an_earlier_attempt_on_more_ranks_do_not_count(run: Path) -> None:
    write_claim(run, 2, base_step=100)
    write_outcome(run, "running", attempt=2)
    write_rank(run, 0, attempt=2, step=None)
    status = look(run)
    assert status.ranks
    assert status.ranks.num_ranks == 1
    assert status.step == 100


def test_a_superseded_checkpoint_is_not_the_newest(run: Path) -> None:
    add_checkpoint(run, "step-00000110.lease-1", saved=NOW)
    write_claim(run, 2, base_step=100)
    (run / "checkpoints" / "step-00000130.lease-2.tmp").mkdir()
    status = look(run)
    assert status.checkpoint
    assert status.checkpoint.name == "step-00000100.lease-1"
    assert any("1 checkpoint(s) are superseded" in note for note in status.notes)


@pytest.mark.parametrize(
    ("job", "restart", "launch"),
    [("", 0, 0), ("cluster/13", 0, 0), ("cluster/12", 2, 0), ("cluster/12", 1, 1)],
)
def test_the_job_end_of_an_earlier_attempt_is_not_that_of_an_attempt_without_history(
    run: Path, job: str, restart: int, launch: int
) -> None:
    append_entry(run, JobEnd("12", 1, "cancelled", "squeue, by its restart count", again=False))
    write_claim(run, 2, job=job, restart=restart, launch=launch, released=True)
    write_outcome(run, "preempted", attempt=2, message="received SIGTERM")
    status = look(run)
    assert (status.state, status.cause, status.comes_again) == ("stopped", None, None)


def test_a_job_that_is_starting_again_needs_no_start_by_hand(run: Path) -> None:
    append_entry(run, JobEnd("12", 0, "time limit", "Slurm", again=True))
    append_entry(run, JobStart("12", 1, 100, ""))
    write_claim(run, job="cluster/12", released=True)
    write_outcome(run, "preempted", message="received SIGUSR1")
    assert (look(run).state, look(run).comes_again) == ("at its time limit", "12")


def test_a_job_whose_script_has_not_decided_yet_may_start_again_by_itself(run: Path) -> None:
    append_entry(run, JobStart("12", 0, 0, ""))
    write_claim(run, job="cluster/12", released=True)
    write_outcome(run, "preempted", message="received SIGUSR1")
    assert (look(run).state, look(run).comes_again) == ("stopped", "12")
    append_entry(run, JobEnd("12", 0, "cancelled", "Slurm", again=False))
    assert (look(run).state, look(run).comes_again) == ("cancelled", None)


def test_broken_lines_of_the_log_are_skipped_and_noted_except_a_torn_last_one(run: Path) -> None:
    whole = (run / "metrics.jsonl").read_bytes()
    (run / "metrics.jsonl").write_bytes(whole + b'{"kind": "train", "st')
    assert look(run).notes == ()
    (run / "metrics.jsonl").write_bytes(b"\xff\n[1]\n" + whole)
    status = look(run)
    assert status.notes == ("metrics.jsonl: 2 broken line(s) skipped, the first is line 1",)
    assert status.last_loss
    assert status.last_loss.step == 100


@pytest.mark.parametrize("name", ["config.yaml", "run.json", "outcome.json", "metrics.jsonl", "lease/00000001.json"])
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"\x00" * 1024, b"[" * 100_000, b'{"total_steps": NaN}'],
    ids=["empty", "torn", "null", "zeros", "deep", "nan"],
)
def test_a_broken_file_hides_its_own_content_and_nothing_else(run: Path, name: str, content: bytes) -> None:
    (run / name).write_bytes(content)
    status = look(run)
    assert status.state == "running"
    assert status.checkpoint
    assert "rank 1 on node1" in describe_status(status)
    json.dumps(as_json(status), allow_nan=False)


@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl", "checkpoints", "ranks", "lease", "outcome.json"])
def test_a_file_in_place_of_a_folder_or_the_reverse_does_not_crash(run: Path, name: str) -> None:
    path = run / name
    path.rename(run / "aside")
    path.write_text("x") if (run / "aside").is_dir() else path.mkdir()
    describe_status(look(run))


@pytest.mark.parametrize("change", [{"changed": math.nan}, {"heartbeat": math.inf}, {"step": 10**400}])
def test_a_rank_record_with_impossible_numbers_is_skipped(run: Path, change: dict[str, Any]) -> None:
    write_rank(run, 1, **change)
    ranks = look(run).ranks
    assert ranks
    assert [rank.rank for rank in ranks.slowest] == [0]


@pytest.mark.parametrize("step", [-1, 10**400])
def test_a_row_with_an_impossible_step_is_a_broken_line(run: Path, step: int) -> None:
    write_row(run, TrainRow(step, 1.0, 1.0, elapsed_seconds=400.0, lease=1))
    status = look(run)
    assert status.notes == ("metrics.jsonl: 1 broken line(s) skipped, the first is line 5",)
    assert status.eta_seconds == 880 * 2 + 9 * 30


@given(
    name=st.sampled_from(["config.yaml", "run.json", "outcome.json", "metrics.jsonl", "lease", "ranks"]),
    at=st.integers(0, 4000),
    patch=st.one_of(st.binary(max_size=8), st.sampled_from([b"NaN", b"-1", b"1e999", b"9" * 400, b"null", b"{}"])),
    cut=st.integers(0, 12),
)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_damage_to_a_file_crashes_the_status(run: Path, name: str, at: int, patch: bytes, cut: int) -> None:
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
