"""Written files: the safetensors library reads them bit for bit, and the entry has the hash of the tensors in memory."""

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from dstrain.checkpoint import parts
from dstrain.checkpoint.parts import write_blocks, write_tensors
from tests.unit.checkpoint.checkpoint_cases import ignore

GENERATOR = torch.Generator().manual_seed(0)


def numbers(*shape: int) -> Tensor:
    """Any bit patterns, including NaN and denormal numbers."""
    return (
        torch.randint(-(2**31), 2**31 - 1, shape, generator=GENERATOR, dtype=torch.int64)
        .to(torch.int32)
        .view(torch.float32)
    )


CASES: dict[str, dict[str, Tensor]] = {
    "one": {"master/w@0": numbers(10)},
    "several": {"master/b@7": numbers(3), "master/a@0": numbers(1), 'master/größe "x"\\@0': numbers(2)},
    "shapes": {"scalar": numbers(), "matrix": numbers(3, 5), "cube": numbers(2, 1, 3)},
    "nothing": {},
    "without elements": {"master/a@0": numbers(0), "master/b@0": numbers(2), "master/c@0": numbers(4, 0)},
    "only without elements": {"master/a@0": numbers(0)},
}


@pytest.mark.parametrize("tensors", CASES.values(), ids=CASES.keys())
def test_the_library_reads_what_was_written_bit_for_bit(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    entry = write_tensors(tensors, path=path, on_stage=ignore)
    read = load_file(path)
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].shape == tensor.shape
        assert torch.equal(read[name].view(torch.int32), tensor.view(torch.int32)), name
    assert (entry.path, entry.size) == (path.name, path.stat().st_size)
    assert entry.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("length", range(1, 9))
def test_a_header_of_any_length_leaves_the_data_aligned(length: int, tmp_path: Path) -> None:
    tensors = {"n" * length: numbers(3)}
    path = tmp_path / "weights.safetensors"
    write_tensors(tensors, path=path, on_stage=ignore)
    content = path.read_bytes()
    assert int.from_bytes(content[:8], "little") % 8 == 0
    assert torch.equal(load_file(path)["n" * length].view(torch.int32), tensors["n" * length].view(torch.int32))
    # a file of the library differs only in the header, if at all
    assert json.loads(content[8:-12]) == json.loads(save(tensors)[8:-12])


def test_tensors_larger_than_a_block_are_written_completely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "WRITTEN_BYTES", 12)
    tensors = {"a": numbers(10), "b": numbers(3), "c": numbers(7, 2)}
    entry = write_tensors(tensors, path=tmp_path / "w", on_stage=ignore)
    read = load_file(tmp_path / "w")
    assert all(torch.equal(read[name].view(torch.int32), tensor.view(torch.int32)) for name, tensor in tensors.items())
    assert entry.sha256 == hashlib.sha256((tmp_path / "w").read_bytes()).hexdigest()


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, view: write(descriptor, bytes(view[:5])))
    entry = write_tensors({"a": numbers(10)}, path=tmp_path / "w", on_stage=ignore)
    assert entry.size == (tmp_path / "w").stat().st_size
    assert entry.sha256 == hashlib.sha256((tmp_path / "w").read_bytes()).hexdigest()


def test_a_full_disk_is_an_error_and_not_a_short_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, view: memoryview) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        write_tensors({"a": numbers(10)}, path=tmp_path / "w", on_stage=ignore)


def test_stages_are_reported_as_they_are_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "WRITTEN_BYTES", 4)
    path = tmp_path / "w"
    sizes: dict[str, int] = {}

    def on_stage(stage: str) -> None:
        assert stage not in sizes, "reported twice"
        sizes[stage] = path.stat().st_size if path.exists() else 0

    entry = write_tensors({"a": numbers(10)}, path=path, on_stage=on_stage)
    assert list(sizes) == ["write part", "part half written", "part written"]
    assert list(sizes.values()) == [0, entry.size - 20, entry.size]


def test_the_file_is_synced_after_its_last_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    entry = write_blocks([b"head"], [b"one", b"two"], num_bytes=6, path=tmp_path / "w", on_stage=ignore)
    assert synced == [entry.size] == [10]
    assert (tmp_path / "w").read_bytes() == b"headonetwo"


@pytest.mark.parametrize(
    "tensor", [numbers(4).half(), numbers(4).double(), numbers(4, 4).t(), torch.empty(2, device="meta")]
)
def test_other_tensors_than_contiguous_fp32_are_refused(tensor: Tensor, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        write_tensors({"a": tensor}, path=tmp_path / "w", on_stage=ignore)
    assert not (tmp_path / "w").exists()


def test_a_file_has_no_metadata(tmp_path: Path) -> None:
    write_tensors({"a": numbers(1)}, path=tmp_path / "w", on_stage=ignore)
    with safe_open(tmp_path / "w", framework="pt") as opened:
        assert opened.metadata() is None
