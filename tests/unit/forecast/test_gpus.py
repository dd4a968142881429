"""GPUs are found by the names that users and torch give them."""

import pytest

from dstrain.errors import UserError
from dstrain.forecast.gpus import GPUS, find_gpu, parse_memory, recognise


@pytest.mark.parametrize(
    ("name", "memory"),
    [("h100", 80), ("H100", 80), ("a100-40", 40), ("A100-80GB", 80), ("a100", 80), ("v100-32", 32), ("NVIDIA-l4", 24)],
)
def test_a_user_names_a_gpu(name: str, memory: float) -> None:
    assert find_gpu(name).memory_gb == memory


def test_an_unknown_gpu_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(UserError, match=r"--gpu z9: not known; take one of h200, h100.*--gpu-memory"):
        find_gpu("z9")


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA A100-SXM4-40GB", "a100-40"),
        ("NVIDIA A100 80GB PCIe", "a100-80"),
        ("Tesla V100-SXM2-16GB", "v100-16"),
        ("Tesla T4", "t4"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA GeForce RTX 3090", "rtx3090"),
        ("NVIDIA H200", "h200"),
    ],
)
def test_a_device_is_recognised_by_the_name_that_torch_gives_it(device: str, name: str) -> None:
    found = [gpu for gpu in GPUS.values() if recognise(device) == gpu]
    assert [gpu.name for gpu in found] == [name]


def test_other_devices_are_not_recognised() -> None:
    assert recognise("AMD Instinct MI300X") is None
    assert recognise("cpu") is None


def test_a_gpu_without_bf16_computes_in_fp32() -> None:
    assert find_gpu("t4").peak("bf16") == find_gpu("t4").peak("fp32") == 8.1e12
    assert find_gpu("t4").peak("fp16") == 65e12


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [("80GB", 80e9), ("80", 80e9), ("79.6 GiB", 79.6 * 2**30), ("16000mb", 16e9), ("1MiB", 2**20)],
)
def test_a_memory_is_read(text: str, num_bytes: float) -> None:
    assert parse_memory(text) == int(num_bytes)


@pytest.mark.parametrize("text", ["", "much", "80TB", "-3GB", "0"])
def test_what_is_no_memory_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="write a size such as 80GB"):
        parse_memory(text)
