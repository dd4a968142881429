"""The order of the hooks, and their state on its way into a checkpoint and back."""

import json
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dstrain.checkpoint.changes import Part
from dstrain.checkpoint.manifest import CheckpointError
from dstrain.checkpoint.state import EpochPart
from dstrain.data.cuts import Cut
from dstrain.data.plan import Position
from dstrain.run.hooks import Hooks, _build_run_state, _find_scored, _restore_hooks
from dstrain.run_folder.rows import append_row
from dstrain.run_folder.scores import ScoredTexts, Scores, write_scores
from dstrain.training.state import Hook, Progress
from tests.unit.run.run_cases import write_run


class Counter(Hook):
    """Keeps one number."""

    def __init__(self, name: str, *, number: int = 0) -> None:
        self.name = name
        self.number = number

    def state(self) -> dict[str, Any]:
        return {"number": self.number}

    def load_state(self, state: dict[str, Any]) -> None:
        self.number = state["number"]

    def reset(self, parts: Collection[Part], *, attempt: int) -> list[str]:
        return [f"{self.name} forgets {part} in attempt {attempt}" for part in parts]


def test_hooks_are_called_in_their_literal_order_and_the_checkpoint_after_the_log() -> None:
    names = ("preempt", "quarantine", "evaluation", "external", "log", "checkpoint", "progress")
    each: dict[str, Any] = {name: Counter(name) for name in names}
    order = [hook.name for hook in Hooks(**each).in_order]
    assert order == list(names)
    assert order.index("checkpoint") > order.index("log") > order.index("evaluation")


def test_the_state_of_a_run_holds_its_position_its_cut_its_data_and_every_hook() -> None:
    assembly = build_assembly()
    hooks = [Counter("log", number=3), Counter("evaluate", number=4)]
    state = _build_run_state(assembly, progress=Progress(7, Position(1, 2)), hooks=hooks)
    assert (state.step, state.epoch, state.step_in_epoch) == (7, 1, 2)
    assert (state.cut["micro_batch_tokens"], state.cut["min_micro_batches"], state.data) == (1000, 2, {"train": "f"})
    assert state.base == "b"
    assert state.hooks == {"log": {"number": 3}, "evaluate": {"number": 4}}


def test_how_an_epoch_was_begun_is_part_of_the_state_until_it_ends() -> None:
    parts = (EpochPart(seed=1, batch_size=16, batch_unit="sequences", num_steps=2),)
    assembly = build_assembly(position=Position(1, 0), epoch_parts=parts)
    assert _build_run_state(assembly, progress=Progress(7, Position(1, 9)), hooks=[]).epoch_parts == parts
    assert _build_run_state(assembly, progress=Progress(8, Position(2, 0)), hooks=[]).epoch_parts == ()


def build_assembly(**place: Any) -> Any:
    return SimpleNamespace(
        plan=SimpleNamespace(cut=Cut(1000, min_micro_batches=2)),
        place=SimpleNamespace(**({"position": Position(0, 0), "epoch_parts": ()} | place)),
        prepared=SimpleNamespace(fingerprints={"train": "f"}),
        base="b",
    )


def resume_from(hooks: dict[str, Any], *, parts: frozenset[Part] = frozenset()) -> Any:
    directory = Path("checkpoints/step-00000007.lease-1")
    return SimpleNamespace(directory=directory, state=SimpleNamespace(hooks=hooks), parts=parts)


def test_every_hook_gets_its_own_state_back() -> None:
    hooks = [Counter("log"), Counter("evaluate")]
    saved = json.loads(json.dumps({"evaluate": {"number": 4}, "log": {"number": 3}, "older": {}}))
    assert _restore_hooks(hooks, resume=resume_from(saved), attempt=2) == []
    assert [hook.number for hook in hooks] == [3, 4]


def test_a_hook_forgets_what_depends_on_a_change_and_says_so() -> None:
    saved = {"log": {"number": 3}, "evaluate": {"number": 4}}
    hooks = [Counter("log"), Counter("evaluate")]
    said = _restore_hooks(hooks, resume=resume_from(saved, parts=frozenset({Part.SCORES})), attempt=2)
    assert said == ["log forgets scores in attempt 2", "evaluate forgets scores in attempt 2"]


@pytest.mark.parametrize("saved", [{}, {"log": {}}, {"log": None}])
def test_a_state_that_this_version_cannot_read_is_refused_with_its_hook_and_a_way_out(saved: dict[str, Any]) -> None:
    with pytest.raises(
        CheckpointError, match=r"step-00000007\.lease-1: .*`log`.*resume with the version that saved it"
    ):
        _restore_hooks([Counter("log")], resume=resume_from(saved), attempt=2)


def test_scores_of_other_jobs_decide_the_best_and_what_is_still_pending(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    found = _find_scored(folder)
    assert (found.best, found.pending_steps) == (None, [])
    for step in (10, 20, 30):
        append_row(folder.metrics, {"kind": "due", "step": step, "epoch": 1.0, "train_loss": 1.0, "lease": 1})
    for step, bleu in ((10, 20.0), (20, 30.0)):
        scores = Scores(scores={"bleu": bleu})
        write_scores(scores, ScoredTexts(["a"], [["a"]], ["a"], ["f:1"]), folder=folder, step=step, lease=1)
    found = _find_scored(folder)
    assert (found.best, found.pending_steps) == ({"step": 20, "scores": {"bleu": 30.0}}, [30])
