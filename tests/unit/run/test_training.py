"""The rows of an attempt: none of metrics.jsonl is lost on a full disk."""

import errno
import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dstrain.run.training import _build_recorder, _start_followers
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.outcome import read_unwritten, reserve_end
from dstrain.run_folder.rows import append_row
from dstrain.training.state import new_event
from tests.distributed.steps import build_config


def build_assembly(folder: Path, *, rank: int = 0) -> Any:
    return SimpleNamespace(
        folder=RunFolder(folder), ranks=SimpleNamespace(rank=rank), attempt=SimpleNamespace(number=3)
    )


def read_steps(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in RunFolder(folder).metrics.read_text().splitlines()]


def test_rank_0_writes_rows_with_the_number_of_its_lease_and_the_others_write_none(tmp_path: Path) -> None:
    record, _ = _build_recorder(build_assembly(tmp_path, rank=1))
    record(new_event("start", 0))
    assert not RunFolder(tmp_path).metrics.exists()
    record, _ = _build_recorder(build_assembly(tmp_path))
    record(new_event("start", 0, message="why"))
    row = json.loads(RunFolder(tmp_path).metrics.read_text())
    assert (row["kind"], row["event"], row["step"], row["message"], row["lease"]) == ("event", "start", 0, "why", 3)


def test_rows_wait_in_order_while_the_disk_is_full_and_the_warning_comes_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    is_full = True

    def append(path: Path, row: dict[str, Any]) -> None:
        if is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        append_row(path, row)

    monkeypatch.setattr("dstrain.run.training.append_row", append)
    reserve_end(tmp_path, attempt=3)
    record, write_waiting = _build_recorder(build_assembly(tmp_path))
    with caplog.at_level(logging.WARNING):
        for step in (1, 2, 3):
            record(new_event("resume", step))
    assert not RunFolder(tmp_path).metrics.exists()
    assert len(caplog.messages) == 1
    assert "No space left on device; rows are kept in memory until they can be written" in caplog.text
    assert read_unwritten(tmp_path) == {3: 1}
    write_waiting()
    is_full = False
    write_waiting()
    assert (read_steps(tmp_path), read_unwritten(tmp_path)) == ([1, 2, 3], {})
    record(new_event("finish", 4))
    assert read_steps(tmp_path) == [1, 2, 3, 4]


def test_only_rank_0_has_the_run_shown_in_trackers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[tuple[str, ...], Path]] = []
    monkeypatch.setattr(
        "dstrain.run.training.Followers", lambda names, *, run_dir: started.append((tuple(names), run_dir))
    )
    for rank in (0, 1):
        assembly = build_assembly(tmp_path, rank=rank)
        assembly.config = build_config(logging={"tensorboard": False, "trackers": {"wandb": {}, "mlflow": {}}})
        _start_followers(assembly)
    assert started == [(("wandb", "mlflow"), tmp_path), ((), tmp_path)]
