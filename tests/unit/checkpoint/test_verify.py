"""What each checkpoint of a run is worth, and which one the next attempt resumes from."""

import shutil
from pathlib import Path

import pytest

from dstrain.checkpoint import verify
from dstrain.checkpoint.manifest import CheckpointError, Manifest
from dstrain.checkpoint.store import CheckpointName, begin_save, checkpoint_dirs, trim_checkpoint
from dstrain.checkpoint.verify import Verdict, inspect_checkpoint, inspect_run, is_checkpoint, is_sound
from tests.unit.checkpoint.checkpoint_cases import OPTIMIZER, WEIGHTS, break_file, save
from tests.unit.checkpoint.verify_cases import save_four, write_claims


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The checkpoints folder of a run of four saves."""
    return save_four(tmp_path)


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
