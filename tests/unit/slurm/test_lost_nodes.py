"""Nodes that fall silent beside others, and a batch host that Slurm takes from its job."""

import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import pytest

from dstrain.attempt.rank_records import RankRecord
from dstrain.slurm import lost_nodes
from dstrain.slurm.lost_nodes import (
    GUARD_SECONDS,
    LOOK_SECONDS,
    SILENT_SECONDS,
    Silence,
    choose_guards,
    find_lost,
    guard,
    main,
    plan_guards,
    watch,
)
from dstrain.slurm.nodes import Allocation
from tests.unit.slurm.fake_nodes import FakeNodes
from tests.unit.status.status_cases import rank_record

BOTH = ["node1", "node2"]


def record(rank: int, host: str, *, heartbeat: float = 0.0, attempt: int = 1, ended: str | None = None) -> RankRecord:
    return replace(rank_record(rank), host=host, heartbeat=heartbeat, attempt=attempt, ended=ended)


def job(nodes: FakeNodes) -> Allocation:
    return Allocation("7", "7_3", nodes, {"SLURM_JOB_ID": "7"})


def silent_after(*looks: tuple[float, Sequence[RankRecord]]) -> list[str]:
    silence = Silence()
    found: list[str] = []
    for clock, records in looks:
        found = silence.look(records, clock=clock)
    return found


def test_a_host_is_silent_once_all_its_ranks_are_while_another_host_is_not() -> None:
    still = [record(2, "node2"), record(3, "node2")]
    looks = [(clock, [record(0, "node1", heartbeat=clock), *still]) for clock in (0.0, 30.0, SILENT_SECONDS - 1)]
    assert silent_after(*looks) == []
    last = (SILENT_SECONDS, [record(0, "node1", heartbeat=61.0), *still])
    assert silent_after(*looks, last) == ["node2"]
    one_goes_on = (SILENT_SECONDS, [record(0, "node1", heartbeat=61.0), still[0], record(3, "node2", heartbeat=1.0)])
    assert silent_after(*looks, one_goes_on) == []


@pytest.mark.parametrize("heartbeat", [-3600.0, 3600.0])
def test_the_clocks_of_hosts_need_not_agree(heartbeat: float) -> None:
    looks = [
        (clock, [record(0, "node1"), record(2, "node2", heartbeat=heartbeat + clock)])
        for clock in (0.0, 30.0, SILENT_SECONDS)
    ]
    assert silent_after(*looks) == ["node1"]


def test_if_all_are_silent_none_is_lost_since_a_file_system_or_a_suspended_job_looks_the_same() -> None:
    records = [record(0, "node1"), record(2, "node2")]
    assert silent_after((0.0, records), (3600.0, records)) == []


def test_ranks_that_ended_and_those_of_earlier_attempts_do_not_count() -> None:
    old = [record(2, "node2"), record(4, "node3", ended="lost rank 2")]
    looks = [
        (clock, [record(0, "node1", heartbeat=clock, attempt=2), replace(old[1], attempt=2), old[0]])
        for clock in (0.0, SILENT_SECONDS, 2 * SILENT_SECONDS)
    ]
    assert silent_after(*looks) == []


def run_watch(nodes: FakeNodes, *, looks: int = 20) -> tuple[list[tuple[int, int]], float]:
    """What `watch` kills, and after how many seconds, if node2 has fallen silent."""
    killed: list[tuple[int, int]] = []
    now = [0.0]

    def pass_time(seconds: float) -> None:
        now[0] += seconds
        if now[0] > looks * LOOK_SECONDS:
            raise TimeoutError

    def records() -> list[RankRecord]:
        return [record(0, "node1.cluster", heartbeat=now[0]), record(1, "node2.cluster")]

    def kill(pid: int, number: int) -> None:
        killed.append((pid, number))

    with suppress(TimeoutError):
        watch(job(nodes), nodes=BOTH, records=records, step=77, sleep=pass_time, clock=lambda: now[0], kill=kill)
    return killed, now[0]


def test_a_silent_node_that_does_not_answer_ends_the_step_on_all_nodes(capsys: pytest.CaptureFixture[str]) -> None:
    nodes = FakeNodes(BOTH, ["node1"], steps="7_3.0 train\n7_3.1 python\n7_3.batch batch\n")
    killed, seconds = run_watch(nodes)
    assert killed == [(77, signal.SIGKILL)]
    assert nodes.sent == [["scancel", "--signal=KILL", "7_3.0"]]
    assert seconds <= SILENT_SECONDS + 2 * LOOK_SECONDS
    assert capsys.readouterr().err.startswith("dstrain: lost node2: for 60 s no sign of life of its ranks")


def test_a_silent_node_that_answers_is_left_to_the_watchdog_and_seldom_asked_again() -> None:
    nodes = FakeNodes(BOTH, BOTH)
    killed, _ = run_watch(nodes)
    assert (killed, nodes.sent) == ([], [])
    assert 1 <= len(nodes.asked) <= 20 * LOOK_SECONDS / SILENT_SECONDS


def test_a_host_that_cannot_ask_slurm_may_be_the_one_that_is_cut_off() -> None:
    assert find_lost(["node2"], job=job(FakeNodes(BOTH, ["node1"]))) == ["node2"]
    assert find_lost(["node2"], job=job(FakeNodes(["node1"], ["node1"]))) == ["node2"]
    assert find_lost(["node2"], job=Allocation("7", "7", lambda command: (1, ""), {})) == []
    nodes = FakeNodes(BOTH, [])

    def cut_off_meanwhile(command: Sequence[str]) -> tuple[int, str]:
        return (1, "") if nodes.asked and command[0] == "squeue" else nodes(command)

    assert find_lost(["node2"], job=Allocation("7", "7", cut_off_meanwhile, {})) == []


def test_a_job_whose_batch_host_slurm_has_given_up_is_requeued_once_slurm_agrees() -> None:
    nodes = FakeNodes(BOTH, BOTH)
    waited: list[float] = []

    def pass_time(seconds: float) -> None:
        waited.append(seconds)
        assert not nodes.sent
        nodes.kept = BOTH if len(waited) < 3 else ["node2"]
        nodes.state = "RUNNING" if len(waited) != 3 else "COMPLETING"

    assert guard(job(nodes), host="node1", sleep=pass_time) == 0
    assert waited == [GUARD_SECONDS] * 4
    assert nodes.sent == [["scontrol", "requeue", "7_3"]]


def test_two_other_nodes_guard_the_batch_host_or_else_spare_ones() -> None:
    allocation = job(FakeNodes(["node1", "node2", "node9"], []))
    assert choose_guards(allocation, nodes=["node1", "node2", "node3", "node4"], host="node1") == ["node2", "node3"]
    assert choose_guards(allocation, nodes=["node4"], host="node1") == ["node4"]
    assert choose_guards(allocation, nodes=["node1"], host="node1") == ["node2", "node9"]
    assert choose_guards(job(FakeNodes(["node1"], [])), nodes=["node1"], host="node1") == []


def test_guards_take_no_processors_and_no_gpus() -> None:
    command = plan_guards(job(FakeNodes([], [])), nodes=["node4", "node2"], host="node1")
    assert command[: command.index("srun")] == ["env", "--unset=SLURM_JOB_ID"]
    assert {"--jobid=7", "--overlap", "--no-kill", "--gres=none", "--nodes=2", "--nodelist=node4,node2"} <= set(command)
    assert command[-6:] == [sys.executable, "-m", "dstrain.slurm.lost_nodes", "guard", "--host=node1", "--job=7_3"]


def test_a_job_on_the_batch_host_alone_has_nothing_to_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"SLURM_JOB_ID": "7", "SLURMD_NODENAME": "node1"}
    monkeypatch.setattr(lost_nodes, "run_command", FakeNodes(["node1"], []))
    assert main(["watch", "--step", "77", "--nodes", "node1", "--", "--config", "debug"], environment=environment) == 0
