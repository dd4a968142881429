"""Which part of every parameter's fp32 master and optimizer state lies on this rank, on every ZeRO stage.

A piece is addressed by parameter name and offset, so that what one machine saved any other can load. This file knows
DeepSpeed 0.19's private layout and nothing of files.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

MOMENTS: Mapping[str, tuple[str, ...]] = {
    "adam": ("exp_avg", "exp_avg_sq"),
    "adamw": ("exp_avg", "exp_avg_sq"),
    "sgd": ("momentum_buffer",),
}
"""State tensors of each optimizer that have the parameter's shape, by torch.optim's names."""


@dataclass(frozen=True)
class Piece:
    """Elements `start` to `start + numel` of one flattened parameter, as views of the live fp32 tensors."""

    name: str
    start: int
    numel: int
    master: Tensor
    """[numel] float32."""
    moments: Mapping[str, Tensor]
    """State name to [numel] float32."""


def prime_optimizer(engine: Any, *, moments: tuple[str, ...]) -> None:
    """Give the optimizer zero state, as its first step would find it: torch creates state only in that step."""
    optimizer = torch_optimizer(engine)
    for tensor in _stepped_tensors(engine):
        state = optimizer.state[tensor]
        for moment in moments:
            state.setdefault(moment, torch.zeros_like(tensor))
        if "exp_avg" in moments and "step" not in state:
            on_device = optimizer.defaults.get("fused") or optimizer.defaults.get("capturable")
            state["step"] = torch.zeros((), device=tensor.device if on_device else "cpu")


def applied_steps(engine: Any) -> int:
    """Optimizer steps that changed the weights, as the optimizer counts them; 0 where it keeps no count."""
    optimizer = torch_optimizer(engine)
    counts = [optimizer.state[tensor].get("step", 0) for tensor in _stepped_tensors(engine)]
    return int(counts[0]) if counts else 0


def set_applied_steps(engine: Any, *, count: int) -> None:
    """Set the count that Adam's bias correction uses."""
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
    """The tensors that the torch optimizer steps: parameters on stage 0, flat partitions above."""
    match engine.zero_optimization_stage():
        case 0:
            return [parameter for _, parameter in trained_parameters(engine.module)]
        case 3:
            return list(engine.optimizer.fp32_partitioned_groups_flat)
        case _:
            return list(engine.optimizer.single_partition_of_fp32_groups)


def owned_pieces(engine: Any, *, moments: tuple[str, ...]) -> Iterator[Piece]:
    """The pieces that lie on this rank; over all ranks they cover every trained parameter.

    Stages 1 to 3 share parameters out without overlap. On stage 0 every rank owns everything. The optimizer must have
    state (`prime_optimizer`, or one step): asking DeepSpeed earlier aborts the process group.
    """
    stage = engine.zero_optimization_stage()
    for name, parameter in trained_parameters(engine.module):
        if stage == 0:
            state = engine.optimizer.state[parameter]
            views = {moment: state[moment].view(-1) for moment in moments}
            yield Piece(name, 0, parameter.numel(), parameter.data.view(-1), views)
        elif stage == 3:
            yield from _stage3_piece(engine, name, parameter, moments=moments)
        else:
            yield from _stage12_piece(engine, name, parameter, moments=moments)


def trained_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Trained parameters by name, tied ones once, without the loss module's `model.` prefix."""
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            yield name.removeprefix("model."), parameter


def share_of(piece: Piece, *, rank: int, world_size: int) -> Piece:
    """The part of a piece that every rank owns alike (stage 0) which this rank writes."""
    size = -(-piece.numel // world_size)
    start = min(rank * size, piece.numel)
    stop = min(start + size, piece.numel)
    return Piece(
        piece.name,
        piece.start + start,
        stop - start,
        piece.master[start:stop],
        {name: moment[start:stop] for name, moment in piece.moments.items()},
    )


def _stage12_piece(engine: Any, name: str, parameter: nn.Parameter, *, moments: tuple[str, ...]) -> Iterator[Piece]:
    mapping = parameter._hp_mapping  # type: ignore[attr-defined]
    if mapping is None:  # the parameter lies wholly on other ranks
        return
    zero = engine.optimizer
    flat = zero.single_partition_of_fp32_groups[mapping.param_group_index]
    state = zero.optimizer.state[flat]
    place = mapping.hp_fragment_address
    views = {moment: state[moment].narrow(0, place.start, place.numel) for moment in moments}
    yield Piece(name, mapping.lp_fragment_address.start, place.numel, mapping.hp_fragment.data, views)


def _stage3_piece(engine: Any, name: str, parameter: nn.Parameter, *, moments: tuple[str, ...]) -> Iterator[Piece]:
    zero = engine.optimizer
    group, offset, partition_numel = zero.grad_position[zero.get_param_id(parameter)]
    flat = zero.fp32_partitioned_groups_flat[group]
    start = partition_numel * zero._get_param_partition_rank(parameter)
    numel = min(partition_numel, parameter.ds_numel - start)  # type: ignore[attr-defined]
    if numel <= 0:  # the last partitions of a small parameter are padding
        return
    state = zero.optimizer.state[flat]
    views = {moment: state[moment].narrow(0, offset, numel) for moment in moments}
    yield Piece(name, start, numel, flat.data.narrow(0, offset, numel), views)
