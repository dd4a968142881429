"""Faults of real runs other than kills: damage, full disks, signals at bad times, hangs, second attempts."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dstrain.attempt.lease import acquire
from dstrain.attempt.rank_records import RankRecord, ranks_dir, read_rank_records
from dstrain.checkpoint.manifest import CheckpointError
from dstrain.checkpoint.store import checkpoint_dirs, newest_valid, parse_checkpoint_name
from dstrain.cluster.exit_codes import EXIT_PREEMPTED
from dstrain.cluster.processes import Holder, this_process
from dstrain.config.load import dump_config
from dstrain.config.schema import RunConfig
from dstrain.run_folder.claims import read_claims
from dstrain.run_folder.outcome import read_ends, read_outcome, read_unwritten
from dstrain.run_folder.record import load_record
from dstrain.status.inspect import RunStatus, inspect_status
from dstrain.status.text import describe_status
from tests.system import torture
from tests.system.faults import noted_rows
from tests.system.runs import NUM_TRAIN, read_rows
from tests.system.torture import Kill, Tally, launch

WAIT_SECONDS = 120
BOTH = [0, 0]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> RunConfig:
    """An undisturbed run, with its rows recorded."""
    folder = tmp_path_factory.mktemp("straight")
    config = torture.build_tortured(folder, cache=cache)
    assert launch(config, faults=[f"note rows={folder}"]) == BOTH, torture.printed(config)
    return config


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A separate small file system."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def once(config: RunConfig, is_time: Callable[[list[RankRecord]], bool], act: Callable[[list[int]], Any]) -> Any:
    """For `launch(meanwhile=…)`: act on the processes once the ranks' records say so."""

    def watch(pids: list[int]) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            records = [each for each in read_rank_records(ranks_dir(Path(config.run_dir))) if each.pid in pids]
            if is_time(records):
                act(pids)
                return
            time.sleep(0.002)

    return lambda pids: threading.Thread(target=watch, args=(pids,), daemon=True).start()


def in_evaluation(records: list[RankRecord]) -> bool:
    return any(each.tracks["main"] == "evaluation" and (each.step or 0) >= 2 for each in records)


def in_step(records: list[RankRecord]) -> bool:
    return any(each.tracks["main"] == "step" and (each.step or 0) >= 5 for each in records)


def look_at(run: Path) -> RunStatus:
    return inspect_status(run, now=time.time(), observer=this_process())


def damage(config: RunConfig) -> Path:
    """Flip one bit of a weight in the newest checkpoint; returns its directory."""
    newest = checkpoint_dirs(Path(config.run_dir) / "checkpoints")[0]
    path = newest / "weights-00000.safetensors"
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    return newest


def test_a_damaged_checkpoint_is_named_and_the_previous_one_is_used(
    straight: RunConfig, tmp_path: Path, cache: Path
) -> None:
    config = torture.build_tortured(tmp_path, cache=cache)
    launch(config, kill=Kill(drill="renamed:4", rank=0))
    damaged = damage(config)
    assert launch(config) == BOTH
    assert f"not a valid checkpoint: {damaged}/weights-00000.safetensors: its content" in torture.printed(config)
    assert torture.fingerprint(config) == torture.fingerprint(straight)


def test_without_verification_the_same_damage_changes_the_result(
    straight: RunConfig, tmp_path: Path, cache: Path
) -> None:
    config = torture.build_tortured(tmp_path, cache=cache)
    launch(config, kill=Kill(drill="renamed:4", rank=0))
    damage(config)
    assert launch(config, faults=["no verification"]) == BOTH
    assert torture.fingerprint(config) != torture.fingerprint(straight)


def test_the_kills_detect_a_manifest_that_is_written_after_the_rename(tmp_path: Path, cache: Path) -> None:
    config = torture.build_tortured(tmp_path, cache=cache)
    launch(config, kill=Kill(drill="manifest:2", rank=0), faults=["rename before manifest"])
    with pytest.raises(CheckpointError, match="the save was not finished"):
        torture.assert_nothing_lost(config, at_least=-1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_a_running_evaluation_which_runs_first_after_the_restart(
    straight: RunConfig, tmp_path: Path, cache: Path, number: signal.Signals
) -> None:
    config = torture.build_tortured(tmp_path, cache=cache)

    def tell_one(pids: list[int]) -> None:
        for _ in range(3):  # repeated signals must have no effect
            os.kill(pids[1], number)

    assert launch(config, meanwhile=once(config, in_evaluation, tell_one)) == [EXIT_PREEMPTED] * 2
    outcome = read_outcome(Path(config.run_dir))
    assert outcome is not None
    assert (outcome.outcome, outcome.exit_code) == ("preempted", EXIT_PREEMPTED)
    assert f"received {number.name}" in outcome.message
    assert "s later, after the current step and a save" in torture.printed(config)
    assert launch(config) == BOTH
    assert torture.fingerprint(config) == torture.fingerprint(straight)


def test_a_stopped_rank_is_reported_and_all_ranks_end_to_be_restarted(
    straight: RunConfig, tmp_path: Path, cache: Path
) -> None:
    base = torture.build_tortured(tmp_path, cache=cache)
    limits = base.machine.watchdog.model_copy(update={"step_minutes": 0.05, "evaluation_minutes": 0.05})
    config = base.model_copy(update={"machine": base.machine.model_copy(update={"watchdog": limits})})
    stop = once(config, in_step, lambda pids: os.kill(pids[1], signal.SIGSTOP))
    assert launch(config, meanwhile=stop) == [EXIT_PREEMPTED, -signal.SIGKILL]
    (folder,) = (Path(config.run_dir) / "hangs").iterdir()
    waiting, stopped = ((folder / f"rank-0000{rank}.txt").read_text() for rank in (0, 1))
    assert "loop.py" in waiting
    assert "in train" in waiting
    assert "state T" in stopped or "(stopped)" in stopped or "T (" in stopped, stopped
    outcome = read_outcome(Path(config.run_dir))
    assert outcome is not None
    assert (outcome.outcome, outcome.exit_code) == ("lost", EXIT_PREEMPTED)
    assert launch(base) == BOTH
    assert torture.fingerprint(config) == torture.fingerprint(straight)


def test_a_killed_rank_ends_the_other_with_a_message_that_names_it(tmp_path: Path, cache: Path) -> None:
    config = torture.build_tortured(tmp_path, cache=cache)
    kill = once(config, in_step, lambda pids: os.kill(pids[1], signal.SIGKILL))
    assert launch(config, meanwhile=kill) == [EXIT_PREEMPTED, -signal.SIGKILL]
    outcome = read_outcome(Path(config.run_dir))
    assert outcome is not None
    assert outcome.outcome == "lost"
    assert "rank 1" in outcome.message


def test_a_rank_that_raises_an_error_is_not_reported_as_lost(tmp_path: Path, cache: Path) -> None:
    config = torture.build_tortured(tmp_path, cache=cache)
    assert launch(config, faults=["fail"]) == [1, 1]
    outcome = read_outcome(Path(config.run_dir))
    assert outcome is not None
    assert (outcome.outcome, outcome.message) == ("failed", "rank 1: the disk of rank 1 is on fire")


def test_on_a_full_disk_checkpoints_are_skipped_and_nothing_else_changes(
    straight: RunConfig, tmpfs: Path, cache: Path
) -> None:
    config = torture.build_tortured(tmpfs, cache=cache)
    assert launch(config, faults=["fill disk=4-8"]) == BOTH, torture.printed(config)
    unsaved = [row for row in read_rows(config, kind="event") if row["event"] == "unsaved"]
    assert [row["step"] for row in unsaved] == [4, 6]
    # the first save fails while writing, the second is skipped before it writes
    assert "No space left on device" in unsaved[0]["message"]
    assert "MB are needed" in unsaved[1]["message"]
    card = (Path(config.run_dir) / "README.md").read_text()
    assert "checkpoints could not be saved: step 4" in card
    assert torture.fingerprint(config) | {"kept": None} == torture.fingerprint(straight) | {"kept": None}
    assert load_record(Path(config.run_dir)).exports == load_record(Path(straight.run_dir)).exports


def test_a_run_that_cannot_save_for_the_first_time_ends_on_all_ranks_with_the_reason(tmpfs: Path, cache: Path) -> None:
    base = torture.build_tortured(tmpfs, cache=cache)
    config = base.model_copy(update={"checkpoint": base.checkpoint.model_copy(update={"every_minutes": 10.0})})
    assert launch(config, faults=["fill disk=2-99"]) == [1, 1], torture.printed(config)
    assert "step 2 could not be saved: " in torture.printed(config)
    assert "No checkpoint can be saved, so the run ends" in torture.printed(config)
    assert max(row["step"] for row in read_rows(config, kind="train")) < 12


def test_a_run_that_ends_on_a_full_disk_says_so_and_what_is_missing(tmpfs: Path, cache: Path) -> None:
    config = torture.build_tortured(tmpfs, cache=cache)
    run = Path(config.run_dir)
    assert launch(config, faults=["full disk=6"]) == [1, 1], torture.printed(config)
    end = read_outcome(run)
    assert end is not None
    assert (end.outcome, end.exit_code) == ("failed", 1), torture.printed(config) + str(end) + str(read_ends(run))
    assert f"{run / 'final'} cannot be written (No space left on device)" in end.message
    status = look_at(run)
    assert (status.state, status.message) == ("failed", end.message)
    (missing,) = read_unwritten(run).values()
    assert any(
        f"rows of metrics.jsonl are missing from step {missing} of attempt 1 on" in note for note in status.notes
    )
    (run / "filler").unlink()
    assert launch(config) == BOTH, torture.printed(config)
    card = (run / "README.md").read_text()
    assert not re.search(r"Checkpoints that could not be saved +\| none", card)
    assert f"not known from step {missing} of attempt 1 on" in card


def test_a_refused_start_changes_nothing_but_its_own_end(tmp_path: Path, cache: Path) -> None:
    config = torture.build_tortured(tmp_path, cache=cache)
    run = Path(config.run_dir)

    def tell(pids: list[int]) -> None:
        os.kill(pids[0], signal.SIGTERM)

    changed = config.model_copy(update={"training": config.training.model_copy(update={"batch_size": 8})})
    assert launch(config, meanwhile=once(config, in_step, tell)) == [EXIT_PREEMPTED] * 2
    for state in ("stopped", "finished"):
        before, number = (run / "outcome.json").read_bytes(), max(read_ends(run))
        assert launch(changed) == [1, 1]
        assert (run / "outcome.json").read_bytes() == before
        refused = read_ends(run)[number + 1]
        assert (refused.outcome, refused.exit_code) == ("refused", 1)
        status = look_at(run)
        assert status.state == state
        assert "training.batch_size: 16 in the checkpoint, 8 now" in describe_status(status)
        assert launch(config) == BOTH


def test_a_run_folder_that_cannot_be_written_is_refused_before_step_1(tmpfs: Path, cache: Path) -> None:
    config = torture.build_tortured(tmpfs, cache=cache)
    Path(config.run_dir).mkdir()
    (tmpfs / "start.yaml").write_text("")
    elsewhere = config.model_copy(update={"output_dir": str(tmpfs / "run")})
    subprocess.run(["mount", "-o", "remount,ro", tmpfs], check=True)
    with pytest.raises(OSError, match="Read-only"):
        (tmpfs / "probe").write_text("")
    result = start_in_one_process(elsewhere, folder=cache)
    assert result.returncode != 0
    assert f"{tmpfs / 'run'}" in result.stderr
    assert "Traceback" not in result.stderr
    assert "step 1/" not in result.stderr


def test_a_disk_too_small_for_the_run_is_refused_before_step_1(tmpfs: Path, cache: Path) -> None:
    config = torture.build_tortured(tmpfs, cache=cache)
    (tmpfs / "filler").write_bytes(bytes(23 << 20))
    result = start_in_one_process(config, folder=cache)
    assert result.returncode != 0
    assert "MB are free: make room" in result.stderr
    assert "Traceback" not in result.stderr


def start_in_one_process(config: RunConfig, *, folder: Path) -> "subprocess.CompletedProcess[str]":
    """The command that a user types, for a run folder in which the test cannot write files."""
    path = folder / "start.yaml"
    path.write_text(dump_config(config))
    command = [sys.executable, "-m", "dstrain.train", "--config", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_second_attempt_on_a_held_folder_is_refused_by_name(straight: RunConfig, tmp_path: Path, cache: Path) -> None:
    config = torture.build_tortured(tmp_path, cache=cache)
    second: list[subprocess.CompletedProcess[str]] = []
    begin = once(config, in_step, lambda pids: second.append(freeze_and_start(config, pids, folder=cache)))
    assert launch(config, meanwhile=begin) == BOTH
    (refused,) = second
    assert refused.returncode != 0
    assert "process " in refused.stderr
    assert "Traceback" not in refused.stderr
    assert torture.fingerprint(config) == torture.fingerprint(straight)


def freeze_and_start(config: RunConfig, pids: list[int], *, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Start a second attempt while the first is suspended, so that the first cannot end before."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        return start_in_one_process(config, folder=folder)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("faults", [[], ["late commit"]], ids=["notices in time", "commits late"])
def test_a_writer_that_was_suspended_while_it_was_replaced_ends_and_its_late_checkpoint_is_never_used(
    straight: RunConfig, tmp_path: Path, cache: Path, faults: list[str]
) -> None:
    base = torture.build_tortured(tmp_path, cache=cache)
    config = base.model_copy(update={"machine": base.machine.model_copy(update={"lease_seconds": 1.0})})
    steps: list[int] = []
    take = once(config, in_step, lambda pids: steps.append(take_over(config, pids)))
    codes = launch(config, meanwhile=take, faults=faults)
    (step,) = steps
    assert codes[0] == 1
    assert "lease 1 was lost to lease 2 of process 7 on elsewhere" in torture.printed(config)
    saved = [parse_checkpoint_name(path) for path in checkpoint_dirs(Path(config.run_dir) / "checkpoints")]
    assert any(name and name.step > step for name in saved) is bool(faults)
    assert launch(config) == BOTH, torture.printed(config)
    events = load_record(Path(config.run_dir)).events
    assert [event.step for event in events if event.event == "resume"] == [step]
    assert torture.fingerprint(config) == torture.fingerprint(straight)


def take_over(config: RunConfig, pids: list[int]) -> int:
    """Suspend a run until its lease is stale, and claim the folder as another host would; returns the step it resumes from."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        run_dir = Path(config.run_dir)
        lease = acquire(run_dir, holder=Holder("elsewhere", 7, 1, "another", "now"), stale_seconds=1.0)
        found = newest_valid(run_dir / "checkpoints", claims=read_claims(run_dir), on_broken=pytest.fail)
        assert found is not None
        lease.set_base(found[1].step)
        lease.release()
        return found[1].step
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_a_saved_run_whose_checkpoints_are_missing_does_not_start_again_silently(tmp_path: Path, cache: Path) -> None:
    config = torture.build_tortured(tmp_path, cache=cache)
    assert launch(config, world_size=1) == [0]
    card = (Path(config.run_dir) / "README.md").read_text()
    shutil.rmtree(Path(config.run_dir) / "checkpoints")
    assert launch(config, world_size=1) == [1]
    assert "this run was saved at step 12 earlier" in torture.printed(config)
    assert "Traceback" not in torture.printed(config)
    assert (Path(config.run_dir) / "README.md").read_text() == card


def test_a_finished_run_exports_models_again_that_were_removed(tmp_path: Path, cache: Path) -> None:
    config = torture.build_tortured(tmp_path, cache=cache)
    assert launch(config, world_size=1) == [0]
    before = torture.fingerprint(config)
    for name in ("best", "final"):
        shutil.rmtree(Path(config.run_dir) / name)
    assert launch(config, world_size=1) == [0]
    assert torture.fingerprint(config) == before


def test_ctrl_c_saves_and_a_second_one_ends_the_run_at_once(tmp_path: Path, cache: Path) -> None:
    config = torture.build_tortured(tmp_path, cache=cache)
    interrupt = once(config, in_step, lambda pids: [os.kill(pid, signal.SIGINT) for pid in pids])
    assert launch(config, meanwhile=interrupt) == [EXIT_PREEMPTED] * 2
    assert "Traceback" not in torture.printed(config)
    outcome = read_outcome(Path(config.run_dir))
    assert outcome is not None
    assert outcome.message == "received SIGINT (Ctrl-C)"


POISONED = (3, 50, 77)


def test_poisoned_rows_are_named_and_quarantined_and_the_run_finishes(tmp_path: Path, cache: Path) -> None:
    config = torture.build_tortured(tmp_path, cache=cache)
    faults = [f"poison={','.join(map(str, POISONED))}", f"note rows={tmp_path}"]
    assert launch(config, faults=faults, kill=Kill(drill="search:2", rank=1)) == [EXIT_PREEMPTED, -signal.SIGKILL]
    assert launch(config, faults=faults) == BOTH, torture.printed(config)
    record = load_record(Path(config.run_dir))
    train = Path(config.data.train[0].path or "")
    assert {row.where for row in record.quarantine} == {f"{train}:{row + 1}" for row in POISONED}
    assert all("nan" in row.reason for row in record.quarantine)
    trained = [row for rows in noted_rows(tmp_path).values() for row in rows]
    assert sorted(set(trained)) == [row for row in range(NUM_TRAIN) if row not in POISONED]
    card = (Path(config.run_dir) / "README.md").read_text()
    assert "3 training rows were quarantined" in card
    assert f"{train.name}:4" in card


def test_too_many_poisoned_rows_stop_the_run_with_their_list(tmp_path: Path, cache: Path) -> None:
    base = torture.build_tortured(tmp_path, cache=cache)
    config = base.model_copy(update={"training": base.training.model_copy(update={"max_quarantined_rows": 2})})
    assert launch(config, faults=[f"poison={','.join(map(str, POISONED))}"]) == [1, 1]
    said = torture.printed(config)
    assert "Traceback" not in said
    assert said.count("was not applied: ") == 3
    assert "training.max_quarantined_rows allows 2" in said
    outcome = read_outcome(Path(config.run_dir))
    assert outcome is not None
    assert (outcome.outcome, outcome.exit_code) == ("failed", 1)
    assert newest_valid(Path(config.run_dir) / "checkpoints", on_broken=pytest.fail) is not None


def test_a_run_with_a_whole_schedule_of_faults_has_the_weights_of_the_straight_run(
    straight: RunConfig, tmpfs: Path, cache: Path, tmp_path: Path
) -> None:
    config = torture.build_tortured(tmpfs, cache=cache)
    noted = [f"note rows={tmp_path}"]
    tally = Tally()
    codes = launch(config, kill=Kill(drill="part half written:3", rank=1), faults=noted)
    torture.count_hits(config, codes=codes, tally=tally)
    term = once(config, in_step, lambda pids: os.kill(pids[0], signal.SIGTERM))
    assert launch(config, meanwhile=term, faults=noted) == [EXIT_PREEMPTED] * 2
    assert launch(config, world_size=1, kill=Kill(drill="evaluation:1", rank=0), faults=noted) == [-signal.SIGKILL]
    assert launch(config, world_size=3, faults=[*noted, "fill disk=8-10"]) == [0] * 3, torture.printed(config)
    assert tally.kills == 1
    assert noted_rows(tmp_path) == noted_rows(Path(straight.run_dir).parent)
    first_epoch = [row for step, rows in noted_rows(tmp_path).items() if step <= -(-NUM_TRAIN // 16) for row in rows]
    assert sorted(first_epoch) == list(range(NUM_TRAIN))
    weights, wanted = (load_file(Path(each.run_dir) / "final" / "model.safetensors") for each in (config, straight))
    assert weights.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-4, atol=1e-6)
    losses = {row["step"]: row["loss"] for row in read_rows(config, kind="train")}
    for row in read_rows(straight, kind="train"):
        assert losses[row["step"]] == pytest.approx(row["loss"], rel=1e-5)
    events = [event.event for event in load_record(Path(config.run_dir)).events]
    assert events.count("resume") == 3
    assert events[-1] == "finish"
    assert newest_valid(Path(config.run_dir) / "checkpoints", on_broken=pytest.fail) is not None
