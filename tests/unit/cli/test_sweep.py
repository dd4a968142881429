"""`dstrain sweep`: what it prints of members, and the commands to type."""

import json
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dstrain.cli.app import app
from dstrain.config.load import dump_config
from dstrain.run_folder.outcome import RunOutcome, write_outcome
from dstrain.slurm.requeue import JobEnd, append_entry
from dstrain.sweep.members import SIZE, check_members, plan_members, read_sweep
from tests.unit.sweep.sweep_cases import GRID, ROOT, write


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["sweep", *arguments])


@pytest.mark.parametrize(
    "name", ["debug", str(ROOT / "configs" / "debug.yaml"), str(ROOT / "configs" / "ko_en_m2m.yaml")]
)
def test_a_recipe_is_no_sweep_and_is_told_what_takes_it(name: str) -> None:
    result = invoke(name)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert "this is a recipe, not a sweep" in line
    assert f"`dstrain check {name}`" in line
    assert f"`config: {name}`" in line


def test_the_command_shows_every_member_and_what_to_type(tmp_path: Path) -> None:
    path = write(tmp_path, GRID)
    result = invoke(path, "training.max_steps=7")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["member", "overrides", "run", "folder", "status"]
    run = tmp_path / "runs" / "002-learning_rate=0.0003-seed=1"
    assert lines[3].split() == ["2", "training.learning_rate=0.0003", "seed=1", str(run), "-"]
    size = "--nodes=1 --gpus-per-node=1"
    assert lines[-3] == f"submit   sbatch --array=0-3 {size} slurm/sweep.sbatch {path} training.max_steps=7"
    assert lines[-2].startswith(f"size     of one member: {size}")
    assert lines[-1] == f"compare  dstrain compare {tmp_path}/runs/*"


def test_members_that_have_finished_are_not_submitted_again(tmp_path: Path) -> None:
    path = write(tmp_path, GRID)
    members = plan_members(read_sweep(path))
    for member, outcome in zip(members, ("finished", "failed", "finished"), strict=False):
        Path(member.run_dir).mkdir(parents=True)
        write_outcome(Path(member.run_dir), RunOutcome(outcome, 0, ""))
    found = json.loads(invoke(path, "--json").stdout)
    assert [member["state"] for member in found["members"]] == ["finished", "failed", "finished", None]
    assert shlex.split(found["submit"]) == ["sbatch", "--array=1,3", *SIZE, "slurm/sweep.sbatch", path]
    for member in members:
        Path(member.run_dir).mkdir(exist_ok=True)
        write_outcome(Path(member.run_dir), RunOutcome("finished", 0, ""))
    assert json.loads(invoke(path, "--json").stdout)["submit"] is None
    assert "submit   nothing: every member runs, has finished" in invoke(path).stdout


def test_a_member_whose_folder_holds_another_run_is_not_taken_for_it(tmp_path: Path) -> None:
    path = write(tmp_path, GRID)
    sweep = read_sweep(path)
    members = plan_members(sweep)
    for member, config in zip(members[:2], check_members(sweep, members), strict=False):
        run = Path(member.run_dir)
        run.mkdir(parents=True)
        training = config.training.model_copy(update={"max_steps": 3, "epochs": None} if member.number == 1 else {})
        (run / "config.yaml").write_text(dump_config(config.model_copy(update={"training": training})))
        write_outcome(run, RunOutcome("finished", 0, ""))
    printed = invoke(path).stdout
    assert "--array=2-3 " in printed
    assert "changed  member 1: the run in its folder has another recipe (training." in printed
    assert "give the sweep another output_dir, or remove that folder" in printed
    found = json.loads(invoke(path, "--json").stdout)["members"]
    assert [bool(member["changed"]) for member in found] == [False, True, False, False]


def test_a_member_that_slurm_starts_again_is_offered_apart(tmp_path: Path) -> None:
    path = write(tmp_path, GRID)
    requeued, ended, *_ = (Path(member.run_dir) for member in plan_members(read_sweep(path)))
    for run, job, again in ((requeued, "12", True), (ended, "13", False)):
        run.mkdir(parents=True)
        write_outcome(run, RunOutcome("preempted", 85, ""))
        append_entry(run, JobEnd(job, 0, "time limit", "the signal before it", again))
    found = json.loads(invoke(path, "--json").stdout)
    assert [member["comes_again"] for member in found["members"]] == ["12", None, None, None]
    assert shlex.split(found["submit"])[1] == "--array=1-3"
    lines = invoke(path).stdout.splitlines()
    assert lines[1].endswith(", Slurm starts job 12 again")
    assert "again" not in lines[2]
    (waiting,) = (line for line in lines if line.startswith("waiting"))
    assert waiting.startswith("waiting  squeue --jobs 12; ")
    assert waiting.endswith(f"sbatch --array=0 {shlex.join(SIZE)} slurm/sweep.sbatch {path}")


def test_a_wrong_sweep_prints_no_command_and_no_traceback(tmp_path: Path) -> None:
    result = invoke(write(tmp_path, "list: [{seed: x}]\n"))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("member 0: ")
