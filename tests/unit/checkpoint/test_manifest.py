"""A checkpoint exists if and only if its manifest verifies: every kind of damage is found, and named."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoint_cases import break_file, build_manifest, save

from dstrain.checkpoint import manifest as manifest_module
from dstrain.checkpoint.manifest import (
    MANIFEST,
    CheckpointError,
    describe_file,
    hash_file,
    load_manifest,
    save_manifest,
    verify_checkpoint,
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return save(tmp_path, step=7)


def rewrite(directory: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a manifest's JSON values in place."""
    path = directory / MANIFEST
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def test_a_manifest_survives_the_round_trip(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "größe.bin").write_bytes(b"\0\xff")
    written = build_manifest(tmp_path)
    save_manifest(written, directory=tmp_path)
    assert load_manifest(tmp_path) == written
    assert verify_checkpoint(tmp_path) == written
    assert written.files[0].path == "part/größe.bin"


@pytest.mark.parametrize("size", [0, 1, manifest_module.BLOCK_BYTES - 1, manifest_module.BLOCK_BYTES + 1])
def test_the_hash_is_sha256_of_the_whole_file(size: int, tmp_path: Path) -> None:
    content = os.urandom(size)
    path = tmp_path / "file"
    path.write_bytes(content)
    assert hash_file(path) == hashlib.sha256(content).hexdigest()
    assert describe_file(path, directory=tmp_path).size == size


def test_an_unnamed_file_beside_the_others_does_no_harm(directory: Path) -> None:
    (directory / "note.txt").write_text("mine")
    assert verify_checkpoint(directory).step == 7


def test_a_missing_file_is_named(directory: Path) -> None:
    (directory / "state.json").unlink()
    with pytest.raises(CheckpointError, match=r"state\.json: missing"):
        verify_checkpoint(directory)


def test_a_directory_in_the_place_of_a_file_is_named(directory: Path) -> None:
    (directory / "state.json").unlink()
    (directory / "state.json").mkdir()
    with pytest.raises(CheckpointError, match=r"state\.json: missing"):
        verify_checkpoint(directory)


@pytest.mark.parametrize("length", [0, 1, -1])
def test_a_truncated_file_is_named_with_both_sizes(length: int, directory: Path) -> None:
    path = directory / "rank-00000.safetensors"
    whole = path.stat().st_size
    os.truncate(path, length % whole)
    with pytest.raises(CheckpointError, match=rf"rank-00000\.safetensors: {length % whole} bytes.*says {whole}"):
        verify_checkpoint(directory)


def test_a_file_that_grew_is_named(directory: Path) -> None:
    with (directory / "state.json").open("a") as file:
        file.write(" ")
    with pytest.raises(CheckpointError, match=r"state\.json: 3 bytes"):
        verify_checkpoint(directory)


def test_one_flipped_bit_is_found(directory: Path) -> None:
    path = break_file(directory)
    with pytest.raises(CheckpointError, match=rf"{path.name}: its content does not match"):
        verify_checkpoint(directory)


def test_a_file_that_the_disk_cannot_read_is_named(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(path: Path) -> str:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(manifest_module, "hash_file", unreadable)
    with pytest.raises(CheckpointError, match=r"cannot be read \(Input/output error\)"):
        verify_checkpoint(directory)


@pytest.mark.parametrize("path", ["../outside", "a/../../outside", "..", "/etc/hostname", "state.json\0", "/"])
def test_a_path_that_leaves_the_directory_is_refused(path: str, directory: Path) -> None:
    (directory.parent / "outside").write_text("{}")
    rewrite(directory, lambda values: values["files"][0].update(path=path))
    with pytest.raises(CheckpointError, match=rf"{MANIFEST}: the path .* leaves the checkpoint directory"):
        verify_checkpoint(directory)


def test_a_symbolic_link_is_refused(directory: Path) -> None:
    outside = directory.parent / "outside"
    (directory / "state.json").rename(outside)
    (directory / "state.json").symlink_to(outside)
    with pytest.raises(CheckpointError, match=r"'state\.json' leaves the checkpoint directory"):
        verify_checkpoint(directory)


def test_a_symbolic_link_in_the_middle_of_a_path_is_refused(directory: Path) -> None:
    outside = directory.parent / "outside"
    outside.mkdir()
    shutil.copy(directory / "state.json", outside)
    (directory / "sub").symlink_to(outside)
    rewrite(directory, lambda values: values["files"][1].update(path="sub/state.json"))
    with pytest.raises(CheckpointError, match="leaves the checkpoint directory"):
        verify_checkpoint(directory)


def test_a_link_to_itself_is_refused(directory: Path) -> None:
    (directory / "state.json").unlink()
    (directory / "state.json").symlink_to("state.json")
    with pytest.raises(CheckpointError):
        verify_checkpoint(directory)


def test_a_run_folder_reached_by_a_symbolic_link_is_no_fault(directory: Path) -> None:
    link = directory.parent / "scratch"
    link.symlink_to(directory)
    assert verify_checkpoint(link).step == 7


def test_a_directory_without_a_manifest_is_an_unfinished_save(directory: Path) -> None:
    (directory / MANIFEST).unlink()
    with pytest.raises(CheckpointError, match=rf"{MANIFEST}: No such file.*not finished"):
        load_manifest(directory)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "7", '"text"', "{}", '{"format": 1}', "\xff", '{"format": 1, "files": 3}', "[" * 100_000],
    ids=lambda text: text[:20] or "empty",
)
def test_a_malformed_manifest_is_named(text: str, directory: Path) -> None:
    (directory / MANIFEST).write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError, match=rf"{MANIFEST}: malformed"):
        load_manifest(directory)


def test_a_manifest_cut_short_anywhere_is_never_taken_for_one(directory: Path) -> None:
    whole = (directory / MANIFEST).read_bytes()
    for length in range(len(whole)):
        (directory / MANIFEST).write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=MANIFEST):
            load_manifest(directory)


@pytest.mark.parametrize("key", ["step", "world_size", "recipe_hash", "recipe", "versions", "files", "format"])
def test_a_missing_key_is_named(key: str, directory: Path) -> None:
    rewrite(directory, lambda values: values.pop(key))
    with pytest.raises(CheckpointError, match=f"malformed.*'{key}'"):
        load_manifest(directory)


@pytest.mark.parametrize("entry", [{"path": 3}, {"path": None}, {"size": "2"}, {"sha256": 0}, {"mode": 7}])
def test_a_file_entry_of_other_types_is_malformed(entry: dict[str, Any], directory: Path) -> None:
    rewrite(directory, lambda values: values["files"][0].update(entry))
    with pytest.raises(CheckpointError, match=rf"{MANIFEST}: malformed"):
        load_manifest(directory)


@pytest.mark.parametrize("number", [0, 2, "1", None])
def test_another_format_is_refused_by_number_whatever_its_keys_are(number: Any, directory: Path) -> None:
    rewrite(directory, lambda values: values.update(format=number, invention="x"))
    with pytest.raises(CheckpointError, match=rf"{MANIFEST}: format {number!r}, this version reads 1"):
        load_manifest(directory)


def test_a_huge_manifest_is_not_read(directory: Path) -> None:
    os.truncate(directory / MANIFEST, manifest_module.MAX_MANIFEST_BYTES + 1)
    with pytest.raises(CheckpointError, match=rf"{MANIFEST}: larger than"):
        load_manifest(directory)
