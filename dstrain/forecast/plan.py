"""Puts a forecast together: what a run trains, what it takes of memory, disk and time, and whether that suffices. No torch.

Deciding is in the other modules of this room; here are the order of questions and the values of null keys.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from dstrain.config.schema import RunConfig
from dstrain.engine.ds_config import LARGEST_BUCKET
from dstrain.errors import UserError
from dstrain.forecast.activations import Kernels, logits_bytes, saved_bytes, search_bytes
from dstrain.forecast.allocation import Allocation, plan_allocations
from dstrain.forecast.disk import Disk, find_disk
from dstrain.forecast.durations import Range, estimate_save, exactly
from dstrain.forecast.earlier import Wanted, find_rates, rates_of
from dstrain.forecast.fits import Memory, allowed_stages, recommend_stage
from dstrain.forecast.idle import advised_micro_batches, fewer_machines, idle_warning
from dstrain.forecast.lengths import RowLengths, estimate_lengths, exact_lengths
from dstrain.forecast.memory import PERSISTENT_ELEMENTS, PREFETCHED_ELEMENTS, STAGES, Layout, find_model_memory
from dstrain.forecast.model_source import ModelFacts, find_model
from dstrain.forecast.pace import Pace, Trial, pace_of_peak, pace_of_rates, pace_of_trial
from dstrain.forecast.prepared import Found, find_prepared
from dstrain.forecast.request import Machines, Request
from dstrain.forecast.trained import Rows, Trained, find_trained
from dstrain.forecast.workload import Batch, Workload, find_workload

WIDTHS = {"fp32": 4, "bf16": 2, "fp16": 2}
MOMENTS = {"adam": 2, "adamw": 2, "sgd": 1}
"""Optimizer to its tensors of state for each parameter, as `engine/shards.py` lists them."""


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of a whole run."""

    pace: Pace
    save: Range
    """For which training stands still, at each save."""
    steps: Range
    evaluations: Range
    saves: Range
    num_saves: int
    """Those by the clock among them."""

    @property
    def work(self) -> Range:
        """All but starts and the end."""
        return self.steps.plus(self.evaluations).plus(self.saves)

    @property
    def total(self) -> Range:
        """With one start and the end."""
        return self.work.plus(self.pace.around)


@dataclass(frozen=True, slots=True)
class Idle:
    """Ranks that have no work in a step, and what a start without idle ranks would take."""

    warning: str
    """The same that the run itself would give."""
    fewer: Machines
    """As many ranks as have work."""
    of_fewer: Times | None
    """None where no pace is known for other machines."""
    advised: int
    """`machine.min_micro_batches` that gives work to most ranks."""
    of_advised: Times | None


@dataclass(frozen=True)
class Forecast:
    """What a run will take."""

    config: RunConfig
    request: Request
    facts: ModelFacts
    trained: Trained
    memories: tuple[Memory, ...]
    """One for each stage that the precision allows, in order."""
    stage: int
    """The stage of the recipe, or with null the one to take."""
    recommended: int
    why: str
    disk: Disk
    workload: Workload | None
    no_workload: str
    """Why the work is not known; empty if it is."""
    largest: Batch | None
    """The micro-batch that needs most memory."""
    times: Times | None
    idle: Idle | None
    """None where every rank has work, and where the work is not known."""
    allocations: tuple[Allocation | None, Allocation | None, Allocation | None]
    """By the shortest, the likely and the longest time; None where the set-up takes all of one, or none is asked for."""


def forecast(config: RunConfig, request: Request, *, cache: Path, trial: Trial | None = None) -> Forecast:
    """What a run will take; `trial` is a short run of the recipe that was measured.

    Raises:
        UserError: the model's files or the earlier run cannot be read.
    """
    found = find_prepared(config, cache=cache)
    facts = look_at_model(config, found=found, num_parameters=request.num_parameters)
    trained = count_trained(config, facts=facts, found=found)
    device = request.machines.device
    lengths, workload, no_workload = None, None, ""
    try:
        lengths = estimate_lengths(config) if found is None else exact_lengths(config, found=found)
        workload = find_workload(config, lengths=lengths, device=device)
    except (UserError, OSError) as error:
        no_workload = str(error)
    largest = find_largest(config, facts=facts, workload=workload, device=device)
    memories = find_memories(
        config, facts=facts, trained=trained, workload=workload, largest=largest, machines=request.machines
    )
    world_size = request.machines.world_size
    allowed = allowed_stages(config.machine, precision=config.precision)
    recommended, why = recommend_stage(memories, allowed=allowed, capacity=request.capacity, world_size=world_size)
    stage = config.machine.zero_stage
    stage = recommended if stage is None else max(stage, 0 if config.precision == "fp32" else 1)
    disk = find_disk(
        config,
        num_trained=trained.num_trained,
        num_exported=trained.num_exported,
        num_moments=MOMENTS[config.training.optimizer],
        width=WIDTHS[config.precision],
        workload=workload,
    )
    tell_times = partial(_tell_times, facts=facts, trained=trained, stage=stage, trial=trial, disk=disk)
    times, idle = None, None
    if workload is not None and lengths is not None:
        times = tell_times(config, request, workload)
        # a trial was measured with these ranks, and says nothing of others
        others = tell_times if trial is None else None
        idle = _find_idle(config, request, lengths=lengths, workload=workload, tell_times=others)
    return Forecast(
        config,
        request,
        facts,
        trained,
        memories,
        stage,
        recommended,
        why,
        disk,
        workload,
        no_workload,
        largest,
        times,
        idle,
        _allocate(config, request, times=times, workload=workload),
    )


def look_at_model(config: RunConfig, *, found: Found | None, num_parameters: int | None = None) -> ModelFacts:
    """The model as training has it, with the rows that its tokenizer needs, as far as that is known."""
    note = None if found is None else found.note
    return find_model(
        config.model,
        vocabulary_size=None if note is None else note.vocabulary_size,
        num_kept=None if note is None else note.num_kept,
        num_parameters=num_parameters,
    )


def count_trained(config: RunConfig, *, facts: ModelFacts, found: Found | None) -> Trained:
    """What the recipe trains of the model."""
    can_compact = config.model.vocabulary == "full" and not config.training.weight_decay
    rows = Rows() if found is None else Rows(found.note.num_kept, found.num_read, found.note.num_new)
    return find_trained(
        facts.weights,
        model=config.model,
        kind=facts.kind,
        rows=rows,
        num_buffers=facts.num_buffers,
        compacts=config.machine.compact_embedding if can_compact else False,
    )


def find_layout(
    config: RunConfig, *, stage: int, world_size: int, num_trained: int, accumulates: bool = True
) -> Layout:
    """How a run divides its model on a stage, with what `machine.deepspeed` sets."""
    zero: Mapping[str, Any] = config.machine.deepspeed.get("zero_optimization") or {}

    def setting(name: str, default: int) -> int:
        value = zero.get(f"stage3_{name}", zero.get(name, default))
        return int(value) if isinstance(value, int | float) else default

    bucket = zero.get("reduce_bucket_size", min(LARGEST_BUCKET, num_trained))
    return Layout(
        stage=stage,
        world_size=world_size,
        width=WIDTHS[config.precision],
        num_moments=MOMENTS[config.training.optimizer],
        bucket_elements=int(bucket),
        offloads_optimizer=config.machine.offload_optimizer and stage > 0,
        offloads_parameters=config.machine.offload_parameters and stage == 3,
        accumulates=accumulates,
        persistent_elements=setting("param_persistence_threshold", PERSISTENT_ELEMENTS),
        prefetched_elements=setting("prefetch_bucket_size", PREFETCHED_ELEMENTS),
    )


def find_memories(
    config: RunConfig,
    *,
    facts: ModelFacts,
    trained: Trained,
    machines: Machines,
    workload: Workload | None = None,
    largest: Batch | None = None,
) -> tuple[Memory, ...]:
    """The memory of each stage that the precision allows; without a workload or a known family only that of the model."""
    width, architecture = WIDTHS[config.precision], facts.architecture
    kernels = Kernels(machines.device, width)
    activations = logits = search = 0
    if architecture is not None and largest is not None and workload is not None:
        recomputes = config.machine.activation_checkpointing
        activations = saved_bytes(architecture, largest, kernels=kernels, recomputes=recomputes)
        trains_head = any(weight.is_trained for weight in trained.weights if weight.part in ("embedding", "head"))
        logits = logits_bytes(architecture, labels=largest.labels, kernels=kernels, trains_head=trains_head)
        search = search_bytes(architecture, workload.searches, num_beams=config.evaluation.num_beams, width=width)
    accumulates = workload is None or workload.micro_batches > machines.world_size
    return tuple(
        Memory(
            stage,
            find_model_memory(
                trained,
                layout=find_layout(
                    config,
                    stage=stage,
                    world_size=machines.world_size,
                    num_trained=trained.num_trained,
                    accumulates=accumulates,
                ),
            ),
            activations,
            logits,
            search,
        )
        for stage in STAGES
        if stage > 0 or config.precision == "fp32"
    )


def find_largest(config: RunConfig, *, facts: ModelFacts, workload: Workload | None, device: str) -> Batch | None:
    """The micro-batch that needs most memory; None if that is not known."""
    architecture = facts.architecture
    if workload is None or architecture is None:
        return None
    kernels, recomputes = Kernels(device, WIDTHS[config.precision]), config.machine.activation_checkpointing

    def cost(batch: Batch) -> int:
        saved = saved_bytes(architecture, batch, kernels=kernels, recomputes=recomputes)
        return saved + logits_bytes(architecture, labels=batch.labels, kernels=kernels)

    return workload.largest(cost)


def _find_pace(
    config: RunConfig,
    request: Request,
    *,
    facts: ModelFacts,
    trained: Trained,
    workload: Workload,
    stage: int,
    trial: Trial | None,
) -> Pace | None:
    architecture, beams = facts.architecture, config.evaluation.num_beams
    if trial is not None:
        return pace_of_trial(trial, architecture=architecture, workload=workload, num_beams=beams)
    if architecture is None:
        return None
    machines = request.machines
    if request.like is not None:
        rates = [rates_of(request.like)]
    else:
        wanted = Wanted(config.precision, facts.kind, trained.num_all, machines.device, machines.gpu)
        rates = find_rates(config, wanted=wanted)
    if rates:
        return pace_of_rates(
            rates, architecture=architecture, workload=workload, world_size=machines.world_size, num_beams=beams
        )
    if machines.device == "cuda" and machines.gpu is None:
        return None
    return pace_of_peak(
        architecture,
        workload,
        machines=machines,
        precision=config.precision,
        stage=stage,
        num_trained=trained.num_trained,
        recomputes=config.machine.activation_checkpointing,
        num_beams=beams,
    )


def _find_idle(
    config: RunConfig,
    request: Request,
    *,
    lengths: RowLengths,
    workload: Workload,
    tell_times: Callable[[RunConfig, Request, Workload], Times | None] | None,
) -> Idle | None:
    world_size, first = request.machines.world_size, workload.steps[0]
    num_rows = sum(batch.num_rows for batch in first)
    warning = idle_warning(len(first), num_rows=num_rows, world_size=world_size)
    if warning is None:
        return None
    fewer = fewer_machines(request.machines, num_ranks=len(first))
    of_fewer = tell_times(config, replace(request, machines=fewer), workload) if tell_times else None
    advised = advised_micro_batches(num_rows=num_rows, world_size=world_size)
    of_advised = None
    if tell_times is not None and advised > len(first):
        machine = config.machine.model_copy(update={"min_micro_batches": advised})
        cut = config.model_copy(update={"machine": machine})
        of_advised = tell_times(cut, request, find_workload(cut, lengths=lengths, device=request.machines.device))
    return Idle(warning, fewer, of_fewer, advised, of_advised)


def _tell_times(
    config: RunConfig,
    request: Request,
    workload: Workload,
    *,
    facts: ModelFacts,
    trained: Trained,
    stage: int,
    trial: Trial | None,
    disk: Disk,
) -> Times | None:
    pace = _find_pace(config, request, facts=facts, trained=trained, workload=workload, stage=stage, trial=trial)
    if pace is None:
        return None
    world_size = request.machines.world_size
    save = estimate_save(num_bytes=disk.checkpoint, world_size=world_size, in_background=config.checkpoint.background)
    steps = pace.step.times(workload.total_steps)
    evaluations = pace.evaluation.times(workload.num_evaluations)
    if config.machine.evaluation_job is not None:
        evaluations = exactly(0.0)
    minutes = config.checkpoint.every_minutes
    by_clock = int(steps.plus(evaluations).likely / 60.0 / minutes) if minutes else 0
    num_saves = max(workload.num_saves, by_clock)
    return Times(pace, save, steps, evaluations, save.times(num_saves), num_saves)


def _allocate(
    config: RunConfig, request: Request, *, times: Times | None, workload: Workload | None
) -> tuple[Allocation | None, Allocation | None, Allocation | None]:
    if request.hours is None or times is None or workload is None:
        return None, None, None
    found = [
        plan_allocations(
            work_seconds=work,
            set_up_seconds=around,
            hours=request.hours,
            reserve_seconds=config.machine.reserve_seconds,
            every_minutes=config.checkpoint.every_minutes,
            save_gap=work / max(1, workload.num_saves),
        )
        for work, around in zip(times.work, times.pace.around, strict=True)
    ]
    return found[0], found[1], found[2]


def with_stage(config: RunConfig, stage: int) -> RunConfig:
    """The configuration with this ZeRO stage."""
    return config.model_copy(update={"machine": config.machine.model_copy(update={"zero_stage": stage})})


def smallest(memories: tuple[Memory, ...]) -> Memory:
    """The memory of the stage whose model takes least."""
    return min(memories, key=lambda memory: memory.model.lower_bound)
