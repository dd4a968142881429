"""Commands that run, fail or are missing, and the messages of the batch scripts."""

from datetime import UTC, datetime

import pytest

from dstrain.slurm.commands import print_message, run_command, timestamp, without_slurm


def test_a_command_that_is_missing_or_fails_returns_the_reason() -> None:
    assert run_command(["/no/such/scontrol"])[0] == 1
    assert run_command(["sh", "-c", "echo out; echo why >&2; exit 3"]) == (3, "why\n")
    assert run_command(["echo", "said"]) == (0, "said\n")


def test_a_message_goes_to_the_log_of_the_job_with_the_name_of_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    print_message("requeued")
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "dstrain: requeued\n")


def test_a_command_does_not_see_the_options_of_the_calling_job_but_the_cluster() -> None:
    environment = {"SLURM_NTASKS": "8", "PATH": "/bin", "SLURM_CONF": "/slurm.conf", "SLURM_JOB_ID": "7"}
    assert without_slurm(environment) == ["env", "--unset=SLURM_JOB_ID", "--unset=SLURM_NTASKS"]


def test_a_timestamp_is_the_present_in_utc() -> None:
    then = datetime.fromisoformat(timestamp())
    assert then.utcoffset() == UTC.utcoffset(None)
    assert abs((datetime.now(UTC) - then).total_seconds()) < 60
