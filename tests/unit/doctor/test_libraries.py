"""What the answers of the probe mean, of torch, GPUs and DeepSpeed, whole or broken."""

import json
from typing import Any

import pytest

from dstrain.doctor.finding import Finding, note, ok
from dstrain.doctor.libraries import DRIVER, PROBE, SECONDS, Wish, ask_libraries, judge_libraries, read_answers
from dstrain.doctor.programs import Done, run

TORCH = {"version": "2.13.0", "cuda": "12.9", "hip": None, "nccl": "2.27.5", "gloo": True}
CPU_TORCH = TORCH | {"version": "2.13.0+cpu", "cuda": None, "nccl": None}
GPU = {"name": "NVIDIA A100-SXM4-80GB", "memory_bytes": 85_000_000_000, "capability": "8.0", "bf16": True}
OLD_GPU = {"name": "Tesla V100-SXM2-16GB", "memory_bytes": 16_900_000_000, "capability": "7.0", "bf16": False}
WELL, ANY = Done(0), Wish()
DEEPSPEED = {"version": "0.19.8", "device": "cuda"}
HIDDEN = {
    "gpus": [],
    "sign": "its driver is loaded (/dev/nvidia0)",
    "reason": "this torch is a CPU build: install another",
}


def judge(
    torch: dict[str, Any] | None = None,
    gpus: dict[str, Any] | None = None,
    deepspeed: dict[str, Any] | None = None,
    *,
    done: Done = WELL,
    wish: Wish = ANY,
) -> list[Finding]:
    answers = {"torch": torch, "gpus": gpus, "deepspeed": deepspeed}
    return list(judge_libraries({name: each for name, each in answers.items() if each}, done=done, wish=wish))


def test_a_whole_installation_is_described() -> None:
    assert judge(TORCH, {"gpus": [GPU]}, DEEPSPEED, wish=Wish("cuda", "bf16")) == [
        ok("torch", "2.13.0, built for CUDA 12.9"),
        ok("NCCL", "2.27.5"),
        ok("gpu 0", "NVIDIA A100-SXM4-80GB, 85.0 GB, compute capability 8.0, bf16"),
        ok("deepspeed", "0.19.8, for cuda"),
    ]


def test_a_machine_without_a_gpu_trains_on_the_cpu() -> None:
    found = judge(CPU_TORCH, {"gpus": []}, DEEPSPEED | {"device": "cpu"})
    assert found[:2] == [
        ok("torch", "2.13.0+cpu, built for CPU"),
        note("gpus", "there is none: a run computes on the CPU"),
    ]


def test_a_recipe_that_wants_a_gpu_is_told_what_is_missing() -> None:
    found = judge(CPU_TORCH, {"gpus": []}, wish=Wish("cuda"))
    assert [(finding.topic, finding.level) for finding in found[:2]] == [("torch", "problem"), ("gpus", "problem")]
    assert all("machine.device: cuda" in finding.text for finding in found[:2])


@pytest.mark.parametrize(("device", "level"), [(None, "problem"), ("cuda", "problem"), ("cpu", "note")])
def test_a_gpu_that_torch_cannot_use_is_a_problem_unless_the_cpu_is_wanted(device: str | None, level: str) -> None:
    (finding,) = [each for each in judge(TORCH, HIDDEN, DEEPSPEED, wish=Wish(device)) if each.topic == "gpus"]
    assert finding.level == level
    assert finding.text.startswith("none can be used, although its driver is loaded (/dev/nvidia0)")
    assert (finding.way_out or "").startswith(HIDDEN["reason"]) == (device != "cpu")


def test_a_gpu_without_bf16_is_noted_if_the_recipe_wants_it() -> None:
    for precision, level in (("bf16", "note"), ("fp32", "ok"), ("fp16", "ok")):
        (finding,) = [
            each for each in judge(TORCH, {"gpus": [OLD_GPU]}, wish=Wish(None, precision)) if each.topic == "gpu 0"
        ]
        assert finding.level == level
        assert "no bf16" in finding.text


def test_a_gpu_that_cannot_compute_is_a_problem() -> None:
    broken = {key: value for key, value in OLD_GPU.items() if key != "bf16"} | {"error": "no kernel image is available"}
    found = judge(TORCH, {"gpus": [GPU, broken]}, DEEPSPEED)
    assert [(each.topic, each.level) for each in found if each.topic.startswith("gpu")] == [
        ("gpu 0", "ok"),
        ("gpu 1", "problem"),
    ]
    assert "a small computation failed: no kernel image is available" in found[3].text


def test_a_torch_for_gpus_without_nccl_and_one_for_cpus_without_gloo_are_problems() -> None:
    assert ("NCCL", "problem") in [(each.topic, each.level) for each in judge(TORCH | {"nccl": None}, {"gpus": []})]
    assert ("gloo", "problem") in [
        (each.topic, each.level) for each in judge(CPU_TORCH | {"gloo": False}, {"gpus": []})
    ]


def test_a_torch_that_cannot_be_imported_is_the_only_problem() -> None:
    broken = {"error": "ImportError: libcudnn.so.9: cannot open shared object file"}
    (finding,) = judge(broken, broken, broken)
    assert (finding.topic, finding.level, finding.text) == ("torch", "problem", broken["error"])
    assert finding.way_out


def test_what_fails_beside_it_is_named_for_itself() -> None:
    broken = {"error": "RuntimeError: no"}
    found = judge(CPU_TORCH, broken, broken)[1:]
    assert [(each.topic, each.level, each.text) for each in found] == [
        (topic, "problem", broken["error"]) for topic in ("gpus", "deepspeed")
    ]
    assert all(each.way_out for each in found)


@pytest.mark.parametrize(
    ("known", "topic", "said"),
    [({}, "torch", "importing torch"), ({"torch": TORCH}, "gpus", "asking the driver for GPUs")],
)
def test_what_hangs_or_crashes_is_named_once(known: dict[str, Any], topic: str, said: str) -> None:
    (*_, hung) = judge(**known, done=Done(None))
    assert (hung.topic, hung.level, hung.text) == (topic, "problem", f"{said} did not end within {SECONDS:.0f} s")
    (*_, crashed) = judge(**known, done=Done(-11, err="Fatal Python error: Segmentation fault\n"))
    assert crashed.text == f"{said} ended the process: Fatal Python error: Segmentation fault"
    assert (crashed.way_out == DRIVER) == (topic == "gpus")


def test_lines_of_libraries_among_the_answers_are_left_out() -> None:
    text = f"[INFO] ds_accelerator\n{json.dumps({'about': 'torch', **TORCH})}\n[1]\n{{}}\n{{broken\n"
    assert read_answers(text) == {"torch": TORCH}


def test_a_program_that_is_not_there_is_a_problem() -> None:
    answers, done = ask_libraries(lambda command, *, seconds: None)
    (finding,) = judge_libraries(answers, done=done, wish=Wish())
    assert finding.level == "problem"
    assert finding.text == f"importing torch ended the process: {PROBE[0]} cannot be started"


@pytest.mark.slow
def test_the_real_probe_answers_everything() -> None:
    answers, done = ask_libraries(run)
    assert list(answers) == ["torch", "gpus", "deepspeed"]
    assert all("error" not in answer for answer in answers.values())
    assert done.code == 0
    assert list(judge_libraries(answers, done=done, wish=Wish("cpu")))
