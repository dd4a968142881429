"""A checkpoint exists if and only if its manifest verifies: what a manifest must contain, and what is refused."""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dstrain.checkpoint import manifest as manifest_module
from dstrain.checkpoint.manifest import (
    MANIFEST,
    CheckpointError,
    hash_file,
    load_manifest,
    save_manifest,
    verify_checkpoint,
)
from tests.unit.checkpoint.checkpoint_cases import (
    STATE,
    WEIGHTS,
    build_manifest,
    flip,
    read_values,
    save,
    seal,
    write_values,
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return save(tmp_path, step=7)


def forge(directory: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a manifest's values and update its own hash."""
    values = read_values(directory)
    change(values)
    write_values(directory, values)


def test_a_manifest_survives_the_round_trip(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "größe.bin").write_bytes(b"\0\xff")
    written = build_manifest(tmp_path, scores={"bleu": 31.2, "loss": math.inf}, content="weights")
    save_manifest(written, directory=tmp_path)
    assert load_manifest(tmp_path) == written
    assert verify_checkpoint(tmp_path) == written
    assert written.files[0].path == "part/größe.bin"
    assert not list(tmp_path.glob("*.tmp"))


def test_a_score_that_is_not_a_finite_number_does_not_make_a_checkpoint_unreadable(tmp_path: Path) -> None:
    save_manifest(build_manifest(tmp_path, scores={"loss": math.nan}), directory=tmp_path)
    scores = load_manifest(tmp_path).scores
    assert scores is not None
    assert math.isnan(scores["loss"])


@pytest.mark.parametrize("size", [0, 1, manifest_module.BLOCK_BYTES - 1, manifest_module.BLOCK_BYTES + 1])
def test_the_hash_is_sha256_of_the_whole_file(size: int, tmp_path: Path) -> None:
    content = os.urandom(size)
    path = tmp_path / "file"
    path.write_bytes(content)
    assert hash_file(path) == hashlib.sha256(content).hexdigest()


def test_a_file_that_the_manifest_does_not_name_is_ignored(directory: Path) -> None:
    (directory / "note.txt").write_text("mine")
    assert verify_checkpoint(directory).step == 7


def test_a_truncated_file_is_named_with_both_sizes(directory: Path) -> None:
    path = directory / WEIGHTS
    whole = path.stat().st_size
    os.truncate(path, whole - 1)
    with pytest.raises(CheckpointError, match=rf"{WEIGHTS}: {whole - 1} bytes.*says {whole}"):
        verify_checkpoint(directory)


def test_a_file_that_grew_is_named(directory: Path) -> None:
    with (directory / STATE).open("a") as file:
        file.write(" ")
    with pytest.raises(CheckpointError, match=rf"{STATE}: 3 bytes"):
        verify_checkpoint(directory)


@pytest.mark.parametrize(
    "path",
    [
        "../outside",
        "a/../../outside",
        "..",
        "/etc/hostname",
        "state.json\0",
        "/",
        "",
        ".",
        "./state.json",
        "a//b",
        "a\nb",
    ],
)
def test_a_path_that_leaves_the_directory_is_refused_before_anything_is_opened(path: str, directory: Path) -> None:
    (directory.parent / "outside").write_text("{}")
    forge(directory, lambda values: values["files"][0].update(path=path))
    with pytest.raises(CheckpointError, match=rf"{MANIFEST}: the path .* leaves the checkpoint directory"):
        load_manifest(directory)


def test_a_symbolic_link_in_the_middle_of_a_path_is_refused(directory: Path) -> None:
    outside = directory.parent / "outside"
    outside.mkdir()
    shutil.copy(directory / STATE, outside)
    (directory / "sub").symlink_to(outside)
    forge(directory, lambda values: values["files"][-1].update(path=f"sub/{STATE}"))
    with pytest.raises(CheckpointError, match=rf"'sub/{STATE}' leaves the checkpoint directory"):
        verify_checkpoint(directory)


@pytest.mark.parametrize("name", [STATE, MANIFEST])
def test_a_link_to_itself_is_refused(name: str, directory: Path) -> None:
    (directory / name).unlink()
    (directory / name).symlink_to(name)
    with pytest.raises(CheckpointError, match=name):
        verify_checkpoint(directory)


def test_a_run_folder_behind_a_symbolic_link_is_accepted(directory: Path) -> None:
    link = directory.parent / "scratch"
    link.symlink_to(directory)
    assert verify_checkpoint(link).step == 7


def test_a_directory_without_a_manifest_is_reported_as_an_unfinished_save(directory: Path) -> None:
    (directory / MANIFEST).unlink()
    with pytest.raises(CheckpointError, match=rf"{MANIFEST}: No such file.*not finished"):
        load_manifest(directory)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "7", '"text"', "\xff", "[" * 100_000, '{"a":' * 100_000, "1" * 5000],
    ids=lambda text: text[:20] or "empty",
)
def test_a_file_that_is_not_a_manifest_is_named(text: str, directory: Path) -> None:
    (directory / MANIFEST).write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError, match=rf"{MANIFEST}: malformed"):
        load_manifest(directory)


def test_a_truncated_manifest_is_refused(directory: Path) -> None:
    whole = (directory / MANIFEST).read_bytes()
    for length in range(len(whole)):
        (directory / MANIFEST).write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=MANIFEST):
            load_manifest(directory)


def test_every_flipped_bit_of_a_manifest_is_found_even_if_it_changes_no_value(directory: Path) -> None:
    path = directory / MANIFEST
    assert b"1e-05" in path.read_bytes(), "which another bit makes 1E-05, an equal number"
    for bit in range(8 * path.stat().st_size):
        flip(path, bit=bit)
        with pytest.raises(CheckpointError, match=MANIFEST):
            load_manifest(directory)
        flip(path, bit=bit)
    assert load_manifest(directory).step == 7


def test_a_changed_value_is_found_by_the_manifests_own_hash(directory: Path) -> None:
    values = read_values(directory)
    (directory / MANIFEST).write_text(json.dumps(values | {"step": 8}, indent=1, sort_keys=True))
    with pytest.raises(CheckpointError, match=rf"{MANIFEST}: its content does not match its own sha256"):
        load_manifest(directory)


def test_a_repeated_key_is_refused(directory: Path) -> None:
    path = directory / MANIFEST
    path.write_text(path.read_text().replace('"step": 7', '"step": 8,\n "step": 7'))
    with pytest.raises(CheckpointError, match=rf"{MANIFEST}: its bytes are not those that were written"):
        load_manifest(directory)


@pytest.mark.parametrize("key", ["step", "lease", "world_size", "recipe_hash", "recipe", "versions", "files"])
def test_a_missing_key_is_named(key: str, directory: Path) -> None:
    forge(directory, lambda values: values.pop(key))
    with pytest.raises(CheckpointError, match=rf"{MANIFEST}: malformed.*{key}"):
        load_manifest(directory)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("step", -1),
        ("step", "7"),
        ("step", 7.0),
        ("step", True),
        ("step", None),
        ("step", 2**63),
        ("step", 10**4000),
        ("lease", -1),
        ("world_size", 0),
        ("recipe", []),
        ("recipe_hash", 3),
        ("versions", {"torch": 2}),
        ("versions", {str(number): "1" for number in range(1001)}),
        ("files", {}),
        ("files", [0]),
        ("scores", {"bleu": "high"}),
        ("scores", [1]),
        ("content", "optimizer"),
        ("invention", 1),
    ],
)
def test_a_value_of_another_type_is_malformed_even_with_the_right_hash(key: str, value: Any, directory: Path) -> None:
    forge(directory, lambda values: values.update({key: value}))
    with pytest.raises(CheckpointError, match=rf"{MANIFEST}: malformed.*{key}") as caught:
        verify_checkpoint(directory)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "entry",
    [
        {"path": 3},
        {"path": None},
        {"path": "x" * 1025},
        {"size": "2"},
        {"size": -1},
        {"size": 2**63},
        {"size": 1.5},
        {"sha256": 0},
        {"sha256": "0" * 63},
        {"sha256": "G" * 64},
        {"sha256": "0" * 64 + "\n"},
        {"mode": 7},
    ],
)
def test_a_file_entry_with_other_types_is_malformed(entry: dict[str, Any], directory: Path) -> None:
    forge(directory, lambda values: values["files"][0].update(entry))
    with pytest.raises(CheckpointError, match=rf"{MANIFEST}: malformed \(files\.0"):
        load_manifest(directory)


def test_a_file_named_twice_is_malformed(directory: Path) -> None:
    forge(directory, lambda values: values["files"].append(values["files"][0]))
    with pytest.raises(CheckpointError, match=rf"{MANIFEST}: malformed \(a file is named twice"):
        load_manifest(directory)


@pytest.mark.parametrize("number", [0, 1, 3, "2", None, [2], 10**4000])
def test_another_format_is_refused_by_its_number_whatever_its_keys_are(number: Any, directory: Path) -> None:
    forge(directory, lambda values: values.update(format=number, invention="x"))
    with pytest.raises(CheckpointError, match=rf"{MANIFEST}: format .*, this version reads 2") as caught:
        load_manifest(directory)
    assert repr(number)[:9] in str(caught.value)


def test_a_huge_manifest_is_not_read(directory: Path) -> None:
    os.truncate(directory / MANIFEST, manifest_module.MAX_MANIFEST_BYTES + 1)
    with pytest.raises(CheckpointError, match=rf"{MANIFEST}: larger than"):
        load_manifest(directory)


def test_a_path_longer_than_the_system_accepts_is_an_error_of_the_checkpoint(directory: Path) -> None:
    forge(directory, lambda values: values["files"][0].update(path="x" * 1000))
    with pytest.raises(CheckpointError, match="cannot be read"):
        verify_checkpoint(directory)


def test_a_message_has_no_terminal_control_characters(directory: Path) -> None:
    forge(directory, lambda values: values.update({"\x1b[31m\n": 1}))
    with pytest.raises(CheckpointError, match="malformed") as caught:
        load_manifest(directory)
    assert str(caught.value).isprintable()


def test_a_checkpoint_without_files_verifies(tmp_path: Path) -> None:
    seal(tmp_path)
    assert verify_checkpoint(tmp_path).files == ()
