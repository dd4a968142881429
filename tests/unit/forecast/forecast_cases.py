"""A recipe with rows on disk, and the parts of a forecast for it."""

from pathlib import Path
from typing import Any

from dstrain.config.schema import RunConfig
from dstrain.forecast.gpus import find_gpu
from dstrain.forecast.request import Machines, Request
from tests.distributed.steps import change

ONE_CPU = Machines("cpu", None, world_size=1, num_nodes=1, cores=1)
H100 = find_gpu("h100")


def on_gpus(world_size: int, *, nodes: int = 1) -> Machines:
    return Machines("cuda", H100, world_size, nodes, cores=1)


def build_recipe(folder: Path, *, num_rows: int = 300, **changes: Any) -> RunConfig:
    """A recipe of a text task whose rows lie in `folder`, as do its run folder and its cache."""
    for name, count in (("train", num_rows), ("eval", 40)):
        lines = [
            f"row number {i} {'with more words ' * (i % 5)}\tanswer {i} {'again ' * (i % 7)}" for i in range(count)
        ]
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    values: dict[str, Any] = {
        "name": "test",
        "output_dir": str(folder / "runs" / "test"),
        "model": {
            "scratch": {
                "architecture": "m2m100", "hidden_size": 32, "feed_forward_size": 64, "num_layers": 1, "num_heads": 2,
                "vocabulary_size": 300,
            }
        },
        "task": {"kind": "text", "source_language": "en", "target_language": "en"},
        "data": {"train": [{"path": str(folder / "train.tsv")}], "eval": [{"path": str(folder / "eval.tsv")}]},
        "training": {"batch_size": 16, "max_steps": 100, "learning_rate": 1e-3},
        "evaluation": {"every_steps": 30},
        "machine": {"cache_dir": str(folder / "cache")},
    }  # fmt: skip
    return change(values, changes)


def ask(machines: Machines = ONE_CPU, **options: Any) -> Request:
    return Request(machines, **options)
