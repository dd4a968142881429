"""Writes the files of a checkpoint so that they survive a power cut, and hashes them meanwhile. Knows no steps and no ranks.

Tensors are written block by block in the safetensors format, which the library's reader can read. The library's own writer
is not used: it makes a second copy of everything and holds the interpreter lock, while training runs.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from dstrain.checkpoint.manifest import FileEntry

WRITTEN_BYTES = 8 << 20
"""Bytes hashed and written at a time."""


def write_tensors(tensors: Mapping[str, Tensor], *, path: Path, on_stage: Callable[[str], None]) -> FileEntry:
    """Write contiguous fp32 CPU tensors as a safetensors file and sync it.

    The hash in the returned entry is of the tensors in memory; the file is not read back. `on_stage` is called with each stage.
    """
    assert all(t.dtype == torch.float32 and t.device.type == "cpu" and t.is_contiguous() for t in tensors.values())
    header, position = {}, 0
    for name, tensor in tensors.items():
        end = position + tensor.numel() * 4
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the data
    blocks = _blocks(tensors.values())
    return write_blocks(
        [len(text).to_bytes(8, "little"), text], blocks, num_bytes=position, path=path, on_stage=on_stage
    )


def write_blocks(
    head: Iterable[bytes],
    blocks: Iterable[memoryview | bytes],
    *,
    num_bytes: int,
    path: Path,
    on_stage: Callable[[str], None],
) -> FileEntry:
    """Write, hash and sync a file; `num_bytes` is the size of all `blocks`, needed to report the stage "part half written"."""
    digest, written, halfway = hashlib.sha256(), 0, False
    on_stage("write part")
    with path.open("wb", buffering=0) as stream:
        for start in head:
            digest.update(start)
            _write_all(stream.fileno(), start)
        for block in blocks:
            digest.update(block)
            _write_all(stream.fileno(), block)
            written += len(block)
            if not halfway and 2 * written >= num_bytes:
                halfway = True
                on_stage("part half written")
        size = os.fstat(stream.fileno()).st_size
        os.fsync(stream.fileno())
    on_stage("part written")
    return FileEntry(path.name, size, digest.hexdigest())


def _write_all(descriptor: int, block: memoryview | bytes) -> None:
    view = memoryview(block)
    while view:  # a full disk or a signal can make a write shorter than requested
        view = view[os.write(descriptor, view) :]


def _blocks(tensors: Iterable[Tensor]) -> Iterator[memoryview]:
    for tensor in tensors:
        if tensor.numel() == 0:
            continue  # a view without elements cannot be cast
        view = memoryview(tensor.numpy()).cast("B")  # type: ignore[arg-type]
        for start in range(0, len(view), WRITTEN_BYTES):
            yield view[start : start + WRITTEN_BYTES]
