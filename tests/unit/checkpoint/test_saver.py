"""Background saves of one rank: a small module and a torch optimizer stand for a DeepSpeed engine on ZeRO stage 0."""

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from dstrain.checkpoint import saver as saver_module
from dstrain.checkpoint.saver import RunIdentity, SaveOutcome, Saver, ValidCheckpoints
from dstrain.checkpoint.state import RunState, load_state, load_weights
from dstrain.checkpoint.store import checkpoint_dirs, leftover_dirs, trim_checkpoint, verify_committed
from dstrain.cluster.environment import read_process_info
from dstrain.cluster.process_group import Ranks
from tests.unit.checkpoint.checkpoint_cases import OPTIMIZER, STATE, WEIGHTS, break_file, ignore, save

RUN_STATE = RunState(
    step=5, epoch=1, step_in_epoch=2, cut={"tokens": 8}, data={"train": "f00"}, hooks={"log": {"a": 1}}
)


class LeaseTaken(Exception):
    """Another writer has taken the folder."""


def build_engine() -> Any:
    """The part of an engine that a saver uses, after two optimizer steps."""
    module = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    for _ in range(2):
        module(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    wrapped = SimpleNamespace(module=module, optimizer=optimizer, zero_optimization_stage=lambda: 0)
    return SimpleNamespace(
        wrapped=wrapped,
        moments=("exp_avg", "exp_avg_sq"),
        zero_stage=0,
        skipped_steps=1,
        loss_scaler_state=dict,
        trained_rows={},
    )


class Case:
    """A saver and the calls it made."""

    def __init__(self, root: Path, *, lease_taken: bool = False) -> None:
        self.root = root
        self.calls: list[str] = []
        self.lease_taken = lease_taken
        self.engine = build_engine()
        self.saver = Saver(
            root,
            engine=self.engine,
            identity=RunIdentity(recipe_hash="abc", recipe={"seed": 1}, versions={}, lease=2),
            ranks=Ranks(process=read_process_info({}), device=torch.device("cpu"), group=None),
            check_lease=self.check_lease,
            sync_records=lambda: self.calls.append("sync_records"),
            prune=lambda: self.calls.append("prune"),
            on_stage=ignore,
        )

    def check_lease(self) -> None:
        self.calls.append("check_lease")
        if self.lease_taken:
            raise LeaseTaken


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path / "checkpoints")


def test_a_save_is_a_valid_checkpoint_of_the_state_at_its_call(case: Case) -> None:
    weight = case.engine.wrapped.module.weight.detach().clone()
    assert case.saver.save(RUN_STATE, scores={"bleu": 1.5}) == []
    with torch.no_grad():
        case.engine.wrapped.module.weight.zero_()
    directory = case.root / "step-00000005.lease-2"
    assert case.saver.finish() == [SaveOutcome(5, directory)]
    manifest = verify_committed(directory)
    assert (manifest.step, manifest.lease, manifest.world_size, manifest.scores) == (5, 2, 1, {"bleu": 1.5})
    assert [entry.path for entry in manifest.files] == [WEIGHTS, OPTIMIZER, STATE]
    assert load_state(directory) == replace(RUN_STATE, applied_steps=2, skipped_steps=1)
    loaded = nn.Linear(3, 2)
    load_weights(directory, module=loaded)
    assert torch.equal(loaded.weight, weight)


def test_records_are_synced_and_the_lease_is_checked_before_the_commit_and_older_checkpoints_are_pruned_after_it(
    case: Case,
) -> None:
    case.saver.save(RUN_STATE, scores=None)
    case.saver.finish()
    assert case.calls == ["sync_records", "check_lease", "check_lease", "prune"]


def test_the_next_save_returns_the_outcome_of_the_one_before(case: Case) -> None:
    case.saver.save(RUN_STATE, scores=None)
    (before,) = case.saver.save(replace(RUN_STATE, step=6), scores=None)
    (last,) = case.saver.finish()
    assert (before.step, last.step) == (5, 6)
    assert len(checkpoint_dirs(case.root)) == 2


def test_without_a_save_in_flight_there_is_no_outcome(case: Case) -> None:
    assert case.saver.poll() == []
    assert case.saver.finish() == []


def test_a_save_without_room_has_a_problem_and_leaves_nothing(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saver_module.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    case.saver.save(RUN_STATE, scores=None)
    (outcome,) = case.saver.finish()
    assert outcome.directory is None
    assert outcome.problem is not None
    assert "MB are needed, 0 MB are free" in outcome.problem
    assert list(case.root.iterdir()) == []
    assert case.calls == []


def test_a_save_that_cannot_be_written_has_a_problem_that_names_the_rank(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **keywords: Any) -> None:
        raise OSError(28, "No space left on device", "weights")

    monkeypatch.setattr(saver_module, "write_tensors", fail)
    case.saver.save(RUN_STATE, scores=None)
    assert case.saver.finish() == [SaveOutcome(5, None, "rank 0: weights: No space left on device")]
    assert list(case.root.iterdir()) == []


def test_a_writer_that_has_lost_its_lease_commits_and_removes_nothing(tmp_path: Path) -> None:
    case = Case(tmp_path / "checkpoints", lease_taken=True)
    case.saver.save(RUN_STATE, scores=None)
    with pytest.raises(LeaseTaken):
        case.saver.finish()
    assert checkpoint_dirs(case.root) == []
    assert "prune" not in case.calls


def test_tidying_removes_leftovers_and_prunes(case: Case) -> None:
    (case.root / "step-00000003.lease-1.tmp").mkdir(parents=True)
    case.saver.tidy()
    assert leftover_dirs(case.root) == []
    assert case.calls == ["check_lease", "prune"]


def test_a_valid_checkpoint_is_read_once_and_a_broken_one_each_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    is_valid = ValidCheckpoints()
    directory, broken = save(tmp_path, step=1), save(tmp_path, step=2)
    file = break_file(broken)
    with caplog.at_level(logging.WARNING):
        assert [is_valid(directory), is_valid(broken), is_valid(broken)] == [True, False, False]
    assert caplog.text.count(f"not a valid checkpoint: {file}") == 2
    shutil.rmtree(directory)
    assert is_valid(directory)


def test_a_checkpoint_of_weights_only_does_not_count_as_valid_for_pruning(tmp_path: Path) -> None:
    directory = save(tmp_path, step=1)
    trim_checkpoint(directory)
    assert not ValidCheckpoints()(directory)
