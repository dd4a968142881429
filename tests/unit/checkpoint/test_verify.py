"""`dstrain verify`: what each checkpoint of a run is worth, which one a start goes on from, and the exit code."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from dstrain.checkpoint import verify
from dstrain.checkpoint.manifest import MANIFEST, CheckpointError, Manifest, verify_checkpoint
from dstrain.checkpoint.store import CheckpointName, begin_save, checkpoint_dirs, trim_checkpoint
from dstrain.checkpoint.verify import Verdict, inspect_checkpoint, inspect_run, is_checkpoint, is_sound
from dstrain.cli import app
from dstrain.cluster.processes import this_process
from tests.unit.checkpoint.checkpoint_cases import OPTIMIZER, STATE, WEIGHTS, break_file, save

RUNNER = CliRunner(env={"COLUMNS": "200"})


def run_verify(path: Path) -> Result:
    return RUNNER.invoke(app, ["verify", str(path)])


def write_claims(run_dir: Path, *base_steps: int | None) -> None:
    """Claims of leases 1, 2, … with the steps that they went on from."""
    (run_dir / "lease").mkdir(parents=True, exist_ok=True)
    holder = asdict(this_process())
    for number, base_step in enumerate(base_steps, start=1):
        claim = {"number": number, "holder": holder, "base_step": base_step}
        (run_dir / "lease" / f"{number:08d}.json").write_text(json.dumps(claim))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The checkpoints folder of a run of four saves."""
    root = tmp_path / "run" / "checkpoints"
    for step in (10, 20, 30, 40):
        save(root, step=step, scores={"bleu": step / 2} if step == 20 else None)
    return root


def named(verdicts: list[Verdict], step: int) -> Verdict:
    (found,) = [verdict for verdict in verdicts if f"step-{step:08d}." in verdict.directory.name]
    return found


def test_a_whole_run_is_listed_newest_first_and_the_newest_is_gone_on_from(root: Path) -> None:
    verdicts = inspect_run(root.parent)
    assert [verdict.directory for verdict in verdicts] == checkpoint_dirs(root)
    assert [verdict.is_next for verdict in verdicts] == [True, False, False, False]
    assert all(verdict.is_whole and not verdict.is_superseded for verdict in verdicts)
    assert is_sound(verdicts)
    manifest = named(verdicts, 20).manifest
    assert manifest is not None
    assert (manifest.step, manifest.scores) == (20, {"bleu": 10.0})


def test_the_size_is_that_of_all_files(root: Path) -> None:
    directory = root / "step-00000040.lease-1"
    assert inspect_checkpoint(directory).num_bytes == sum(path.stat().st_size for path in directory.iterdir())


def test_a_run_folder_and_its_folder_of_checkpoints_are_the_same(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_claims(root.parent, 0, 10)
    verdicts = inspect_run(root.parent)
    assert inspect_run(root) == verdicts
    monkeypatch.chdir(root)
    assert [verdict.is_superseded for verdict in inspect_run(Path())] == [True, True, True, False]


def test_a_broken_one_is_named_and_the_one_before_is_gone_on_from(root: Path) -> None:
    broken = break_file(root / "step-00000040.lease-1")
    verdicts = inspect_run(root.parent)
    assert named(verdicts, 40).problem == f"{broken}: its content does not match the manifest's sha256"
    assert [verdict.is_next for verdict in verdicts] == [False, True, False, False]
    assert not is_sound(verdicts)


def test_weights_alone_are_whole_but_not_gone_on_from(root: Path) -> None:
    trim_checkpoint(root / "step-00000040.lease-1")
    verdicts = inspect_run(root.parent)
    assert named(verdicts, 40).is_whole
    assert [verdict.is_next for verdict in verdicts] == [False, True, False, False]
    assert is_sound(verdicts)


def test_a_run_of_weights_alone_cannot_go_on(root: Path) -> None:
    for directory in checkpoint_dirs(root):
        trim_checkpoint(directory)
    assert not is_sound(inspect_run(root.parent))


def test_what_was_committed_by_a_writer_who_had_lost_the_folder_is_superseded(root: Path) -> None:
    save(root, step=25, lease=2)
    write_claims(root.parent, 0, 20)
    verdicts = inspect_run(root.parent)
    assert [verdict.is_superseded for verdict in verdicts] == [True, True, False, False, False]
    assert [verdict.is_next for verdict in verdicts] == [False, False, True, False, False]
    assert is_sound(verdicts)


def test_leftovers_stand_at_the_end_and_break_nothing(root: Path) -> None:
    parts = begin_save(root, name=CheckpointName(50, 1))
    (parts / WEIGHTS).write_text("half")
    (root / "step-00000001.lease-1.old").mkdir()
    verdicts = inspect_run(root.parent)
    assert [verdict.directory.name for verdict in verdicts if verdict.is_leftover] == [
        "step-00000001.lease-1.old",
        "step-00000050.lease-1.tmp",
    ]
    assert [verdict.is_leftover for verdict in verdicts] == [False] * 4 + [True] * 2
    assert verdicts[-1].num_bytes == 4
    assert not any(verdict.is_whole or verdict.is_next for verdict in verdicts[4:])
    assert is_sound(verdicts)


def test_nothing_else_in_the_folder_is_looked_at(root: Path) -> None:
    (root / "note.txt").write_text("mine")
    (root / "latest").symlink_to("step-00000040.lease-1")
    assert len(inspect_run(root.parent)) == 4


def test_a_checkpoint_removed_meanwhile_is_not_listed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    oldest = root / "step-00000010.lease-1"
    real = verify.verify_committed

    def remove_first(directory: Path) -> Manifest:
        if directory == oldest:
            shutil.rmtree(directory, ignore_errors=True)
        return real(directory)

    monkeypatch.setattr(verify, "verify_committed", remove_first)
    verdicts = inspect_run(root.parent)
    assert [verdict.directory for verdict in verdicts] == checkpoint_dirs(root)
    assert len(verdicts) == 3
    assert is_sound(verdicts)


def test_a_checkpoint_trimmed_while_it_is_read_is_not_called_broken(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = verify.verify_committed, []

    def trim_meanwhile(directory: Path) -> Manifest:
        calls.append(directory)
        if calls == [directory]:
            trim_checkpoint(directory)
            raise CheckpointError(f"{directory / OPTIMIZER}: missing")
        return real(directory)

    monkeypatch.setattr(verify, "verify_committed", trim_meanwhile)
    newest = inspect_run(root.parent)[0]
    assert newest.is_whole
    assert newest.manifest is not None
    assert newest.manifest.content == "weights"
    assert not newest.is_next


def test_a_renamed_copy_is_broken_where_it_lies_and_whole_once_it_was_taken_elsewhere(root: Path) -> None:
    shutil.copytree(root / "step-00000040.lease-1", root / "step-00000090.lease-1")
    shutil.copytree(root / "step-00000040.lease-1", root.parent / "kept")
    copied = inspect_run(root.parent)[0]
    assert copied.problem is not None
    assert "renamed or copied" in copied.problem
    assert is_checkpoint(root.parent / "kept")
    assert inspect_checkpoint(root.parent / "kept").is_whole


def test_nothing_is_changed_by_looking(root: Path) -> None:
    break_file(root / "step-00000040.lease-1")
    begin_save(root, name=CheckpointName(50, 1))
    before = {path: path.stat().st_mtime_ns for path in sorted(root.parent.rglob("*"))}
    run_verify(root.parent)
    assert {path: path.stat().st_mtime_ns for path in sorted(root.parent.rglob("*"))} == before


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
    assert lines[0].endswith("whole; a start goes on from here")
    assert lines[1].endswith("whole")
    assert "bleu 10.0000" in lines[2]
    column = header.index("state")
    assert all(line[column:].startswith("whole") and line[column - 2 : column] == "  " for line in lines)


def test_the_command_says_everything_of_a_run_in_disorder(root: Path) -> None:
    broken = root / "step-00000030.lease-1" / STATE
    broken.unlink()
    save(root, step=15, lease=2)
    (root / "step-00000016.lease-2.tmp").mkdir()
    write_claims(root.parent, 0, 10)
    result = run_verify(root.parent)
    lines = result.stdout.splitlines()[1:]
    assert result.exit_code == 1
    assert "whole; superseded: a later start went on from an earlier step" in lines[0]
    assert f"broken: {broken}: missing; superseded" in lines[1]
    assert lines[3].endswith("whole; a start goes on from here")
    assert lines[5].endswith("unfinished: step-00000016.lease-2.tmp, removed by the next save")
    assert lines[5].split()[:3] == ["16", "2", "-"]


def test_the_command_fails_where_a_run_cannot_go_on(root: Path) -> None:
    for directory in checkpoint_dirs(root):
        trim_checkpoint(directory)
    result = run_verify(root)
    assert result.exit_code == 1
    assert "there is no checkpoint to go on from" in result.stderr


@pytest.mark.parametrize("name", ["checkpoints", ""])
def test_the_command_fails_where_there_are_no_checkpoints(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir(exist_ok=True)
    result = run_verify(tmp_path)
    assert result.exit_code == 1
    assert result.stderr == f"{tmp_path} holds no checkpoints\n"


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_what_is_no_folder_is_a_wrong_use(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert run_verify(tmp_path / name).exit_code == 2


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
    assert result.stdout.count("a start goes on from here") == 1
    assert result.exception is None or isinstance(result.exception, SystemExit)


def test_the_command_needs_no_torch(root: Path) -> None:
    code = (
        "import sys\nfrom dstrain.cli import app\n"
        "try: app(['verify', sys.argv[1]])\nexcept SystemExit as end: assert end.code == 0, end.code\n"
        "print([m for m in ('torch', 'deepspeed', 'transformers', 'datasets', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, root.parent], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert verify_checkpoint(root / "step-00000040.lease-1").step == 40
