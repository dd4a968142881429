"""A forecast as text for the terminal, and as values for JSON. Pure."""

from collections.abc import Sequence
from typing import Any

from dstrain.forecast.durations import Range
from dstrain.forecast.fits import Memory, judge, overhead
from dstrain.forecast.plan import Forecast, Times
from dstrain.forecast.weights import PARTS

MB, GB = 1e6, 1e9
DAY = 86_400.0


def as_text(found: Forecast) -> str:
    """The forecast in sections: parameters, work, memory by stage, disk, time."""
    sections = [_parameters(found), _work(found), _memory(found), _disk(found), _time(found)]
    return "\n\n".join("\n".join(lines) for lines in sections)


def as_json(found: Forecast) -> dict[str, Any]:
    """The forecast as JSON values: bytes, seconds, counts."""
    request, workload, times = found.request, found.workload, found.times
    return {
        "name": found.config.name,
        "parameters": {
            "all": found.trained.num_all,
            "trained": found.trained.num_trained,
            "frozen": found.trained.num_frozen,
            "parts": _count_parts(found),
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
        "host": model.host,
        "verdict": None if capacity is None else judge(memory, capacity=capacity, world_size=world_size),
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


def _count_parts(found: Forecast) -> dict[str, int]:
    counts = {part: sum(each.numel for each in found.trained.weights if each.part == part) for part in PARTS}
    return {part: count for part, count in counts.items() if count}


def _parameters(found: Forecast) -> list[str]:
    trained = found.trained
    frozen = f", {trained.num_frozen:,} frozen" if trained.num_frozen else ""
    parts = ", ".join(f"{part} {count:,}" for part, count in _count_parts(found).items())
    return [
        f"parameters  {trained.num_trained:,} trained{frozen}",
        f"            {parts}",
        f"            from {found.facts.origin}",
    ]


def _work(found: Forecast) -> list[str]:
    workload = found.workload
    if workload is None:
        return [f"work        not known: {found.no_workload}"]
    searches = workload.searches
    return [
        f"work        {workload.total_steps:,} steps ({workload.steps_per_epoch:,} an epoch of {workload.num_train_rows:,} rows) in "
        f"{workload.micro_batches:.1f} micro-batches each",
        f"            {workload.num_evaluations:,} evaluations of {searches.num_rows:,} rows in {len(searches.batches):,} batches, "
        f"{workload.num_saves:,} saves at steps",
        f"            lengths from {workload.origin}",
    ]


def _memory(found: Forecast) -> list[str]:
    request = found.request
    world_size, capacity = request.machines.world_size, request.capacity
    what = "GPU" if request.machines.device == "cuda" else "rank"
    count = f"{world_size} {what}{'s' if world_size > 1 else ''}"
    head = [
        "ZeRO",
        "weights",
        "gradients",
        "optimizer",
        "buckets",
        "gather",
        "activations",
        "logits",
        "search",
        "peak",
        "",
    ]
    rows = [head, *(_memory_row(memory, found) for memory in found.memories)]
    lines = [f"memory      of each of {count}, MB by part"]
    lines += [f"            {line}" for line in _columns(rows)]
    if capacity is not None:
        low, high = overhead(max(each.peak for each in found.memories), world_size=world_size)
        lines.append(
            f"            of {capacity / GB:.1f} GB; CUDA, NCCL and fragmentation take {low / GB:.1f} to {high / GB:.1f} GB besides"
        )
    if found.largest is not None:
        batch = found.largest
        lines.append(
            f"            largest micro-batch: {batch.num_rows} rows of {batch.source} + {batch.target} positions"
            + (
                ""
                if found.config.machine.micro_batch_tokens
                else "; with micro_batch_tokens null the run fills what is left"
            )
        )
    elif found.facts.architecture is None:
        lines.append(f"            activations and search of `{found.facts.kind}` are not known")
    host = max(each.model.host for each in found.memories)
    if host:
        lines.append(f"            up to {host / GB:.1f} GB of host memory for each rank, for what is offloaded")
    lines.append(f"            take zero_stage {found.recommended}: {found.why}")
    if found.config.machine.zero_stage not in (None, found.recommended):
        lines.append(
            f"            the recipe has zero_stage {found.config.machine.zero_stage}; null takes the recommended one"
        )
    return lines


def _memory_row(memory: Memory, found: Forecast) -> list[str]:
    model, request = memory.model, found.request
    gather = max(model.gather, model.evaluation_gather)
    values = (model.weights, model.gradients, model.optimizer, model.buckets, gather)
    values += (memory.activations, memory.logits, memory.search, memory.peak)
    capacity, world_size = request.capacity, request.machines.world_size
    verdict = "" if capacity is None else judge(memory, capacity=capacity, world_size=world_size)
    return [f"{memory.stage}", *(f"{value / MB:,.1f}" for value in values), verdict]


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _disk(found: Forecast) -> list[str]:
    disk = found.disk
    kept = f", older weights {_size(disk.kept_weights)}" if disk.kept_weights else ""
    texts = f", texts of evaluations {_size(disk.texts)}" if disk.texts else ""
    keep = found.config.checkpoint.keep_last
    return [
        f"disk        {_size(disk.total)} at most: {keep} checkpoints of {_size(disk.checkpoint)}, one more while it is written and "
        f"the best one's weights{kept}, models {_size(disk.models)}{texts}"
    ]


def _time(found: Forecast) -> list[str]:
    times, workload = found.times, found.workload
    if times is None or workload is None:
        if found.workload is not None and found.facts.architecture is None:
            return ["time        not known for this model: `--measure 12` runs a few steps of it here"]
        return ["time        not known: name a GPU with --gpu, or run a few steps on such a machine with --measure 12"]
    pace = times.pace
    rows = [
        ["", "each", "in all"],
        [f"{workload.total_steps:,} steps", _span(pace.step), _span(times.steps)],
        [f"{workload.num_evaluations:,} evaluations", _span(pace.evaluation), _span(times.evaluations)],
        [f"{times.num_saves:,} saves", _span(times.save), _span(times.saves)],
        ["start and end", "", _span(pace.around)],
        ["together", "", _span(times.total)],
    ]
    lines = ["time        likely (from – to)", *(f"            {line}" for line in _columns(rows))]
    lines.append(f"            by {pace.origin}")
    return [*lines, *_allocations(found)]


def _allocations(found: Forecast) -> list[str]:
    hours = found.request.hours
    if hours is None:
        return []
    short, likely, long = found.allocations
    if likely is None:
        return [f"            an allocation of {hours:g} h is over before the first step: take a longer one"]
    words = (
        f"it ends within one allocation of {hours:g} h"
        if likely.num_allocations == 1
        else (
            f"it takes {likely.num_allocations} allocations of {hours:g} h: {likely.num_restarts} restarts, each with a set-up"
        )
    )
    ends = [each.num_allocations if each is not None else None for each in (short, long)]
    if ends[0] != ends[1]:
        words += f" ({ends[0] or '?'} to {ends[1] if ends[1] is not None else 'any number of'})"
    return [
        f"            {words}",
        f"            a node's failure costs at most {_seconds(likely.lost_seconds)} of training and a set-up",
    ]


def _span(values: Range) -> str:
    if values.low == values.high:
        return _seconds(values.likely)
    return f"{_seconds(values.likely)} ({_seconds(values.low)} – {_seconds(values.high)})"


def _seconds(value: float) -> str:
    if value < 1.0:
        return f"{value * 1000:.0f} ms" if value >= 0.001 else "0 ms"
    if value < 100.0:
        return f"{value:.1f} s"
    if value < 6000.0:
        return f"{value / 60:.0f} min"
    return f"{value / 3600:.1f} h" if value < 3 * DAY else f"{value / DAY:.1f} days"


def _size(num_bytes: float) -> str:
    return f"{num_bytes / GB:,.1f} GB" if num_bytes >= GB else f"{num_bytes / MB:,.1f} MB"
