"""Asks torch, the driver and DeepSpeed what they can do, and prints each answer at once, as a line of JSON.

`python -m dstrain.engine.probe` is started by `dstrain doctor`, as a process of its own: a driver that hangs, or a library that
crashes, costs no more than the answers that are still missing.
"""

import json
import os
from collections.abc import Callable
from typing import Any

Answer = dict[str, Any]


def ask_torch() -> Answer:
    """The version of torch, and what it was built for."""
    import torch

    nccl = torch.cuda.nccl.version() if torch.distributed.is_nccl_available() else None  # type: ignore[no-untyped-call]
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "nccl": ".".join(map(str, nccl)) if nccl else None,
        "gloo": torch.distributed.is_gloo_available(),
    }


def ask_gpus() -> Answer:
    """The GPUs that torch sees, each tried with a small computation; or why it sees none although there is one."""
    import torch

    from dstrain.cluster.devices import explain_no_gpu, find_gpu_sign, problem_of_torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    sign = find_gpu_sign(os.environ) if count == 0 else None
    if sign is None:
        return {"gpus": [_describe_gpu(index) for index in range(count)]}
    return {"gpus": [], "sign": sign, "reason": explain_no_gpu(os.environ, problem=problem_of_torch())}


def ask_deepspeed() -> Answer:
    """The version of DeepSpeed, and the device that it takes."""
    from dstrain.cluster.console import quiet_deepspeed

    quiet_deepspeed()
    import deepspeed
    from deepspeed.accelerator import get_accelerator

    return {"version": deepspeed.__version__, "device": get_accelerator().device_name()}


QUESTIONS: dict[str, Callable[[], Answer]] = {"torch": ask_torch, "gpus": ask_gpus, "deepspeed": ask_deepspeed}


def main() -> None:
    """Print the answers in the order of QUESTIONS; an answer that failed is its error."""
    for name, ask in QUESTIONS.items():
        try:
            answer = ask()
        except Exception as error:  # a broken installation may raise anything
            answer = {"error": f"{type(error).__name__}: {str(error).strip() or 'without a message'}"}
        print(json.dumps({"about": name, **answer}), flush=True)


def _describe_gpu(index: int) -> Answer:
    import torch

    properties = torch.cuda.get_device_properties(index)
    found = {
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "capability": f"{properties.major}.{properties.minor}",
    }
    try:
        with torch.cuda.device(index):
            found["bf16"] = torch.cuda.is_bf16_supported(including_emulation=False)
            torch.ones(8, device="cuda").sum().item()
    except Exception as error:
        found["error"] = str(error).strip().split("\n")[0]
    return found


if __name__ == "__main__":
    main()
