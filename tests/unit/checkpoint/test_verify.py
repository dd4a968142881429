"""The status of each checkpoint of a run, and which one the next attempt resumes from."""

import shutil
from pathlib import Path

import pytest

from dstrain.checkpoint import verify
from dstrain.checkpoint.manifest import CheckpointError, Manifest
from dstrain.checkpoint.store import CheckpointName, begin_save, checkpoint_dirs, trim_checkpoint
from dstrain.checkpoint.verify import CheckpointStatus, inspect_checkpoint, inspect_run, is_checkpoint, is_sound
from tests.unit.checkpoint.checkpoint_cases import OPTIMIZER, WEIGHTS, break_file, save
from tests.unit.checkpoint.verify_cases import save_four, write_claims


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The checkpoints folder of a run of four saves."""
    return save_four(tmp_path)


def named(statuses: list[CheckpointStatus], step: int) -> CheckpointStatus:
    (found,) = [status for status in statuses if f"step-{step:08d}." in status.directory.name]
    return found


def test_checkpoints_are_listed_newest_first_and_the_newest_is_the_next_to_resume_from(root: Path) -> None:
    statuses = inspect_run(root.parent)
    assert [status.directory for status in statuses] == checkpoint_dirs(root)
    assert [status.is_next for status in statuses] == [True, False, False, False]
    assert all(status.is_valid and not status.is_superseded for status in statuses)
    assert is_sound(statuses)
    manifest = named(statuses, 20).manifest
    assert manifest is not None
    assert (manifest.step, manifest.scores) == (20, {"bleu": 10.0})


def test_the_size_is_the_sum_of_all_files(root: Path) -> None:
    directory = root / "step-00000040.lease-1"
    assert inspect_checkpoint(directory).num_bytes == sum(path.stat().st_size for path in directory.iterdir())


def test_a_run_folder_and_its_checkpoints_folder_have_the_same_result(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_claims(root.parent, 0, 10)
    statuses = inspect_run(root.parent)
    assert inspect_run(root) == statuses
    monkeypatch.chdir(root)
    assert [status.is_superseded for status in inspect_run(Path())] == [True, True, True, False]


def test_a_broken_checkpoint_is_named_and_the_previous_one_is_the_next_to_resume_from(root: Path) -> None:
    broken = break_file(root / "step-00000040.lease-1")
    statuses = inspect_run(root.parent)
    assert named(statuses, 40).problem == f"{broken}: its content does not match the manifest's sha256"
    assert [status.is_next for status in statuses] == [False, True, False, False]
    assert not is_sound(statuses)


def test_a_checkpoint_of_weights_only_is_valid_but_not_resumed_from(root: Path) -> None:
    trim_checkpoint(root / "step-00000040.lease-1")
    statuses = inspect_run(root.parent)
    assert named(statuses, 40).is_valid
    assert [status.is_next for status in statuses] == [False, True, False, False]
    assert is_sound(statuses)


def test_a_run_with_checkpoints_of_weights_only_cannot_resume(root: Path) -> None:
    for directory in checkpoint_dirs(root):
        trim_checkpoint(directory)
    assert not is_sound(inspect_run(root.parent))


def test_a_checkpoint_of_a_writer_that_no_longer_held_the_lease_is_superseded(root: Path) -> None:
    save(root, step=25, lease=2)
    write_claims(root.parent, 0, 20)
    statuses = inspect_run(root.parent)
    assert [status.is_superseded for status in statuses] == [True, True, False, False, False]
    assert [status.is_next for status in statuses] == [False, False, True, False, False]
    assert is_sound(statuses)


def test_leftovers_are_listed_last_and_are_not_broken_checkpoints(root: Path) -> None:
    parts = begin_save(root, name=CheckpointName(50, 1))
    (parts / WEIGHTS).write_text("half")
    (root / "step-00000001.lease-1.old").mkdir()
    statuses = inspect_run(root.parent)
    assert [status.directory.name for status in statuses if status.is_leftover] == [
        "step-00000001.lease-1.old",
        "step-00000050.lease-1.tmp",
    ]
    assert [status.is_leftover for status in statuses] == [False] * 4 + [True] * 2
    assert statuses[-1].num_bytes == 4
    assert not any(status.is_valid or status.is_next for status in statuses[4:])
    assert is_sound(statuses)


def test_other_files_in_the_folder_are_ignored(root: Path) -> None:
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
    statuses = inspect_run(root.parent)
    assert [status.directory for status in statuses] == checkpoint_dirs(root)
    assert len(statuses) == 3
    assert is_sound(statuses)


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
    assert newest.is_valid
    assert newest.manifest is not None
    assert newest.manifest.content == "weights"
    assert not newest.is_next


def test_a_renamed_copy_is_broken_inside_the_run_folder_and_valid_outside_it(root: Path) -> None:
    shutil.copytree(root / "step-00000040.lease-1", root / "step-00000090.lease-1")
    shutil.copytree(root / "step-00000040.lease-1", root.parent / "kept")
    copied = inspect_run(root.parent)[0]
    assert copied.problem is not None
    assert "renamed or copied" in copied.problem
    assert is_checkpoint(root.parent / "kept")
    assert inspect_checkpoint(root.parent / "kept").is_valid
