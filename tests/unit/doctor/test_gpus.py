"""What nvidia-smi tells: the driver, memory in use, and processes of others."""

from collections.abc import Sequence

import pytest

from dstrain.doctor.finding import ok
from dstrain.doctor.gpus import GPUS, GpuUse, ask_gpus, judge_use, read_gpus
from dstrain.doctor.programs import Done

LISTED = """\
0, GPU-aaaa, NVIDIA H100 80GB HBM3, 570.86.15, 81559, 4
1, GPU-bbbb, NVIDIA H100 80GB HBM3, 570.86.15, 81559, 40960
"""
PROCESSES = "GPU-bbbb, 4711, 20000\nGPU-bbbb, 4712, [N/A]\n"
IDLE = GpuUse(0, "NVIDIA H100 80GB HBM3", "570.86.15", 81559, 4, ())
BUSY = GpuUse(1, "NVIDIA H100 80GB HBM3", "570.86.15", 81559, 40960, (4711, 4712))


def test_the_tables_are_read() -> None:
    assert read_gpus(LISTED, processes=PROCESSES) == [IDLE, BUSY]


@pytest.mark.parametrize("text", ["", "No devices were found\n", "a, b\n", "x, GPU-a, name, 1, 2, 3\n"])
def test_lines_of_another_form_are_no_gpu(text: str) -> None:
    assert read_gpus(text, processes=text) == []


def test_memory_that_is_not_told_counts_as_none() -> None:
    (gpu,) = read_gpus("0, GPU-a, GH200, 570.86, [N/A], [N/A]\n", processes="")
    assert (gpu.total_mib, gpu.used_mib) == (0.0, 0.0)
    assert [each.level for each in judge_use([gpu], done=Done(0))] == ["ok"]


def test_a_gpu_that_others_use_is_noted_with_their_processes() -> None:
    driver, busy = judge_use([IDLE, BUSY], done=Done(0))
    assert driver == ok("driver", "570.86.15")
    assert busy.level == "note"
    assert busy.text == "GPU 1 (NVIDIA H100 80GB HBM3) has 40.0 of 79.6 GiB in use, by process 4711, 4712"
    assert "CUDA_VISIBLE_DEVICES" in (busy.way_out or "")


def test_memory_in_use_by_processes_that_are_not_told_is_noted_too() -> None:
    hidden = GpuUse(0, "A", "570", 1000, 600, ())
    assert [each.level for each in judge_use([hidden], done=Done(0))] == ["ok", "note"]


def test_a_driver_that_fails_or_hangs_is_told_from_none() -> None:
    assert list(judge_use([], done=None)) == []
    assert list(judge_use([], done=Done(0, "No devices were found\n"))) == []
    (failed,) = judge_use([], done=Done(9, "Failed to initialize NVML: Driver/library version mismatch\n"))
    assert (failed.level, failed.text) == (
        "note",
        "nvidia-smi failed: Failed to initialize NVML: Driver/library version mismatch",
    )
    (hung,) = judge_use([], done=Done(None))
    assert hung.level == "problem"


def test_processes_are_asked_for_only_where_there_are_gpus() -> None:
    asked: list[Sequence[str]] = []

    def run(command: Sequence[str]) -> Done | None:
        asked.append(command)
        return Done(0, LISTED if command == GPUS else PROCESSES)

    assert ask_gpus(run)[0] == [IDLE, BUSY]
    assert len(asked) == 2
    assert ask_gpus(lambda command: Done(9)) == ([], Done(9))
    assert ask_gpus(lambda command: None) == ([], None)
