"""Builds DeepSpeed's configuration from RunConfig and world size, one function per block. Pure; does not import DeepSpeed.

Batch sizes in it have no effect: dstrain plans the micro-batches, scales the loss and sets the accumulation boundary
itself, because DeepSpeed's mean of micro-batch means is not the mean over tokens.
"""

from collections.abc import Mapping
from typing import Any

from dstrain.config.schema import RunConfig

LARGEST_BUCKET = 500_000_000
"""Elements of DeepSpeed's buffer for the reduction of gradients, its own default."""


def build_ds_config(config: RunConfig, *, world_size: int, num_trained: int) -> dict[str, Any]:
    """DeepSpeed's configuration of a run, with `machine.deepspeed` merged over it."""
    settings = {
        **_batch_block(config, world_size=world_size),
        **_precision_block(config),
        "zero_optimization": _zero_block(config, num_trained=num_trained),
    }
    return merge(settings, config.machine.deepspeed)


def effective_zero_stage(config: RunConfig) -> int:
    """The ZeRO stage in use: at least 1 in 16-bit precision, because stage 0 hides skipped steps and its losses differ."""
    stage = config.machine.zero_stage
    assert stage is not None, "resolve_machine comes first"
    return max(1, stage) if config.precision != "fp32" else stage


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`, merged mapping by mapping; an empty section (null) changes nothing."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and value is None:
            continue
        merged[key] = merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def _batch_block(config: RunConfig, *, world_size: int) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "train_batch_size": world_size,
        "gradient_clipping": config.training.max_grad_norm,
        "steps_per_print": None,
        "zero_allow_untested_optimizer": True,
        # a torch optimizer works with offload too; DeepSpeed's own compiles C++ for minutes on first use
        "zero_force_ds_cpu_optimizer": False,
    }


def _precision_block(config: RunConfig) -> dict[str, Any]:
    if config.precision == "fp32":
        return {}
    # M2M100 and NLLB keep sinusoidal positions in a buffer, which DeepSpeed would otherwise leave in fp32
    # in 16 bits, a sum over many micro-batches would lose the small ones, and so depend on how a step is cut
    block: dict[str, Any] = {"data_types": {"buffer_dtype": config.precision, "grad_accum_dtype": "fp32"}}
    if config.precision == "bf16":
        return block | {"bf16": {"enabled": True}}
    return block | {"fp16": {"enabled": True, "loss_scale": 0, "initial_scale_power": 16}}


def _zero_block(config: RunConfig, *, num_trained: int) -> dict[str, Any]:
    stage = effective_zero_stage(config)
    block: dict[str, Any] = {"stage": stage}
    if config.machine.offload_optimizer:
        block["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if config.machine.offload_parameters:
        block["offload_param"] = {"device": "cpu", "pin_memory": True}
    if stage > 0:
        # a buffer of this size is allocated, whatever the size of the model
        block["reduce_bucket_size"] = min(LARGEST_BUCKET, num_trained)
    if stage == 3:
        # lengths differ from step to step, which invalidates the prefetch trace; a warning each time would be noise
        block["log_trace_cache_warnings"] = False
    return block
