"""A reported hang: how records are judged and described, and which files the report of a single rank leaves."""

import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from dstrain.attempt.hangs import (
    STALE_SECONDS,
    Hang,
    Scene,
    describe_hang,
    describe_process,
    describe_record,
    is_neighbour,
    is_running,
    load_hang,
    remove_leftovers,
    report_hang,
)
from dstrain.attempt.rank_records import Phases, RankRecord, ranks_dir
from dstrain.cluster.processes import Process

HANG = Hang(rank=0, track="main", phase="step", seconds=61.04, noticed=0.0)


@pytest.fixture
def phases(tmp_path: Path) -> Phases:
    return Phases(ranks_dir(tmp_path), rank=0, attempt=7)


@pytest.fixture
def scene(tmp_path: Path, phases: Phases) -> Scene:
    return Scene(run_dir=tmp_path, own=phases.record(), local_ranks=[0], grace_seconds=0.1)


@pytest.fixture
def own(phases: Phases) -> RankRecord:
    return phases.record()


def test_a_neighbour_is_another_rank_of_the_same_attempt_host_and_namespace(own: RankRecord) -> None:
    other = replace(own, rank=1)
    assert is_neighbour(other, own=own)
    assert not is_neighbour(own, own=own)
    for change in ({"attempt": 6}, {"host": "elsewhere"}, {"pid_namespace": "another"}):
        assert not is_neighbour(replace(other, **change), own=own)
    blind = replace(own, pid_namespace="")
    assert not is_neighbour(replace(blind, rank=1), own=blind)


def test_only_the_recorded_process_itself_counts_as_running(own: RankRecord) -> None:
    process = Process(start=own.process_start, state="S", parent=1, exit_status=0)

    def runs(found: Process | None) -> bool:
        return is_running(own, find_process=lambda pid: found)

    assert is_running(own)
    assert runs(process)
    assert not runs(None)
    assert not runs(replace(process, start=process.start + 1))
    assert not runs(replace(process, state="Z"))


def test_the_state_of_a_process_is_described_and_a_reused_process_id_is_not(own: RankRecord) -> None:
    assert describe_process(own).startswith("process state ")
    assert describe_process(replace(own, process_start=own.process_start - 1)) == "process gone"


def test_a_hang_is_described_with_rank_phase_and_seconds() -> None:
    assert describe_hang(HANG) == "hang: rank 0 made no progress for 61.0 s in main phase 'step'"


def test_a_record_is_described_with_its_phases_step_times_and_end(own: RankRecord) -> None:
    record = replace(own, tracks={"main": "step", "save": "idle"}, step=12, changed=100.0, heartbeat=103.0)
    line = "phases main 'step', save 'idle', step 12, last progress 5.0 s ago, last heartbeat 2.0 s ago"
    assert describe_record(record, now=105.0) == line
    assert describe_record(replace(record, ended="finished"), now=105.0) == f"{line}, ended: finished"
    assert "before the first step" in describe_record(replace(record, step=None), now=105.0)


def test_an_announced_hang_is_read_back_unless_it_is_torn_or_of_another_run(scene: Scene) -> None:
    assert load_hang(scene) is None
    scene.folder.mkdir(parents=True)
    path = scene.folder / "hang.json"
    hang = replace(HANG, noticed=scene.own.changed + 1.0)
    path.write_text(json.dumps(asdict(hang)))
    assert load_hang(scene) == hang
    path.write_text(json.dumps(asdict(replace(hang, noticed=scene.own.changed - STALE_SECONDS - 1.0))))
    assert load_hang(scene) is None
    path.write_text('{"rank": 0')
    assert load_hang(scene) is None


@pytest.mark.parametrize("age_seconds", [0.0, 2 * STALE_SECONDS])
def test_only_the_files_of_another_run_are_removed(age_seconds: float, scene: Scene) -> None:
    scene.folder.mkdir(parents=True)
    (scene.folder / "hang.json").write_text(json.dumps(asdict(replace(HANG, noticed=time.time() - age_seconds))))
    scene.dump_path(0).write_text("stacks")
    remove_leftovers(scene)
    assert sorted(path.name for path in scene.folder.iterdir()) == (
        ["hang.json", "rank-00000.txt"] if age_seconds == 0.0 else []
    )


def test_the_report_of_a_rank_has_its_identity_its_phases_and_its_stacks(scene: Scene, phases: Phases) -> None:
    phases.enter("step", step=12)
    report_hang(replace(HANG, noticed=time.time()), scene=scene, phases=phases)
    dump = scene.dump_path(0).read_text()
    assert dump.startswith(f"rank 0, pid {scene.own.pid} on {scene.own.host}, attempt 7\nphases main 'step'")
    assert "in main phase 'step'" in dump
    assert "in report_hang" in dump
    assert load_hang(scene) is not None


def test_a_rank_that_wrote_no_stacks_gets_a_dump_from_the_lowest_rank_and_a_second_report_changes_nothing(
    tmp_path: Path, phases: Phases
) -> None:
    scene = Scene(run_dir=tmp_path, own=phases.record(), local_ranks=[0, 1], grace_seconds=0.1)
    report_hang(replace(HANG, noticed=time.time()), scene=scene, phases=phases)
    dump = scene.dump_path(1).read_text()
    assert dump.startswith("rank 1 wrote no stacks within 0.1 s; written by rank 0\n")
    assert "it has no record in attempt 7" in dump
    report_hang(replace(HANG, rank=1, noticed=time.time()), scene=scene, phases=phases)
    assert scene.dump_path(1).read_text() == dump
    found = load_hang(scene)
    assert found is not None
    assert found.rank == 0
