"""DeepSpeed's own configuration keys, as data, and which of them dstrain accepts. Does not import DeepSpeed.

DeepSpeed 0.19 silently ignores unknown top-level keys (`gradient_cliping`), so they are refused here. The lists are
those of 0.19.8; a test compares them with the keys that the installed DeepSpeed reads.
"""

import math
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from dstrain.config.secrets import WAY_OUT, names_secret

_NOT_SUPPORTED = "not supported: dstrain distributes with ZeRO only; remove it"
_PRECISION = "set `precision` instead"
_MASTER = "would change what is learned: master weights, gradients and optimizer state stay fp32; remove it"
_LOSSY = "would change what is learned (lossy compression); remove it"
_OWN_CHECKPOINT = "has no effect: dstrain writes its own checkpoints; use the `checkpoint` section"
_TRACKER = "dstrain logs to metrics.jsonl and TensorBoard (`logging`) itself; remove it"
_HOST_MEMORY = "has no effect: dstrain offloads to host memory; remove it"
_OWN_LOADER = "has no effect: dstrain plans and loads the data itself; remove it"

ALLOWED_KEYS = frozenset({
    "activation_checkpointing", "aio", "bf16", "comms_logger", "communication_data_type", "compile",
    "data_types", "disable_allgather", "disable_python_gc", "dump_state", "flops_profiler", "fp16",
    "gradient_predivide_factor", "log_level", "memory_breakdown", "prescale_gradients", "steps_per_print",
    "timers", "vocabulary_size", "wall_clock_breakdown", "zero_optimization",
})  # fmt: skip
"""Top-level keys that only decide how a step is computed or what DeepSpeed prints."""

REFUSED_KEYS: Mapping[str, str] = {
    "train_batch_size": "set `training.batch_size` instead",
    "train_micro_batch_size_per_gpu": "set `machine.micro_batch_size` or `machine.micro_batch_tokens` instead",
    "gradient_accumulation_steps": "set `training.batch_size` and `machine.micro_batch_tokens` instead",
    "managed_gradient_accumulation": "dstrain marks the end of every step itself; remove it",
    "optimizer": "set `training.optimizer`, `training.learning_rate`, `training.betas` … instead",
    "scheduler": "set `training.schedule` and `training.warmup_steps` instead",
    "gradient_clipping": "set `training.max_grad_norm` instead",
    "gradient_allreduce_op": "would scale the gradient by the number of ranks; remove it",
    "zero_allow_untested_optimizer": "dstrain sets it for `training.optimizer`; remove it",
    "zero_force_ds_cpu_optimizer": "dstrain sets it for `training.optimizer`; remove it",
    "bfloat16": _PRECISION,
    "torch_autocast": _PRECISION,
    "data_efficiency": "would change the order of the data or leave out tokens; the recipe decides that; remove it",
    "dataloader_drop_last": _OWN_LOADER,
    "checkpoint": _OWN_CHECKPOINT,
    "datastates_ckpt": _OWN_CHECKPOINT,
    "autotuning": "would change batch sizes; set `machine.micro_batch_tokens` instead",
    "expert_parallel": _NOT_SUPPORTED,
    "hybrid_engine": _NOT_SUPPORTED,
    "pipeline": _NOT_SUPPORTED,
    "tensor_parallel": _NOT_SUPPORTED,
    "sequence_parallel_size": _NOT_SUPPORTED,
    "data_parallel_size": _NOT_SUPPORTED,
    "seq_parallel_communication_data_type": _NOT_SUPPORTED,
    "use_data_before_expert_parallelism": _NOT_SUPPORTED,
    "weight_quantization": _LOSSY,
    "comet": _TRACKER,
    "csv_monitor": _TRACKER,
    "tensorboard": _TRACKER,
    "wandb": _TRACKER,
    "flops_profiler.output_file": "a recipe names no files to be overwritten: remove it, and the profile is printed",
    "zero_optimization.offload_optimizer.nvme_path": _HOST_MEMORY,
    "zero_optimization.offload_param.nvme_path": _HOST_MEMORY,
    "zero_optimization.stage": "set `machine.zero_stage` instead",
    "zero_optimization.offload_optimizer.device": "set `machine.offload_optimizer` instead",
    "zero_optimization.offload_param.device": "set `machine.offload_parameters` instead",
    "zero_optimization.cpu_offload": "set `machine.offload_optimizer` instead",
    "zero_optimization.cpu_offload_param": "set `machine.offload_parameters` instead",
    "zero_optimization.compute_grad_norm": "dstrain logs and clips the gradient norm; remove it",
    "bf16.check_grad_overflow": "steps whose gradients are not finite are never applied; remove it",
    "zero_optimization.zenflow": "would change what is learned (delayed updates); remove it",
    "zero_optimization.zero_quantized_weights": _LOSSY,
    "zero_optimization.zero_quantized_nontrainable_weights": _LOSSY,
    "zero_optimization.zero_quantized_gradients": _LOSSY,
    "fp16.enabled": _PRECISION,
    "fp16.auto_cast": _PRECISION,
    "fp16.fp16_master_weights_and_grads": _MASTER,
    "bf16.enabled": _PRECISION,
    "bf16.bf16_master_weights_and_grads": _MASTER,
    "bf16.bf16_optimizer_states": _MASTER,
    "data_types.param_dtype": _PRECISION,
    "data_types.buffer_dtype": _PRECISION,
}
"""Dotted keys that decide what is learned, that dstrain sets itself, or that would be ignored; each with the way out."""

REMOVED_KEYS = frozenset({
    "amp", "compression_training", "curriculum_learning", "eigenvalue", "elasticity", "graph_harvesting", "nebula",
    "progressive_layer_drop", "quantize_training", "sparse_attention", "sparse_gradients",
})  # fmt: skip
"""Top-level keys that older releases had and 0.19.8 refuses."""

NESTED_KEYS: Mapping[str, frozenset[str]] = {
    "zero_optimization": frozenset({
        "allgather_bucket_size", "allgather_partitions", "allgather_sequential", "compute_grad_norm",
        "contiguous_gradients", "cpu_offload", "cpu_offload_param", "cpu_offload_use_pin_memory", "elastic_checkpoint",
        "enable_sanity_checks", "gather_16bit_weights_on_model_save", "ignore_unused_parameters", "leaf_module",
        "legacy_stage1", "load_from_fp32_weights", "log_trace_cache_warnings", "max_live_parameters",
        "max_reuse_distance", "memory_efficient_linear", "model_persistence_threshold", "module_granularity_threshold",
        "offload_optimizer", "offload_param", "overlap_comm", "override_module_apply", "param_persistence_threshold",
        "parameter_alignment", "pipeline_loading_checkpoint", "prefetch_bucket_size", "reduce_bucket_size",
        "reduce_scatter", "round_robin_gradients", "save_muon_momentum_buffer_in_memory", "stage",
        "stage3_allgather_sequential", "stage3_gather_16bit_weights_on_model_save",
        "stage3_gather_fp16_weights_on_model_save", "stage3_max_live_parameters", "stage3_max_reuse_distance",
        "stage3_model_persistence_threshold", "stage3_module_granularity_threshold",
        "stage3_param_persistence_threshold", "stage3_prefetch_bucket_size", "stage3_use_all_reduce_for_fetch_params",
        "sub_group_size", "use_all_reduce_for_fetch_params", "use_multi_rank_bucket_allreduce",
        "zenflow", "zero_hpz_partition_size", "zero_quantized_gradients", "zero_quantized_nontrainable_weights",
        "zero_quantized_weights",
    }),
    "zero_optimization.offload_optimizer": frozenset({
        "buffer_count", "cpuadam_cores_perc", "device", "fast_init", "nvme_path", "pin_memory", "pipeline_read",
        "pipeline_write", "ratio", "super_offload",
    }),
    "zero_optimization.offload_param": frozenset({
        "buffer_count", "buffer_size", "device", "max_in_cpu", "nvme_path", "pin_memory",
    }),
    "zero_optimization.leaf_module": frozenset({"classes", "name_suffixes", "names"}),
    "fp16": frozenset({
        "auto_cast", "consecutive_hysteresis", "enabled", "fp16_master_weights_and_grads", "hysteresis",
        "initial_scale_power", "loss_scale", "loss_scale_window", "min_loss_scale",
    }),
    "bf16": frozenset({
        "bf16_master_weights_and_grads", "bf16_optimizer_states", "check_grad_overflow", "enabled",
        "immediate_grad_update",
    }),
    "data_types": frozenset({"buffer_dtype", "grad_accum_dtype", "keep_in_fp32_modules", "param_dtype"}),
    "activation_checkpointing": frozenset({
        "contiguous_memory_optimization", "cpu_checkpointing", "number_checkpoints", "partition_activations", "profile",
        "synchronize_checkpoint_boundary",
    }),
    "comms_logger": frozenset({"debug", "enabled", "prof_all", "prof_ops", "verbose"}),
    "flops_profiler": frozenset({
        "detailed", "enabled", "module_depth", "output_file", "profile_step", "recompute_fwd_factor", "top_modules",
    }),
    "aio": frozenset({
        "block_size", "intra_op_parallelism", "overlap_events", "queue_depth", "single_submit", "use_gds",
    }),
    "timers": frozenset({"throughput"}),
    "timers.throughput": frozenset({"enabled", "synchronized"}),
    "compile": frozenset({
        "autoep_non_moe", "debug_log", "deepcompile", "double_buffer", "free_activation", "free_activation_threshold",
        "keep_all_input_tensors", "keep_int_input_tensors", "offload_activation", "offload_activation_pin_memory",
        "offload_opt_states", "offload_parameters", "passes", "symmetric_memory", "sync_after_allgather",
        "sync_after_reduce", "sync_before_allgather", "sync_before_reduce",
    }),
}  # fmt: skip
"""Keys of the sections that are mappings, by the section's dotted key."""

_SIZES = (
    "allgather_bucket_size", "max_live_parameters", "max_reuse_distance", "model_persistence_threshold",
    "param_persistence_threshold", "prefetch_bucket_size", "stage3_max_live_parameters", "stage3_max_reuse_distance",
    "stage3_model_persistence_threshold", "stage3_param_persistence_threshold", "stage3_prefetch_bucket_size",
    "sub_group_size", "zero_hpz_partition_size",
)  # fmt: skip
RANGES: Mapping[str, tuple[float, float, str]] = {
    "zero_optimization.reduce_bucket_size": (1, math.inf, "a whole number ≥ 1"),
    **{f"zero_optimization.{key}": (0, math.inf, "a whole number ≥ 0") for key in _SIZES},
    "zero_optimization.offload_optimizer.buffer_count": (0, math.inf, "a whole number ≥ 0"),
    "zero_optimization.offload_optimizer.ratio": (0, 1, "a number from 0 to 1"),
    "zero_optimization.offload_optimizer.cpuadam_cores_perc": (0, 1, "a number from 0 to 1"),
    "zero_optimization.offload_param.buffer_count": (0, math.inf, "a whole number ≥ 0"),
    "zero_optimization.offload_param.buffer_size": (0, math.inf, "a whole number ≥ 0"),
    "zero_optimization.offload_param.max_in_cpu": (0, math.inf, "a whole number ≥ 0"),
    "steps_per_print": (1, math.inf, "a whole number ≥ 1"),
    "gradient_predivide_factor": (1e-6, math.inf, "a number > 0"),
    "vocabulary_size": (1, math.inf, "a whole number ≥ 1"),
    "aio.block_size": (1, math.inf, "a whole number ≥ 1"),
    "aio.queue_depth": (1, math.inf, "a whole number ≥ 1"),
    "aio.intra_op_parallelism": (1, math.inf, "a whole number ≥ 1"),
    "activation_checkpointing.number_checkpoints": (1, math.inf, "a whole number ≥ 1"),
    "flops_profiler.profile_step": (1, math.inf, "a whole number ≥ 1"),
    "flops_profiler.module_depth": (-1, math.inf, "a whole number ≥ -1"),
    "flops_profiler.top_modules": (1, math.inf, "a whole number ≥ 1"),
    "flops_profiler.recompute_fwd_factor": (0, math.inf, "a number ≥ 0"),
    "fp16.loss_scale": (0, math.inf, "a number ≥ 0"),
    "fp16.initial_scale_power": (0, math.inf, "a whole number ≥ 0"),
    "fp16.loss_scale_window": (1, math.inf, "a whole number ≥ 1"),
    "fp16.hysteresis": (1, math.inf, "a whole number ≥ 1"),
    "fp16.min_loss_scale": (0, math.inf, "a number ≥ 0"),
}
"""Smallest and largest value of a dotted key, and the rule in words. DeepSpeed would refuse it after torch was loaded."""

_ZERO_SWITCHES = (
    "allgather_partitions", "allgather_sequential", "contiguous_gradients", "cpu_offload_use_pin_memory",
    "elastic_checkpoint", "enable_sanity_checks", "gather_16bit_weights_on_model_save", "ignore_unused_parameters",
    "legacy_stage1", "load_from_fp32_weights", "log_trace_cache_warnings", "memory_efficient_linear",
    "offload_optimizer.fast_init", "offload_optimizer.pin_memory", "offload_optimizer.pipeline_read",
    "offload_optimizer.pipeline_write", "offload_optimizer.super_offload", "offload_param.pin_memory", "overlap_comm",
    "override_module_apply", "parameter_alignment", "pipeline_loading_checkpoint", "reduce_scatter",
    "round_robin_gradients", "save_muon_momentum_buffer_in_memory", "stage3_allgather_sequential",
    "stage3_gather_16bit_weights_on_model_save", "stage3_gather_fp16_weights_on_model_save",
    "stage3_use_all_reduce_for_fetch_params", "use_all_reduce_for_fetch_params", "use_multi_rank_bucket_allreduce",
)  # fmt: skip
_OTHER_SWITCHES = (
    "activation_checkpointing.contiguous_memory_optimization", "activation_checkpointing.cpu_checkpointing",
    "activation_checkpointing.partition_activations", "activation_checkpointing.profile",
    "activation_checkpointing.synchronize_checkpoint_boundary", "aio.overlap_events", "aio.single_submit", "aio.use_gds",
    "bf16.immediate_grad_update", "comet.enabled", "comms_logger.debug", "comms_logger.enabled", "comms_logger.prof_all",
    "comms_logger.verbose", "csv_monitor.enabled", "disable_allgather", "disable_python_gc", "dump_state",
    "flops_profiler.detailed", "flops_profiler.enabled", "fp16.consecutive_hysteresis", "memory_breakdown",
    "prescale_gradients", "tensorboard.enabled", "timers.throughput.enabled", "timers.throughput.synchronized",
    "wall_clock_breakdown", "wandb.enabled",
)  # fmt: skip
SWITCHES = frozenset({*(f"zero_optimization.{key}" for key in _ZERO_SWITCHES), *_OTHER_SWITCHES})
"""Dotted keys whose value is true or false. DeepSpeed takes any other value of some of them for true."""

ONLY_FP32: Mapping[str, str] = {
    "communication_data_type": "gradients are reduced between ranks in it",
    "data_types.grad_accum_dtype": "gradients are summed over micro-batches in it",
}
"""Types that may not be less precise than the gradients, because the result would depend on the number of ranks or on the cut."""

TOP_LEVEL_KEYS = ALLOWED_KEYS | {key for key in REFUSED_KEYS if "." not in key}
"""Every top-level key that DeepSpeed 0.19.8 understands."""


def deepspeed_problems(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(dotted key, what is wrong and the way out) for every key of `settings` that cannot be passed to DeepSpeed."""
    return list(_problems(settings, known=TOP_LEVEL_KEYS, section=""))


def _problems(settings: Mapping[str, Any], *, known: frozenset[str], section: str) -> Iterable[tuple[str, str]]:
    for key, value in settings.items():
        name = f"{section}.{key}" if section else key
        if name in REFUSED_KEYS:
            yield name, REFUSED_KEYS[name]
        elif key not in known and names_secret(key):
            yield name, f"is no place for a secret; {WAY_OUT}"
        elif not section and key in REMOVED_KEYS:
            yield name, "was removed from DeepSpeed; remove it"
        elif key not in known:
            yield name, f"unknown to DeepSpeed 0.19.8; {_suggestion(key, known=known, section=section)}"
        elif name in NESTED_KEYS and not isinstance(value, Mapping):
            if value is not None:
                yield name, "must be a section of keys"
        elif name in NESTED_KEYS:
            yield from _problems(value, known=NESTED_KEYS[name], section=name)
        elif name in ONLY_FP32 and value not in (None, "fp32", "float32"):
            yield name, f"{ONLY_FP32[name]}: `{value}` would change what is learned; set it to fp32, or remove it"
        elif name in SWITCHES and not isinstance(value, bool) and value not in (None, "auto"):
            yield name, f"must be true or false; found {value!r}"
        elif (problem := _out_of_range(name, value)) is not None:
            yield name, problem


def _out_of_range(name: str, value: Any) -> str | None:
    smallest, largest, rule = RANGES.get(name, (0.0, 0.0, ""))
    if not rule or value is None or value == "auto":
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if is_number and smallest <= value <= largest and ("whole" not in rule or value == int(value)):
        return None
    return f"must be {rule}, or auto; found {value!r}"


def _suggestion(key: str, *, known: frozenset[str], section: str) -> str:
    close = get_close_matches(key, known, n=1)
    if not close:
        return "remove it"
    refused = REFUSED_KEYS.get(f"{section}.{close[0]}" if section else close[0])
    return f"did you mean `{close[0]}`?" + (f" It is refused here: {refused}" if refused else "")
