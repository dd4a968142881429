"""Evaluations as separate jobs on a real Slurm: of saved checkpoints while training continues, and on other test sets."""

from pathlib import Path

from dstrain.checkpoint.pending import list_pending
from dstrain.config.schema import RunConfig
from dstrain.run_folder.reading import read_exported_step
from dstrain.run_folder.record import load_record
from dstrain.slurm.evaluation_jobs import job_name
from tests.slurm.jobs import TWO_BY_TWO, build_recipe, call, submit, until
from tests.system.runs import read_rows

SCRIPT = "slurm/evaluate.sbatch"


def test_evaluations_of_a_small_job_are_added_while_the_run_trains_and_equal_those_of_the_straight_run(
    straight: RunConfig, tmp_path: Path
) -> None:
    config = build_recipe(tmp_path, machine__evaluation_job=["--ntasks-per-node=1"])
    run_dir = Path(config.run_dir)
    job = submit(config)

    def is_over() -> bool:
        return not call("squeue", "--noheader", "--name", job_name(run_dir)).strip()

    assert job.wait_end() == "COMPLETED 0:0", job.log()
    until(lambda: not list_pending(run_dir) and is_over(), else_show=job.log)
    record, expected = load_record(run_dir), load_record(Path(straight.run_dir))
    assert [(row.step, row.epoch, row.train_loss) for row in record.eval_rows] == [
        (row.step, row.epoch, row.train_loss) for row in expected.eval_rows
    ]
    assert [row.scores for row in record.eval_rows] == [row.scores for row in expected.eval_rows]
    assert [row["step"] for row in read_rows(config, kind="eval")] == []  # the run itself made none
    assert expected.best is not None
    assert read_exported_step(run_dir / "best") == expected.best.step
    card = (run_dir / "README.md").read_text()
    assert all(f"| {row.step} " in card for row in expected.eval_rows)
    assert "left to another job" in job.log()
    assert "scores step" in job.log()


def test_another_test_set_is_sharded_over_an_allocation_and_added_to_the_run_by_step(
    straight: RunConfig, tmp_path: Path
) -> None:
    other = tmp_path / "other.tsv"
    lines = Path(straight.data.eval[0].path or "").read_text().splitlines()
    other.write_text("\n".join(lines[:11]) + "\n")
    job = submit(
        straight,
        options=TWO_BY_TWO,
        script=SCRIPT,
        arguments=[straight.run_dir, "--step", "40", "--as", "other"],
        overrides=[f"data.eval=[{{path: '{other}'}}]"],
        output=tmp_path / "evaluate.log",
    )
    assert job.wait_end() == "COMPLETED 0:0", job.log()
    (scores,) = load_record(Path(straight.run_dir)).test_sets["other"]
    assert (scores.step, scores.num_rows) == (40, 11)
    assert "### Other test sets" in (Path(straight.run_dir) / "README.md").read_text()


def test_a_job_that_cannot_evaluate_ends_with_the_reason_as_its_last_line(straight: RunConfig, tmp_path: Path) -> None:
    rows = f"data.eval=[{{path: '{straight.data.train[0].path}'}}]"
    arguments = [straight.run_dir, "--as", "a name", rows]
    output = tmp_path / "evaluate.log"
    job = submit(straight, options=TWO_BY_TWO, script=SCRIPT, arguments=arguments, output=output, wait=True)
    assert job.wait_code == 2
    assert any("--as a name: a name has at most 200 letters" in line for line in job.log().splitlines())
