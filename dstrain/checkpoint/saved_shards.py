"""The shards of parameters and optimizer state in a checkpoint's safetensors files, read by name and offset."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from dstrain.checkpoint.manifest import CheckpointError, load_manifest, shown
from dstrain.checkpoint.rows import RowsOf, find_pieces

MASTER = "master"
"""The kind of fp32 weights; other kinds are named as the optimizer's state in torch.optim."""


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

    def fill(self, flat: Tensor, *, kind: str, name: str, start: int, rows: RowsOf | None = None) -> None:
        """Fill `flat` ([numel] float32) with the elements of a saved parameter from `start` on.

        `rows` says which rows the parameter has, and which were saved; the others stay as they are in `flat`.

        Raises:
            CheckpointError: the checkpoint does not hold all elements that should have been saved.
        """
        if rows is None or rows.own == rows.saved:
            self._fill(flat, kind=kind, name=name, start=start)
            return
        for piece in find_pieces(start, start + flat.numel(), rows=rows):
            part = flat[piece.start - start : piece.stop - start]
            self._fill(part, kind=kind, name=name, start=piece.saved_start)

    def _fill(self, flat: Tensor, *, kind: str, name: str, start: int) -> None:
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
