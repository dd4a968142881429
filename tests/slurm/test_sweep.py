"""Sweeps as job arrays on a real Slurm: every member has its run folder and resumes on its own."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from dstrain.cli.app import app
from dstrain.config.load import load_config
from dstrain.slurm.requeue import JobStart, read_history
from dstrain.sweep.members import plan_members, read_sweep
from tests.slurm.jobs import ROOT, TWO_BY_TWO, Job, build_recipe, call, recipe_path, submit
from tests.system.runs import read_rows

SCRIPT = "slurm/sweep.sbatch"
ONE_TASK = ("--nodes=1", "--ntasks-per-node=1")
PREFIX = "two words; $HOME: "


def write_sweep(folder: Path, **keys: object) -> Path:
    """A sweep of the tiny recipe."""
    recipe = recipe_path(build_recipe(folder))
    path = folder / "sweep.yaml"
    path.write_text(
        yaml.safe_dump({"config": str(recipe), "output_dir": str(folder / "sweep"), **keys}, sort_keys=False)
    )
    return path


def submit_sweep(sweep: Path, *options: str, overrides: Sequence[str] = (), wait: bool = False) -> list[Job]:
    """The Slurm task of every member, in order."""
    config = load_config(str(sweep.parent / "recipe.yaml"))
    array = submit(
        config,
        options=options,
        overrides=overrides,
        wait=wait,
        script=SCRIPT,
        arguments=[str(sweep)],
        output=sweep.parent / "job-%a.log",
    )
    members = plan_members(read_sweep(str(sweep), typed=overrides))
    return [
        replace(
            array,
            id=f"{array.id}_{member.number}",
            config=config.model_copy(update={"output_dir": member.run_dir}),
            output=sweep.parent / f"job-{member.number}.log",
        )
        for member in members
    ]


def last_line(sweep: Path, name: str) -> str:
    return (sweep.parent / name).read_text().splitlines()[-1]


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "1000"})


def test_four_members_train_in_separate_folders_and_are_in_one_table_with_the_best_first(tmp_path: Path) -> None:
    sweep = write_sweep(
        tmp_path,
        overrides={"evaluation.best_metric": "loss", "task.source_prefix": PREFIX},
        grid={"training.learning_rate": [1e-5, 3e-3], "seed": [1, 2]},
    )
    jobs = submit_sweep(sweep, *TWO_BY_TWO, "--array=0-3%1", overrides=["training.max_steps=20"])
    assert [job.wait_end() for job in jobs] == ["COMPLETED 0:0"] * 4, [job.log() for job in jobs]
    runs = [Path(job.config.run_dir) for job in jobs]
    assert sorted((tmp_path / "sweep").iterdir()) == runs
    trained = [load_config(str(run / "config.yaml")) for run in runs]
    assert [(config.training.learning_rate, config.seed) for config in trained] == [
        (1e-5, 1),
        (1e-5, 2),
        (3e-3, 1),
        (3e-3, 2),
    ]
    assert {(config.training.max_steps, config.task.source_prefix) for config in trained} == {(20, PREFIX)}

    table = json.loads(invoke("compare", "--json", *map(str, runs)).stdout)
    best = [min(row["scores"]["loss"] for row in read_rows(job.config, kind="eval")) for job in jobs]
    assert [row["best"] for row in table] == sorted(best)
    assert [row["run"] for row in table] == [str(run) for _, run in sorted(zip(best, runs, strict=True))]
    assert table[0]["recipe"]["training.learning_rate"] == 3e-3
    assert {row["state"] for row in table} == {"finished"}
    shown = invoke("compare", *map(str, runs)).stdout.splitlines()
    assert shown[1].split()[0] == table[0]["run"]
    assert json.loads(invoke("sweep", "--json", str(sweep), "training.max_steps=20").stdout)["submit"] is None


def test_members_that_are_warned_resume_and_do_not_affect_other_members(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path, grid={"seed": [1, 2, 3]})
    jobs = submit_sweep(sweep, *ONE_TASK, "--array=0-2", overrides=["training.max_steps=100"])
    first, other, last = jobs
    for job in jobs:
        job.wait_step(12)
    array = last.id.partition("_")[0]
    # the trap: for Slurm the job id of this one task means the whole array
    assert last.field("JobId") == array
    assert array not in (first.field("JobId"), other.field("JobId"))
    for job in (last, first):
        call("scancel", "--batch", "--signal=USR1", job.id)
    for job in (last, first):
        job.restart(1)
    assert [job.wait_end() for job in jobs] == ["COMPLETED 0:0"] * 3, [job.log() for job in jobs]
    assert [job.field("Restarts") for job in jobs] == ["1", "0", "1"]
    for job in (last, first):
        name = job.id if job is last else job.field("JobId")
        expected = f"job {name}, restart 1 (after time limit, according to Slurm's warning signal)"
        assert [row["message"] for row in read_rows(job.config, kind="event") if row["event"] == "resume"] == [expected]
        starts = [entry for entry in read_history(Path(job.config.run_dir)) if isinstance(entry, JobStart)]
        assert {start.job for start in starts} == {job.field("JobId")}
        assert f"is job {job.field('JobId')}, or {job.id}\n" in job.log()
    assert [row["event"] for row in read_rows(other.config, kind="event") if row["event"] != "save"] == [
        "start",
        "finish",
    ]


@pytest.mark.parametrize(
    ("options", "log", "message"),
    [
        (("--array=7",), "job-7.log", "{sweep} has members 0 to 1, not 7: submit it with --array=0-1"),
        (
            (),
            None,
            "dstrain: not a job array, so no member was chosen: submit the command printed by dstrain sweep {sweep}",
        ),
    ],
)
def test_a_task_without_a_member_ends_at_once_with_the_error_as_the_last_line(
    options: tuple[str, ...], log: str | None, message: str, tmp_path: Path
) -> None:
    sweep = write_sweep(tmp_path, grid={"seed": [1, 2]})
    config = load_config(str(recipe_path(build_recipe(tmp_path))))
    output = tmp_path / ("job-%a.log" if log else "job.log")
    given = {"script": SCRIPT, "arguments": [str(sweep)], "output": output}
    job = submit(config, options=(*ONE_TASK, *options), wait=True, **given)
    assert job.wait_code == 2
    assert last_line(sweep, log or "job.log") == message.format(sweep=sweep)
    assert not (tmp_path / "sweep").exists()


def test_the_script_fits_a_screen_and_has_every_option_of_the_other_with_its_reason() -> None:
    options = {}
    for name in ("sweep", "train"):
        lines = (ROOT / "slurm" / f"{name}.sbatch").read_text().splitlines()
        assert len(lines) < 45
        options[name] = [line for line in lines if line.startswith("#SBATCH --") and "job-name" not in line]
    assert all(" # " in line for line in options["sweep"])
    shared = [[line for line in options[name] if "--output" not in line] for name in ("sweep", "train")]
    assert [line.split()[1] for line in shared[0]] == [line.split()[1] for line in shared[1]]
