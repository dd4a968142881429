"""Bytes on disk, by hand, and against what a start checks."""

from pathlib import Path
from typing import Any

from dstrain.checkpoint.disk_space import SPARE_BYTES, plan_disk_space
from dstrain.forecast.disk import Disk, find_disk
from tests.unit.forecast.forecast_cases import build_recipe
from tests.unit.forecast.test_workload import work

SIZES: dict[str, Any] = {"num_trained": 1000, "num_exported": 1500, "num_moments": 2, "width": 2}


def disk(folder: Path, **changes: Any) -> Disk:
    return find_disk(build_recipe(folder, **changes), workload=work(folder, **changes), **SIZES)


def test_a_start_asks_for_what_is_foretold(tmp_path: Path) -> None:
    found = find_disk(build_recipe(tmp_path), workload=None, **SIZES)
    asked = plan_disk_space(num_trained=1000, num_exported=1500, num_moments=2, keep_last=2, model_bytes=2, num_saved=0)
    assert found.total == asked - SPARE_BYTES
    assert found.checkpoint == 12_000


def test_what_a_run_keeps_besides(tmp_path: Path) -> None:
    plain = disk(tmp_path)
    assert plain.kept_weights == 0
    assert plain.texts > 0
    kept = disk(tmp_path, checkpoint__keep_weights_every_steps=10, checkpoint__every_steps=10)
    assert kept.kept_weights == 4000 * (10 - 2)
    more = disk(tmp_path, checkpoint__keep_last=5)
    assert more.checkpoints - plain.checkpoints == 3 * 12_000
    assert disk(tmp_path, evaluation__average_last=2).models == plain.models + 3000
    assert disk(tmp_path, evaluation__every_steps=10).texts == plain.texts / 4 * 10
