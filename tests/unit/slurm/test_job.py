"""The questions of the batch script, with a fake Slurm: what is recorded, requested and returned."""

import time
from pathlib import Path

import pytest

from dstrain.cluster.walltime import ALLOCATION_ENDS
from dstrain.run_folder.claims import Claim, create_claim
from dstrain.run_folder.outcome import RunOutcome, write_bad_end, write_outcome
from dstrain.slurm.job import main
from dstrain.slurm.requeue import read_history
from tests.unit.slurm.job_cases import Batch


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    return Batch(tmp_path)


def test_a_start_prints_why(batch: Batch, capsys: pytest.CaptureFixture[str]) -> None:
    assert batch.ask("start") == 0
    assert capsys.readouterr().out == "job 7, first start\n"


def test_a_wrong_recipe_is_refused_with_the_error_as_the_last_line(
    batch: Batch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert batch.ask("start", overrides=["training.lerning_rate=1"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "lerning_rate" in printed.err.splitlines()[-1]


def test_outside_a_job_the_way_out_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["start", "--", "--config", "debug", f"output_dir={tmp_path / 'run'}"], environment={}) == 2
    assert "submit slurm/train.sbatch with sbatch" in capsys.readouterr().err


def test_a_job_that_was_stopped_by_its_warning_is_requeued_and_knows_why(
    batch: Batch, capsys: pytest.CaptureFixture[str]
) -> None:
    batch.ask("start")
    batch.save(10)
    assert batch.ask("end", "--code", "85", "--warned", "3000") == 85
    assert batch.slurm.requeued == ["7"]
    assert "requeued (the time limit is near)" in capsys.readouterr().err
    batch.restart = 1
    assert batch.ask("start") == 0
    assert capsys.readouterr().out == "job 7, restart 1 (after time limit, according to Slurm's warning signal)\n"


@pytest.mark.parametrize("question", [("signalled",), ("end", "--code", "85")])
def test_a_time_limit_too_short_for_its_warning_is_said_with_the_way_out_before_what_follows(
    question: tuple[str, ...], batch: Batch, capsys: pytest.CaptureFixture[str]
) -> None:
    batch.ends = time.time() + 120
    batch.slurm.queue = "TimeLimit N/A 0"
    batch.ask("start")
    batch.ask(*question, "--warned", "12")
    (why, _) = capsys.readouterr().err.splitlines()
    assert "too short for its warning, which came 12 s after the start: submit the job with a longer --time" in why
    assert batch.slurm.requeued == ["7"]


@pytest.mark.parametrize("ends", [None, 3900, 10_000_000])
def test_a_warning_in_time_or_by_hand_is_not_commented(
    ends: float | None, batch: Batch, capsys: pytest.CaptureFixture[str]
) -> None:
    batch.ends = None if ends is None else time.time() + ends
    batch.ask("start")
    batch.ask("end", "--code", "85", "--warned", "3600")
    assert capsys.readouterr().err == "dstrain: requeued (the time limit is near)\n"


def test_a_wrong_option_of_the_evaluation_job_ends_the_job_before_it_trains(
    batch: Batch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ["machine.evaluation_job=['--partition=nope']"]
    batch.slurm.refusal = "sbatch: error: invalid partition specified: nope\nallocation failure: Invalid partition\n"
    assert batch.ask("start", overrides=wanted) == 2
    (command,) = batch.slurm.tried
    assert command[command.index("sbatch") + 1 :][:2] == ["--test-only", "--partition=nope"]
    assert "--unset=SLURM_JOB_ID" in command
    printed = capsys.readouterr()
    assert printed.out == ""
    (error,) = printed.err.splitlines()
    assert error.startswith('machine.evaluation_job: sbatch refuses ["--partition=nope"] (sbatch: error: invalid part')
    assert error.endswith(f"dstrain evaluate {batch.run_dir} --pending")
    assert read_history(batch.run_dir) == []


@pytest.mark.parametrize(
    ("refusal", "restart", "launch"),
    [
        ("allocation failure: Requested node configuration is not available", 0, 0),
        ("allocation failure: Unable to contact slurm controller (connect failure)", 0, 0),
        ("sbatch: error: invalid partition specified: nope", 1, 0),
        ("sbatch: error: invalid partition specified: nope", 0, 1),
    ],
)
def test_a_temporary_refusal_and_any_refusal_of_a_later_start_is_only_printed(
    refusal: str, restart: int, launch: int, batch: Batch, capsys: pytest.CaptureFixture[str]
) -> None:
    batch.slurm.refusal, batch.restart, batch.launch = refusal, restart, launch
    assert batch.ask("start", overrides=["machine.evaluation_job=['--partition=nope']"]) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith("dstrain: machine.evaluation_job: sbatch refuses")
    assert refusal in printed.err
    assert printed.out.startswith("job 7, ")


def test_a_run_that_evaluates_itself_and_options_that_slurm_accepts_print_nothing(
    batch: Batch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert batch.ask("start") == 0
    assert batch.slurm.tried == []
    assert batch.ask("start", overrides=["machine.evaluation_job=[]"]) == 0
    assert len(batch.slurm.tried) == 1
    assert capsys.readouterr().err == ""


def test_a_lost_rank_is_requeued_with_its_name(batch: Batch) -> None:
    batch.ask("start")
    write_outcome(batch.run_dir, RunOutcome("lost", 85, "lost rank 3 (pid 9 on node2); phases main"))
    assert batch.ask("end", "--code", "85") == 85
    assert batch.slurm.requeued == ["7"]
    assert (batch.last_end().cause, batch.last_end().source) == ("its own end", "lost rank 3 (pid 9 on node2)")


def test_a_run_that_saw_the_end_of_its_allocation_needs_no_signal(batch: Batch) -> None:
    batch.ask("start")
    batch.save(10)
    write_outcome(batch.run_dir, RunOutcome("preempted", 85, ALLOCATION_ENDS))
    assert batch.ask("end", "--code", "85") == 85
    assert batch.slurm.requeued == ["7"]
    assert batch.last_end().cause == "time limit"
    assert batch.last_end().source == "the run itself (end of its allocation)"


def test_a_failure_reported_by_this_start_is_not_requeued(batch: Batch, capsys: pytest.CaptureFixture[str]) -> None:
    batch.ask("start")
    batch.report("Traceback\nValueError: no rows\n")
    assert batch.ask("end", "--code", "85") == 1
    assert batch.slurm.requeued == []
    assert capsys.readouterr().err.endswith("it failed: rank 1: ValueError: no rows\n")


def test_a_failure_is_reported_in_the_words_of_the_rank(batch: Batch, capsys: pytest.CaptureFixture[str]) -> None:
    batch.ask("start")
    batch.report("Traceback\ndstrain.data.NoRows: no rows\n")
    write_outcome(batch.run_dir, RunOutcome("failed", 1, "rank 1: no rows"))
    assert batch.ask("end", "--code", "1") == 1
    assert capsys.readouterr().err == "dstrain: not requeued, because it failed: rank 1: no rows\n"


def test_a_refused_start_is_not_requeued_and_its_reason_is_not_that_of_the_run(
    batch: Batch, capsys: pytest.CaptureFixture[str]
) -> None:
    batch.ask("start")
    (batch.run_dir / "config.yaml").write_text("")
    (batch.run_dir / "lease").mkdir(exist_ok=True)
    create_claim(batch.run_dir, claim=Claim(1, None))
    write_outcome(batch.run_dir, RunOutcome("preempted", 85, ALLOCATION_ENDS, attempt=1))
    batch.ask("end", "--code", "85")
    for restart, attempt in ((1, 2), (2, 0)):  # the last ends before it becomes an attempt
        batch.restart = restart
        batch.ask("start")
        batch.report(f"Traceback\nUserError: {restart}\n")
        if attempt:
            create_claim(batch.run_dir, claim=Claim(attempt, None))
        refusal = RunOutcome("failed", 1, "has changed:\n  seed: 1 now. If", attempt=attempt)
        write_bad_end(batch.run_dir, refusal, is_refusal=True)
        assert batch.ask("end", "--code", "1") == 1
        source = "has changed: seed: 1 now" if attempt else "rank 1: UserError: 2"
        assert (batch.last_end().cause, batch.last_end().source, batch.last_end().again) == (
            "its own end",
            source,
            False,
        )
    assert capsys.readouterr().err.endswith("it failed: rank 1: UserError: 2\n")


@pytest.mark.parametrize("question", [("signalled",), ("end", "--code", "85"), ("end", "--code", "1")])
def test_a_start_on_a_node_that_was_given_up_requests_nothing(
    question: tuple[str, ...], batch: Batch, capsys: pytest.CaptureFixture[str]
) -> None:
    batch.ask("start")
    elsewhere = Batch(batch.folder, restart=1)
    elsewhere.ask("start")
    before = read_history(batch.run_dir)
    batch.slurm.queue = "Unable to contact slurm controller"
    assert batch.ask(*question) == (0 if question == ("signalled",) else int(question[-1]))
    assert batch.slurm.requeued == []
    assert read_history(batch.run_dir) == before
    assert "this job was started again on other nodes" in capsys.readouterr().err


def test_a_failure_reported_by_an_earlier_start_does_not_count(batch: Batch) -> None:
    batch.run_dir.mkdir()
    batch.report("ValueError: of old")
    batch.ask("start")
    assert batch.ask("end", "--code", "85") == 85
    assert batch.slurm.requeued == ["7"]


@pytest.mark.parametrize("code", [0, 1, 2])
def test_a_job_that_finished_or_failed_keeps_its_code_and_is_not_requeued(code: int, batch: Batch) -> None:
    batch.ask("start")
    assert batch.ask("end", "--code", str(code)) == code
    assert batch.slurm.requeued == []


def test_a_job_that_saves_nothing_is_not_requeued_for_the_third_time(batch: Batch) -> None:
    codes = []
    for restart in range(3):
        batch.restart = restart
        assert batch.ask("start") == 0
        codes.append(batch.ask("end", "--code", "85"))
    assert codes == [85, 85, 1]
    assert batch.slurm.requeued == ["7", "7"]


def test_a_job_that_slurm_itself_requeues_without_end_is_refused_at_its_start(
    batch: Batch, capsys: pytest.CaptureFixture[str]
) -> None:
    for restart in range(3):
        batch.restart = restart
        assert batch.ask("start") == 0  # and its node dies
    batch.restart = 3
    assert batch.ask("start") == 1
    assert "3 starts in a row saved nothing new" in capsys.readouterr().err.splitlines()[-1]


def test_a_checkpoint_lets_a_job_try_again(batch: Batch) -> None:
    for restart in range(6):
        batch.restart = restart
        assert batch.ask("start") == 0
        batch.save(restart + 1)
        assert batch.ask("end", "--code", "85") == 85


def test_the_script_sets_the_number_of_fruitless_starts(batch: Batch) -> None:
    batch.ask("start", "--max-fruitless", "1")
    assert batch.ask("end", "--max-fruitless", "1", "--code", "85") == 1


@pytest.mark.parametrize(
    ("queue", "down", "cause", "said"),
    [
        ("None 2026-11-25T12:13:15 1", "", "preemption", "Slurm starts the job again"),
        ("None N/A 1", "node2", "node failure", "Slurm starts the job again"),
        ("None N/A 1", "", "requeue by hand", "Slurm starts the job again"),
        ("None N/A 0", "", "cancelled", "not requeued"),
    ],
)
def test_what_slurm_does_itself_is_not_requested(
    queue: str, down: str, cause: str, said: str, batch: Batch, capsys: pytest.CaptureFixture[str]
) -> None:
    batch.slurm.queue, batch.slurm.down = queue, down
    batch.ask("start")
    assert batch.ask("signalled") == 0
    assert batch.ask("end", "--code", "85") == 85
    assert batch.slurm.requeued == []
    assert batch.last_end().cause == cause
    assert capsys.readouterr().err.splitlines()[-1] == f"dstrain: {cause}: {said}"


def test_if_srun_ends_before_sigterm_comes_slurm_is_queried(batch: Batch, capsys: pytest.CaptureFixture[str]) -> None:
    batch.ask("start")
    batch.slurm.queue, batch.slurm.down = "None N/A 1", "node2"
    assert batch.ask("end", "--code", "85") == 85
    assert batch.slurm.requeued == []
    assert batch.last_end().cause == "node failure"
    assert capsys.readouterr().err.splitlines()[-1] == "dstrain: node failure: Slurm starts the job again"


def test_at_the_time_limit_the_requeue_is_requested_at_once_and_once(batch: Batch) -> None:
    batch.slurm.queue = "TimeLimit N/A 0"
    batch.ask("start")
    batch.ask("signalled")
    assert batch.slurm.requeued == ["7"]
    assert batch.ask("end", "--code", "85") == 85
    assert batch.slurm.requeued == ["7"]


def test_a_task_of_an_array_names_itself_even_if_its_job_id_is_that_of_the_array(
    batch: Batch, capsys: pytest.CaptureFixture[str]
) -> None:
    batch.array = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
    batch.ask("start")
    batch.save(10)
    assert batch.ask("end", "--code", "85") == 85
    assert batch.slurm.asked_about == ["7_3"]
    assert batch.slurm.requeued == ["7_3"]
    assert [entry.job for entry in read_history(batch.run_dir)] == ["7", "7"]
    capsys.readouterr()
    batch.restart = 1
    batch.slurm.requeue_code = 1
    batch.ask("start")
    assert capsys.readouterr().out.startswith("job 7_3, restart 1 (")
    batch.save(20)
    batch.ask("end", "--code", "85")
    assert "scontrol requeue 7_3 failed" in capsys.readouterr().err


def test_a_job_submitted_inside_a_task_of_an_array_never_names_that_task(batch: Batch) -> None:
    batch.array = {"SLURM_ARRAY_JOB_ID": "6", "SLURM_ARRAY_TASK_ID": "3"}  # inherited
    batch.ask("start")
    batch.save(10)
    assert batch.ask("end", "--code", "85") == 85
    assert (batch.slurm.asked_about, batch.slurm.requeued) == (["7"], ["7"])


def test_the_sigterm_that_follows_its_own_requeue_changes_nothing(batch: Batch) -> None:
    batch.ask("start")
    batch.ask("end", "--code", "85", "--warned", "3000")
    batch.slurm.queue = "None N/A 1"
    batch.ask("signalled")
    assert batch.last_end().cause == "time limit"


def test_a_requeue_that_slurm_refuses_is_said_with_the_way_out(
    batch: Batch, capsys: pytest.CaptureFixture[str]
) -> None:
    batch.slurm.requeue_code = 1
    batch.ask("start")
    batch.ask("end", "--code", "85")
    assert "scontrol requeue 7 failed (Job may not be requeued): submit the job again" in capsys.readouterr().err
