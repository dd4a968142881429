"""The full state of a run as safetensors pieces and back: fp32 masters and optimizer state by parameter name and offset.

Every rank writes what it owns and reads what it needs, so that no rank ever holds the whole optimizer, and any number of
ranks on any ZeRO stage can go on from what any other saved. Knows not when to save.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dstrain.checkpoint.manifest import CheckpointError, Manifest, describe_file
from dstrain.checkpoint.store import begin_save, commit_save, sync_path
from dstrain.cluster.process_group import Ranks
from dstrain.engine.engine import Engine
from dstrain.engine.pieces import Piece, applied_steps, owned_pieces, set_applied_steps, share_of, trained_parameters

MASTER = "master"
STATE_FILE = "state.json"


@dataclass(frozen=True)
class RunState:
    """All of a run that is not a tensor."""

    step: int
    """Optimizer steps tried."""
    epoch: int
    step_in_epoch: int
    """With `epoch`, where the next step begins in the data."""
    cut: Mapping[str, Any]
    """How steps are cut into micro-batches; used again on resume, since dropout belongs to a micro-batch."""
    data: Mapping[str, str]
    """Content fingerprints of the token sets."""
    applied_steps: int = 0
    """Steps that changed the weights: what Adam's bias correction counts."""
    skipped_steps: int = 0
    loss_scaler: Mapping[str, Any] = field(default_factory=dict)
    hooks: Mapping[str, Any] = field(default_factory=dict)
    """State of every hook by its name."""


@dataclass(frozen=True)
class RunIdentity:
    """What a manifest says of the run that saved it."""

    recipe_hash: str
    recipe: dict[str, Any]
    versions: dict[str, str]


def save_checkpoint(root: Path, *, engine: Engine, state: RunState, identity: RunIdentity, ranks: Ranks) -> Path:
    """Save the run's state; a collective call. Gives the committed directory."""
    parts = Path(ranks.broadcast(str(begin_save(root, step=state.step)) if ranks.rank == 0 else None))
    path = parts / f"rank-{ranks.rank:05d}.safetensors"
    _write_pieces(_pieces_to_write(engine, ranks=ranks), path=path)
    entries = ranks.gather(describe_file(path, directory=parts))
    committed: Path | None = None
    if entries is not None:
        state_path = parts / STATE_FILE
        _write_state(state, engine=engine, path=state_path)
        manifest = Manifest(
            step=state.step,
            world_size=ranks.world_size,
            recipe_hash=identity.recipe_hash,
            recipe=identity.recipe,
            versions=identity.versions,
            files=(*entries, describe_file(state_path, directory=parts)),
        )
        committed = commit_save(parts, manifest=manifest)
    return Path(ranks.broadcast(str(committed)))  # nobody goes on before the checkpoint exists


def load_state(directory: Path) -> RunState:
    """The part of a checkpoint that is not tensors."""
    return RunState(**json.loads((directory / STATE_FILE).read_bytes()))


def load_weights(directory: Path, *, module: nn.Module) -> None:
    """Copy a checkpoint's fp32 masters into a loss module that DeepSpeed does not wrap yet.

    Raises:
        CheckpointError: the checkpoint's parameters are not this model's.
    """
    with open_pieces(directory) as pieces, torch.no_grad():
        for name, parameter in trained_parameters(module):
            pieces.check_numel(name, numel=parameter.numel())
            flat = torch.empty(parameter.numel(), dtype=torch.float32)
            pieces.fill(flat, kind=MASTER, name=name, start=0)
            parameter.copy_(flat.view_as(parameter))


def load_optimizer(directory: Path, *, engine: Engine, state: RunState) -> None:
    """Copy masters and optimizer state of what this rank owns into the engine. No collective operation."""
    with open_pieces(directory) as pieces, torch.no_grad():
        for piece in owned_pieces(engine.wrapped, moments=engine.moments):
            pieces.fill(piece.master, kind=MASTER, name=piece.name, start=piece.start)
            for kind, moment in piece.moments.items():
                pieces.fill(moment, kind=kind, name=piece.name, start=piece.start)
    set_applied_steps(engine.wrapped, count=state.applied_steps)
    engine.restore_counters(loss_scaler=state.loss_scaler, skipped_steps=state.skipped_steps)


class SavedPieces:
    """The pieces of a checkpoint's safetensors files, indexed by kind, parameter name and offset."""

    def __init__(self, paths: Iterable[Path], *, stack: ExitStack) -> None:
        self._index: dict[tuple[str, str], list[tuple[int, int, Any, str]]] = {}
        for path in paths:
            opened = stack.enter_context(safe_open(path, framework="pt"))
            for key in opened.keys():  # noqa: SIM118 - a safetensors handle, not a mapping
                kind, name, start = _split_key(key)
                numel = opened.get_slice(key).get_shape()[0]
                self._index.setdefault((kind, name), []).append((start, numel, opened, key))
        for found in self._index.values():
            found.sort(key=lambda piece: piece[0])

    def check_numel(self, name: str, *, numel: int) -> None:
        """Whether a parameter was saved with this many elements.

        Raises:
            CheckpointError: with more; with fewer, `fill` raises.
        """
        saved = max((start + length for start, length, *_ in self._index.get((MASTER, name), [])), default=0)
        if saved > numel:
            raise CheckpointError(
                f"the checkpoint has {saved} elements of parameter {name}, the model {numel}: it was saved with another "
                "model; start a new run with another output_dir"
            )

    def fill(self, flat: Tensor, *, kind: str, name: str, start: int) -> None:
        """Copy elements `start` onwards of a parameter's saved tensor into `flat` ([numel] float32).

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
def open_pieces(directory: Path) -> Iterator[SavedPieces]:
    """A checkpoint's pieces, its files open for as long as the block lasts."""
    with ExitStack() as stack:
        yield SavedPieces(sorted(directory.glob("rank-*.safetensors")), stack=stack)


def _pieces_to_write(engine: Engine, *, ranks: Ranks) -> Iterator[Piece]:
    for owned in owned_pieces(engine.wrapped, moments=engine.moments):
        everywhere = engine.zero_stage == 0
        piece = share_of(owned, rank=ranks.rank, world_size=ranks.world_size) if everywhere else owned
        if piece.numel:
            yield piece


def _write_pieces(pieces: Iterable[Piece], *, path: Path) -> None:
    tensors: dict[str, Tensor] = {}
    for piece in pieces:
        for kind, tensor in {MASTER: piece.master, **piece.moments}.items():
            tensors[f"{kind}/{piece.name}@{piece.start}"] = tensor.detach().to("cpu", copy=True)
    save_file(tensors, path)
    sync_path(path)


def _split_key(key: str) -> tuple[str, str, int]:
    kind, _, rest = key.partition("/")
    name, _, start = rest.rpartition("@")
    return kind, name, int(start)


def _write_state(state: RunState, *, engine: Engine, path: Path) -> None:
    values = asdict(state) | {
        "applied_steps": applied_steps(engine.wrapped),
        "skipped_steps": engine.skipped_steps,
        "loss_scaler": engine.loss_scaler_state(),
    }
    path.write_text(json.dumps(values, indent=1))
    sync_path(path)
