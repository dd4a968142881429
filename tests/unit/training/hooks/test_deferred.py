"""Evaluations that are left to another job: what is recorded, what is kept for them, and what survives a restart."""

from pathlib import Path
from typing import Any

import pytest

from dstrain.data.plan import Position
from dstrain.training.hooks.deferred import DeferredEvaluationHook, ScoredElsewhere
from dstrain.training.hooks.evaluate import EvaluateHook
from dstrain.training.save_clock import SaveClock
from dstrain.training.state import Progress
from tests.distributed.steps import build_config
from tests.unit.training.training_cases import Recorder, alone, build_step, endless


class Case:
    """A hook whose run folder has the evaluations in `found`."""

    def __init__(self, run_dir: Path, **changes: Any) -> None:
        self.found = ScoredElsewhere(None, [])
        self.rehearsals = 0
        self.recorder = Recorder()
        self.config = build_config(output_dir=str(run_dir), machine__evaluation_job=[], **changes)
        self.hook = DeferredEvaluationHook(
            config=self.config, ranks=alone(), rehearse=self.rehearse, find_scored=lambda: self.found
        )

    def rehearse(self) -> None:
        self.rehearsals += 1

    def run(self, first: int, last: int) -> list[int]:
        """Steps after which a checkpoint was requested."""
        asked = []
        for step in range(first, last + 1):
            self.recorder.control.checkpoint_requested = False
            self.hook.on_step(build_step(step, total_steps=40, loss_sum=float(step)), self.recorder.control)
            if self.recorder.control.checkpoint_requested:
                asked.append(step)
        return asked


def test_a_deferred_evaluation_is_recorded_with_its_loss_and_its_checkpoint_is_saved(tmp_path: Path) -> None:
    case = Case(tmp_path, evaluation__every_steps=15)
    case.hook.on_start(Progress(0, Position(0, 0)), case.recorder.control)
    assert case.rehearsals == 1
    assert case.run(1, 40) == [15, 30, 40]
    assert [(row["kind"], row["step"]) for row in case.recorder.rows] == [("due", 15), ("due", 30), ("due", 40)]
    assert case.recorder.rows[0]["train_loss"] == pytest.approx(sum(range(1, 16)) / 150)
    assert case.recorder.rows[1]["train_loss"] == pytest.approx(sum(range(16, 31)) / 150)


def test_the_weights_of_the_best_and_of_pending_evaluations_are_kept(tmp_path: Path) -> None:
    case = Case(tmp_path, evaluation__every_steps=10)
    case.found = ScoredElsewhere({"step": 10, "scores": {"bleu": 5.0}}, [20])
    case.run(1, 30)
    assert (case.hook.best, sorted(case.hook.kept_steps)) == ({"step": 10, "scores": {"bleu": 5.0}}, [10, 20])


def test_many_pending_evaluations_cause_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    case = Case(tmp_path, evaluation__every_steps=5)
    case.found = ScoredElsewhere(None, [5, 10, 15, 20])
    case.run(1, 40)
    assert caplog.text.count("4 evaluations are pending") == 1


def test_each_hook_resumes_from_the_state_of_the_other(tmp_path: Path) -> None:
    case = Case(tmp_path, evaluation__every_steps=10)
    case.found = ScoredElsewhere({"step": 10, "scores": {"bleu": 5.0}}, [])
    case.run(1, 14)
    here = EvaluateHook(
        config=case.config,
        ranks=alone(),
        walltime=endless(),
        save_clock=SaveClock(0.0),
        evaluate=lambda max_batches: None,
        export_best=lambda step: None,
        agree_on_stop=lambda control: None,
    )
    here.load_state(case.hook.state())
    assert here.best == {"step": 10, "scores": {"bleu": 5.0}}
    assert here.state()["loss"] == case.hook.state()["loss"]
    again = Case(tmp_path, evaluation__every_steps=10)
    again.hook.load_state(here.state())
    assert again.hook.best == here.best
