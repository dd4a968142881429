"""Failures of nodes, networks and Slurm itself, on a real Slurm: cables pulled, power cut, nodes drained, slurmctld killed.

Every run ends with the straight run's weights, and sees each training row once per epoch. A node with a pulled cable still
shares all files, which is the bad case: both sides could write.
"""

import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from dstrain.attempt.rank_records import RankRecord, ranks_dir, read_rank_records
from dstrain.checkpoint.store import current_dirs, parse_checkpoint_name
from dstrain.cluster.processes import this_process
from dstrain.config.schema import RunConfig
from dstrain.run_folder.claims import read_claims
from dstrain.run_folder.record import load_record
from dstrain.status.inspect import RunStatus, inspect_status
from tests.slurm.faulty import faulty_ranks
from tests.slurm.jobs import DIRECTORY, TWO_BY_TWO, Job, build_recipe, call, run_cluster, submit, until
from tests.system.faults import noted_rows
from tests.system.runs import NUM_TRAIN
from tests.system.torture import fingerprint

NUM_STEPS, STEPS_AN_EPOCH = 40, 8
every_fault = pytest.mark.every_fault


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """A recipe whose lease goes stale before Slurm gives a node up."""
    return build_recipe(tmp_path, machine__lease_seconds=6.0)


@pytest.fixture
def noting(tmp_path: Path) -> Mapping[str, str]:
    """The environment of a job whose ranks record their rows."""
    return faulty_ranks(tmp_path, f"note rows={tmp_path}")


@pytest.fixture
def patient_slurm() -> Iterator[None]:
    """Slurm with its own default: it gives a node up after five minutes."""
    path = DIRECTORY / "slurm.conf"
    before = path.read_text()
    path.write_text(re.sub("SlurmdTimeout=.*", "SlurmdTimeout=300", before))
    call("scontrol", "reconfigure")
    yield
    path.write_text(before)
    call("scontrol", "reconfigure")


def assert_each_row_once(job: Job) -> None:
    """Check that every step is recorded once, and that every epoch has every row once."""
    run_dir = Path(job.config.run_dir)
    steps = list(range(1, NUM_STEPS + 1))
    assert [row.step for row in load_record(run_dir).train_rows] == steps
    noted = noted_rows(run_dir.parent)
    assert list(noted) == steps
    for first in range(1, NUM_STEPS, STEPS_AN_EPOCH):
        epoch = [row for step in range(first, first + STEPS_AN_EPOCH) for row in noted[step]]
        assert sorted(epoch) == list(range(NUM_TRAIN)), first


def assert_as_straight(job: Job, *, straight: RunConfig) -> None:
    assert job.wait_end() == "COMPLETED 0:0", job.log()
    assert fingerprint(job.config) == fingerprint(straight), job.log()
    assert_each_row_once(job)


def look(config: RunConfig) -> RunStatus:
    """The state of a run as shown by `dstrain status`."""
    return inspect_status(Path(config.run_dir), now=time.time(), observer=this_process())


def records_of(job: Job) -> list[RankRecord]:
    return read_rank_records(ranks_dir(Path(job.config.run_dir)))


def is_alive(record: RankRecord) -> bool:
    """Whether a rank's process runs on its node."""
    try:
        run_cluster("on", record.host, "kill", "-0", str(record.pid))
    except subprocess.CalledProcessError:
        return False
    return True


def resumed_at(job: Job) -> list[int]:
    return [event.step for event in load_record(Path(job.config.run_dir)).events if event.event == "resume"]


def causes(job: Job) -> list[str]:
    return [event.message or "" for event in load_record(Path(job.config.run_dir)).events if event.event == "resume"]


def assert_as_straight_within_rounding(job: Job, *, straight: RunConfig) -> None:
    assert job.wait_end() == "COMPLETED 0:0", job.log()
    record, wanted = (load_record(Path(each.run_dir)) for each in (job.config, straight))
    assert (record.info.world_size, wanted.info.world_size) == (2, 4)
    assert_each_row_once(job)
    assert [row.loss for row in record.train_rows] == pytest.approx([row.loss for row in wanted.train_rows], rel=1e-5)


def test_a_power_cut_of_a_node_is_made_up_for_by_a_spare_node_at_once(
    straight: RunConfig, config: RunConfig, noting: Mapping[str, str]
) -> None:
    run_cluster("boot", "node3")
    job = submit(config, options=("--nodes=3", "--ntasks-per-node=2", "--ntasks=4"), environment=noting)
    job.wait_step(12)
    assert [record.host for record in records_of(job)] == ["node1", "node1", "node2", "node2"]
    assert "dstrain: trains on 2 of 3 nodes (--ntasks=4), the others are spare" in job.log()
    run_cluster("power-cut", "node2")
    assert_as_straight(job, straight=straight)
    assert job.field("Restarts") == "0"
    assert [record.host for record in records_of(job)] == ["node1", "node1", "node3", "node3"]
    cause = f"job {job.id}, started again at once on 2 nodes (after node failure, according to sinfo (down: node2))"
    assert causes(job) == [cause]
    assert cause in (Path(config.run_dir) / "README.md").read_text()
    assert [start.cause for start in look(config).starts][1:] == [cause]


def test_a_pulled_cable_of_a_node_leaves_a_job_that_trains_on_without_it_at_once(
    straight: RunConfig, config: RunConfig, noting: Mapping[str, str]
) -> None:
    job = submit(config, options=("--nodes=1-2", "--ntasks-per-node=2"), environment=noting)
    job.wait_step(12)
    run_cluster("unplug", "node2")
    until(lambda: len(read_claims(Path(config.run_dir))) == 2, else_show=job.log)
    cut_off = [record for record in records_of(job) if record.host == "node2"]
    assert [record.rank for record in cut_off if is_alive(record)] == [2, 3]
    assert_as_straight_within_rounding(job, straight=straight)
    assert job.field("Restarts") == "0"
    assert causes(job) == [
        f"job {job.id}, started again at once on 1 node (after node failure, according to sinfo (down: node2))"
    ]
    run_cluster("power-cut", "node2")  # Slurm has a node that boots at once, but asks one that is plugged in again late


@every_fault
def test_a_lost_node_is_noticed_long_before_slurm_notices_it(
    straight: RunConfig, config: RunConfig, noting: Mapping[str, str], patient_slurm: None
) -> None:
    job = submit(config, options=("--nodes=1-2", "--ntasks-per-node=2"), environment=noting)
    job.wait_step(12)
    run_cluster("power-cut", "node2")
    until(lambda: job.log().endswith("dstrain: finished\n"), else_show=job.log)
    assert job.field("NodeList") == "node[1-2]"  # as Slurm sees it
    run_cluster("boot", "node2")  # else Slurm waits for it until the five minutes are over
    assert_as_straight_within_rounding(job, straight=straight)
    assert "lost node2: for 60 s no sign of life of its ranks, and no answer to srun" in job.log()
    assert causes(job) == [
        f"job {job.id}, started again at once on 1 node (after node failure, according to srun (no answer: node2))"
    ]


@every_fault
def test_the_network_of_the_second_node_fails_during_a_step_and_its_ranks_keep_running(
    straight: RunConfig, config: RunConfig, noting: Mapping[str, str]
) -> None:
    job = submit(config, environment=noting)
    job.wait_step(12)
    run_cluster("unplug", "node2")
    until(lambda: job.is_waiting(1), else_show=job.log)
    cut_off = [record for record in records_of(job) if record.host == "node2"]
    assert [record.rank for record in cut_off] == [2, 3]
    assert all(is_alive(record) for record in cut_off)  # both sides keep running
    run_cluster("plug", "node2")
    run_cluster("boot", "node2")
    job.restart(1)
    assert_as_straight(job, straight=straight)
    assert causes(job) == [f"job {job.id}, restart 1 (after node failure, according to sinfo (down: node2))"]
    assert "lost node2: 1 node left, but the job needs 2" in job.log()


@every_fault
def test_the_network_of_the_batch_host_fails_during_a_step_and_rank_0_keeps_running_while_the_job_restarts_elsewhere(
    straight: RunConfig, config: RunConfig, noting: Mapping[str, str]
) -> None:
    job = submit(config, environment=noting)
    until(lambda: job.field("JobState") == "RUNNING", else_show=job.log)
    run_cluster("boot", "node3")  # a spare node, which the job does not get at first
    job.wait_step(12)
    run_cluster("unplug", "node1")
    old = records_of(job)
    until(lambda: job.is_waiting(1), else_show=job.log)
    assert [record.rank for record in old if record.host == "node1" and is_alive(record)] == [0, 1]
    job.restart(1)
    assert_as_straight(job, straight=straight)
    assert job.field("NodeList") == "node[2-3]"
    # it kept renewing its lease until it found the newer one
    assert "belongs to an earlier start of this job, which Slurm has ended: its lease is taken over" in job.log()
    assert "lease 1 was lost to lease 2 of process" in job.log()
    run_cluster("power-cut", "node1")


def test_the_network_of_the_batch_host_fails_during_a_save_and_its_late_checkpoint_is_not_used(
    straight: RunConfig, config: RunConfig, tmp_path: Path
) -> None:
    run_dir = Path(config.run_dir)
    job = submit(config, environment=faulty_ranks(tmp_path, f"note rows={tmp_path}", f"hold commit={tmp_path}"))
    until((tmp_path / "inside").exists, else_show=job.log)
    run_cluster("boot", "node3")
    run_cluster("unplug", "node1")
    job.restart(1)
    until(lambda: [claim.base_step for claim in read_claims(run_dir)][1:] == [4], else_show=job.log)
    (tmp_path / "go-on").touch()
    until((tmp_path / "committed").exists, else_show=job.log)
    chosen = [
        parse_checkpoint_name(path) for path in current_dirs(run_dir / "checkpoints", claims=read_claims(run_dir))
    ]
    assert all(name and (name.lease == 2 or name.step <= 4) for name in chosen), chosen
    assert_as_straight(job, straight=straight)
    assert resumed_at(job) == [4]
    run_cluster("power-cut", "node1")


@every_fault
def test_a_power_cut_of_the_batch_host_does_not_change_the_result(
    straight: RunConfig, config: RunConfig, noting: Mapping[str, str]
) -> None:
    job = submit(config, environment=noting)
    job.wait_step(12)
    run_cluster("power-cut", "node1")
    until(lambda: job.is_waiting(1), else_show=job.log)
    run_cluster("boot", "node1")
    job.restart(1)
    assert_as_straight(job, straight=straight)
    (cause,) = causes(job)
    assert cause.startswith(f"job {job.id}, restart 1 (its batch script recorded no end: its node was lost")


@every_fault
def test_a_job_does_not_notice_that_the_controller_is_killed_and_started_again(
    straight: RunConfig, config: RunConfig, noting: Mapping[str, str]
) -> None:
    job = submit(config, environment=noting)
    job.wait_step(8)
    run_cluster("kill-controller")
    job.wait_step(16)
    run_cluster("start-controller")
    assert_as_straight(job, straight=straight)
    assert job.field("Restarts") == "0"
    assert resumed_at(job) == []


@every_fault
@pytest.mark.parametrize(
    ("options", "update"),
    [(("--nodes=1-2", "--gpus-per-node=2"), ()), (TWO_BY_TWO, ("NumNodes=1", "NumTasks=2"))],
    ids=["as many nodes as there are", "fewer by the user's choice"],
)
def test_a_job_resumes_on_fewer_nodes_and_is_the_same_within_rounding(
    options: tuple[str, ...],
    update: tuple[str, ...],
    straight: RunConfig,
    config: RunConfig,
    noting: Mapping[str, str],
) -> None:
    job = submit(config, options=options, environment=noting)
    until(lambda: job.field("JobState") == "RUNNING", else_show=job.log)
    call("scontrol", "update", "NodeName=node2", "State=DRAIN", "Reason=test")  # once this job has left it
    try:
        job.wait_step(12)
        call("scontrol", "requeue", job.id)
        until(lambda: job.is_waiting(1), else_show=job.log)
        if update:
            call("scontrol", "update", f"JobId={job.id}", *update)
        job.restart(1)
        assert_as_straight_within_rounding(job, straight=straight)
    finally:
        call("scontrol", "update", "NodeName=node2", "State=RESUME")
