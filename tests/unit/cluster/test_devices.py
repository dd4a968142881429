"""The device of a rank, and what all ranks refuse together; GPUs are pretended."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dstrain.cluster import devices
from dstrain.cluster.devices import Seat, check_seats, choose_device, explain_no_gpu, find_gpu_sign, take_seat
from dstrain.cluster.environment import ProcessInfo, read_process_info
from dstrain.errors import UserError


def show_gpus(monkeypatch: pytest.MonkeyPatch, *, count: int) -> list[torch.device]:
    """Pretend to have GPUs; returns the devices that are chosen."""
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    return chosen


def process(local_rank: int, *, launcher: str = "torchrun") -> ProcessInfo:
    return replace(read_process_info({}), local_rank=local_rank, world_size=8, launcher=launcher)


@pytest.mark.parametrize("local_rank", [0, 7])
def test_without_a_gpu_every_rank_takes_the_cpu(local_rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    show_gpus(monkeypatch, count=0)
    assert choose_device(process(local_rank), environment={}) == torch.device("cpu")


@pytest.mark.parametrize("local_rank", [0, 3])
def test_with_several_gpus_a_rank_takes_that_of_its_number(local_rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = show_gpus(monkeypatch, count=4)
    assert choose_device(process(local_rank)) == torch.device("cuda", local_rank)
    assert chosen == [torch.device("cuda", local_rank)]


@pytest.mark.parametrize("launcher", ["srun", "torchrun", "environment", "mpirun"])
def test_the_only_gpu_that_a_rank_is_shown_is_its_own(launcher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    show_gpus(monkeypatch, count=1)
    assert choose_device(process(3, launcher=launcher)) == torch.device("cuda", 0)


@pytest.mark.parametrize("launcher", ["srun", "torchrun"])
def test_more_ranks_than_gpus_are_refused(launcher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    show_gpus(monkeypatch, count=4)
    with pytest.raises(UserError, match="LOCAL_RANK 4 has no GPU: this node shows 4"):
        choose_device(process(4, launcher=launcher))


def test_the_cpu_is_taken_on_purpose_though_there_are_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = show_gpus(monkeypatch, count=4)
    assert choose_device(process(0), wanted="cpu", environment={"SLURM_JOB_GPUS": "0"}) == torch.device("cpu")
    assert chosen == []


@pytest.mark.parametrize(
    ("environment", "sign"),
    [
        ({"SLURM_GPUS_ON_NODE": "2"}, "Slurm gave this job GPUs (SLURM_GPUS_ON_NODE=2)"),
        ({"SLURM_JOB_GPUS": "0"}, "Slurm gave this job GPUs (SLURM_JOB_GPUS=0)"),
        ({"CUDA_VISIBLE_DEVICES": "3"}, "CUDA_VISIBLE_DEVICES=3"),
        ({"SLURM_GPUS_ON_NODE": "0"}, None),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, None),
        ({"CUDA_VISIBLE_DEVICES": ""}, None),
        ({}, None),
    ],
)
def test_what_says_that_there_is_a_gpu(environment: dict[str, str], sign: str | None, tmp_path: Path) -> None:
    assert find_gpu_sign(environment, devices=tmp_path) == sign


def test_the_devices_that_the_deepspeed_launcher_makes_up_are_no_sign(tmp_path: Path) -> None:
    assert find_gpu_sign({"CUDA_VISIBLE_DEVICES": "0,1"}, launcher="deepspeed", devices=tmp_path) is None
    assert find_gpu_sign({"SLURM_JOB_GPUS": "0"}, launcher="deepspeed", devices=tmp_path) is not None


def test_a_loaded_driver_says_that_there_is_a_gpu(tmp_path: Path) -> None:
    (tmp_path / "nvidia0").touch()
    assert find_gpu_sign({}, devices=tmp_path) == f"its driver is loaded ({tmp_path / 'nvidia0'})"


def test_a_gpu_that_torch_cannot_use_is_not_replaced_by_the_cpu_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    show_gpus(monkeypatch, count=0)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(UserError, match=r"although Slurm gave .*CPU build.*machine\.device=cpu"):
        choose_device(process(0), environment={"SLURM_GPUS_ON_NODE": "1"})
    monkeypatch.setattr(devices, "find_gpu_sign", lambda environment, launcher: None)
    with pytest.raises(UserError, match=r"although machine\.device is cuda.*CPU build"):
        choose_device(process(0), wanted="cuda", environment={})


def test_the_reason_is_the_build_the_environment_or_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    assert "CPU build" in explain_no_gpu({}, problem="Torch not compiled with CUDA enabled")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    hidden = explain_no_gpu({"CUDA_VISIBLE_DEVICES": ""}, problem="No CUDA GPUs are available")
    assert hidden.startswith("CUDA_VISIBLE_DEVICES='' hides them: unset it")
    old = "The NVIDIA driver on your system is too old (found version 12020)"
    assert explain_no_gpu({}, problem=old).endswith(f"built for 13.0) says: {old}")
    assert "nvidia-smi" in explain_no_gpu({}, problem=None)


def seats(*places: tuple[str, str | None, tuple[str, ...]]) -> list[Seat]:
    return [Seat(rank, host, gpu, visible) for rank, (host, gpu, visible) in enumerate(places)]


def test_ranks_on_gpus_of_their_own_or_all_on_the_cpu_may_compute_together() -> None:
    assert check_seats(seats(("a", None, ()), ("a", None, ()))) == []
    both = ("x", "y")
    # each sees all GPUs of its host, or its own alone; hosts may name their GPUs alike
    assert check_seats(seats(("a", "x", both), ("a", "y", both), ("b", "x", ("x",)), ("b", "y", ("y",)))) == []


def test_ranks_on_the_cpu_and_on_gpus_are_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"1 of 3 ranks have no GPU \(rank 1 on b …\).*machine\.device=cpu"):
        check_seats(seats(("a", "x", ("x",)), ("b", None, ()), ("c", "x", ("x",))))


def test_two_ranks_on_one_gpu_are_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"ranks 0 and 2 share one GPU \(x on a\)"):
        check_seats(seats(("a", "x", ("x",)), ("b", "x", ("x",)), ("a", "x", ("x",))))


def test_gpus_without_a_rank_are_warned_about() -> None:
    many = tuple("01234567")
    (warning,) = check_seats(seats(("a", "0", many), ("b", "0", ("0",))))
    assert warning == "a shows 8 GPUs, of which 1 have a rank: the others are idle"


def test_a_seat_names_the_gpu_and_all_that_are_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    show_gpus(monkeypatch, count=2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=f"GPU-{index}"))
    seat = take_seat(process(1), device=torch.device("cuda", 1))
    assert (seat.gpu, seat.visible) == ("GPU-1", ("GPU-0", "GPU-1"))
    assert take_seat(process(1), device=torch.device("cpu")).gpu is None


def test_slices_of_one_gpu_are_told_apart_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    show_gpus(monkeypatch, count=1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-8f2")
    assert take_seat(process(0), device=torch.device("cuda", 0)).gpu == "MIG-8f2"
