"""The full state of a run to safetensors shards and back: fp32 masters and optimizer state by parameter name and offset.

Every rank copies what it owns and reads what it needs. So no rank ever holds the whole optimizer, and a run can resume on
any number of ranks and any ZeRO stage. Does not know when to save, nor how files are written.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import to_json
from torch import Tensor, nn

from dstrain.checkpoint.manifest import CheckpointError, Count, describe_fault, load_manifest, read_bounded, shown
from dstrain.checkpoint.rows import RowsOf
from dstrain.checkpoint.saved_shards import MASTER, open_shards
from dstrain.cluster.process_group import Ranks
from dstrain.engine.engine import Engine
from dstrain.engine.shards import (
    Shard,
    applied_steps,
    compact_parameters,
    owned_shards,
    set_applied_steps,
    split_shard,
    trained_parameters,
)

STATE_FILE = "state.json"
MAX_STATE_BYTES = 256 << 20
ROWS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class EpochPart:
    """Steps at the beginning of an epoch, or after another part of it, and what decided which rows they trained."""

    seed: Count
    batch_size: Annotated[int, Field(ge=1)]
    batch_unit: Literal["sequences", "target_tokens"]
    num_steps: Count


@dataclass(frozen=True)
class RunState:
    """The state of a run except its tensors."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    step: Count
    """Optimizer steps so far, including skipped ones."""
    epoch: Count
    step_in_epoch: Count
    """With `epoch`, the position of the next step in the data; counted after `epoch_parts`."""
    cut: Mapping[str, Any]
    """How steps are cut into micro-batches; used again on resume, since dropout depends on it."""
    data: Mapping[str, str]
    """Content fingerprints of the token sets (`train`, `eval`), of the sources they were made from (`data.train.0`) and of
    the tokenizer."""
    applied_steps: Count = 0
    """Steps that changed the weights: what Adam's bias correction counts."""
    skipped_steps: Count = 0
    loss_scaler: Mapping[str, bool | int | float] = field(default_factory=dict)
    hooks: Mapping[str, Any] = field(default_factory=dict)
    """State of every hook, by the hook's name."""
    epoch_parts: tuple[EpochPart, ...] = ()
    """What was trained of this epoch before its batch size, the unit of that or the seed changed."""
    rows: Mapping[str, tuple[Count, ...]] = field(default_factory=dict)
    """The ascending rows that are saved of a parameter of which not all are, by its name."""
    base: str | None = None
    """Hash of the weights that are not trained, which the checkpoint does not hold; None if all are trained."""


_RUN_STATE = TypeAdapter(RunState)
_EPOCH_PART = TypeAdapter(EpochPart)


@dataclass(frozen=True)
class Snapshot:
    """What one rank owns of a run's state, copied to host memory, so that training can continue at once."""

    weights: Mapping[str, Tensor]
    """`master/<parameter>@<offset>` to [numel] float32."""
    optimizer: Mapping[str, Tensor]
    """`<moment>/<parameter>@<offset>` to [numel] float32."""

    @property
    def num_bytes(self) -> int:
        return 4 * sum(tensor.numel() for part in (self.weights, self.optimizer) for tensor in part.values())


class HostBuffers:
    """Host memory for snapshots, reused by the next one; page-locked if the device is a GPU."""

    def __init__(self, device: torch.device) -> None:
        self._pinned = device.type == "cuda"
        self._buffers: dict[str, Tensor] = {}

    def copy(self, name: str, tensor: Tensor) -> Tensor:
        """A copy of `tensor` ([numel]); complete only once the device has been synchronised."""
        buffer = self._buffers.get(name)
        if buffer is None or buffer.shape != tensor.shape:
            buffer = torch.empty(tensor.shape, dtype=torch.float32, pin_memory=self._pinned)
            self._buffers[name] = buffer
        return buffer.copy_(tensor.detach(), non_blocking=self._pinned)


def take_snapshot(engine: Engine, *, ranks: Ranks, buffers: HostBuffers) -> Snapshot:
    """Copy what this rank owns; not collective. The shards of all ranks together cover every trained parameter once."""
    weights, optimizer = {}, {}
    for shard in _shards_to_write(engine, ranks=ranks):
        at = f"{shard.name}@{shard.start}"
        weights[f"{MASTER}/{at}"] = buffers.copy(f"{MASTER}/{at}", shard.master)
        for kind, moment in shard.moments.items():
            optimizer[f"{kind}/{at}"] = buffers.copy(f"{kind}/{at}", moment)
    if ranks.device.type == "cuda":
        torch.cuda.synchronize(ranks.device)
    return Snapshot(weights, optimizer)


def with_engine_state(state: RunState, *, engine: Engine) -> RunState:
    """`state` with the counters that the engine keeps, and which rows it trains."""
    return replace(
        state,
        applied_steps=applied_steps(engine.wrapped),
        skipped_steps=engine.skipped_steps,
        loss_scaler=engine.loss_scaler_state(),
        rows=engine.trained_rows,
    )


def load_state(directory: Path) -> RunState:
    """The state of a run except its tensors, from a checkpoint.

    Raises:
        CheckpointError: the file cannot be read or is malformed.
    """
    path = directory / STATE_FILE
    try:
        state: RunState = _RUN_STATE.validate_json(read_bounded(path, max_bytes=MAX_STATE_BYTES), strict=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        raise CheckpointError(f"{path}: cannot be read as the state of a run ({describe_fault(error)})") from error
    return state


def read_epoch_part(values: Mapping[str, Any], *, directory: Path) -> EpochPart:
    """An EpochPart with values of the recipe in a checkpoint.

    Raises:
        CheckpointError: a value is not one that a recipe can have.
    """
    try:
        part: EpochPart = _EPOCH_PART.validate_json(to_json(values), strict=True)  # as it is read from the state
    except ValidationError as error:
        raise CheckpointError(f"{directory}: its recipe cannot be read ({describe_fault(error)})") from error
    return part


def load_weights(directory: Path, *, module: nn.Module, base: str | None = None) -> None:
    """Copy a checkpoint's fp32 masters into a loss module that DeepSpeed does not wrap yet.

    What was not trained stays as it is; `base` is its hash, if the recipe freezes a part of the model.

    Raises:
        CheckpointError: the checkpoint is of another model.
    """
    state = load_state(directory)
    check_base(state, base=base, directory=directory)
    rows = find_rows(state, module=module, directory=directory)
    with open_shards(directory) as saved, torch.no_grad():
        for name, parameter in trained_parameters(module):
            found = rows.get(name)
            saved.check_numel(name, numel=parameter.numel() if found is None else found.saved_numel)
            flat = parameter.detach().to(torch.float32, copy=True).flatten()
            saved.fill(flat, kind=MASTER, name=name, start=0, rows=found)
            parameter.copy_(flat.view_as(parameter))


def check_base(state: RunState, *, base: str | None, directory: Path) -> None:
    """Raise CheckpointError if the weights that are not trained, with the hash `base`, are not those of a checkpoint."""
    if state.base is not None and state.base != base:
        model = load_manifest(directory).recipe.get("model")
        name = shown(repr(model.get("name"))) if isinstance(model, Mapping) else "unknown"
        raise CheckpointError(
            f"{directory}: it holds only the weights that were trained, and the others are not those of the model that it was "
            f"trained with: the files of model.name {name} have changed since; put them back, or name its commit on the Hub "
            "(model.revision)"
        )


def load_optimizer(directory: Path, *, engine: Engine, state: RunState, starts_anew: bool = False) -> None:
    """Copy masters and optimizer state of the shards that this rank owns into the engine; not collective.

    The state of an optimizer that is reset is left as the engine has made it, like that of rows that were not trained.
    """
    rows = find_rows(state, module=engine.module, directory=directory)
    with open_shards(directory) as saved, torch.no_grad():
        for shard in owned_shards(engine.wrapped, moments=engine.moments):
            fill = partial(saved.fill, name=shard.name, start=shard.start, rows=rows.get(shard.name))
            fill(shard.master, kind=MASTER)
            for kind, moment in () if starts_anew else shard.moments.items():
                fill(moment, kind=kind)
    set_applied_steps(engine.wrapped, count=0 if starts_anew else state.applied_steps)
    # of another precision, a checkpoint has no loss scale or one that is not used
    scaler = {key: value for key, value in state.loss_scaler.items() if key in engine.loss_scaler_state()}
    engine.restore_counters(loss_scaler=scaler, skipped_steps=state.skipped_steps)


def find_changed_rows(directory: Path, *, embedding: nn.Embedding, name: str, moments: Iterable[str]) -> list[int]:
    """The rows of an embedding, saved with all rows, that training has changed or would change without a gradient.

    `embedding` is as the run found it, in fp32 on the CPU.
    """
    changed = torch.zeros(embedding.num_embeddings, dtype=torch.bool)
    width = embedding.embedding_dim
    with open_shards(directory) as saved, torch.no_grad():
        saved.check_numel(name, numel=embedding.weight.numel())
        for first in range(0, embedding.num_embeddings, ROWS_AT_ONCE):
            before = embedding.weight[first : first + ROWS_AT_ONCE]
            flat = torch.empty(before.numel(), dtype=torch.float32)
            for kind in (MASTER, *moments):
                saved.fill(flat, kind=kind, name=name, start=first * width)
                differs = flat.view_as(before) != (before if kind == MASTER else 0.0)
                changed[first : first + ROWS_AT_ONCE] |= differs.any(dim=1)
    return changed.nonzero().flatten().tolist()


def find_rows(state: RunState, *, module: nn.Module, directory: Path) -> Mapping[str, RowsOf]:
    """Of each embedding that has part of its rows, in the module or in the checkpoint: which rows are where."""
    compact = compact_parameters(module)
    shapes = {name: tuple(getattr(each, "ds_shape", each.shape)) for name, each in trained_parameters(module)}
    found = {}
    for name in {*compact, *state.rows}:
        own, saved = compact.get(name), state.rows.get(name)
        shape = shapes.get(name, ()) if own is None else (own.num_embeddings, own.embedding_dim)
        if len(shape) != 2 or (saved is not None and not _are_rows(saved, num_all=shape[0])):
            raise CheckpointError(
                f"{directory}: it holds some rows of parameter {name}, which this model does not have: it was saved with "
                "another model; start a new run with another output_dir"
            )
        found[name] = RowsOf(None if own is None else own.ids, saved, *shape)
    return found


def _are_rows(ids: tuple[int, ...], *, num_all: int) -> bool:
    return bool(ids) and ids[-1] < num_all and all(low < high for low, high in pairwise(ids))


def _shards_to_write(engine: Engine, *, ranks: Ranks) -> Iterator[Shard]:
    for owned in owned_shards(engine.wrapped, moments=engine.moments):
        everywhere = engine.zero_stage == 0  # then every rank holds everything, and each writes a part of it
        shard = split_shard(owned, rank=ranks.rank, world_size=ranks.world_size) if everywhere else owned
        if shard.numel:
            yield shard
