"""Jobs on a real Slurm, 2 nodes × 2 tasks: the result is that of one process, whatever happens to the jobs."""

import json
import sys
import time
from pathlib import Path

import pytest

from dstrain.attempt.rank_records import ranks_dir, read_rank_records
from dstrain.cluster.processes import this_process
from dstrain.config.schema import RunConfig
from dstrain.run_folder.outcome import read_outcome
from dstrain.slurm.requeue import JobEnd, read_history
from dstrain.status.inspect import RunStatus, inspect_status
from dstrain.status.text import describe_status
from tests.slurm.jobs import ROOT, TWO_BY_TWO, Job, build_recipe, call, log_path, submit, until
from tests.system.runs import read_rows, train
from tests.system.torture import fingerprint

WHOLE_CLUSTER = ("--nodes=2", "--exclusive")


def causes(config: RunConfig) -> list[tuple[str, str]]:
    """Starts and resumes of a run with their messages."""
    rows = read_rows(config, kind="event")
    return [(row["event"], row["message"]) for row in rows if row["event"] in ("start", "resume")]


def losses(config: RunConfig) -> list[float]:
    return [row["loss"] for row in read_rows(config, kind="train")]


def assert_as_straight(job: Job, *, straight: RunConfig) -> None:
    assert job.wait_end() == "COMPLETED 0:0", job.log()
    assert fingerprint(job.config) == fingerprint(straight), job.log()


def last_line(job: Job) -> str:
    return job.log().splitlines()[-1]


def look(config: RunConfig) -> RunStatus:
    """The state of a run as shown by `dstrain status`."""
    return inspect_status(Path(config.run_dir), now=time.time(), observer=this_process())


def test_two_nodes_train_the_same_model_as_one_process(straight: RunConfig, tmp_path: Path) -> None:
    single = build_recipe(tmp_path)
    assert train(single) == [0]
    assert len(losses(straight)) == 40
    assert losses(straight) == pytest.approx(losses(single), rel=1e-5)
    hosts = [record.host for record in read_rank_records(ranks_dir(Path(straight.run_dir)))]
    assert hosts == ["node1", "node1", "node2", "node2"]
    ((event, message),) = causes(straight)
    assert event == "start"
    assert message.endswith(", first start")
    assert not any((Path(straight.run_dir) / "rendezvous").iterdir())  # rank 0 has removed the published port


def test_a_job_that_is_warned_of_its_time_limit_saves_and_resumes(straight: RunConfig, tmp_path: Path) -> None:
    job = submit(build_recipe(tmp_path))
    job.wait_step(12)
    call("scancel", "--batch", "--signal=USR1", job.id)  # as --signal=B:USR1@300 has Slurm do
    job.restart(1)
    assert_as_straight(job, straight=straight)
    (_, resume) = causes(job.config)
    expected = f"job {job.id}, restart 1 (after time limit, according to Slurm's warning signal)"
    assert resume == ("resume", expected)
    assert expected in (Path(job.config.run_dir) / "README.md").read_text()  # the card
    assert "Terminated" not in job.log()  # every task ended by itself
    saved = [row for row in read_rows(job.config, kind="event") if row["event"] == "stop"]
    assert [row["message"] for row in saved] == ["received SIGUSR1"]


def test_a_job_saves_before_its_time_limit_even_without_a_signal(tmp_path: Path) -> None:
    config = build_recipe(tmp_path, training__max_steps=100_000, evaluation__every_steps=100_000)
    job = submit(config, options=(*TWO_BY_TWO, "--time=2", "--signal=B:CONT@0"))
    until(lambda: job.is_waiting(1), else_show=job.log)
    assert look(config).state == "at its time limit"
    call("scancel", job.id)
    stops = [row["message"] for row in read_rows(config, kind="event") if row["event"] == "stop"]
    assert stops == ["its allocation ends"], job.log()
    ends = [entry for entry in read_history(Path(config.run_dir)) if isinstance(entry, JobEnd)]
    assert [(end.cause, end.source) for end in ends] == [("time limit", "the run itself (end of its allocation)")]
    assert "DUE TO TIME LIMIT" not in job.log()


def test_a_time_limit_shorter_than_the_warning_is_reported_with_the_way_out(tmp_path: Path) -> None:
    config = build_recipe(tmp_path, training__max_steps=100_000, evaluation__every_steps=100_000)
    job = submit(config, options=(*TWO_BY_TWO, "--time=2"))
    until(lambda: job.is_waiting(1), else_show=job.log)
    call("scancel", job.id)
    (_, why, decided) = (line for line in job.log().splitlines() if line.startswith("dstrain: "))
    assert why.startswith("dstrain: the time limit of 1"), job.log()
    assert "submit the job with a longer --time, or with a later warning, such as --signal=B:USR1@30" in why
    assert decided == "dstrain: requeued (the time limit is near)"


def test_a_run_that_is_cancelled_while_it_waits_for_its_restart_still_shows_the_way_out(tmp_path: Path) -> None:
    job = submit(build_recipe(tmp_path, training__max_steps=100_000))
    job.wait_step(6)
    call("scontrol", "requeue", job.id)
    until(lambda: job.is_waiting(1), else_show=job.log)
    call("scancel", job.id)
    status = look(job.config)
    assert (status.state, status.comes_again) == ("requeued", job.id), job.log()
    assert "if it does not, start it again: the same command resumes" in describe_status(status)
    assert call("squeue", "--noheader", "--jobs", job.id) == ""


def test_a_job_that_is_requeued_by_hand_and_then_preempted_resumes_and_records_why(
    straight: RunConfig, tmp_path: Path
) -> None:
    job = submit(build_recipe(tmp_path))
    job.wait_step(8)
    call("scontrol", "requeue", job.id)
    job.restart(1)
    job.wait_step(20)
    urgent = call("sbatch", "--parsable", "--partition=urgent", *WHOLE_CLUSTER, "--output=/dev/null", "--wrap=true")
    until(lambda: job.is_waiting(2), else_show=job.log)
    assert look(job.config).state == "preempted"
    job.restart(2)
    assert_as_straight(job, straight=straight)
    assert [message for _, message in causes(job.config)[1:]] == [
        f"job {job.id}, restart 1 (after requeue by hand, according to squeue (restart count))",
        f"job {job.id}, restart 2 (after preemption, according to squeue (preemption time))",
    ]
    assert urgent.strip() != job.id


def test_a_cancelled_job_leaves_a_checkpoint_and_is_not_requeued(tmp_path: Path) -> None:
    job = submit(build_recipe(tmp_path, training__max_steps=100_000))
    job.wait_step(6)
    call("scancel", job.id)
    assert job.wait_end().startswith("CANCELLED")
    assert job.field("Restarts") == "0"
    outcome = read_outcome(Path(job.config.run_dir))
    assert outcome is not None
    assert (outcome.outcome, outcome.message) == ("preempted", "received SIGTERM")
    assert list((Path(job.config.run_dir) / "checkpoints").glob(f"step-{outcome.step:08d}.lease-*")), job.log()
    assert last_line(job) == "dstrain: cancelled: not requeued"
    assert look(job.config).state == "cancelled"


def test_a_wrong_recipe_fails_at_once_with_the_error_as_the_last_line(tmp_path: Path) -> None:
    job = submit(build_recipe(tmp_path), overrides=["training.lerning_rate=1"], wait=True)
    assert job.wait_code == 2
    assert "lerning_rate" in last_line(job)
    assert "learning_rate" in last_line(job)
    assert "srun" not in job.log()
    assert job.wait_end() == "FAILED 2:0"
    assert job.field("Restarts") == "0"


def test_a_wrong_option_of_the_evaluation_job_fails_at_once_with_the_error_as_the_last_line(tmp_path: Path) -> None:
    job = submit(build_recipe(tmp_path, machine__evaluation_job=["--partition=nope"]), wait=True)
    assert job.wait_end() == "FAILED 2:0"
    assert last_line(job).startswith('machine.evaluation_job: sbatch refuses ["--partition=nope"] (sbatch: error: ')
    assert f"dstrain evaluate {job.config.run_dir} --pending" in last_line(job)
    assert "srun" not in job.log()


@pytest.mark.parametrize("script", ["train", "evaluate", "sweep"])
def test_where_the_scripts_are_not_the_last_line_says_what_to_do(script: str, tmp_path: Path) -> None:
    config = build_recipe(tmp_path)
    options = [f"--chdir={tmp_path}", *(["--array=0"] if script == "sweep" else [])]
    output = tmp_path / "outside.log"
    job = submit(config, options=options, script=f"slurm/{script}.sbatch", output=output, wait=True)
    assert job.wait_code == 2
    way_out = "cd to a clone or to where `dstrain scripts` was run, or sbatch --chdir=FOLDER"
    assert last_line(job) == f"dstrain: {tmp_path} has no slurm/python.sh: {way_out}"


@pytest.mark.parametrize("script", ["train", "evaluate", "sweep"])
def test_a_python_that_cannot_run_dstrain_is_named_in_the_last_line(script: str, tmp_path: Path) -> None:
    python = tmp_path / "python"
    options = ["--array=0"] if script == "sweep" else []
    job = submit(
        build_recipe(tmp_path),
        options=options,
        script=f"slurm/{script}.sbatch",
        environment={"DSTRAIN_PYTHON": str(python)},
        output=tmp_path / "python.log",
        wait=True,
    )
    assert job.wait_code == 2
    assert f"cannot run dstrain, see above (DSTRAIN_PYTHON is '{python}')" in last_line(job)
    assert "No such file or directory" in job.log()


def test_a_failure_of_training_is_not_requeued_and_is_the_last_line(tmp_path: Path) -> None:
    config = build_recipe(tmp_path)
    Path(config.data.train[0].path or "").write_text("a row without a tab\n")
    job = submit(config)
    assert job.wait_end() == "FAILED 1:0", job.log()
    assert last_line(job).startswith("dstrain: not requeued, because it failed: rank ")
    assert job.field("Restarts") == "0"


def test_a_job_that_saves_nothing_new_stops_after_three_attempts(tmp_path: Path) -> None:
    config = build_recipe(tmp_path)
    job = submit(config, environment={"DSTRAIN_DRILL": "kill:step:2:rank=3"})
    for number in (1, 2):
        job.restart(number)
    assert job.wait_end() == "FAILED 1:0", job.log()
    assert last_line(job).startswith("dstrain: not requeued: 3 starts in a row saved nothing new"), job.log()
    assert job.field("Restarts") == "2"


def test_two_jobs_that_start_together_on_one_node_do_not_connect_to_each_other(tmp_path: Path) -> None:
    jobs = []
    for name in ("one", "other"):
        config = build_recipe(tmp_path / name, machine__cache_dir=str(tmp_path / name / "cache"))
        jobs.append(submit(config, options=("--nodelist=node1", "--ntasks-per-node=2")))
    assert [job.wait_end() for job in jobs] == ["COMPLETED 0:0"] * 2, [job.log() for job in jobs]
    assert fingerprint(jobs[0].config) == fingerprint(jobs[1].config)


def test_one_task_per_gpu_is_started_and_every_task_sees_the_gpus_of_its_node(tmp_path: Path) -> None:
    # replaces Python for training, because there are no such GPUs
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/bash\n[[ "$1" = -[cm] ]] && exec "$REAL_PYTHON" "$@"\n'
        'echo "task $SLURM_PROCID local $SLURM_LOCALID of $SLURM_NTASKS gpus $CUDA_VISIBLE_DEVICES given $#: $*"\n'
    )
    python.chmod(0o755)
    config = build_recipe(tmp_path)
    job = submit(
        config,
        options=("--nodes=2", "--gpus-per-node=2"),
        overrides=[f"output_dir={tmp_path / 'two words; `touch bad`'}"],
        environment={"DSTRAIN_PYTHON": str(python), "REAL_PYTHON": sys.executable},
    )
    assert job.wait_end() == "COMPLETED 0:0", job.log()
    lines = sorted(line for line in job.log().splitlines() if line.startswith("task "))
    given = (
        f"given 4: launch/train.py --config {tmp_path / 'recipe.yaml'} output_dir={tmp_path / 'two words; `touch bad`'}"
    )
    assert lines == [f"task {task} local {task % 2} of 4 gpus 0,1 {given}" for task in range(4)]


def test_the_script_fits_a_screen_and_every_option_says_why() -> None:
    lines = (ROOT / "slurm" / "train.sbatch").read_text().splitlines()
    assert len(lines) <= 45
    options = [line for line in lines if line.startswith("#SBATCH --") and "job-name" not in line]
    assert options
    assert all("    #" in line or "  #" in line for line in options)


def test_the_history_of_a_job_can_be_read_line_by_line(straight: RunConfig) -> None:
    lines = (Path(straight.run_dir) / "slurm.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["start", "end"]
    assert log_path(straight).read_text().splitlines()[-1] == "dstrain: finished"
