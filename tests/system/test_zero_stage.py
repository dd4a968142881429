"""A run with `machine.zero_stage: null` settles its stage at every start, and its folder says which it is."""

from pathlib import Path

from dstrain.cluster.exit_codes import EXIT_PREEMPTED
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.record import load_record
from tests.system.runs import build_run, train


def stage_of(folder: Path) -> int | None:
    return load_record(RunFolder(folder / "run").path).config.machine.zero_stage


def test_every_start_settles_the_stage_for_its_ranks(tmp_path: Path) -> None:
    config = build_run(tmp_path, machine__zero_stage=None)
    assert train(config, world_size=2, stop_after=5) == [EXIT_PREEMPTED] * 2
    assert stage_of(tmp_path) == 1
    assert train(config, world_size=1) == [0]
    assert stage_of(tmp_path) == 0
    assert load_record(tmp_path / "run").status == "finished"
