"""What an attempt writes about itself into the run folder, from its lease to its end."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from dstrain.attempt.attempt import Attempt, start_attempt
from dstrain.cluster.environment import read_process_info
from dstrain.cluster.process_group import Ranks
from dstrain.config.machine import Machine
from dstrain.run_folder.claims import read_claims
from dstrain.run_folder.outcome import RunOutcome, read_outcome, write_outcome


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
    assert outcome(tmp_path) == ("running", accepted.number)
    accepted.close("done")


def test_the_lease_names_the_job_and_the_attempt_that_hold_it(tmp_path: Path) -> None:
    slurm = {"SLURM_JOB_ID": "7", "SLURM_CLUSTER_NAME": "big", "SLURM_RESTART_COUNT": "2", "DSTRAIN_LAUNCH": "1"}
    start(tmp_path, environment=slurm).close("done")
    (claim,) = read_claims(tmp_path)
    assert (claim.job, claim.restart, claim.launch, claim.released) == ("big/7", 2, 1, True)
