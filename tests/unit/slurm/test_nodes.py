"""What is left of a job after nodes were lost, from Slurm's answers and from what the nodes themselves answer."""

from collections.abc import Sequence

import pytest

from dstrain.slurm.nodes import (
    Allocation,
    Loss,
    answering_nodes,
    choose_nodes,
    find_loss,
    kept_nodes,
    list_nodes,
    name_of,
    requested_nodes,
    short_name,
)
from tests.unit.slurm.fake_nodes import FakeNodes

TWO = ("node1", "node2")


def job(nodes: FakeNodes) -> Allocation:
    return Allocation("7", "7", nodes, {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"})


def loss(nodes: FakeNodes, *, used: Sequence[str] = TWO, wanted: int = 2, broken: Sequence[str] = ()) -> Loss | None:
    return find_loss(job(nodes), used=used, wanted=wanted, broken=broken)


def test_a_task_of_an_array_has_a_name_of_its_own_but_not_a_job_that_it_submitted() -> None:
    array = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
    assert name_of("7", environment=array) == "7_3"
    assert name_of("8", environment=array) == "8"
    assert name_of("7", environment={}) == "7"


def test_a_node_list_is_read_by_slurm_itself() -> None:
    assert list_nodes("node1,node2", run=FakeNodes([], [])) == ["node1", "node2"]
    assert list_nodes("node[1-", run=lambda command: (1, "Invalid hostlist")) == []


def test_only_the_job_itself_counts_and_only_while_it_runs() -> None:
    assert kept_nodes(job(FakeNodes(["node1"], []))) == ["node1"]
    assert kept_nodes(job(FakeNodes(["node1"], [], state="COMPLETING"))) is None
    cut_off = Allocation("7", "7", lambda command: (1, "Unable to contact slurm controller"), {})
    assert kept_nodes(cut_off) is None


def test_every_node_is_asked_for_itself_without_the_options_of_the_job() -> None:
    commands: list[Sequence[str]] = []

    def run(command: Sequence[str]) -> tuple[int, str]:
        commands.append(command)
        return (1, "") if "--nodelist=node2" in command else (0, "")

    asked = Allocation("7", "7_1", run, {"SLURM_NTASKS": "4", "SLURM_GPUS_PER_NODE": "8"})
    assert answering_nodes(["node1", "node2", "node3"], job=asked) == ["node1", "node3"]
    assert len(commands) == 3
    for command in commands:
        assert list(command[:3]) == ["env", "--unset=SLURM_GPUS_PER_NODE", "--unset=SLURM_NTASKS"]
        assert {"timeout", "srun", "--jobid=7", "--overlap", "--gres=none", "true"} <= set(command)


@pytest.mark.parametrize("in_json", [False, True])
def test_the_smallest_number_of_nodes_is_that_of_the_request_not_of_the_allocation(in_json: bool) -> None:
    assert requested_nodes(job(FakeNodes([], [], requested=3, in_json=in_json))) == 3
    assert requested_nodes(job(FakeNodes([], []))) is None


@pytest.mark.parametrize(
    "printed", ["", "[]", '{"jobs": [{"job_id": 7}]}', '{"jobs": 3}', "squeue: unrecognized option"]
)
def test_a_slurm_that_does_not_say_what_was_requested_is_no_error(printed: str) -> None:
    asked = Allocation("7", "7", lambda command: (0, printed if command[0] == "squeue" else "JobId=7"), {})
    assert requested_nodes(asked) is None


@pytest.mark.parametrize("kept", [["node1"], ["node1", "node2"]], ids=["slurm knows", "slurm does not know yet"])
def test_a_lost_node_leaves_the_others_if_the_job_asked_for_no_more(kept: list[str]) -> None:
    found = loss(FakeNodes(kept, ["node1"], requested=1))
    assert found == Loss(silent=("node2",), broken=(), left=("node1",), needed=1)


@pytest.mark.parametrize("requested", [2, None])
def test_a_job_that_asked_for_all_its_nodes_or_whose_request_is_unknown_needs_them_all(requested: int | None) -> None:
    found = loss(FakeNodes(["node1"], ["node1"], requested=requested))
    assert found is not None
    assert (found.left, found.needed) == (("node1",), 2)


def test_spare_nodes_take_the_place_of_lost_ones_and_are_not_needed_themselves() -> None:
    three = ["node1", "node2", "node3"]
    found = loss(FakeNodes(three, ["node1", "node3"], requested=3))
    assert found == Loss(("node2",), (), left=("node1", "node3"), needed=2)
    later = loss(FakeNodes(three, ["node1"], requested=1), used=["node1", "node3"])
    assert later == Loss(("node3",), (), left=("node1",), needed=1)


def test_a_node_that_came_back_is_used_again() -> None:
    found = loss(FakeNodes(["node1", "node2", "node3"], ["node1", "node2"], requested=1), used=["node1", "node3"])
    assert found is not None
    assert found.left == ("node1", "node2")


def test_a_node_whose_device_failed_is_left_out_although_it_answers() -> None:
    found = loss(FakeNodes(list(TWO), list(TWO), requested=1), broken=["node2"])
    assert found == Loss((), ("node2",), left=("node1",), needed=1)


@pytest.mark.parametrize(
    "nodes",
    [
        FakeNodes(list(TWO), list(TWO)),
        FakeNodes(["node1", "node2", "node3"], list(TWO)),
        FakeNodes(["node1"], ["node1"], state="COMPLETING"),
    ],
    ids=["all answer", "only a spare node is lost", "the job is ending"],
)
def test_without_a_loss_of_its_own_nodes_there_is_nothing_to_tell(nodes: FakeNodes) -> None:
    assert loss(nodes) is None


def test_nodes_that_were_used_come_first_and_no_more_than_wanted() -> None:
    assert choose_nodes(used=["b", "c"], left=["a", "b", "c", "d"], wanted=3) == ["b", "c", "a"]
    assert choose_nodes(used=["a", "b"], left=["b"], wanted=2) == ["b"]


def test_hosts_are_compared_without_their_domain() -> None:
    assert short_name("node1.cluster.local") == short_name("node1") == "node1"
