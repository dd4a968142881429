"""What a run says at its end, for each way in which it can end."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from dstrain.reporting.ending import describe_end
from dstrain.run_folder.outcome import RunOutcome
from tests.unit.reporting.reporting_cases import parsing_record, run_info, translation_config, translation_record

FINISHED = RunOutcome("finished", 0, step=95000)
SOURCES = Path("runs/ko-en-m2m/hypotheses/step-00095000/sources.txt")


def rows_of(lines: list[str]) -> dict[str, str]:
    return {line[2:7].strip(): line[9:] for line in lines[1:] if line[2:7].strip()}


def commands_of(lines: list[str]) -> list[list[str]]:
    listed = [line[9:] for line in lines if "  # " in line]
    return [shlex.split(line, comments=True) for line in listed]


def test_a_run_that_has_made_all_its_steps_says_what_is_best_and_what_comes_next() -> None:
    lines = describe_end(translation_record(), outcome=FINISHED, sources=SOURCES)
    assert lines[0] == "runs/ko-en-m2m: finished at step 95,000 of 95,000"
    rows = rows_of(lines)
    assert rows["why"] == "6 epochs are done (training.epochs)"
    assert rows["best"] == "bleu 25.8137 at step 95,000, in runs/ko-en-m2m/best"
    assert rows["card"] == "runs/ko-en-m2m/README.md"
    assert commands_of(lines) == [
        ["dstrain", "predict", "runs/ko-en-m2m", "<", str(SOURCES)],
        ["dstrain", "evaluate", "runs/ko-en-m2m"],
        ["dstrain", "push", "runs/ko-en-m2m", "OWNER/NAME", "--dry-run"],
    ]


def test_plots_are_named_where_they_were_drawn(tmp_path: Path) -> None:
    record = translation_record(translation_config(output_dir=str(tmp_path)))
    assert rows_of(describe_end(record, outcome=FINISHED))["card"] == f"{tmp_path}/README.md"
    (tmp_path / "plots").mkdir()
    assert rows_of(describe_end(record, outcome=FINISHED))["card"] == (
        f"{tmp_path}/README.md, with plots in {tmp_path}/plots"
    )


def test_a_run_of_steps_names_them_and_its_best_need_not_be_the_last() -> None:
    rows = rows_of(describe_end(parsing_record(), outcome=replace(FINISHED, step=3000)))
    assert rows["why"] == "all 3,000 steps are done (training.max_steps)"
    assert rows["best"] == "exact_match 0.5539 at step 2,400, in runs/t5-small-pointer-mtop/best"


def test_the_interval_stands_beside_the_score() -> None:
    record = translation_record()
    last = replace(record.eval_rows[-1], intervals={"bleu": 0.75})
    record = replace(record, eval_rows=(*record.eval_rows[:-1], last))
    assert rows_of(describe_end(record, outcome=FINISHED))["best"].startswith("bleu 25.8137 ± 0.7500 at step 95,000")


def test_early_stopping_is_the_reason_that_it_gave() -> None:
    why = "early stopping: bleu has not improved in 3 evaluations"
    lines = describe_end(translation_record(), outcome=replace(FINISHED, step=50000, message=why))
    assert lines[0] == "runs/ko-en-m2m: finished at step 50,000 of 95,000"
    assert rows_of(lines)["why"] == why


@pytest.mark.parametrize(
    "why", ["received SIGTERM", "received SIGINT (Ctrl-C)", "its allocation ends", "its launcher died"]
)
def test_a_run_that_was_stopped_gives_the_command_that_resumes_it(why: str) -> None:
    outcome = RunOutcome("preempted", 85, why, step=120)
    lines = describe_end(translation_record(), outcome=outcome, sources=SOURCES)
    assert lines[0] == "runs/ko-en-m2m: stopped early, its work saved at step 120 of 95,000"
    assert rows_of(lines)["why"] == why
    resume, status = commands_of(lines)
    assert resume == shlex.split("deepspeed --num_gpus 1 launch/train.py --config configs/seed.yaml")
    assert status == ["dstrain", "status", "runs/ko-en-m2m"]


def test_of_a_slurm_job_no_command_of_a_shell_is_shown() -> None:
    record = translation_record(
        info=run_info(launcher="srun", command=["srun", "--ntasks", "2", "python", "-m", "dstrain.train"])
    )
    lines = describe_end(record, outcome=RunOutcome("preempted", 85, "its allocation ends", step=120))
    assert commands_of(lines) == [["dstrain", "status", "runs/ko-en-m2m"]]


def test_a_command_of_a_stranger_is_not_shown() -> None:
    record = translation_record(info=run_info(command="rm -rf ~"))
    lines = describe_end(record, outcome=RunOutcome("failed", 1, "step 7 could not be saved", step=7))
    assert lines[0] == "runs/ko-en-m2m: failed at step 7 of 95,000"
    assert commands_of(lines) == [["dstrain", "status", "runs/ko-en-m2m"]]


def test_before_the_first_evaluation_there_is_no_best_model() -> None:
    record = replace(translation_record(), eval_rows=(), exports={"final": 10})
    lines = describe_end(record, outcome=FINISHED)
    assert rows_of(lines)["best"] == "none: the model was not evaluated yet"
    assert rows_of(lines)["model"] == "runs/ko-en-m2m/final"
    assert commands_of(lines) == [["dstrain", "push", "runs/ko-en-m2m", "OWNER/NAME", "--dry-run"]]


def test_of_several_directions_the_first_is_named() -> None:
    sources = [{"path": "de.tsv", "target_language": "de"}, {"path": "fr.tsv", "target_language": "fr"}]
    config = translation_config(
        task={"kind": "translation", "source_language": "ko"}, data={"train": sources, "eval": sources}
    )
    lines = describe_end(translation_record(config), outcome=FINISHED, sources=SOURCES)
    assert commands_of(lines)[0][:4] == ["dstrain", "predict", "runs/ko-en-m2m", "--target-language=de"]


def test_names_are_quoted_and_the_program_may_be_another() -> None:
    config = translation_config(output_dir="runs/my run")
    lines = describe_end(
        translation_record(config),
        outcome=FINISHED,
        sources=Path("a b.txt"),
        program=[".venv/bin/python", "-m", "dstrain"],
    )
    assert commands_of(lines)[0] == [".venv/bin/python", "-m", "dstrain", "predict", "runs/my run", "<", "a b.txt"]
