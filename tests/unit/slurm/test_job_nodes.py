"""The questions of the batch script after nodes were lost: where the ranks start again, and when the job is requeued instead."""

from pathlib import Path

import pytest

from dstrain.run_folder.outcome import RunOutcome, write_outcome
from tests.unit.slurm.fake_nodes import FakeNodes
from tests.unit.slurm.job_cases import Batch


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    return Batch(tmp_path)


def lose_node2(batch: Batch, nodes: FakeNodes, *, code: int = 137, training_on: str = "node1,node2") -> int:
    """A start on two nodes, of which node2 is lost; returns the exit code of the question `end`."""
    batch.lost = nodes
    assert batch.ask("start", "--nodes", training_on) == 0
    return batch.ask("end", "--code", str(code))


def test_a_lost_node_is_told_and_the_ranks_start_again_where_nodes_are_left(
    batch: Batch, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = FakeNodes(["node1"], ["node1"], requested=1, down=["node2"])
    assert lose_node2(batch, nodes) == 85
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == "node1"
    assert printed.err == "dstrain: lost node2: started again at once on 1 node (node1)\n"
    assert batch.slurm.requeued == []
    end = batch.last_end()
    assert (end.cause, end.source, end.again) == ("node failure", "sinfo (down: node2)", True)
    batch.launch = 1
    assert batch.ask("start", "--nodes", "node1") == 0
    expected = "job 7, started again at once on 1 node (after node failure, according to sinfo (down: node2))\n"
    assert capsys.readouterr().out == expected


def test_a_node_that_slurm_has_not_given_up_yet_is_lost_if_it_does_not_answer(
    batch: Batch, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = FakeNodes(["node1", "node2", "node3"], ["node1", "node3"], requested=3)
    assert lose_node2(batch, nodes, code=85) == 85
    assert capsys.readouterr().out.splitlines()[-1] == "node1,node3"
    assert (batch.last_end().cause, batch.last_end().source) == ("node failure", "srun (no answer: node2)")


def test_a_job_with_too_few_nodes_left_is_requeued_and_says_so(
    batch: Batch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lose_node2(batch, FakeNodes(["node1"], ["node1"], requested=2, down=["node2"])) == 85
    printed = capsys.readouterr()
    assert printed.out.splitlines() == ["job 7, first start"]
    assert printed.err.splitlines() == [
        "dstrain: lost node2: 1 node left, but the job needs 2",
        "dstrain: requeued (exit code 85)",
    ]
    assert batch.slurm.requeued == ["7"]
    batch.restart = 1
    assert batch.ask("start", "--nodes", "node1,node2") == 0
    said = "job 7, restart 1 (after node failure, according to sinfo (down: node2))\n"
    assert capsys.readouterr().out == said


def test_two_starts_in_a_row_that_save_nothing_are_requeued_and_a_third_ends_the_job(
    batch: Batch, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = FakeNodes(["node1", "node3", "node4"], ["node1", "node3", "node4"], requested=1)
    lose_node2(batch, nodes)
    batch.launch = 1
    nodes.kept = nodes.answering = ["node1", "node4"]
    lose_node2(batch, nodes, training_on="node1,node3")
    assert batch.slurm.requeued == ["7"]
    assert "lost node3: 2 nodes left, but 2 starts in a row saved nothing new" in capsys.readouterr().err
    batch.restart, batch.launch = 1, 0
    assert lose_node2(batch, nodes) == 1
    assert batch.slurm.requeued == ["7"]
    assert "3 starts in a row saved nothing new" in capsys.readouterr().err


def test_a_save_between_two_losses_lets_the_ranks_start_again(batch: Batch, capsys: pytest.CaptureFixture[str]) -> None:
    nodes = FakeNodes(["node1"], ["node1"], requested=1)
    for launch in range(4):
        batch.launch = launch
        lose_node2(batch, nodes)
        batch.save(100 + launch)
    assert batch.slurm.requeued == []
    assert capsys.readouterr().out.splitlines().count("node1") == 4


def test_a_node_with_a_broken_device_is_left_out_for_the_rest_of_the_allocation(
    batch: Batch, capsys: pytest.CaptureFixture[str]
) -> None:
    three = ["node1", "node2", "node3"]
    batch.lost = FakeNodes(three, three, requested=1)
    batch.ask("start", "--nodes", "node1,node2")
    write_outcome(batch.run_dir, RunOutcome("lost", 85, "the device of rank 1 on node2.cluster failed: GPU is lost"))
    assert batch.ask("end", "--code", "85") == 85
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == "node1,node3"
    assert printed.err == "dstrain: lost node2: started again at once on 2 nodes (node1, node3)\n"
    assert batch.last_end().source.startswith("the device of rank 1 on node2.cluster failed")
    batch.launch = 1
    batch.save(9)
    batch.lost.answering = ["node1", "node2"]
    write_outcome(batch.run_dir, RunOutcome("running", None))
    batch.ask("start", "--nodes", "node1,node3")
    batch.ask("end", "--code", "85")
    assert capsys.readouterr().out.splitlines()[-1] == "node1"


@pytest.mark.parametrize(
    ("options", "nodes"),
    [
        (("--code", "85"), FakeNodes(["node1", "node2"], ["node1", "node2"], requested=1)),
        (("--code", "85", "--warned", "3000"), FakeNodes(["node1"], ["node1"], requested=1)),
        (("--code", "85"), FakeNodes(["node1"], ["node1"], requested=1, state="COMPLETING")),
    ],
    ids=["a rank was lost and all nodes answer", "the time limit is near", "the job is ending"],
)
def test_any_other_end_is_requeued_as_without_other_nodes(
    options: tuple[str, ...], nodes: FakeNodes, batch: Batch, capsys: pytest.CaptureFixture[str]
) -> None:
    batch.lost = nodes
    batch.ask("start", "--nodes", "node1,node2")
    assert batch.ask("end", *options) == 85
    assert batch.slurm.requeued == ["7"]
    assert capsys.readouterr().out == "job 7, first start\n"


@pytest.mark.parametrize("code", [1, 85, 127, 137])
def test_what_ranks_report_and_return_after_a_node_was_lost_only_follows_from_that(
    code: int, batch: Batch, capsys: pytest.CaptureFixture[str]
) -> None:
    batch.lost = FakeNodes(["node1"], ["node1"], requested=1)
    batch.ask("start", "--nodes", "node1,node2")
    batch.report("RuntimeError: NCCL communicator was aborted\n")
    assert batch.ask("end", "--code", str(code)) == 85
    assert capsys.readouterr().out.splitlines()[-1] == "node1"
    assert batch.last_end().code == code


def test_a_failure_on_nodes_that_all_answer_ends_the_job(batch: Batch, capsys: pytest.CaptureFixture[str]) -> None:
    batch.lost = FakeNodes(["node1", "node2"], ["node1", "node2"], requested=1)
    batch.ask("start", "--nodes", "node1,node2")
    batch.report("ValueError: no rows\n")
    assert batch.ask("end", "--code", "85") == 1
    assert capsys.readouterr().err == "dstrain: not requeued, because it failed: rank 1: ValueError: no rows\n"


def test_a_run_that_finished_does_not_ask_its_nodes(batch: Batch) -> None:
    nodes = FakeNodes(["node1"], ["node1"], requested=1)
    assert lose_node2(batch, nodes, code=0) == 0
    assert nodes.asked == []
