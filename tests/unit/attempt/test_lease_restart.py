"""A requeued job, while an earlier attempt of it on a node that was cut off still holds the lease."""

import logging
from pathlib import Path

import pytest

from dstrain.attempt.lease import Lease, LeaseHeld, LeaseLost
from dstrain.cluster.processes import Holder, this_process
from dstrain.run_folder.claims import read_claims
from tests.unit.attempt.lease_cases import STALE_SECONDS, elsewhere, take

JOB = "big/7"


@pytest.mark.parametrize("holder", [this_process(), elsewhere()], ids=["on this host", "on another host"])
def test_an_earlier_attempt_of_the_job_gets_time_to_end_and_is_then_replaced_although_it_is_alive(
    holder: Holder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = take(tmp_path, holder=holder, job=JOB)
    waited: list[float] = []

    def live_on(seconds: float) -> None:
        waited.append(seconds)
        old.renew()

    with caplog.at_level(logging.WARNING):
        new = take(tmp_path, job=JOB, restart=1, sleep=live_on)
    assert sum(waited) >= STALE_SECONDS
    assert "belongs to an earlier start of this job, which Slurm has ended: its lease is taken over" in caplog.text
    assert [(claim.job, claim.restart) for claim in read_claims(tmp_path)] == [(JOB, 0), (JOB, 1)]
    with pytest.raises(LeaseLost, match="lease 1 was lost to lease 2"):
        old.renew()
    new.check()


@pytest.mark.parametrize(("old", "new"), [((0, 0), (0, 1)), ((0, 3), (1, 0)), ((1, 1), (1, 2))])
def test_a_later_launch_in_the_same_allocation_replaces_an_earlier_one_on_a_node_that_was_cut_off(
    old: tuple[int, int], new: tuple[int, int], tmp_path: Path
) -> None:
    former = take(tmp_path, holder=elsewhere(), job=JOB, restart=old[0], launch=old[1])
    later = take(tmp_path, job=JOB, restart=new[0], launch=new[1], sleep=lambda seconds: former.renew())
    later.check()
    assert [(claim.restart, claim.launch) for claim in read_claims(tmp_path)] == [old, new]
    with pytest.raises(LeaseHeld):
        take(tmp_path, holder=elsewhere(), job=JOB, restart=old[0], launch=old[1], sleep=lambda seconds: later.renew())


@pytest.mark.parametrize("holder", [this_process(), elsewhere()], ids=["on this host", "on another host"])
def test_the_lease_is_acquired_at_once_when_an_earlier_attempt_releases_it(holder: Holder, tmp_path: Path) -> None:
    old = take(tmp_path, holder=holder, job=JOB)
    waited: list[float] = []

    def save_and_end(seconds: float) -> None:
        waited.append(seconds)
        old.set_base(4)
        old.release()

    assert take(tmp_path, job=JOB, restart=1, sleep=save_and_end).number == 2
    assert len(waited) == 1


@pytest.mark.parametrize(
    ("former", "present"),
    [
        ((JOB, 1), (JOB, 1)),  # two job steps of one attempt
        ((JOB, 2), (JOB, 1)),
        (("big/8", 0), (JOB, 1)),
        (("small/7", 0), (JOB, 1)),
        (("", 0), (JOB, 1)),
        ((JOB, 0), ("", 0)),
        (("", 0), ("", 1)),
    ],
)
@pytest.mark.parametrize("holder", [this_process(), elsewhere()], ids=["on this host", "on another host"])
def test_any_other_holder_that_is_alive_is_not_replaced(
    holder: Holder, former: tuple[str, int], present: tuple[str, int], tmp_path: Path
) -> None:
    old = take(tmp_path, holder=holder, job=former[0], restart=former[1])
    with pytest.raises(LeaseHeld):
        take(tmp_path, job=present[0], restart=present[1], sleep=lambda seconds: old.renew())
    old.check()


def test_another_job_that_acquires_the_lease_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    take(tmp_path, holder=elsewhere(), job=JOB).release()
    other: list[Lease] = [take(tmp_path, holder=elsewhere(), job="big/8")]
    with pytest.raises(LeaseHeld):
        take(tmp_path, job=JOB, restart=1, sleep=lambda seconds: other[0].renew())


def test_a_claim_without_a_job_is_read_as_before(tmp_path: Path) -> None:
    take(tmp_path)
    path = tmp_path / "lease" / "00000001.json"
    path.write_text(path.read_text().replace(',"job":"","restart":0,"launch":0', ""))
    assert "job" not in path.read_text()
    (claim,) = read_claims(tmp_path)
    assert claim.holder is not None
    assert (claim.job, claim.restart, claim.launch) == ("", 0, 0)
