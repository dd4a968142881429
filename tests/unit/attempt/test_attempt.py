"""What an attempt writes about itself into the run folder, from its lease to its end."""

import os
import signal
import socket
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from dstrain.attempt.attempt import Attempt, start_attempt, take_lease
from dstrain.attempt.lease import acquire
from dstrain.attempt.rank_records import Phases, ranks_dir
from dstrain.cluster.environment import read_process_info
from dstrain.cluster.process_group import Ranks
from dstrain.cluster.processes import this_process
from dstrain.cluster.signals import SAVING
from dstrain.config.machine import Machine
from dstrain.errors import UserError
from dstrain.run_folder.claims import Claim, read_claims, save_claim
from dstrain.run_folder.outcome import RESERVED_BYTES, RunOutcome, read_ends, read_outcome, write_outcome


def start(run_dir: Path, *, environment: Mapping[str, str] | None = None) -> Attempt:
    ranks = Ranks(process=read_process_info({}), device=torch.device("cpu"), group=None)
    return start_attempt(run_dir, ranks=ranks, machine=Machine(), drill=None, environment=environment or {})


def outcome(run_dir: Path) -> tuple[str, int] | None:
    found = read_outcome(run_dir)
    return (found.outcome, found.attempt) if found else None


@pytest.mark.parametrize("before", [None, RunOutcome("preempted", 85, attempt=1), RunOutcome("failed", 1)])
def test_an_attempt_records_at_once_that_it_runs(before: RunOutcome | None, tmp_path: Path) -> None:
    if before is not None:
        write_outcome(tmp_path, before)
    attempt = start(tmp_path)
    assert outcome(tmp_path) == ("running", attempt.number)
    attempt.close("done")


def test_a_finished_run_stays_finished_until_an_attempt_knows_where_it_resumes(tmp_path: Path) -> None:
    write_outcome(tmp_path, RunOutcome("finished", 0, attempt=5))
    refused = start(tmp_path)
    assert outcome(tmp_path) == ("finished", 5)
    refused.close("refused")
    accepted = start(tmp_path)
    accepted.set_base(12)
    assert outcome(tmp_path) == ("finished", 5)
    accepted.begin()
    assert outcome(tmp_path) == ("running", accepted.number)
    accepted.close("done")


@pytest.mark.parametrize("before", ["preempted", "failed", "lost", "running"])
def test_the_outcome_of_a_run_that_has_begun_stays_until_an_attempt_can_no_longer_be_refused(
    before: Any, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text("")
    write_outcome(tmp_path, RunOutcome(before, 1, attempt=5))
    attempt = start(tmp_path)
    assert outcome(tmp_path) == (before, 5)
    attempt.begin()
    assert outcome(tmp_path) == ("running", attempt.number)
    attempt.close("done")


def test_an_attempt_reserves_the_room_for_its_last_word(tmp_path: Path) -> None:
    attempt = start(tmp_path)
    assert (tmp_path / "lease" / f"{attempt.number:08d}.end").stat().st_size == RESERVED_BYTES
    assert read_ends(tmp_path) == {}
    attempt.close("done")


def test_the_lease_names_the_job_and_the_attempt_that_hold_it(tmp_path: Path) -> None:
    slurm = {"SLURM_JOB_ID": "7", "SLURM_CLUSTER_NAME": "big", "SLURM_RESTART_COUNT": "2", "DSTRAIN_LAUNCH": "1"}
    start(tmp_path, environment=slurm).close("done")
    (claim,) = read_claims(tmp_path)
    assert (claim.job, claim.restart, claim.launch, claim.released) == ("big/7", 2, 1, True)


class SecondOfTwo:
    """One of two ranks, with the answers that the other one gives in turn."""

    def __init__(self, rank: int, *answers: Any) -> None:
        self.rank = rank
        self._answers = list(answers)

    def broadcast(self, value: Any, form: Any) -> Any:
        return value if self.rank == 0 else self._answers.pop(0)

    def gather(self, value: Any, form: Any) -> list[Any] | None:
        self.gathered = value
        return [value, *self._answers] if self.rank == 0 else None


def test_a_folder_that_another_rank_does_not_see_is_refused_and_released(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=rf"^{tmp_path}: rank 1 on b does not see what rank 0 writes there; choose an output"
    ):
        take_lease(tmp_path, ranks=SecondOfTwo(0, "b"), stale_seconds=60.0)  # type: ignore[arg-type]
    assert read_claims(tmp_path)[-1].released


@pytest.mark.parametrize("is_shared", [True, False])
def test_a_rank_looks_for_the_lease_of_rank_0_in_its_own_view_of_the_folder(
    is_shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dstrain.attempt.attempt.SHARED_SECONDS", 0.0)
    lease = acquire(tmp_path / "run", holder=this_process(), stale_seconds=60.0)
    holder = asdict(read_claims(tmp_path / "run")[-1].holder or this_process())
    ranks: Any = SecondOfTwo(1, (lease.number, None), holder, None)
    seen = tmp_path / ("run" if is_shared else "of another node")
    assert take_lease(seen, ranks=ranks, stale_seconds=60.0) == (None, lease.number)
    assert ranks.gathered == (None if is_shared else socket.gethostname())


def test_an_attempt_keeps_how_the_killed_one_before_it_ended(tmp_path: Path) -> None:
    save_claim(tmp_path, claim=Claim(1, replace(this_process(), process_start=1)))
    killed = Phases(ranks_dir(tmp_path), rank=0, attempt=1)
    killed.enter("step", step=7)
    killed.close()
    start(tmp_path).close("done")
    (end,) = read_ends(tmp_path).values()
    assert (end.outcome, end.attempt, end.step) == ("killed", 1, 7)


@pytest.fixture
def _keep_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (*SAVING, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_keep_handlers")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 85), (signal.SIGINT, 130)])
def test_a_signal_before_training_ends_the_attempt_with_its_reason(
    number: signal.Signals, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(code: int) -> NoReturn:
        raise SystemExit(code)

    monkeypatch.setattr(os, "_exit", end)
    attempt = start(tmp_path)
    attempt.catch_signals()
    with pytest.raises(SystemExit) as ended:
        os.kill(os.getpid(), number)
    assert ended.value.code == code
    found: Any = read_outcome(tmp_path)
    assert (found.outcome, found.exit_code) == ("preempted", code)
    assert read_ends(tmp_path)[attempt.number].message == f"received {number.name} before training began"
    attempt.close("done")
