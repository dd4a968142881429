"""What a failing rank prints and leaves in the run folder, and the exit code it ends with."""

import os
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dstrain.attempt import failure
from dstrain.attempt.failure import broken_host, newest_report, report_failure
from dstrain.attempt.lease import LeaseHeld
from dstrain.attempt.rank_records import Phases, ranks_dir, record_path
from dstrain.cluster.exit_codes import EXIT_PREEMPTED
from dstrain.config.load import load_config
from dstrain.errors import HardwareFailed, PeerLost, UserError
from dstrain.run_folder.outcome import RunOutcome, read_ends, read_outcome, write_outcome
from tests.unit.cluster.process_cases import build_process


def report(error: Exception, tmp_path: Path, *, rank: int, world_size: int = 2, is_restart: bool = False) -> int:
    config = load_config("debug", overrides=[f"output_dir={tmp_path}"])
    process = build_process(rank=rank, world_size=world_size)
    return report_failure(error, config=config, process=process, is_restart=is_restart)


def raised(error: Exception, *, cause: Exception | None = None) -> Exception:
    try:
        raise error from cause
    except Exception as caught:
        return caught


LOST = "Connection closed by peer [127.0.0.1]:29500"


def test_a_port_in_use_is_a_failure_and_not_a_lost_peer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dstrain.cluster.process_group import join_ranks

    monkeypatch.setattr(os, "environ", dict(os.environ))
    with socket.create_server(("127.0.0.1", 0)) as other:
        process = replace(build_process(), world_size=2, master_port=other.getsockname()[1])
        with pytest.raises(ValueError, match="cannot be opened") as caught:
            join_ranks(process, timeout_minutes=1)
    assert report(caught.value, tmp_path, rank=0) == 1
    assert "lost" not in capsys.readouterr().err
    outcome = read_outcome(tmp_path)
    assert outcome is not None
    assert (outcome.outcome, outcome.exit_code) == ("failed", 1)


def test_a_failed_device_is_named_with_its_host_and_starts_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = HardwareFailed("CUDA error: uncorrectable ECC error encountered")
    assert report(raised(error), tmp_path, rank=3) == EXIT_PREEMPTED
    said = f"the device of rank 3 on {socket.gethostname()} failed: CUDA error: uncorrectable ECC error"
    assert said in capsys.readouterr().err
    outcome = read_outcome(tmp_path)
    assert outcome is not None
    assert (outcome.outcome, outcome.exit_code) == ("lost", EXIT_PREEMPTED)
    # a report would keep Slurm's script from starting the job again
    assert not (tmp_path / "failures").exists()


def test_the_rank_that_fails_prints_its_traceback_and_leaves_it_in_the_run_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report(raised(RuntimeError("out of memory")), tmp_path, rank=1)
    printed = capsys.readouterr().err
    assert printed.startswith("rank 1 failed:\nTraceback")
    assert (tmp_path / "failures" / "rank-1.txt").read_text() in printed
    assert "RuntimeError: out of memory" in printed


def test_a_rank_that_lost_its_peer_says_so_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(raised(RuntimeError("out of memory")), tmp_path, rank=1)
    capsys.readouterr()
    report(raised(PeerLost(LOST), cause=RuntimeError(LOST)), tmp_path, rank=0)
    assert capsys.readouterr().err == "rank 0 ends because rank 1 failed\n"
    assert not (tmp_path / "failures" / "rank-0.txt").exists()


@pytest.mark.parametrize("old", [True, False])
def test_a_lost_peer_without_a_recent_report_is_a_reason_to_restart(
    old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(failure, "PEER_SECONDS", 0.3)
    if old:  # of an earlier attempt
        left = tmp_path / "failures" / "rank-1.txt"
        left.parent.mkdir()
        left.write_text("old")
        os.utime(left, (time.time() - 3600, time.time() - 3600))
    assert report(raised(PeerLost(LOST)), tmp_path, rank=0) == EXIT_PREEMPTED
    assert "rank 0 lost its connection to rank 1, which reported nothing" in capsys.readouterr().err
    outcome = read_outcome(tmp_path)
    assert outcome is not None
    assert (outcome.outcome, outcome.exit_code) == ("lost", EXIT_PREEMPTED)


def test_a_peer_that_only_lost_its_connection_leaves_the_reason_that_a_broken_device_gave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failure, "PEER_SECONDS", 0.1)
    for rank, error in ((1, HardwareFailed("GPU is lost")), (0, PeerLost(LOST))):
        Phases(ranks_dir(tmp_path), rank=rank, attempt=2).close()
        assert report(raised(error), tmp_path, rank=rank) == EXIT_PREEMPTED
    outcome = read_outcome(tmp_path)
    assert outcome is not None
    assert broken_host(outcome.message) == socket.gethostname()
    Phases(ranks_dir(tmp_path), rank=0, attempt=3).close()  # the next attempt gives its own reason
    report(raised(PeerLost(LOST)), tmp_path, rank=0)
    outcome = read_outcome(tmp_path)
    assert outcome is not None
    assert (outcome.attempt, broken_host(outcome.message)) == (3, None)


def test_an_error_that_the_user_can_fix_is_printed_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="no-such-recipe") as caught:
        load_config("no-such-recipe")
    report(caught.value, tmp_path, rank=0, world_size=1)
    assert capsys.readouterr().err == f"error: {caught.value}\n"
    assert "Traceback" in (tmp_path / "failures" / "rank-0.txt").read_text()


@pytest.mark.parametrize("error", [ValueError("not enough values to unpack (expected 3, got 1)"), KeyError("x")])
def test_an_error_of_the_program_keeps_its_traceback(
    error: Exception, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report(raised(error), tmp_path, rank=0, world_size=1)
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(("is_restart", "code"), [(True, EXIT_PREEMPTED), (False, 1)])
def test_a_held_folder_ends_a_restart_with_a_request_to_requeue_and_a_first_attempt_as_failed(
    is_restart: bool, code: int, rank: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_outcome(tmp_path, RunOutcome("running", None, attempt=3))
    assert report(raised(LeaseHeld("held by process 7")), tmp_path, rank=rank, is_restart=is_restart) == code
    assert ("held by process 7" in capsys.readouterr().err) is (rank == 0)
    assert not (tmp_path / "failures").exists()
    assert read_outcome(tmp_path) is not None
    assert read_outcome(tmp_path).attempt == 3  # type: ignore[union-attr]


def test_only_a_held_folder_is_a_reason_to_restart(tmp_path: Path) -> None:
    assert report(raised(ValueError("no rows")), tmp_path, rank=0, is_restart=True) == 1


def test_a_refused_attempt_keeps_the_outcome_of_a_finished_run(tmp_path: Path) -> None:
    write_outcome(tmp_path, RunOutcome("finished", 0, step=12, attempt=3))
    Phases(ranks_dir(tmp_path), rank=0, attempt=4).close()
    before = (tmp_path / "outcome.json").read_bytes()
    assert report(raised(ValueError("data.train: changed")), tmp_path, rank=0, world_size=1) == 1
    assert (tmp_path / "outcome.json").read_bytes() == before
    assert (tmp_path / "failures" / "rank-0.txt").exists()


@pytest.mark.parametrize(("error", "end"), [(UserError("changed:\n  seed"), "refused"), (OSError("no"), "failed")])
def test_a_start_that_is_refused_leaves_the_outcome_of_the_run_and_one_that_fails_does_not(
    error: Exception, end: str, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text("")
    write_outcome(tmp_path, RunOutcome("preempted", 85, "received SIGTERM", step=12, attempt=3))
    Phases(ranks_dir(tmp_path), rank=0, attempt=4).close()
    before = read_outcome(tmp_path)
    assert report(raised(error), tmp_path, rank=0, world_size=1) == 1
    found = read_ends(tmp_path)[4]
    assert (found.outcome, found.exit_code, found.message) == (end, 1, f"rank 0: {error}")
    assert (read_outcome(tmp_path) == before) is (end == "refused")


def test_an_attempt_that_had_begun_fails_whatever_the_error(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("")
    write_outcome(tmp_path, RunOutcome("running", None, attempt=4))
    Phases(ranks_dir(tmp_path), rank=0, attempt=4).close()
    report(raised(UserError("step 4 could not be saved")), tmp_path, rank=0, world_size=1)
    assert read_ends(tmp_path)[4].outcome == "failed"
    assert read_outcome(tmp_path).outcome == "failed"  # type: ignore[union-attr]


def test_the_end_is_written_before_anything_is_printed_which_may_need_the_same_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(failure, "write_file", fail)
    monkeypatch.setattr(failure, "say", fail)
    with pytest.raises(OSError, match="No space"):
        report(raised(ValueError("no rows")), tmp_path, rank=0)
    assert read_outcome(tmp_path).message == "rank 0: no rows"  # type: ignore[union-attr]


def test_a_rank_whose_peer_failed_without_room_for_a_report_ends_as_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(failure, "PEER_SECONDS", 0.1)
    write_outcome(tmp_path, RunOutcome("failed", 1, "rank 0: no room", attempt=4))
    Phases(ranks_dir(tmp_path), rank=1, attempt=4).close()
    assert report(raised(PeerLost(LOST)), tmp_path, rank=1) == 1
    assert "rank 1 ends because the run failed: rank 0: no room" in capsys.readouterr().err


def test_a_full_disk_is_named_in_the_end_as_on_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(raised(OSError(28, "No space left on device", "run/final")), tmp_path, rank=0, world_size=1)
    said = "run/final cannot be written (No space left on device): free some space and start again"
    assert said in capsys.readouterr().err
    assert read_outcome(tmp_path).message == f"rank 0: {said}"  # type: ignore[union-attr]


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), PeerLost(LOST)])
def test_an_outcome_names_the_attempt_of_the_rank_that_writes_it(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failure, "PEER_SECONDS", 0.1)
    write_outcome(tmp_path, RunOutcome("running", None, attempt=4))
    Phases(ranks_dir(tmp_path), rank=1, attempt=4).close()
    report(raised(error), tmp_path, rank=1)
    outcome = read_outcome(tmp_path)
    assert outcome is not None
    assert (outcome.outcome in ("failed", "lost"), outcome.attempt) == (True, 4)


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), PeerLost(LOST)])
def test_a_rank_whose_record_belongs_to_another_attempt_keeps_the_outcome(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failure, "PEER_SECONDS", 0.1)
    write_outcome(tmp_path, RunOutcome("running", None, attempt=5))
    Phases(ranks_dir(tmp_path), rank=1, attempt=5).close()
    record = record_path(ranks_dir(tmp_path), rank=1)
    record.write_text(record.read_text().replace('"host": "', '"host": "x'))
    report(raised(error), tmp_path, rank=1)
    assert read_outcome(tmp_path) is not None
    assert read_outcome(tmp_path).outcome == "running"  # type: ignore[union-attr]


def test_the_newest_report_is_chosen_by_its_time(tmp_path: Path) -> None:
    assert newest_report(tmp_path) == (0, None)
    (tmp_path / "failures").mkdir()
    for rank, text in enumerate(("ValueError: first", "")):
        path = tmp_path / "failures" / f"rank-{rank}.txt"
        path.write_text(text)
        os.utime(path, ns=(1000 - rank, 1000 - rank))
    assert newest_report(tmp_path) == (1000, "rank 0: ValueError: first")
    os.utime(tmp_path / "failures" / "rank-1.txt", ns=(2000, 2000))
    assert newest_report(tmp_path) == (2000, "rank 1: an error without a message")
