"""The whole examination, with programs that answer, are missing or hang."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from dstrain.doctor.examine import Plan, examine
from dstrain.doctor.finding import Finding, problem
from dstrain.doctor.folders import Folder
from dstrain.doctor.libraries import PROBE, SECONDS
from dstrain.doctor.programs import Done

ANSWERS = [
    {"about": "torch", "version": "2.13.0", "cuda": None, "hip": None, "nccl": None, "gloo": True},
    {"about": "gpus", "gpus": []},
    {"about": "deepspeed", "version": "0.19.8", "device": "cpu"},
]
TOPICS = {
    *("versions", "packages", "torch", "cpus", "memory", "open files"),
    *("output", "cache", "hub cache", "host name", "ports", "environment"),
}


def findings(folder: Path, *, probe: Done | None) -> list[Finding]:
    def run(command: Sequence[str], *, seconds: float = 20.0) -> Done | None:
        assert (seconds == SECONDS) == (command == PROBE)
        return probe if command == PROBE else None

    return list(examine(Plan(folder / "runs", folder / "cache"), run=run))


@pytest.mark.parametrize(
    ("probe", "level"),
    [
        (Done(0, "\n".join(map(json.dumps, ANSWERS))), "ok"),
        (Done(None), "problem"),
        (Done(-11, err="Segmentation fault"), "problem"),
        (None, "problem"),
    ],
    ids=["answers", "hangs", "crashes", "is missing"],
)
def test_everything_is_examined_whatever_torch_does(probe: Done | None, level: str, tmp_path: Path) -> None:
    found = findings(tmp_path, probe=probe)
    assert {finding.topic for finding in found} >= TOPICS
    assert [finding.level for finding in found if finding.topic == "torch"] == [level]
    assert all(finding.way_out for finding in found if finding.level == "problem")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_looked_at_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> Folder:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("dstrain.doctor.examine.look_at_folder", refuse)
    (output,) = [finding for finding in findings(tmp_path, probe=None) if finding.topic == "output"]
    assert output == problem(
        "output", f"{tmp_path / 'runs'}: Permission denied", way_out="choose another folder with output_dir"
    )
