"""What is said and checked before the first step: warnings, where data come from, where training begins, which model."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from transformers import T5Config

from dstrain.checkpoint.resume import Change
from dstrain.data.cuts import Cut
from dstrain.data.plan import Plan, Position
from dstrain.errors import UserError
from dstrain.run.assemble import (
    Assembly,
    _changed_schedule_warnings,
    _check_references,
    _cut,
    _data_sources,
    _data_warnings,
    _machine_warnings,
    _schedule_warnings,
    check_model,
)
from dstrain.training.state import Progress
from tests.unit.reporting.reporting_cases import translation_config
from tests.unit.run.run_cases import build_config
from tests.unit.training.training_cases import alone


def build_plan(*, min_micro_batches: int = 1) -> Plan:
    """20 rows in steps of 8: three steps an epoch."""
    lengths = np.full(20, 5, dtype=np.int32)
    cut = Cut(1000, min_micro_batches=min_micro_batches)
    return Plan(lengths, lengths, fingerprint="f", seed=0, batch_size=8, batch_unit="sequences", cut=cut)


def build_prepared(*, train: str = "t", evaluation: str = "e", num_rows: int = 100) -> Any:
    return SimpleNamespace(
        train=SimpleNamespace(fingerprint=train, num_rows=num_rows), eval=SimpleNamespace(fingerprint=evaluation)
    )


def test_usual_data_are_not_warned_about() -> None:
    assert _data_warnings(build_config(), prepared=build_prepared()) == []


def test_what_has_no_effect_or_was_not_taught_is_warned_about() -> None:
    task = {"kind": "parsing", "form": "plain", "segmentation": "published"}
    (warning,) = _data_warnings(build_config(task=task), prepared=build_prepared())
    assert warning.startswith("task.segmentation is ignored with task.form `plain`")
    assert _data_warnings(build_config(task=task | {"form": "pointer"}), prepared=build_prepared()) == []
    rows = [{"path": "b.tsv", "target_language": "fr"}]
    (warning,) = _data_warnings(build_config(data__eval=rows), prepared=build_prepared())
    assert "to `fr`, which no training source is" in warning


def test_scores_on_the_training_rows_are_warned_about() -> None:
    (warning,) = _data_warnings(build_config(), prepared=build_prepared(evaluation="t"))
    assert "scores measure memorisation, not generalisation" in warning


@pytest.mark.parametrize(("unit", "num_warnings"), [("sequences", 1), ("target_tokens", 0)])
def test_a_step_larger_than_the_data_is_warned_about_where_both_are_counted_in_rows(
    unit: str, num_warnings: int
) -> None:
    config = build_config(training__batch_size=64, training__batch_unit=unit)
    found = _data_warnings(config, prepared=build_prepared(num_rows=63))
    assert len(found) == num_warnings
    assert all("training.batch_size is 64, but there are only 63 training rows" in warning for warning in found)
    assert _data_warnings(config, prepared=build_prepared(num_rows=64)) == []


def test_a_warm_up_that_the_run_does_not_outlast_is_warned_about() -> None:
    config = build_config(training__warmup_steps=100, training__learning_rate=1e-4)
    (warning,) = _schedule_warnings(config, total_steps=100)
    assert "training.warmup_steps is 100, but the run has only 100 steps" in warning
    assert "never reaches 0.0001" in warning
    assert _schedule_warnings(config, total_steps=101) == []


def test_a_zero_stage_that_is_raised_is_warned_about() -> None:
    config = build_config(precision="bf16", machine__zero_stage=0)
    engine: Any = SimpleNamespace(zero_stage=1)
    (warning,) = _machine_warnings(config, engine=engine, plan=build_plan(), world_size=1)
    assert "machine.zero_stage 0 runs as stage 1 with bf16" in warning
    engine = SimpleNamespace(zero_stage=0)
    assert _machine_warnings(config, engine=engine, plan=build_plan(), world_size=1) == []


def test_ranks_without_a_micro_batch_are_warned_about_with_the_way_out() -> None:
    config = build_config(machine__zero_stage=1)
    engine: Any = SimpleNamespace(zero_stage=1)
    (warning,) = _machine_warnings(config, engine=engine, plan=build_plan(), world_size=2)
    assert "cut into 1 micro-batches for 2 ranks" in warning
    assert "machine.min_micro_batches=2" in warning
    assert _machine_warnings(config, engine=engine, plan=build_plan(min_micro_batches=2), world_size=2) == []


def test_every_source_is_named_by_where_it_comes_from() -> None:
    data = {
        "train": [{"path": "a.tsv"}, {"hub": "some/set", "source_column": "a", "target_column": "b"}],
        "eval": [{"demo": "translation", "split": "eval"}],
    }
    assert _data_sources(translation_config(data=data)) == {
        "data.train.0": "a.tsv",
        "data.train.1": "some/set",
        "data.eval.0": "demo translation",
    }


def test_steps_are_cut_by_the_machine_section_once_it_is_resolved() -> None:
    machine = {"micro_batch_tokens": 512, "micro_batch_size": 4, "min_micro_batches": 3, "micro_batch_overhead": 7}
    config = build_config(**{f"machine__{key}": value for key, value in machine.items()})
    assert _cut(config) == Cut(512, 4, 3, 7)
    unresolved = build_config(machine__micro_batch_tokens=None)
    with pytest.raises(AssertionError, match="resolve_machine comes first"):
        _cut(unresolved)


def first_progress(resume: Any) -> Progress:
    unused: Any = None
    assembly = Assembly(unused, unused, unused, unused, resume, build_plan(), 12, unused, [])
    return assembly.first_progress


@pytest.mark.parametrize(
    ("epoch", "step_in_epoch", "expected"),
    [(0, 2, Position(0, 2)), (1, 0, Position(1, 0)), (1, 3, Position(2, 0)), (1, 9, Position(2, 0))],
)
def test_a_run_resumes_at_its_position_or_at_the_next_epoch_if_that_one_became_shorter(
    epoch: int, step_in_epoch: int, expected: Position
) -> None:
    state = SimpleNamespace(step=7, epoch=epoch, step_in_epoch=step_in_epoch)
    assert first_progress(SimpleNamespace(state=state)) == Progress(7, expected)


def test_a_new_run_begins_at_the_first_step() -> None:
    assert first_progress(None) == Progress(0, Position(0, 0))


def test_a_model_from_scratch_needs_no_look_at_a_pretrained_one() -> None:
    check_model(build_config(), ranks=alone())


@pytest.mark.parametrize(
    ("architecture", "is_refused"), [("marian", True), ("mbart", True), ("m2m100", False), ("t5", False)]
)
def test_a_limit_over_the_positions_of_a_model_from_scratch_is_refused_before_any_data(
    architecture: str, is_refused: bool
) -> None:
    config = build_config(model__scratch__architecture=architecture, task__max_source_tokens=1000)
    with pytest.raises(ValueError, match="but the model has 512 positions") if is_refused else nullcontext():
        check_model(config, ranks=alone())


@pytest.mark.parametrize(("longest", "positions"), [(513, 512), (512, 512), (513, None)])
def test_a_reference_longer_than_the_positions_is_refused_by_its_line(longest: int, positions: int | None) -> None:
    report = {"longest_target": longest, "longest_target_where": "dev.tsv:7"}
    prepared: Any = SimpleNamespace(eval=SimpleNamespace(report=report))
    is_refused = positions is not None and longest > positions
    expected = pytest.raises(ValueError, match=r"dev\.tsv:7: the reference has 513 tokens, and the model 512 positions")
    with expected if is_refused else nullcontext():
        _check_references(prepared, positions=positions)


def test_fp16_that_the_device_or_the_model_cannot_train_is_refused_before_any_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    T5Config(d_model=8, num_layers=1).save_pretrained(tmp_path / "t5")
    config = translation_config()  # fp16; a recipe that names a T5 model with it is refused by the schema already
    config = config.model_copy(update={"model": config.model.model_copy(update={"name": str(tmp_path / "t5")})})
    with pytest.raises(UserError, match="fp16"):
        check_model(config, ranks=alone())
    monkeypatch.setattr("dstrain.run.assemble.check_device_precision", lambda config: None)
    with pytest.raises(UserError, match="fp16"):
        check_model(config, ranks=alone())
    check_model(config.model_copy(update={"precision": "bf16"}), ranks=alone())


def test_target_languages_that_a_stored_model_cannot_tell_apart_are_refused_before_any_data(tmp_path: Path) -> None:
    T5Config(d_model=8, num_layers=1).save_pretrained(tmp_path / "model")
    rows = [{"path": "de.tsv"}, {"path": "fr.tsv", "target_language": "fr"}]
    changes = {"model": {"name": str(tmp_path / "model")}, "data__train": rows}
    with pytest.raises(UserError, match=r"^data.train.1.target_language: Marian, T5 and mT5 have no language tokens"):
        check_model(build_config(**changes), ranks=alone())


def build_resume(*changes: Change) -> Any:
    return SimpleNamespace(state=SimpleNamespace(step=20), allowed=changes)


def test_a_schedule_that_has_changed_is_said_with_the_rate_before_and_after() -> None:
    config = build_config(training__epochs=None, training__max_steps=100, training__learning_rate=1e-3)
    resume = build_resume(Change("training.max_steps", 40, 100))
    (warning,) = _changed_schedule_warnings(config, resume=resume, plan=build_plan(), total_steps=100)
    assert warning == (
        "the learning rate follows the changed schedule from step 21 on, which begins at 0.0008; by the schedule so far it "
        "would be 0.0005"
    )


def test_a_schedule_whose_steps_are_not_known_any_more_is_said_with_the_new_rate() -> None:
    config = build_config(training__epochs=None, training__max_steps=100, training__learning_rate=1e-3)
    changes = (Change("training.epochs", 3.0, None), Change("training.max_steps", None, 100))
    resume = build_resume(*changes, Change("training.batch_size", 8, 16))
    (warning,) = _changed_schedule_warnings(config, resume=resume, plan=build_plan(), total_steps=100)
    assert warning.endswith("from step 21 on, which begins at 0.0008")


@pytest.mark.parametrize("change", [Change("training.weight_decay", 0.0, 0.1), Change("tokenizer", "a", "b")])
def test_other_changes_leave_the_schedule(change: Change) -> None:
    config = build_config()
    assert _changed_schedule_warnings(config, resume=build_resume(change), plan=build_plan(), total_steps=100) == []
