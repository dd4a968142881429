"""What the status holds besides the state: steps, ETA, ranks, scores, checkpoint, attempts and notes."""

import json
import shutil
from pathlib import Path

import pytest

from dstrain.run_folder.outcome import RunOutcome, mark_unwritten, write_end
from dstrain.run_folder.rows import EvalRow, EventRow, append_row
from dstrain.slurm.evaluation_jobs import MAX_JOBS, note_job
from dstrain.status.inspect import UnsavedWork
from dstrain.status.text import describe_status
from tests.unit.status.status_cases import (
    NOW,
    add_checkpoint,
    iso,
    look,
    write_claim,
    write_outcome,
    write_rank,
    write_row,
)


def test_a_run_on_another_node_shows_its_phase_step_slowest_rank_scores_and_checkpoint(run: Path) -> None:
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


def test_the_eta_covers_the_remaining_steps_and_evaluations(run: Path) -> None:
    # 880 steps of 2 s, and nine evaluations of 30 s, one every 100 steps
    assert look(run).eta_seconds == 880 * 2 + 9 * 30


def test_a_rank_that_waits_for_a_save_shows_the_phase_of_the_save(run: Path) -> None:
    for rank in (0, 1):
        write_rank(run, rank, tracks={"main": "wait for save", "save": "write part"})
    ranks = look(run).ranks
    assert ranks
    assert (ranks.phases, ranks.num_saving) == ({"write part": 2}, 2)
    assert "2 in 'write part'; 2 saving a checkpoint" in describe_status(look(run))


def test_pending_evaluations_are_listed_by_job_with_the_command_that_runs_them(run: Path) -> None:
    for step in (10, 20, 30, 40):
        append_row(run / "metrics.jsonl", {"kind": "due", "step": step, "epoch": 1.0, "lease": 1})
    for number in range(MAX_JOBS):
        note_job(run, job=str(20 + number), evaluations=[(10, 1), (20, 1)] if number == 0 else [(10, 1)])
    (note,) = look(run).notes
    assert note == (
        "evaluations deferred to other jobs have no scores yet: step 10 (jobs 20, 21, 22, given up); step 20 (job 20); "
        f"step 30, 40 (no job submitted); to run them here: dstrain evaluate {run} --pending"
    )


def test_a_finished_run_has_no_ranks_and_no_eta(run: Path) -> None:
    write_outcome(run, "finished", step=1000, exit_code=0, message="early stopping")
    status = look(run)
    assert (status.state, status.step, status.ranks, status.eta_seconds) == ("finished", 1000, None, None)


def test_every_attempt_shows_how_it_ended(run: Path) -> None:
    write_row(run, EventRow("stop", 60, iso(NOW - 900), "received SIGTERM", lease=1))
    (run / "hangs" / "2").mkdir(parents=True)
    hang = {"rank": 3, "track": "main", "phase": "step", "seconds": 900.0, "noticed": NOW - 600}
    (run / "hangs" / "2" / "hang.json").write_text(json.dumps(hang))
    for number, base in ((2, 60), (3, 60), (4, 60), (5, 60), (6, 100)):
        write_claim(run, number, base_step=base)
    write_end(run, RunOutcome("lost", 85, "lost rank 1: by signal 9", attempt=4))
    write_end(run, RunOutcome("killed", None, "no rank recorded a reason", step=99, attempt=5))
    write_outcome(run, "running", attempt=6)
    assert [(start.number, start.from_step, start.ended) for start in look(run).starts] == [
        (1, 0, "stopped at step 60: received SIGTERM"),
        (2, 60, "hang: rank 3 made no progress for 900.0 s in main phase 'step'"),
        (3, 60, "killed, lost or failed: it recorded no reason"),
        (4, 60, "lost: lost rank 1: by signal 9"),
        (5, 60, "killed at step 99: no rank recorded a reason"),
        (6, 100, None),
    ]


REFUSAL = "rank 0: has changed:\n  seed: 1 in the checkpoint, 2 now. If allowed: x\nUndo it"
SHORT = "rank 0: has changed: seed: 1 in the checkpoint, 2 now"


@pytest.mark.parametrize(
    ("outcome", "state", "advice"),
    [
        ("preempted", "stopped", True),
        ("finished", "finished", False),
        ("lost", "lost", True),
        ("failed", "failed", False),
    ],
)
def test_a_refused_start_leaves_the_state_of_the_run_and_has_its_own_end(
    outcome: str, state: str, advice: bool, run: Path
) -> None:
    write_outcome(run, outcome, step=120, message="why")
    before = look(run)
    for number in (2, 3):
        write_claim(run, number, base_step=None, renewed=NOW)
        write_end(run, RunOutcome("refused", 1, REFUSAL, attempt=number))
    write_rank(run, 0, attempt=3, ended=f"failed: {REFUSAL}", step=None)
    status = look(run)
    assert (status.state, status.message, status.step) == (state, "why", 120)
    assert (status.since, status.unsaved) == (before.since, before.unsaved)
    assert status.starts[-1].ended == f"refused: {REFUSAL}"
    assert status.notes == (f"the last start was refused and has changed nothing: {SHORT}",)
    said = describe_status(status)
    assert said.count(f": refused: {SHORT}\n") == 2
    assert ("start it again" in said) is advice


def test_a_killed_run_that_was_refused_a_start_stays_killed(run: Path) -> None:
    write_end(run, RunOutcome("killed", None, "last seen after step 119", step=119, attempt=1, time=iso(NOW - 60)))
    write_claim(run, 2, base_step=None)
    write_end(run, RunOutcome("refused", 1, REFUSAL, attempt=2))
    status = look(run)
    assert (status.state, status.message, status.step, status.since) == (
        "killed",
        "last seen after step 119",
        119,
        NOW - 60,
    )


def test_a_start_that_failed_on_a_finished_run_has_its_own_end(run: Path) -> None:
    write_outcome(run, "finished", step=1000, exit_code=0)
    write_claim(run, 2, base_step=None)
    write_end(run, RunOutcome("failed", 1, "rank 0: out of memory", attempt=2))
    status = look(run)
    assert (status.state, status.starts[-1].ended) == ("finished", "failed: rank 0: out of memory")


def test_an_end_counts_where_the_outcome_could_not_be_written(run: Path) -> None:
    write_end(run, RunOutcome("failed", 1, "rank 0: No space left on device", attempt=1, time=iso(NOW)))
    mark_unwritten(run, attempt=1, step=41)
    status = look(run)
    assert (status.state, status.message) == ("failed", "rank 0: No space left on device")
    assert status.notes == (
        "rows of metrics.jsonl are missing from step 41 of attempt 1 on: they could not be written, as on a full disk",
    )


def test_an_attempt_shows_why_it_was_started_if_its_launcher_gave_a_reason(run: Path) -> None:
    write_claim(run, 2, base_step=100)
    write_row(run, EventRow("resume", 100, iso(NOW), "after a preemption", lease=2))
    status = look(run)
    assert [start.cause for start in status.starts] == [None, "after a preemption"]
    assert "from step 100 (after a preemption): in progress" in describe_status(status)


def test_a_running_run_says_what_a_kill_would_cost_now(run: Path) -> None:
    # 20 steps of 2 s since the checkpoint of step 100
    assert look(run).unsaved == UnsavedWork(20, 40.0)
    assert "a kill costs  20 steps, 40 s of work" in describe_status(look(run))
    write_row(run, EvalRow(step=110, epoch=1.1, scores={"loss": 2.5, "bleu": 12.5}, seconds=30.0, lease=1))
    assert look(run).unsaved == UnsavedWork(20, 70.0)
    add_checkpoint(run, "step-00000120.lease-1", saved=NOW)
    assert look(run).unsaved == UnsavedWork(0, 0.0)
    assert "a kill costs  0 steps\n" in describe_status(look(run))


def test_without_a_checkpoint_a_kill_costs_everything_and_a_killed_run_says_what_it_repeats(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    assert look(run).unsaved == UnsavedWork(120, 270.0)
    write_outcome(run, "lost", exit_code=85, message="lost rank 1")
    assert "to be repeated  120 steps, 4 min 30 s of work" in describe_status(look(run))
    write_outcome(run, "finished", step=1000, exit_code=0)
    assert look(run).unsaved is None


def test_a_checkpoint_that_could_not_be_saved_is_noted_until_a_later_one_exists(run: Path) -> None:
    write_row(run, EventRow("unsaved", 110, iso(NOW), "no space", lease=1))
    assert look(run).notes == ("the checkpoint of step 110 could not be saved: no space",)
    add_checkpoint(run, "step-00000120.lease-1", saved=NOW)
    assert look(run).notes == ()
