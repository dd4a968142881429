"""Settles the ZeRO stage of a start, and refuses a run whose model surely does not fit, before the model is loaded."""

import logging

import torch

from dstrain.cluster.process_group import Ranks
from dstrain.config.schema import RunConfig
from dstrain.engine.ds_config import effective_zero_stage
from dstrain.errors import UserError
from dstrain.forecast.fits import Memory, allowed_stages, recommend_stage, refusal
from dstrain.forecast.lengths import exact_lengths
from dstrain.forecast.plan import (
    count_trained,
    find_largest,
    find_memories,
    look_at_model,
    smallest,
    with_stage,
)
from dstrain.forecast.prepared import Found
from dstrain.forecast.request import Machines
from dstrain.forecast.trained import Trained
from dstrain.forecast.workload import find_workload
from dstrain.run.note import make_note
from dstrain.run.prepare import Prepared

UNKNOWN_STAGE = 1
"""Taken for null where the model's size cannot be found out beforehand."""

log = logging.getLogger(__name__)


def settle_stage(config: RunConfig, *, prepared: Prepared, ranks: Ranks) -> RunConfig:
    """`config` with a ZeRO stage where it has null; a collective call.

    Raises:
        UserError: weights, gradients and optimizer alone are larger than the memory of a GPU.
    """
    capacity = _capacity(ranks)
    stage, refused = config.machine.zero_stage, None
    if ranks.rank == 0:
        stage, refused = _settle(config, prepared=prepared, ranks=ranks, capacity=capacity)
    stage = ranks.broadcast(stage, int | None)
    refused = ranks.broadcast(refused, str | None)
    if refused is not None:
        raise UserError(refused)
    assert stage is not None
    return with_stage(config, stage)


def _capacity(ranks: Ranks) -> int | None:
    """Bytes of the smallest GPU of all ranks; None on CPUs."""
    if ranks.device.type != "cuda":
        return None
    (negative,) = ranks.max([-int(torch.cuda.get_device_properties(ranks.device).total_memory)])
    return -int(negative)


def _settle(config: RunConfig, *, prepared: Prepared, ranks: Ranks, capacity: int | None) -> tuple[int, str | None]:
    """The stage, and why the run cannot fit; on rank 0."""
    wanted = config.machine.zero_stage
    if wanted is not None and capacity is None:
        return wanted, None
    try:
        memories, trained = _foretell(config, prepared=prepared, ranks=ranks)
    except (UserError, OSError) as error:
        if wanted is None:
            log.info("machine.zero_stage is %d: the memory of this model is not known (%s)", UNKNOWN_STAGE, error)
        return UNKNOWN_STAGE if wanted is None else wanted, None
    if wanted is None:
        allowed = allowed_stages(config.machine, precision=config.precision)
        wanted, why = recommend_stage(memories, allowed=allowed, capacity=capacity, world_size=ranks.world_size)
        log.info("machine.zero_stage is %d for %d rank(s): %s", wanted, ranks.world_size, why)
    if capacity is None:
        return wanted, None
    stage = effective_zero_stage(with_stage(config, wanted))
    return wanted, refusal(
        next(memory for memory in memories if memory.stage == stage),
        capacity=capacity,
        device=torch.cuda.get_device_name(ranks.device),
        world_size=ranks.world_size,
        num_trained=trained.num_trained,
        smallest=smallest(memories),
    )


def _foretell(config: RunConfig, *, prepared: Prepared, ranks: Ranks) -> tuple[tuple[Memory, ...], Trained]:
    tokenizer, vocabulary = prepared.tokenizer, prepared.vocabulary
    note = make_note(
        config,
        train=prepared.train.folder,
        evaluation=prepared.eval.folder,
        tokenizer=tokenizer,
        num_kept=None if vocabulary.is_whole else len(vocabulary),
    )
    found = Found(note, prepared.train, prepared.eval)
    facts = look_at_model(config, found=found)
    trained = count_trained(config, facts=facts, found=found)
    machines = Machines(ranks.device.type, None, ranks.world_size, num_nodes=1, cores=1)
    workload = find_workload(config, lengths=exact_lengths(config, found=found), device=ranks.device.type)
    largest = find_largest(config, facts=facts, workload=workload, device=ranks.device.type)
    memories = find_memories(
        config, facts=facts, trained=trained, machines=machines, workload=workload, largest=largest
    )
    return memories, trained
