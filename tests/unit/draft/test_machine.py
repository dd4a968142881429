"""What a machine offers, by its devices and the environment."""

import os
from pathlib import Path

import pytest

from dstrain.draft.machine import Machine, look_at_machine


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidiactl"):
        (tmp_path / name).touch()
    return tmp_path


def test_gpus_are_counted_as_a_process_would_see_them(devices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert look_at_machine(devices=devices).num_gpus == 3
    for visible, number in (("0,1", 2), ("", 0), ("-1", 0), ("NoDevFiles", 0)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert look_at_machine(devices=devices).num_gpus == number


def test_another_machine_can_be_named(devices: Path, tmp_path: Path) -> None:
    assert not look_at_machine(device="cpu", devices=devices).has_gpu
    assert look_at_machine(device="cuda", devices=devices).num_gpus == 3
    assert look_at_machine(device="cuda", devices=tmp_path / "none").num_gpus == 1


def test_cpus_and_memory_are_those_of_the_process(tmp_path: Path) -> None:
    machine = look_at_machine(devices=tmp_path)
    assert machine.num_cpus == len(os.sched_getaffinity(0))
    assert machine.memory_bytes is not None
    assert machine.memory_bytes > 1e8


def test_it_is_said_in_words() -> None:
    assert str(Machine(0, 2, 16_000_000_000)) == "no GPU, 2 CPU cores, 16 GB of memory"
    assert str(Machine(1, 1, None)) == "1 GPU, 1 CPU core"
    assert str(Machine(8, 64, None)) == "8 GPUs, 64 CPU cores"
