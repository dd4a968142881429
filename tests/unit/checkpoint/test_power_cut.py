"""A power cut after any operation of a run's saves: the newest checkpoint, or the one being saved, is always found.

SIGKILL cannot show a missing fsync, so the disk is a model of what POSIX allows. Whether the model would notice is tested as
well: every sync that is left out, and every order that is changed, must be detected.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from dstrain.checkpoint import store
from dstrain.checkpoint.manifest import (
    MANIFEST,
    CheckpointError,
    Manifest,
    load_manifest,
    save_manifest,
    verify_checkpoint,
)
from dstrain.checkpoint.parts import write_blocks, write_tensors
from dstrain.checkpoint.store import (
    CheckpointName,
    begin_save,
    carry_out,
    checkpoint_dirs,
    parse_checkpoint_name,
    plan_pruning,
)
from dstrain.run_folder import atomic
from dstrain.run_folder.atomic import sync_path
from tests.unit.checkpoint.checkpoint_cases import OPTIMIZER, STATE, WEIGHTS, build_manifest, ignore
from tests.unit.checkpoint.durable_disk import DurableDisk, Image, write_image

STEPS = (10, 20, 30, 40, 50, 60, 70)
BEST = 20
DAMAGED = (40, 50)
"""Steps whose weights the disk damages right after their commit: two in a row, so that the newest two are broken."""


class Lost(AssertionError):
    """A power cut would have lost something that must not be lost."""


@dataclass
class Drive:
    """The saves of one run, and what must be found whenever the power is cut."""

    folder: Path
    """Holds the files that are left after a cut."""
    valid: list[int] = field(default_factory=list)
    """Steps whose commit has returned and that are not damaged."""
    in_flight: int | None = None
    disk: DurableDisk | None = None
    num_cuts: int = 0
    seen: set[tuple[Image, tuple[int | None, ...]]] = field(default_factory=set)

    def cut(self) -> None:
        """Check every directory tree that a power cut could leave now."""
        assert self.disk is not None
        newest = self.valid[-1] if self.valid else None
        allowed = (newest, self.in_flight)
        for image in self.disk.images():
            self.num_cuts += 1
            if (image, allowed) not in self.seen:
                self.seen.add((image, allowed))
                write_image(image, folder=self.folder)
                self.look(allowed)

    def look(self, allowed: tuple[int | None, int | None]) -> None:
        """Check what the next attempt would find."""
        root = self.folder / "run" / "checkpoints"
        for directory in checkpoint_dirs(root):
            name = parse_checkpoint_name(directory)
            try:
                verify_checkpoint(directory)
            except CheckpointError as error:
                if name is None or name.step not in DAMAGED:
                    raise Lost(f"a directory under its final name is not valid: {error}") from error
        found = store.newest_valid(root, on_broken=ignore)
        step = found[1].step if found else None
        if step not in allowed:
            raise Lost(f"found {step}, not one of {allowed}")
        if found is not None:
            try:
                verify_checkpoint(found[0])
            except CheckpointError as error:
                raise Lost(f"the checkpoint that was found is not valid: {error}") from error
        begin_save(root, name=CheckpointName(99, 9))  # the next save can begin whatever was left


def write_checkpoint(root: Path, *, step: int, drive: Drive) -> None:
    """One save, as the saver does it."""
    drive.in_flight = step
    parts = begin_save(root, name=CheckpointName(step, 1))
    tensors = {"master/w@0": torch.arange(float(step))}
    entries = (
        write_tensors(tensors, path=parts / WEIGHTS, on_stage=ignore),
        write_tensors({"exp_avg/w@0": torch.ones(3)}, path=parts / OPTIMIZER, on_stage=ignore),
        write_blocks([], [b"{}"], num_bytes=2, path=parts / STATE, on_stage=ignore),
    )
    store.commit_save(parts, manifest=build_manifest(parts, step=step, files=entries), on_stage=ignore)
    drive.valid.append(step)
    drive.in_flight = None


def is_valid(directory: Path) -> bool:
    try:
        return verify_checkpoint(directory).content == "full"
    except CheckpointError:
        return False


def train(
    tmp_path: Path,
    *,
    patch: pytest.MonkeyPatch,
    forgets: Callable[[Path], bool] = lambda path: False,
    judge: Callable[[Path], bool] = is_valid,
) -> Drive:
    """Save, prune and trim with a cut after every operation."""
    top = tmp_path / "disk"
    top.mkdir()
    drive = Drive(tmp_path / "after")
    drive.disk = DurableDisk(top, after=drive.cut, forgets=forgets)
    root = top / "run" / "checkpoints"
    with patch.context() as plugged:
        drive.disk.plug_in(plugged)
        (top / "run").mkdir()  # as an attempt creates it
        for step in STEPS:
            write_checkpoint(root, step=step, drive=drive)
            if step in DAMAGED:
                drive.valid.remove(step)
                drive.disk.damage(root / str(CheckpointName(step, 1)) / WEIGHTS)
            pruning = plan_pruning(
                root, claims=(), keep_last=2, keep_steps=[BEST], keep_weights_every=None, is_valid=judge
            )
            carry_out(pruning, on_stage=ignore)
            drive.cut()
    return drive


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Drive:
    """A run as the store writes it, whose power was cut after every operation."""
    return train(tmp_path_factory.mktemp("drive"), patch=pytest.MonkeyPatch())


def test_a_power_cut_at_any_operation_loses_at_most_the_save_in_flight(drive: Drive) -> None:
    assert drive.valid == [10, 20, 30, 60, 70]
    assert drive.num_cuts > 400
    left = {
        parse_checkpoint_name(path): verify_checkpoint(path).content
        for path in checkpoint_dirs(drive.folder.parent / "disk/run/checkpoints")
    }
    assert left == {CheckpointName(70, 1): "full", CheckpointName(60, 1): "full", CheckpointName(20, 1): "weights"}


def test_what_pruning_has_removed_stays_removed(drive: Drive) -> None:
    assert drive.disk is not None
    for image in drive.disk.images():
        write_image(image, folder=drive.folder)
        steps = {
            name.step
            for path in checkpoint_dirs(drive.folder / "run/checkpoints")
            if (name := parse_checkpoint_name(path))
        }
        assert steps == {20, 60, 70}


FORGOTTEN: dict[str, Callable[[Path], bool]] = {
    "the weights are not synced": lambda path: path.name == WEIGHTS,
    "the optimizer state is not synced": lambda path: path.name == OPTIMIZER,
    "the run's state is not synced": lambda path: path.name == STATE,
    "the manifest is not synced": lambda path: path.name.startswith(MANIFEST),
    "the checkpoint's directory is not synced": lambda path: path.name.startswith("step-") and path.suffix == ".tmp",
    "the directory of a trimmed checkpoint is not synced": lambda path: path.suffix == ".lease-1",
    "the folder of checkpoints is not synced": lambda path: path.name == "checkpoints",
    "the run folder is not synced": lambda path: path.name == "run",
    "the folder of runs is not synced": lambda path: path.name == "disk",
}


@pytest.mark.parametrize("forgets", FORGOTTEN.values(), ids=FORGOTTEN.keys())
def test_a_missing_sync_is_detected(
    forgets: Callable[[Path], bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Lost):
        train(tmp_path, patch=monkeypatch, forgets=forgets)


def test_a_rename_before_the_manifest_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def commit(parts: Path, *, manifest: Manifest, on_stage: store.OnStage) -> Path:
        final = parts.rename(parts.with_suffix(""))
        sync_path(final.parent)
        save_manifest(manifest, directory=final)
        sync_path(final)
        return final

    monkeypatch.setattr(store, "commit_save", commit)
    with pytest.raises(Lost, match=rf"under its final name is not valid.*{MANIFEST}"):
        train(tmp_path, patch=monkeypatch)


def test_a_rename_before_the_directory_is_synced_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def commit(parts: Path, *, manifest: Manifest, on_stage: store.OnStage) -> Path:
        with monkeypatch.context() as patch:
            patch.setattr(atomic, "sync_path", lambda path: None)
            save_manifest(manifest, directory=parts)
        final = parts.rename(parts.with_suffix(""))
        sync_path(final)
        sync_path(final.parent)
        return final

    monkeypatch.setattr(store, "commit_save", commit)
    with pytest.raises(Lost, match="under its final name is not valid"):
        train(tmp_path, patch=monkeypatch)


def test_pruning_before_the_newest_verifies_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Lost, match=r"found None, not one of \(30"):
        train(tmp_path, patch=monkeypatch, judge=lambda directory: True)


def test_a_removal_without_a_rename_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "remove_checkpoint", shutil.rmtree)
    with pytest.raises(Lost, match="under its final name is not valid"):
        train(tmp_path, patch=monkeypatch)


def test_a_removal_whose_rename_is_not_synced_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "remove_checkpoint", lambda directory: store._delete(store._set_aside(directory)))
    with pytest.raises(Lost, match="under its final name is not valid"):
        train(tmp_path, patch=monkeypatch)


def test_a_trim_before_the_manifest_is_changed_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trim = store.trim_checkpoint

    def trim_late(directory: Path) -> None:
        (directory / OPTIMIZER).unlink(missing_ok=True)
        trim(directory)

    monkeypatch.setattr(store, "trim_checkpoint", trim_late)
    with pytest.raises(Lost, match=f"under its final name is not valid.*{OPTIMIZER}"):
        train(tmp_path, patch=monkeypatch)


def test_an_attempt_that_does_not_verify_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "verify_checkpoint", load_manifest)
    with pytest.raises(Lost, match=r"found 40, not one of \(30"):
        train(tmp_path, patch=monkeypatch)


def test_the_simulated_disk_keeps_what_was_synced_and_may_lose_everything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = DurableDisk(tmp_path, after=lambda: None, forgets=lambda path: False)
    with monkeypatch.context() as plugged:
        disk.plug_in(plugged)
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "file").write_text("content")
        empty, named, filled = (), (("a", None),), (("a", None), ("a/file", b""))
        assert set(disk.images()) == {empty, named, filled}
        sync_path(tmp_path / "a" / "file")
        synced = (("a", None), ("a/file", b"content"))
        assert set(disk.images()) == {empty, named, synced}
        sync_path(tmp_path)
        assert set(disk.images()) == {named, synced}
        sync_path(tmp_path / "a")
        assert set(disk.images()) == {synced}
        (tmp_path / "a").rename(tmp_path / "b")
        assert set(disk.images()) == {synced, (("b", None), ("b/file", b"content"))}
        os.unlink(tmp_path / "b" / "file")
        assert set(disk.images()) == {synced, named, (("b", None),), (("b", None), ("b/file", b"content"))}
