"""Disk space: how much a run needs, and that a file system with less is refused before training."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from dstrain.checkpoint.disk_space import SPARE_BYTES, check_disk_space, plan_disk_space

RUN: dict[str, Any] = {"num_trained": 1000, "num_exported": 1000, "num_moments": 2, "keep_last": 2, "model_bytes": 2}


def test_a_new_run_needs_one_checkpoint_more_than_it_keeps_the_best_weights_and_its_models() -> None:
    # a checkpoint: master and two moments of 4 bytes; two model folders and one being replaced
    assert plan_disk_space(**RUN, num_saved=0) == 3 * 12_000 + 4_000 + 3 * 2_000 + SPARE_BYTES


@pytest.mark.parametrize(("num_saved", "missing"), [(0, 3), (1, 2), (2, 1), (3, 1), (9, 1)])
def test_existing_checkpoints_need_no_room_but_the_next_one_does(num_saved: int, missing: int) -> None:
    assert plan_disk_space(**RUN, num_saved=num_saved) == missing * 12_000 + 10_000 + SPARE_BYTES


@pytest.mark.parametrize(
    ("key", "value"),
    [("num_trained", 2000), ("num_exported", 2000), ("num_moments", 3), ("keep_last", 3), ("model_bytes", 4)],
)
def test_a_larger_value_of_any_setting_needs_more_room(key: str, value: int) -> None:
    assert plan_disk_space(**RUN | {key: value}, num_saved=0) > plan_disk_space(**RUN, num_saved=0)


def test_a_run_that_fits_is_accepted(tmp_path: Path) -> None:
    check_disk_space(tmp_path, num_bytes=0, keep_last=2)
    check_disk_space(tmp_path, num_bytes=shutil.disk_usage(tmp_path).free // 2, keep_last=2)


def test_too_little_room_is_refused_with_both_numbers_and_the_ways_out(tmp_path: Path) -> None:
    needed = shutil.disk_usage(tmp_path).total + 1
    with pytest.raises(ValueError, match=r"needs .* MB .*, .* MB are free: .*output_dir.*keep_last \(now 5") as caught:
        check_disk_space(tmp_path, num_bytes=needed, keep_last=5)
    assert str(tmp_path) in str(caught.value)
    assert f"{needed / 1e6:,.0f} MB" in str(caught.value)
