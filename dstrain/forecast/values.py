"""A forecast as values for JSON: bytes, seconds and counts. Pure."""

from typing import Any

from dstrain.forecast.fits import Memory, judge
from dstrain.forecast.plan import Forecast, Idle, Times
from dstrain.forecast.weights import PARTS


def as_json(found: Forecast) -> dict[str, Any]:
    """The forecast as JSON values; ranges are lists of the least, the likely and the most."""
    request, workload, times = found.request, found.workload, found.times
    return {
        "name": found.config.name,
        "parameters": {
            "all": found.trained.num_all,
            "trained": found.trained.num_trained,
            "frozen": found.trained.num_frozen,
            "parts": count_parts(found),
            "origin": found.facts.origin,
            "is_exact": found.facts.is_exact,
        },
        "work": None
        if workload is None
        else {
            "steps": workload.total_steps,
            "steps_per_epoch": workload.steps_per_epoch,
            "training_rows": workload.num_train_rows,
            "evaluation_rows": workload.searches.num_rows,
            "micro_batches": workload.micro_batches,
            "evaluations": workload.num_evaluations,
            "saves": workload.num_saves,
            "is_exact": workload.is_exact,
        },
        "memory": {str(memory.stage): _memory_json(memory, found) for memory in found.memories},
        "gpu_bytes": request.capacity,
        "zero_stage": found.stage,
        "recommended_zero_stage": found.recommended,
        "why": found.why,
        "disk": {
            "total": found.disk.total,
            "checkpoint": found.disk.checkpoint,
            "checkpoints": found.disk.checkpoints,
            "kept_weights": found.disk.kept_weights,
            "models": found.disk.models,
            "texts": found.disk.texts,
        },
        "idle": None if found.idle is None else _idle_json(found.idle),
        "time": None if times is None else _times_json(times),
        "allocations": [None if each is None else each.num_allocations for each in found.allocations],
    }


def _memory_json(memory: Memory, found: Forecast) -> dict[str, Any]:
    model, request = memory.model, found.request
    capacity, world_size = request.capacity, request.machines.world_size
    return {
        "weights": model.weights,
        "gradients": model.gradients,
        "optimizer": model.optimizer,
        "buckets": model.buckets,
        "gather": model.gather,
        "evaluation_gather": model.evaluation_gather,
        "activations": memory.activations,
        "logits": memory.logits,
        "search": memory.search,
        "peak": memory.peak,
        "peaks_in_training": memory.peaks_in_training,
        "host": model.host,
        "verdict": None if capacity is None else judge(memory, capacity=capacity, world_size=world_size),
    }


def _idle_json(idle: Idle) -> dict[str, Any]:
    return {
        "warning": idle.warning,
        "ranks": idle.fewer.world_size,
        "time": None if idle.of_fewer is None else _times_json(idle.of_fewer),
        "min_micro_batches": idle.advised,
        "time_with_min_micro_batches": None if idle.of_advised is None else _times_json(idle.of_advised),
    }


def _times_json(times: Times) -> dict[str, Any]:
    return {
        "origin": times.pace.origin,
        **{
            name: list(each)
            for name, each in {
                "step": times.pace.step,
                "evaluation": times.pace.evaluation,
                "save": times.save,
                "around": times.pace.around,
                "steps": times.steps,
                "evaluations": times.evaluations,
                "saves": times.saves,
                "total": times.total,
            }.items()
        },
    }


def count_parts(found: Forecast) -> dict[str, int]:
    """The elements of each part of the model, without parts that it does not have."""
    counts = {part: sum(each.numel for each in found.trained.weights if each.part == part) for part in PARTS}
    return {part: count for part, count in counts.items() if count}
