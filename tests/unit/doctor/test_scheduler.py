"""Slurm: its version, and what a job was given."""

import pytest

from dstrain.doctor.finding import Finding, ok
from dstrain.doctor.programs import Done
from dstrain.doctor.scheduler import COMMAND, examine_slurm, judge_slurm


def judge(done: Done | None, **environment: str) -> list[Finding]:
    return list(judge_slurm(done, environment=environment))


def test_without_slurm_nothing_is_said() -> None:
    assert judge(None) == []


@pytest.mark.parametrize(
    ("version", "level"), [("slurm 22.05.8", "ok"), ("slurm 21.08.0", "ok"), ("slurm-wlm 20.11.4", "note")]
)
def test_an_old_slurm_is_noted(version: str, level: str) -> None:
    (finding,) = judge(Done(0, f"{version}\n"))
    assert (finding.level, finding.text) == (level, version)


def test_a_slurm_that_fails_is_noted() -> None:
    (finding,) = judge(Done(1, err="sbatch: error: resolve_ctls_from_dns_srv\n"))
    assert finding.level == "note"
    assert finding.text.endswith("failed: sbatch: error: resolve_ctls_from_dns_srv")


def test_a_job_says_what_it_was_given() -> None:
    given = {"SLURM_JOB_ID": "17", "SLURM_NTASKS": "8", "SLURM_GPUS_ON_NODE": "4"}
    assert judge(None, **given) == [ok("slurm", "this is job 17: SLURM_NTASKS=8, SLURM_GPUS_ON_NODE=4")]
    assert judge(None, SLURM_JOB_ID="17") == [ok("slurm", "this is job 17")]


def test_sbatch_is_asked_for_its_version() -> None:
    answers = {COMMAND: Done(0, "slurm 23.11.1\n")}
    assert list(examine_slurm(lambda command: answers[tuple(command)], environment={})) == [
        ok("slurm", "slurm 23.11.1")
    ]
