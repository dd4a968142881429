"""torch, NCCL, DeepSpeed and the GPUs that torch sees: asked in a process of its own, judged here. Imports none of them."""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dstrain.doctor.finding import Finding, note, ok, problem
from dstrain.doctor.programs import Done, Run

PROBE = (sys.executable, "-m", "dstrain.engine.probe")
SECONDS = 120.0
"""Importing torch and DeepSpeed from a cold network file system takes a minute."""
DRIVER = (
    "run nvidia-smi by hand: if it hangs or fails too, the driver has to be loaded again, or the machine started again"
)

Answers = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Wish:
    """What a recipe wants of a device."""

    device: str | None = None
    """`cpu` or `cuda`; None takes a GPU where there is one."""
    precision: str = "fp32"


def ask_libraries(run: Run) -> tuple[Answers, Done]:
    """The answers of the probe by what they are about, and how it ended."""
    done = run(PROBE, seconds=SECONDS) or Done(127, err=f"{PROBE[0]} cannot be started")
    return read_answers(done.out), done


def read_answers(text: str) -> Answers:
    """The answers among the lines of the probe; libraries print others."""
    answers = {}
    for line in text.splitlines():
        try:
            answer = json.loads(line)
        except ValueError:
            continue
        if isinstance(answer, dict) and "about" in answer:
            answers[str(answer.pop("about"))] = answer
    return answers


def judge_libraries(answers: Answers, *, done: Done, wish: Wish) -> Iterator[Finding]:
    """What the answers mean for a run that wants this."""
    for topic, judge in (("torch", _judge_torch), ("gpus", _judge_gpus), ("deepspeed", _judge_deepspeed)):
        answer = answers.get(topic)
        if answer is None:
            yield _missing(topic, done=done)
            return  # the answers after it are missing for the same reason
        if "error" in answer:
            yield problem(topic, answer["error"], way_out=_repair(topic))
            if topic == "torch":
                return  # nothing works without it
        else:
            yield from judge(answer, wish)


def _missing(topic: str, *, done: Done) -> Finding:
    what = {"gpus": "asking the driver for GPUs"}.get(topic, f"importing {topic}")
    if done.code is None:
        way_out = (
            DRIVER
            if topic == "gpus"
            else f"import {topic} by hand; a network file system or a hanging driver may be why"
        )
        return problem(topic, f"{what} did not end within {SECONDS:.0f} s", way_out=way_out)
    return problem(topic, f"{what} ended the process: {done.last_error}", way_out=_repair(topic))


def _repair(topic: str) -> str:
    return DRIVER if topic == "gpus" else f"install {topic} again, in the version that dstrain needs (see packages)"


def _judge_torch(answer: Mapping[str, Any], wish: Wish) -> Iterator[Finding]:
    build = f"CUDA {answer['cuda']}" if answer["cuda"] else f"ROCm {answer['hip']}" if answer["hip"] else "CPU"
    text = f"{answer['version']}, built for {build}"
    own = "install torch's own build, see https://pytorch.org"
    if wish.device == "cuda" and build == "CPU":
        yield problem("torch", f"{text}, and the recipe has machine.device: cuda", way_out=f"for your GPU {own}")
    else:
        yield ok("torch", text)
    if answer["nccl"]:
        yield ok("NCCL", answer["nccl"])
    elif build != "CPU":
        yield problem("NCCL", "this torch has none, by which GPUs exchange gradients", way_out=own)
    if build == "CPU" and not answer["gloo"]:
        yield problem("gloo", "this torch has none, by which CPU ranks exchange gradients", way_out=own)


def _judge_gpus(answer: Mapping[str, Any], wish: Wish) -> Iterator[Finding]:
    gpus = answer["gpus"]
    if "reason" in answer:
        text = f"none can be used, although {answer['sign']}"
        if wish.device == "cpu":
            yield note("gpus", f"{text}; the recipe wants the CPU")
        else:
            way_out = f"{answer['reason']}; machine.device: cpu trains on the CPU on purpose"
            yield problem("gpus", text, way_out=way_out)
    elif not gpus and wish.device == "cuda":
        text = "there is none, and the recipe has machine.device: cuda"
        yield problem("gpus", text, way_out="start it where there is one, or leave the key out")
    elif not gpus:
        yield note("gpus", "there is none: a run computes on the CPU")
    for number, gpu in enumerate(gpus):
        yield _judge_gpu(f"gpu {number}", gpu, wish=wish)


def _judge_gpu(topic: str, gpu: Mapping[str, Any], *, wish: Wish) -> Finding:
    text = f"{gpu['name']}, {gpu['memory_bytes'] / 1e9:.1f} GB, compute capability {gpu['capability']}"
    if "error" in gpu:
        way_out = "install a torch that has this capability, or leave this GPU out with CUDA_VISIBLE_DEVICES"
        return problem(topic, f"{text}: a small computation failed: {gpu['error']}", way_out=way_out)
    if wish.precision == "bf16" and not gpu["bf16"]:
        way_out = "set precision: fp32, or fp16 for models that do not overflow it"
        return note(topic, f"{text}, no bf16, which the recipe wants", way_out=way_out)
    return ok(topic, f"{text}, {'bf16' if gpu['bf16'] else 'no bf16'}")


def _judge_deepspeed(answer: Mapping[str, Any], wish: Wish) -> Iterator[Finding]:
    yield ok("deepspeed", f"{answer['version']}, for {answer['device']}")
