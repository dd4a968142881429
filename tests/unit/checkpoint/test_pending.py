"""Pending evaluations: those that a run left to another job, without scores, and with a checkpoint to score."""

import json
from pathlib import Path

import pytest

from dstrain.checkpoint.pending import PendingEvaluation, list_pending
from dstrain.config.load import dump_config, load_config
from dstrain.run_folder.reading import RunFolderError
from dstrain.run_folder.record import write_run_info
from dstrain.run_folder.rows import append_row
from tests.unit.checkpoint.verify_cases import write_claims


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run that has begun."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(dump_config(load_config("debug", overrides=[f"output_dir={folder}"])))
    write_run_info(folder, {})
    append_row(folder / "metrics.jsonl", {"kind": "event", "event": "start", "step": 0, "lease": 1})
    return folder


def defer(run_dir: Path, *, step: int, lease: int = 1, is_saved: bool = True) -> None:
    append_row(run_dir / "metrics.jsonl", {"kind": "due", "lease": lease, "step": step, "epoch": 1.0})
    if is_saved:
        (run_dir / "checkpoints" / f"step-{step:08d}.lease-{lease}").mkdir(parents=True)


def score(run_dir: Path, *, step: int) -> None:
    path = run_dir / "scores" / f"step-{step:08d}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"step": step, "lease": 1, "scores": {"bleu": 1.0}}))


def test_pending_evaluations_are_listed_oldest_first(run_dir: Path) -> None:
    assert list_pending(run_dir) == []
    for step in (30, 20):
        defer(run_dir, step=step)
    assert list_pending(run_dir) == [PendingEvaluation(20, 1), PendingEvaluation(30, 1)]


def test_an_evaluation_without_a_checkpoint_is_not_pending(run_dir: Path) -> None:
    defer(run_dir, step=20)
    defer(run_dir, step=30, is_saved=False)
    assert list_pending(run_dir) == [PendingEvaluation(20, 1)]


def test_an_evaluation_that_has_scores_is_not_pending(run_dir: Path) -> None:
    for step in (10, 20):
        defer(run_dir, step=step)
    score(run_dir, step=10)
    assert list_pending(run_dir) == [PendingEvaluation(20, 1)]


def test_an_evaluation_of_a_superseded_checkpoint_is_not_pending(run_dir: Path) -> None:
    for step in (10, 20):
        defer(run_dir, step=step)
    write_claims(run_dir, 0, 10)
    assert list_pending(run_dir) == [PendingEvaluation(10, 1)]


def test_a_damaged_row_is_an_error_with_its_line(run_dir: Path) -> None:
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(RunFolderError, match=r"metrics\.jsonl:2"):
        list_pending(run_dir)
