"""The full state of a run to safetensors shards and back: fp32 masters and optimizer state by parameter name and offset.

Every rank copies what it owns and reads what it needs. So no rank ever holds the whole optimizer, and a run can resume on
any number of ranks and any ZeRO stage. Does not know when to save, nor how files are written.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import to_json
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from dstrain.checkpoint.manifest import CheckpointError, Count, describe_fault, load_manifest, read_bounded, shown
from dstrain.cluster.process_group import Ranks
from dstrain.engine.engine import Engine
from dstrain.engine.shards import Shard, applied_steps, owned_shards, set_applied_steps, split_shard, trained_parameters

MASTER = "master"
STATE_FILE = "state.json"
MAX_STATE_BYTES = 256 << 20


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
    """`state` with the counters that the engine keeps."""
    return replace(
        state,
        applied_steps=applied_steps(engine.wrapped),
        skipped_steps=engine.skipped_steps,
        loss_scaler=engine.loss_scaler_state(),
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


def load_weights(directory: Path, *, module: nn.Module) -> None:
    """Copy a checkpoint's fp32 masters into a loss module that DeepSpeed does not wrap yet.

    Raises:
        CheckpointError: the checkpoint is of another model.
    """
    with open_shards(directory) as saved, torch.no_grad():
        for name, parameter in trained_parameters(module):
            saved.check_numel(name, numel=parameter.numel())
            flat = torch.empty(parameter.numel(), dtype=torch.float32)
            saved.fill(flat, kind=MASTER, name=name, start=0)
            parameter.copy_(flat.view_as(parameter))


def load_optimizer(directory: Path, *, engine: Engine, state: RunState, starts_anew: bool = False) -> None:
    """Copy masters and optimizer state of the shards that this rank owns into the engine; not collective.

    The state of an optimizer that is reset is left as the engine has made it.
    """
    with open_shards(directory) as saved, torch.no_grad():
        for shard in owned_shards(engine.wrapped, moments=engine.moments):
            saved.fill(shard.master, kind=MASTER, name=shard.name, start=shard.start)
            for kind, moment in () if starts_anew else shard.moments.items():
                saved.fill(moment, kind=kind, name=shard.name, start=shard.start)
    set_applied_steps(engine.wrapped, count=0 if starts_anew else state.applied_steps)
    # of another precision, a checkpoint has no loss scale or one that is not used
    scaler = {key: value for key, value in state.loss_scaler.items() if key in engine.loss_scaler_state()}
    engine.restore_counters(loss_scaler=scaler, skipped_steps=state.skipped_steps)


class SavedShards:
    """The shards in a checkpoint's safetensors files, indexed by kind, parameter name and offset."""

    def __init__(self, paths: Iterable[Path], *, stack: ExitStack) -> None:
        self._index: dict[tuple[str, str], list[tuple[int, int, Any, str]]] = {}
        for path in paths:
            opened = stack.enter_context(_open(path))
            for key in opened.keys():  # noqa: SIM118 - a safetensors handle, not a mapping
                kind, name, start = _split_key(key, path=path)
                numel = _numel_of(opened, key, path=path)
                self._index.setdefault((kind, name), []).append((start, numel, opened, key))
        for found in self._index.values():
            found.sort(key=lambda shard: shard[0])

    def check_numel(self, name: str, *, numel: int) -> None:
        """Check that a parameter was not saved with more elements than `numel`; `fill` notices if it has fewer.

        Raises:
            CheckpointError: it was saved with more.
        """
        saved_numel = max((start + length for start, length, *_ in self._index.get((MASTER, name), [])), default=0)
        if saved_numel > numel:
            raise CheckpointError(
                f"the checkpoint has {saved_numel} elements of parameter {name}, the model {numel}: it was saved with another "
                "model; start a new run with another output_dir"
            )

    def fill(self, flat: Tensor, *, kind: str, name: str, start: int) -> None:
        """Fill `flat` ([numel] float32) with the elements of a saved parameter from `start` on.

        Raises:
            CheckpointError: the checkpoint does not hold all of them.
        """
        stop = start + flat.numel()
        covered = start
        for begin, numel, opened, key in self._index.get((kind, name), []):
            low, high = max(start, begin, covered), min(stop, begin + numel)
            if low >= high or low > covered:
                continue
            flat[low - start : high - start].copy_(opened.get_slice(key)[low - begin : high - begin])
            covered = high
        if covered < stop:
            raise CheckpointError(
                f"the checkpoint has no {kind} for elements {covered} to {stop} of parameter {name}: it was saved with "
                "another model; start a new run with another output_dir"
            )


@contextmanager
def open_shards(directory: Path) -> Iterator[SavedShards]:
    """The shards of a verified checkpoint; its files stay open inside the `with` block.

    Raises:
        CheckpointError: a file is not a safetensors file, or holds something other than shards.
    """
    # only what the manifest names: another file in the directory was never verified
    names = [entry.path for entry in load_manifest(directory).files if entry.path.endswith(".safetensors")]
    with ExitStack() as stack:
        yield SavedShards([directory / name for name in sorted(names)], stack=stack)


def _shards_to_write(engine: Engine, *, ranks: Ranks) -> Iterator[Shard]:
    for owned in owned_shards(engine.wrapped, moments=engine.moments):
        everywhere = engine.zero_stage == 0  # then every rank holds everything, and each writes a part of it
        shard = split_shard(owned, rank=ranks.rank, world_size=ranks.world_size) if everywhere else owned
        if shard.numel:
            yield shard


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not a safetensors file ({shown(str(error))})") from error


def _numel_of(opened: Any, key: str, *, path: Path) -> int:
    shard = opened.get_slice(key)
    shape, dtype = shard.get_shape(), shard.get_dtype()
    if len(shape) != 1 or dtype != "F32":
        raise CheckpointError(f"{path}: {key[:80]!r} has shape {shape[:8]} and type {dtype}; shards are flat and F32")
    return int(shape[0])


def _split_key(key: str, *, path: Path) -> tuple[str, str, int]:
    kind, _, rest = key.partition("/")
    name, _, start = rest.rpartition("@")
    if not (start.isdecimal() and start.isascii() and len(start) < 20 and name):
        raise CheckpointError(f"{path}: {key[:80]!r} is not the name of a shard, kind/parameter@offset")
    return kind, name, int(start)
