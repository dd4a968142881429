"""A forecast as text for the terminal. Pure."""

import textwrap
from collections.abc import Iterator, Sequence

from dstrain.forecast.durations import Range
from dstrain.forecast.fits import Memory, judge, overhead
from dstrain.forecast.plan import Forecast, Idle
from dstrain.forecast.values import count_parts

MB, GB = 1e6, 1e9
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
HEAD = "ZeRO weights gradients optimizer buckets gather activations logits search peak in".split()
WIDTH = 115
"""Characters of a sentence in a line."""


def as_text(found: Forecast) -> str:
    """The forecast by topic: parameters, work, memory by stage, disk, time."""
    topics = {"parameters": _parameters, "work": _work, "memory": _memory, "disk": _disk, "time": _time}
    width = max(map(len, topics)) + 2
    blocks = []
    for topic, describe in topics.items():
        first, *others = describe(found)
        blocks.append("\n".join([f"{topic:<{width}}{first}", *(f"{'':<{width}}{line}" for line in others)]))
    return "\n\n".join(blocks)


def _parameters(found: Forecast) -> Iterator[str]:
    trained = found.trained
    frozen = f", {trained.num_frozen:,} frozen" if trained.num_frozen else ""
    yield f"{trained.num_trained:,} trained{frozen}"
    yield ", ".join(f"{part} {count:,}" for part, count in count_parts(found).items())
    yield f"from {found.facts.origin}"


def _work(found: Forecast) -> Iterator[str]:
    workload = found.workload
    if workload is None:
        yield f"not known: {found.no_workload}"
        return
    searches = workload.searches
    epoch = f"{workload.steps_per_epoch:,} an epoch of {workload.num_train_rows:,} rows"
    yield f"{_count(workload.total_steps, 'step')} ({epoch}), {workload.micro_batches:.1f} micro-batches each"
    batches = f"{searches.num_rows:,} rows in {_count(len(searches.batches), 'batch')}"
    yield f"{_count(workload.num_evaluations, 'evaluation')} of {batches}; {_count(workload.num_saves, 'save')} at steps"
    yield f"lengths from {workload.origin}"
    if found.idle is not None:
        yield from _lines(f"warning: {found.idle.warning}")


def _memory(found: Forecast) -> Iterator[str]:
    request = found.request
    world_size, capacity = request.machines.world_size, request.capacity
    what = _count(world_size, "GPU" if request.machines.device == "cuda" else "rank")
    yield f"of each of {what}, MB by part"
    yield from _columns([[*HEAD, ""], *(_memory_row(memory, found) for memory in found.memories)])
    yield from _sums(found.memories)
    if capacity is not None:
        low, high = overhead(max(each.peak for each in found.memories), world_size=world_size)
        besides = f"CUDA, NCCL and fragmentation take {low / GB:.1f} to {high / GB:.1f} GB besides"
        yield f"of {capacity / GB:.1f} GB; {besides}"
    if found.largest is not None:
        batch = found.largest
        fills = "" if found.config.machine.micro_batch_tokens else "; with micro_batch_tokens null a GPU is filled"
        yield f"largest micro-batch: {batch.num_rows} rows of {batch.source} + {batch.target} positions{fills}"
    elif found.facts.architecture is None:
        yield f"activations and search of `{found.facts.kind}` are not known"
    host = max(each.model.host for each in found.memories)
    if host:
        yield f"up to {host / GB:.1f} GB of host memory for each rank, for what is offloaded"
    yield f"take zero_stage {found.recommended}: {found.why}"
    stage = found.config.machine.zero_stage
    if stage not in (None, found.recommended):
        yield f"the recipe has zero_stage {stage}; null takes the recommended one"


def _memory_row(memory: Memory, found: Forecast) -> list[str]:
    model, request = memory.model, found.request
    gather = model.gather if memory.peaks_in_training else model.evaluation_gather
    parts = [model.weights, model.gradients, model.optimizer, model.buckets, gather]
    parts += [memory.activations, memory.logits, memory.search, memory.peak]
    capacity, world_size = request.capacity, request.machines.world_size
    verdict = "" if capacity is None else judge(memory, capacity=capacity, world_size=world_size)
    moment = "training" if memory.peaks_in_training else "evaluation"
    return [f"{memory.stage}", *(f"{each / MB:,.1f}" for each in parts), moment, verdict]


def _sums(memories: Sequence[Memory]) -> Iterator[str]:
    """Which parts of a row are in use at its peak."""
    if any(memory.peaks_in_training for memory in memories):
        yield "a peak in training is the sum of all parts but search"
    evaluating = [memory for memory in memories if not memory.peaks_in_training]
    if evaluating:
        keeps = ", with gradients and buckets" if any(memory.model.keeps_gradients for memory in evaluating) else ""
        yield f"a peak in evaluation is the sum of weights, optimizer, gather and search{keeps}"


def _disk(found: Forecast) -> Iterator[str]:
    disk, keep = found.disk, found.config.checkpoint.keep_last
    yield f"{_size(disk.total)} at most"
    yield f"checkpoints {_size(disk.checkpoints)}: {keep} of {_size(disk.checkpoint)}, one being written, the best one's weights"
    if disk.kept_weights:
        yield f"weights of older checkpoints {_size(disk.kept_weights)}"
    texts = f", texts of evaluations {_size(disk.texts)}" if disk.texts else ""
    yield f"models {_size(disk.models)}{texts}"


def _time(found: Forecast) -> Iterator[str]:
    times, workload = found.times, found.workload
    if times is None or workload is None:
        if workload is not None and found.facts.architecture is None:
            yield "not known for this model: --measure 12 trains a few steps of it on this machine"
        else:
            yield "not known: name a GPU with --gpu, or train a few steps on such a machine with --measure 12"
        return
    by_clock = ", at steps and by the clock" if times.num_saves > workload.num_saves else ""
    yield "likely (from - to)"
    yield from _columns(
        [
            ["", "each", "in all"],
            [_count(workload.total_steps, "step"), _span(times.pace.step), _span(times.steps)],
            [_count(workload.num_evaluations, "evaluation"), _span(times.pace.evaluation), _span(times.evaluations)],
            [f"{_count(times.num_saves, 'save')}{by_clock}", _span(times.save), _span(times.saves)],
            ["start and end", "", _span(times.pace.around)],
            ["together", "", _span(times.total)],
        ]
    )
    yield f"by {times.pace.origin}"
    if found.idle is not None:
        yield from _without_idle(found.idle, world_size=found.request.machines.world_size)
    if found.request.hours is not None:
        yield from _allocations(found, hours=found.request.hours)


def _allocations(found: Forecast, *, hours: float) -> Iterator[str]:
    short, likely, long = found.allocations
    if likely is None:
        yield f"an allocation of {hours:g} h is over before the first step: take a longer one"
        return
    most = "more" if long is None else f"{long.num_allocations}"
    least = f"{likely.num_allocations if short is None else short.num_allocations}"
    is_sure = least == most
    if likely.num_restarts:
        restarts = _count(likely.num_restarts, "restart")
        words = f"{likely.num_allocations} allocations of {hours:g} h: {restarts}, each with a set-up"
    else:
        words = f"it ends within one allocation of {hours:g} h"
    yield words if is_sure else f"by the likely time {words}; by the shortest and the longest {least} to {most}"
    yield f"a failure of a node costs at most {_seconds(likely.lost_seconds)} of training, and a set-up"


def _without_idle(idle: Idle, *, world_size: int) -> Iterator[str]:
    """What the run takes on as many ranks as have work, and with work for all."""
    for where, times in (
        (f"on {_count(idle.fewer.world_size, 'rank')}, without idle ones", idle.of_fewer),
        (f"on {_count(world_size, 'rank')} with machine.min_micro_batches={idle.advised}", idle.of_advised),
    ):
        if times is not None:
            yield f"{where}: a step {_span(times.pace.step)}, together {_span(times.total)}"


def _lines(text: str) -> list[str]:
    """A sentence in lines; the later ones are indented."""
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _count(number: int, what: str) -> str:
    plural = "es" if what.endswith("ch") else "s"
    return f"{number:,} {what}{'' if number == 1 else plural}"


def _span(values: Range) -> str:
    if values.low == values.high:
        return _seconds(values.likely)
    return f"{_seconds(values.likely)} ({_seconds(values.low)} - {_seconds(values.high)})"


def _seconds(value: float) -> str:
    if value < 1.0:
        return f"{value * 1000:.0f} ms"
    if value < 2 * MINUTE:
        return f"{value:.1f} s"
    if value < 2 * HOUR:
        return f"{value / MINUTE:.0f} min"
    return f"{value / HOUR:.1f} h" if value < 3 * DAY else f"{value / DAY:.1f} days"


def _size(num_bytes: float) -> str:
    return f"{num_bytes / GB:,.1f} GB" if num_bytes >= GB else f"{num_bytes / MB:,.1f} MB"
