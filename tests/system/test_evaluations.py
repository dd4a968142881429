"""Evaluations by processes other than those of the run: the same rows at the same steps, whatever the run does meanwhile."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dstrain.checkpoint.pending import list_pending
from dstrain.checkpoint.verify import inspect_run, is_sound
from dstrain.cluster.environment import ProcessInfo, read_process_info
from dstrain.cluster.exit_codes import EXIT_PREEMPTED
from dstrain.cluster.processes import this_process
from dstrain.evaluate import main
from dstrain.evaluation.significance import find_intervals
from dstrain.run.scoring import join_scorers, sole_scorer
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.reading import read_exported_step
from dstrain.run_folder.record import load_record
from dstrain.run_folder.row_statistics import read_statistics
from dstrain.run_folder.rows import EvalRow
from dstrain.run_folder.scores import sacrebleu_command
from dstrain.status.inspect import inspect_status
from tests.distributed.ranks import start_ranks
from tests.system.runs import build_run, train
from tests.unit.run_folder.scores_cases import run_sacrebleu

CHANGES: dict[str, Any] = {
    "training__max_steps": 14,
    "evaluation__every_steps": 3,
    "evaluation__best_metric": "dev/chrf",  # that of a named set
    "machine__zero_stage": 2,
}


def score(*arguments: str, world_size: int = 1) -> list[int]:
    """Exit codes of the ranks of an evaluation program."""
    return start_ranks(_score, arguments, world_size=world_size)


def _score(place: ProcessInfo, arguments: Sequence[str]) -> int:
    os.environ.update(place.as_environment() | {"LOCAL_WORLD_SIZE": str(place.local_world_size)})
    return main(list(arguments))


def values(rows: Sequence[EvalRow]) -> list[Any]:
    """Everything about each evaluation except the job that made it and its duration."""
    return [
        (row.step, row.epoch, row.train_loss, row.scores, row.signatures, row.generation, row.hypotheses, row.num_rows)
        + (row.intervals, row.outputs)
        for row in rows
    ]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that evaluates by itself."""
    config = build_run(tmp_path_factory.mktemp("straight"), **CHANGES)
    assert train(config, world_size=2) == [0, 0]
    return Path(config.run_dir)


def test_evaluations_by_another_job_equal_those_of_the_run_itself(straight: Path, tmp_path: Path) -> None:
    config = build_run(tmp_path, machine__evaluation_job=[], **CHANGES)
    run_dir = Path(config.run_dir)
    assert train(config, world_size=2, stop_after=7) == [EXIT_PREEMPTED] * 2
    assert [pending.step for pending in list_pending(run_dir)] == [3, 6]
    assert score(str(run_dir), "--pending", world_size=2) == [0, 0]
    assert values(load_record(run_dir).eval_rows) == values(load_record(straight).eval_rows)[:2]
    assert not (run_dir / "best").exists()  # the run itself writes it, while it still trains

    assert train(config, world_size=2) == [0, 0]
    assert [pending.step for pending in list_pending(run_dir)] == [9, 12, 14]
    assert is_sound(inspect_run(run_dir))  # checkpoints with pending evaluations have kept their weights
    assert score(str(run_dir), "--pending") == [0]
    record, expected = load_record(run_dir), load_record(straight)
    assert values(record.eval_rows) == values(expected.eval_rows)
    assert record.pending_rows == ()
    assert expected.best is not None
    assert read_exported_step(run_dir / "best") == expected.best.step
    assert read_exported_step(run_dir / "final") == 14
    table = [line for line in (run_dir / "README.md").read_text().splitlines() if line.startswith("| ")]
    assert [line for line in (straight / "README.md").read_text().splitlines() if line in table and "| 14 " in line]
    assert json.loads((run_dir / "outcome.json").read_text())["outcome"] == "finished"


def test_sacrebleu_gives_the_intervals_of_a_run_for_the_files_that_it_wrote(straight: Path) -> None:
    best = load_record(straight).best
    assert best is not None
    folder = straight / str(best.hypotheses)
    printed = run_sacrebleu(folder, f"{sacrebleu_command(best)} --confidence".replace("-w 4", "-w 17"))
    assert [each["name"] for each in printed] == ["BLEU", "chrF2"]
    assert [each["confidence_var"] for each in printed] == [best.intervals["bleu"], best.intervals["chrf"]]
    statistics = read_statistics(RunFolder(straight), step=best.step)
    assert find_intervals(statistics) == best.intervals
    assert set(best.outputs) >= {"empty", "loop", "copy", "wrong_script"}


def test_a_stopped_run_finds_the_ties_of_the_straight_one(tmp_path: Path) -> None:
    records = []
    for name, stops in (("straight", []), ("stopped", [4, 10])):
        (tmp_path / name).mkdir()
        changes = CHANGES | {
            "evaluation__every_steps": 2,
            "evaluation__best_by": "tied_keeps_older",
            "evaluation__best_metric": "chrf",
            "training__learning_rate": 3e-4,  # so slow that an evaluation is hardly better than the one before
        }
        config = build_run(tmp_path / name, **changes)
        for step in stops:
            assert train(config, world_size=2, stop_after=step) == [EXIT_PREEMPTED] * 2
        assert train(config, world_size=2) == [0, 0]
        records.append(load_record(Path(config.run_dir)))
        assert records[-1].best is not None
        assert read_exported_step(Path(config.run_dir) / "best") == records[-1].best.step
    straight, stopped = ([(row.step, row.is_tied) for row in record.eval_rows] for record in records)
    assert straight == stopped
    assert any(is_tied for _, is_tied in straight), straight
    assert values(records[0].eval_rows) == values(records[1].eval_rows)


def test_evaluating_a_finished_run_is_not_an_attempt(straight: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = inspect_status(straight, now=0.0, observer=this_process())
    assert main([str(straight), "--pending"]) == 0
    assert f"{straight}: no evaluation is pending" in capsys.readouterr().out
    after = inspect_status(straight, now=0.0, observer=this_process())
    assert (after.state, after.since, after.starts) == (before.state, before.since, before.starts)


def test_two_jobs_do_not_compute_the_same_scores(straight: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ranks = join_scorers(read_process_info({}), machine=load_record(straight).config.machine, rendezvous=None)
    with sole_scorer(RunFolder(straight), ranks=ranks, stale_seconds=60.0):
        assert main([str(straight), "--pending"]) == 1
    said = capsys.readouterr().err
    assert f"{straight / 'scores'}: process {os.getpid()} on " in said
    assert "is computing these scores already; wait for it, or end it" in said
    assert main([str(straight), "--pending"]) == 0


def test_a_pending_evaluation_whose_checkpoint_was_removed_is_skipped_and_the_others_are_run(tmp_path: Path) -> None:
    config = build_run(tmp_path, machine__evaluation_job=[], **CHANGES)
    run_dir = Path(config.run_dir)
    assert train(config, world_size=2) == [0, 0]
    (broken,) = (run_dir / "checkpoints").glob("step-00000006.*/weights-00000.safetensors")
    broken.write_bytes(broken.read_bytes()[:-1])
    assert score(str(run_dir), "--pending") == [0]
    record = load_record(run_dir)
    assert [row.step for row in record.eval_rows] == [3, 9, 12, 14]
    assert [row.step for row in record.pending_rows] == [6]


def test_another_test_set_has_the_same_scores_on_two_ranks_as_on_one_and_is_on_the_card(
    straight: Path, tmp_path: Path
) -> None:
    rows = Path(load_record(straight).config.data.eval[0].path or "").read_text().splitlines()
    other = tmp_path / "other rows.tsv"
    other.write_text("\n".join([*rows[3:5], "", *rows[5:16]]) + "\n")
    given = ["--as", "other", f"data.eval=[{{path: '{other}'}}]"]
    for step, world_size in (("12", 1), ("14", 2)):
        assert score(str(straight), "--step", step, *given, world_size=world_size) == [0] * world_size
    assert score(str(straight), "--step", "14", "--output", str(tmp_path / "one"), given[-1]) == [0]
    twelve, fourteen = load_record(straight).test_sets["other"]
    assert (twelve.step, fourteen.step, fourteen.num_rows) == (12, 14, 13)
    alone = json.loads((tmp_path / "one" / "scores" / "step-00000014.json").read_text())
    assert fourteen.scores == alone["scores"]
    kept = straight / "test_sets" / "other"
    index = (kept / str(fourteen.hypotheses) / "index.txt").read_text().splitlines()
    assert index == [f"{other}:{line}" for line in (1, 2, *range(4, 15))]
    assert fourteen.data is not None
    assert (fourteen.data.rows_read, fourteen.data.skipped) == (14, {"empty": 1})
    assert json.loads((kept / "bad_rows.eval.jsonl").read_text())["where"] == f"{other}:3"
    card = (straight / "README.md").read_text()
    assert "### Other test sets" in card
    assert card.count(f"`{other}`") == 2
    assert sum(line.startswith("| other ") for line in card.splitlines()) == 2


def test_a_test_set_keeps_its_rows(straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = [f"data.eval=[{{demo: translation, max_rows: {n}}}]" for n in (4, 5)]
    assert main([str(straight), "--step", "14", "--as", "short", first]) == 0
    assert main([str(straight), "--step", "12", "--as", "short", second]) == 1
    assert (
        "test_sets/short are of other rows (demo:translation): give these rows another name" in capsys.readouterr().err
    )
    assert main([str(straight), "--step", "12", "--as", "short", first]) == 0


def test_a_missing_step_is_refused_with_the_steps_that_exist(
    straight: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(straight), "--step", "5"]) == 1
    assert "no valid checkpoint of step 5 (steps there: 14, 12" in capsys.readouterr().err
