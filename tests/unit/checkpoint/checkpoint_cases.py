"""Small committed checkpoints; the tests of this folder import it by name."""

from pathlib import Path
from typing import Any

from dstrain.checkpoint.manifest import Manifest, describe_file
from dstrain.checkpoint.store import begin_save, commit_save

RECIPE: dict[str, Any] = {
    "seed": 1,
    "training": {"learning_rate": 1e-3, "betas": [0.9, 0.999]},
    "model": {"name": None},
}


def build_manifest(parts: Path, *, step: int = 7, recipe: dict[str, Any] | None = None) -> Manifest:
    """The manifest of every file in a directory."""
    files = tuple(describe_file(path, directory=parts) for path in sorted(parts.rglob("*")) if path.is_file())
    return Manifest(
        step=step,
        world_size=2,
        recipe_hash="abc",
        recipe=RECIPE if recipe is None else recipe,
        versions={"torch": "2.13.0"},
        files=files,
    )


def save(root: Path, *, step: int, content: str = "weights", recipe: dict[str, Any] | None = None) -> Path:
    """A committed checkpoint of two files."""
    parts = begin_save(root, step=step)
    (parts / "rank-00000.safetensors").write_text(f"{content} of step {step}")
    (parts / "state.json").write_text("{}")
    return commit_save(parts, manifest=build_manifest(parts, step=step, recipe=recipe))


def break_file(directory: Path) -> Path:
    """Flip one bit of a checkpoint's largest file; gives its path."""
    path = directory / "rank-00000.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path
