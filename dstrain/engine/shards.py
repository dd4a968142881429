"""This rank's shards of fp32 master weights and optimizer state, on every ZeRO stage.

A shard is addressed by parameter name and offset, so that any number of ranks can load what any other saved. Knows the
private layout of DeepSpeed 0.19, and nothing of files.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dstrain.models.compact import CompactEmbedding, compact_embeddings

MOMENTS: Mapping[str, tuple[str, ...]] = {
    "adam": ("exp_avg", "exp_avg_sq"),
    "adamw": ("exp_avg", "exp_avg_sq"),
    "sgd": ("momentum_buffer",),
}
"""Optimizer to its state tensors of the parameter's shape, named as in torch.optim."""


@dataclass(frozen=True)
class Shard:
    """Elements `start` to `start + numel` of one flattened parameter, as views of the live fp32 tensors."""

    name: str
    start: int
    numel: int
    master: Tensor
    """[numel] float32."""
    moments: Mapping[str, Tensor]
    """State name to [numel] float32."""


def prime_optimizer(engine: Any, *, moments: tuple[str, ...]) -> None:
    """Create the optimizer's state as it is before the first step (zeros), which torch does only in that step."""
    optimizer = torch_optimizer(engine)
    for tensor in _stepped_tensors(engine):
        state = optimizer.state[tensor]
        for moment in moments:
            state.setdefault(moment, torch.zeros_like(tensor))
        if "exp_avg" in moments and "step" not in state:
            on_device = optimizer.defaults.get("fused") or optimizer.defaults.get("capturable")
            state["step"] = torch.zeros((), device=tensor.device if on_device else "cpu")


def applied_steps(engine: Any) -> int:
    """Optimizer steps that changed the weights, as the optimizer counts them; 0 if it does not (SGD)."""
    optimizer = torch_optimizer(engine)
    counts = [optimizer.state[tensor].get("step", 0) for tensor in _stepped_tensors(engine)]
    return int(counts[0]) if counts else 0


def set_applied_steps(engine: Any, *, count: int) -> None:
    """Set the optimizer's step count, which Adam's bias correction uses."""
    optimizer = torch_optimizer(engine)
    for tensor in _stepped_tensors(engine):
        if "step" in optimizer.state[tensor]:
            optimizer.state[tensor]["step"].fill_(count)


def torch_optimizer(engine: Any) -> torch.optim.Optimizer:
    """The torch optimizer under DeepSpeed's wrapper."""
    wrapped = engine.optimizer
    optimizer = wrapped if engine.zero_optimization_stage() == 0 else wrapped.optimizer
    assert isinstance(optimizer, torch.optim.Optimizer)
    return optimizer


def _stepped_tensors(engine: Any) -> list[Tensor]:
    """The tensors that the torch optimizer updates: parameters on stage 0, flat partitions on stages 1 to 3."""
    match engine.zero_optimization_stage():
        case 0:
            return [parameter for _, parameter in trained_parameters(engine.module)]
        case 3:
            return list(engine.optimizer.fp32_partitioned_groups_flat)
        case _:
            return list(engine.optimizer.single_partition_of_fp32_groups)


def owned_shards(engine: Any, *, moments: tuple[str, ...]) -> Iterator[Shard]:
    """This rank's shards; over all ranks they cover every trained parameter.

    On stages 1 to 3 shards do not overlap. On stage 0 every rank owns everything. The optimizer must have state
    (`prime_optimizer`, or one step): DeepSpeed aborts the process group if it is queried earlier.
    """
    stage = engine.zero_optimization_stage()
    for name, parameter in trained_parameters(engine.module):
        if stage == 0:
            state = engine.optimizer.state[parameter]
            views = {moment: state[moment].view(-1) for moment in moments}
            yield Shard(name, 0, parameter.numel(), parameter.data.view(-1), views)
        elif stage == 3:
            yield from _stage3_shard(engine, name, parameter, moments=moments)
        else:
            yield from _stage12_shard(engine, name, parameter, moments=moments)


def trained_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Trained parameters by name, tied ones once, without the loss module's `model.` prefix."""
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            yield name.removeprefix("model."), parameter


def compact_parameters(module: nn.Module) -> Mapping[str, CompactEmbedding]:
    """The module of a trained parameter that has part of its rows, by the parameter's name."""
    return {name.removeprefix("model."): compact for name, compact in compact_embeddings(module).items()}


def split_shard(shard: Shard, *, rank: int, world_size: int) -> Shard:
    """This rank's part of a shard that all ranks own (stage 0), so that each writes an equal share."""
    size = -(-shard.numel // world_size)
    start = min(rank * size, shard.numel)
    stop = min(start + size, shard.numel)
    return Shard(
        shard.name,
        shard.start + start,
        stop - start,
        shard.master[start:stop],
        {name: moment[start:stop] for name, moment in shard.moments.items()},
    )


def _stage12_shard(engine: Any, name: str, parameter: nn.Parameter, *, moments: tuple[str, ...]) -> Iterator[Shard]:
    mapping = parameter._hp_mapping  # type: ignore[attr-defined]
    if mapping is None:  # all of the parameter is on other ranks
        return
    zero = engine.optimizer
    flat = zero.single_partition_of_fp32_groups[mapping.param_group_index]
    state = zero.optimizer.state[flat]
    # hp: the fp32 master, addressed within the flat partition; lp: the 16-bit parameter, addressed within itself
    address = mapping.hp_fragment_address
    views = {moment: state[moment].narrow(0, address.start, address.numel) for moment in moments}
    yield Shard(name, mapping.lp_fragment_address.start, address.numel, mapping.hp_fragment.data, views)


def _stage3_shard(engine: Any, name: str, parameter: nn.Parameter, *, moments: tuple[str, ...]) -> Iterator[Shard]:
    zero = engine.optimizer
    group, offset, partition_numel = zero.grad_position[zero.get_param_id(parameter)]
    flat = zero.fp32_partitioned_groups_flat[group]
    start = partition_numel * zero._get_param_partition_rank(parameter)
    numel = min(partition_numel, parameter.ds_numel - start)  # type: ignore[attr-defined]
    if numel <= 0:  # the last partitions of a small parameter are padding
        return
    state = zero.optimizer.state[flat]
    views = {moment: state[moment].narrow(0, offset, numel) for moment in moments}
    yield Shard(name, start, numel, flat.data.narrow(0, offset, numel), views)
