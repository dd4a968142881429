"""The probe: it answers each question for itself, and an error of one is an answer."""

import json
from typing import Any

import pytest
import torch

from dstrain.engine import probe


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    probe.main()
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return {answer.pop("about"): answer for answer in answers}


def test_an_answer_that_fails_is_its_error_and_the_others_follow(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> dict[str, Any]:
        raise ImportError("libcudart.so.13: cannot open shared object file")

    def fail_silently() -> dict[str, Any]:
        raise RuntimeError

    monkeypatch.setattr(probe, "QUESTIONS", {"a": fail, "b": fail_silently, "c": lambda: {"version": "1"}})
    assert printed(capsys) == {
        "a": {"error": "ImportError: libcudart.so.13: cannot open shared object file"},
        "b": {"error": "RuntimeError: without a message"},
        "c": {"version": "1"},
    }


def test_torch_says_what_it_is() -> None:
    answer = probe.ask_torch()
    assert (answer["version"], answer["cuda"]) == (torch.__version__, torch.version.cuda)
    assert (answer["nccl"] is not None) == torch.distributed.is_nccl_available()
    assert answer["gloo"] == torch.distributed.is_gloo_available()


def test_gpus_that_cannot_be_used_come_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "4")
    answer = probe.ask_gpus()
    assert answer["gpus"] == []
    assert "SLURM_GPUS_ON_NODE=4" in answer["sign"]
    assert answer["reason"]


def test_a_gpu_whose_computation_fails_is_described_with_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Properties:
        name, total_memory, major, minor = "Old GPU", 8_000_000_000, 3, 5

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Properties)

    def refuse(index: int) -> None:
        raise RuntimeError("CUDA error: no kernel image is available\nmore")

    monkeypatch.setattr(torch.cuda, "device", refuse)
    assert probe._describe_gpu(0) == {
        "name": "Old GPU",
        "memory_bytes": 8_000_000_000,
        "capability": "3.5",
        "error": "CUDA error: no kernel image is available",
    }


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_every_gpu_computes() -> None:
    answer = probe.ask_gpus()
    assert len(answer["gpus"]) == torch.cuda.device_count()
    assert all("error" not in gpu and gpu["memory_bytes"] > 0 for gpu in answer["gpus"])


def test_deepspeed_says_what_it_computes_on() -> None:
    answer = probe.ask_deepspeed()
    assert answer["version"].startswith("0.")
    assert answer["device"] in ("cpu", "cuda")
