"""Environment variables that change how a run trains, or where it finds models. Pure."""

import re
from collections.abc import Iterator, Mapping

from dstrain.cluster.environment import read_process_info
from dstrain.config.secrets import mask
from dstrain.doctor.finding import Finding, note, ok, problem
from dstrain.errors import UserError

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
YES = ("1", "true", "yes", "on")
EFFECTS = {
    "CUDA_LAUNCH_BLOCKING": "every kernel is waited for, which is slow: unset it",
    "NCCL_P2P_DISABLE": "GPUs of one host exchange gradients through its memory, which is slow",
    "NCCL_IB_DISABLE": "hosts exchange gradients over TCP, which is slow where there is InfiniBand",
    "NCCL_SHM_DISABLE": "GPUs of one host exchange gradients over the network, which is slow",
    "NCCL_DEBUG": "NCCL writes to the log",
    "CUDA_VISIBLE_DEVICES": "only these GPUs are seen, in this order",
    "DS_ACCELERATOR": "DeepSpeed takes this device, whatever there is",
    "OMP_NUM_THREADS": "how many threads a rank computes with on the CPU",
    "PYTORCH_CUDA_ALLOC_CONF": "how torch manages the memory of GPUs",
    "PYTORCH_ALLOC_CONF": "how torch manages the memory of GPUs",
    "LD_LIBRARY_PATH": "libraries in it come before those of torch",
    "LD_PRELOAD": "these libraries are loaded into every program",
    "PYTHONPATH": "packages in it come before the installed ones",
    "TORCHDYNAMO_DISABLE": "machine.compile has no effect",
    "NVIDIA_TF32_OVERRIDE": "decides over TF32, which dstrain does not use",
}
"""What a variable does, for the report."""
OTHERS = re.compile(
    r"(?:NCCL|TORCH_NCCL|GLOO|CUDA|CUBLAS|CUDNN|OMP|MKL|KMP|UCX|DS)_\w+|HF_ENDPOINT|(?:HIP|ROCR)_VISIBLE_DEVICES"
)
"""Names of variables that change something besides; libraries say what."""
NO_EFFECT = frozenset({"CUDA_HOME", "CUDA_PATH", "CUDA_VERSION"})
MAX_VALUE = 80


def judge_environment(environment: Mapping[str, str]) -> Iterator[Finding]:
    """The variables that change something, and those of a launcher that contradict each other."""
    found = [*_judge_launcher(environment), *_judge_offline(environment), *_judge_rest(environment)]
    yield from found or [ok("environment", "no variable changes how a run trains")]


def _judge_launcher(environment: Mapping[str, str]) -> Iterator[Finding]:
    try:
        process = read_process_info(environment)
    except UserError as error:
        text, _, way_out = str(error).removeprefix("environment: ").rpartition("; ")
        yield problem("environment", text or way_out, way_out=way_out)
        return
    if "RANK" in environment:
        text = f"this shell is rank {process.rank} of {process.world_size} (RANK and WORLD_SIZE are set)"
        yield note(
            "environment", text, way_out="unset them, unless a launcher has set them for the run that you start here"
        )


def _judge_offline(environment: Mapping[str, str]) -> Iterator[Finding]:
    names = [name for name in OFFLINE if environment.get(name, "").lower() in YES]
    if names:
        text = f"{', '.join(names)}: models, tokenizers and data come from the cache alone"
        yield note("environment", text, way_out="unset it where something has to be downloaded first")


def _judge_rest(environment: Mapping[str, str]) -> Iterator[Finding]:
    for name in sorted(environment):
        if name in EFFECTS or (OTHERS.fullmatch(name) and name not in NO_EFFECT):
            value = mask(environment[name])
            shown = value if len(value) <= MAX_VALUE else f"{value[:MAX_VALUE]}…"
            effect = f": {EFFECTS[name]}" if name in EFFECTS else ""
            yield note("environment", f"{name}={shown}{effect}")
