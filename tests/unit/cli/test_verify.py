"""`dstrain verify`: the table of checkpoints and the exit code."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from dstrain.checkpoint.manifest import MANIFEST, verify_checkpoint
from dstrain.checkpoint.store import CheckpointName, begin_save, checkpoint_dirs, trim_checkpoint
from dstrain.cli.app import app
from tests.unit.checkpoint.checkpoint_cases import STATE, break_file, save
from tests.unit.checkpoint.verify_cases import save_four, write_claims

RUNNER = CliRunner(env={"COLUMNS": "200"})


def run_verify(path: Path) -> Result:
    return RUNNER.invoke(app, ["verify", str(path)])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The checkpoints folder of a run of four saves."""
    return save_four(tmp_path)


def test_the_command_prints_an_aligned_line_a_checkpoint(root: Path) -> None:
    trim_checkpoint(root / "step-00000020.lease-1")
    result = run_verify(root.parent)
    assert result.exit_code == 0
    header, *lines = result.stdout.splitlines()
    assert header.split() == ["step", "lease", "content", "size", "scores", "state"]
    assert [line.split()[:3] for line in lines] == [
        ["40", "1", "full"],
        ["30", "1", "full"],
        ["20", "1", "weights"],
        ["10", "1", "full"],
    ]
    assert lines[0].endswith("valid; the next attempt resumes from here")
    assert lines[1].endswith("valid")
    assert "bleu 10.0000" in lines[2]
    column = header.index("state")
    assert all(line[column:].startswith("valid") and line[column - 2 : column] == "  " for line in lines)


def test_the_command_says_everything_of_a_run_in_disorder(root: Path) -> None:
    broken = root / "step-00000030.lease-1" / STATE
    broken.unlink()
    save(root, step=15, lease=2)
    (root / "step-00000016.lease-2.tmp").mkdir()
    write_claims(root.parent, 0, 10)
    result = run_verify(root.parent)
    lines = result.stdout.splitlines()[1:]
    assert result.exit_code == 1
    assert "valid; superseded: a later attempt resumed from an earlier step" in lines[0]
    assert f"broken: {broken}: missing; superseded" in lines[1]
    assert lines[3].endswith("valid; the next attempt resumes from here")
    assert lines[5].endswith("unfinished: step-00000016.lease-2.tmp, removed by the next save")
    assert lines[5].split()[:3] == ["16", "2", "-"]


def test_the_command_fails_where_a_run_cannot_resume(root: Path) -> None:
    for directory in checkpoint_dirs(root):
        trim_checkpoint(directory)
    result = run_verify(root)
    assert result.exit_code == 1
    assert "there is no checkpoint to resume from" in result.stderr


@pytest.mark.parametrize("name", ["checkpoints", ""])
def test_the_command_fails_where_there_are_no_checkpoints(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir(exist_ok=True)
    result = run_verify(tmp_path)
    assert result.exit_code == 1
    assert result.stderr == f"{tmp_path} holds no checkpoints\n"


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_what_is_no_folder_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run_verify(tmp_path / name)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"{tmp_path / name}: no such folder; give the run folder")


def test_one_checkpoint_is_judged_by_itself(root: Path) -> None:
    directory = root / "step-00000020.lease-1"
    break_file(root / "step-00000040.lease-1")
    result = run_verify(directory)
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 2
    trim_checkpoint(directory)
    assert run_verify(directory).exit_code == 0
    (directory / MANIFEST).unlink()
    result = run_verify(directory)
    assert result.exit_code == 1
    assert f"broken: {directory / MANIFEST}: No such file or directory; the save was not finished" in result.stdout


def test_one_leftover_is_unfinished(root: Path) -> None:
    result = run_verify(begin_save(root, name=CheckpointName(50, 1)))
    assert result.exit_code == 1
    assert "unfinished" in result.stdout


def test_no_more_than_a_few_scores_are_shown_and_nothing_that_a_terminal_would_obey(root: Path) -> None:
    scores: dict[str, Any] = {f"\x1b[3{number}m": float(number) for number in range(9)}
    result = run_verify(save(root, step=50, scores=scores))
    assert "\x1b" not in result.stdout
    assert result.stdout.count("?[3") == 4
    assert "…" in result.stdout


def test_a_pipe_a_link_and_a_file_in_the_place_of_checkpoints_are_broken_and_end_nothing(root: Path) -> None:
    os.mkfifo(root / "step-00000050.lease-1")
    (root / "step-00000051.lease-1").write_text("")
    (root / "step-00000052.lease-1").symlink_to("nowhere")
    result = run_verify(root.parent)
    assert result.exit_code == 1
    assert result.stdout.count("broken: ") == 3
    assert result.stdout.count("the next attempt resumes from here") == 1
    assert result.exception is None or isinstance(result.exception, SystemExit)


def test_the_command_needs_no_torch(root: Path) -> None:
    code = (
        "import sys\nfrom dstrain.cli.app import app\n"
        "try: app(['verify', sys.argv[1]])\nexcept SystemExit as end: assert end.code == 0, end.code\n"
        "print([m for m in ('torch', 'deepspeed', 'transformers', 'datasets', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, root.parent], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert verify_checkpoint(root / "step-00000040.lease-1").step == 40


def test_nothing_is_changed_by_looking(root: Path) -> None:
    break_file(root / "step-00000040.lease-1")
    begin_save(root, name=CheckpointName(50, 1))
    before = {path: path.stat().st_mtime_ns for path in sorted(root.parent.rglob("*"))}
    run_verify(root.parent)
    assert {path: path.stat().st_mtime_ns for path in sorted(root.parent.rglob("*"))} == before
