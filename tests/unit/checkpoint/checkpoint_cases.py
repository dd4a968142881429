"""Small committed checkpoints; the tests of this folder import it by name."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dstrain.checkpoint.manifest import MANIFEST, FileEntry, Manifest, hash_file, save_manifest
from dstrain.checkpoint.parts import write_tensors
from dstrain.checkpoint.store import CheckpointName, begin_save, commit_save
from dstrain.run_folder.claims import Claim

RECIPE: dict[str, Any] = {
    "seed": 1,
    "training": {"learning_rate": 1e-5, "betas": [0.9, 0.999]},
    "model": {"name": None},
}
WEIGHTS = "weights-00000.safetensors"
OPTIMIZER = "optimizer-00000.safetensors"
STATE = "state.json"
WHOLE = torch.arange(10, dtype=torch.float32)


def ignore(stage: str) -> None:
    """Ignore the stage of a save."""


def build_manifest(
    parts: Path, *, step: int = 7, lease: int = 1, recipe: dict[str, Any] | None = None, **values: Any
) -> Manifest:
    """The manifest of every file in a directory."""
    files = tuple(
        FileEntry(path.relative_to(parts).as_posix(), path.stat().st_size, hash_file(path))
        for path in sorted(parts.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    )
    fields: dict[str, Any] = {
        "step": step,
        "lease": lease,
        "world_size": 2,
        "recipe_hash": "abc",
        "recipe": RECIPE if recipe is None else recipe,
        "versions": {"torch": "2.13.0"},
        "files": files,
    }
    return Manifest(**fields | values)


def save(
    root: Path,
    *,
    step: int,
    lease: int = 1,
    content: str = "weights",
    files: Mapping[str, str] | None = None,
    **values: Any,
) -> Path:
    """A committed checkpoint of weights, optimizer and state; `values` go into its manifest."""
    parts = begin_save(root, name=CheckpointName(step, lease))
    written = {WEIGHTS: f"{content} of step {step}", OPTIMIZER: "optimizer", STATE: "{}"} | dict(files or {})
    for name, text in written.items():
        (parts / name).write_text(text)
    return commit_save(parts, manifest=build_manifest(parts, step=step, lease=lease, **values), on_stage=ignore)


def seal(directory: Path) -> None:
    """Write the manifest of the files in a directory, as an attacker could who can compute every hash."""
    save_manifest(build_manifest(directory), directory=directory)


def write_values(directory: Path, values: Any) -> None:
    """Write JSON values as a manifest whose own hash is right."""
    if isinstance(values, dict):
        plain = {key: value for key, value in values.items() if key != "sha256"}
        own_hash = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
        values = plain | {"sha256": own_hash}
    (directory / MANIFEST).write_text(json.dumps(values, indent=1, sort_keys=True))


def read_values(directory: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((directory / MANIFEST).read_bytes())
    return values


def flip(path: Path, *, bit: int) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def break_file(directory: Path) -> Path:
    """Flip one bit of a checkpoint's weights; returns the file."""
    path = directory / WEIGHTS
    flip(path, bit=4 * path.stat().st_size)
    return path


def claims(*base_steps: int | None) -> Sequence[Claim]:
    """Leases 1, 2, … with the steps that they resumed from."""
    return [Claim(number, None, base_step) for number, base_step in enumerate(base_steps, start=1)]


def write_shards(folder: Path, *ranks: dict[str, Tensor]) -> Path:
    """A sealed folder of the tensors that each rank wrote."""
    for rank, tensors in enumerate(ranks):
        write_tensors(tensors, path=folder / f"weights-{rank:05d}.safetensors", on_stage=ignore)
    seal(folder)
    return folder


def part(low: int, high: int) -> Tensor:
    """Elements of WHOLE."""
    return WHOLE[low:high].clone()
