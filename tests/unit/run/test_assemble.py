"""What is said and checked before the first step: warnings, where data come from, where training begins, which model."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from transformers import FSMTConfig, T5Config

from dstrain.checkpoint.changes import SAID, Change, Part, find_parts
from dstrain.checkpoint.resume import Resume
from dstrain.checkpoint.state import RunState
from dstrain.config.schema import RunConfig
from dstrain.data.cuts import Cut
from dstrain.data.plan import Plan, Position
from dstrain.errors import UserError
from dstrain.run.assemble import (
    Assembly,
    _changed_schedule_warnings,
    _check_references,
    _count_steps,
    _cut,
    _data_sources,
    _data_warnings,
    _machine_warnings,
    _schedule_warnings,
    check_model,
    describe_changes,
)
from dstrain.run.place import Place
from dstrain.training.state import Progress
from tests.unit.reporting.reporting_cases import translation_config
from tests.unit.run.run_cases import CPU, build_config
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
    assert "cut into 1 micro-batch for 2 ranks: 1 of them are idle" in warning
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


def test_a_run_begins_at_its_place_after_the_steps_that_it_has_done() -> None:
    unused: Any = None
    place = Place(build_plan(), Position(1, 2))
    new = Assembly(unused, unused, unused, unused, None, Place(build_plan()), 12, unused, 0, None, [], [])
    assert (new.first_progress, new.plan) == (Progress(0, Position(0, 0)), new.place.plan)
    resume: Any = SimpleNamespace(state=SimpleNamespace(step=7))
    assert replace(new, resume=resume, place=place).first_progress == Progress(7, Position(1, 2))


def test_a_model_from_scratch_needs_no_look_at_a_pretrained_one() -> None:
    check_model(build_config(), ranks=alone())


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
    with pytest.raises(UserError, match=r"^data.train.1.target_language: this model has no language tokens"):
        check_model(build_config(**changes), ranks=alone())


def test_an_architecture_that_fails_the_self_test_is_refused_before_any_data(tmp_path: Path) -> None:
    sizes = {"d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
    more = {"decoder_attention_heads": 2, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8, "langs": ["en", "de"]}
    FSMTConfig(**sizes, **more, src_vocab_size=99, tgt_vocab_size=99).save_pretrained(tmp_path / "model")
    with pytest.raises(UserError, match=r"`fsmt` is of no supported family, and the self-test cannot compute its loss"):
        check_model(build_config(model={"name": str(tmp_path / "model")}), ranks=alone())


def build_resume(*changes: Change) -> Resume:
    state = RunState(step=20, epoch=6, step_in_epoch=2, cut={}, data={})
    return Resume(Path(), state, 1, changes, find_parts(changes, old={}, new={}))


def schedule_warnings(config: RunConfig, *changes: Change) -> list[str]:
    place = Place(build_plan(), Position(6, 2))
    return _changed_schedule_warnings(config, resume=build_resume(*changes), place=place, total_steps=100)


def test_a_schedule_that_has_changed_is_said_with_the_rate_before_and_after() -> None:
    config = build_config(training__epochs=None, training__max_steps=100, training__learning_rate=1e-3)
    (warning,) = schedule_warnings(config, Change("training.max_steps", 40, 100))
    assert warning == (
        "the learning rate follows the changed schedule from step 21 on, which begins at 0.0008; by the schedule so far it "
        "would be 0.0005"
    )


def test_a_schedule_whose_steps_are_not_known_any_more_is_said_with_the_new_rate() -> None:
    config = build_config(training__epochs=None, training__max_steps=100, training__learning_rate=1e-3)
    changes = (Change("training.epochs", 3.0, None), Change("training.max_steps", None, 100))
    (warning,) = schedule_warnings(config, *changes, Change("training.batch_size", 8, 16))
    assert warning.endswith("from step 21 on, which begins at 0.0008")


def test_another_size_of_a_step_changes_the_schedule_of_a_run_that_is_counted_in_epochs() -> None:
    config = build_config(training__epochs=30.0, training__max_steps=None, training__learning_rate=1e-3)
    (warning,) = schedule_warnings(config, Change("training.batch_size", 8, 16))
    assert warning.endswith("from step 21 on, which begins at 0.0008")
    config = build_config(training__epochs=None, training__max_steps=100)
    assert schedule_warnings(config, Change("training.batch_size", 8, 16)) == []


@pytest.mark.parametrize("change", [Change("training.weight_decay", 0.0, 0.1), Change("seed", 1, 2)])
def test_other_changes_leave_the_schedule(change: Change) -> None:
    assert schedule_warnings(build_config(training__epochs=None, training__max_steps=100), change) == []


def test_what_the_user_allowed_is_said_with_how_the_run_goes_on() -> None:
    resume = build_resume(Change("training.optimizer", "adamw", "sgd"))
    place = Place(build_plan(), Position(6, 2), said=("the place is kept",))
    assert describe_changes(resume, place=place) == [
        "allowed change: training.optimizer: 'adamw' in the checkpoint, 'sgd' now",
        "the place is kept",
        SAID[Part.OPTIMIZER],
    ]


class Beats:
    """An attempt of one rank that counts its marks of progress."""

    ranks = CPU

    def __init__(self) -> None:
        self.number = 0
        self.phases = SimpleNamespace(mark_progress=self._mark)

    def _mark(self) -> None:
        self.number += 1


def count_steps(epochs: float, *, num_rows: int = 100, unit: Any = "target_tokens") -> tuple[Plan, int]:
    lengths = np.broadcast_to(np.int32(10), (num_rows,))
    plan = Plan(
        lengths, lengths, fingerprint="f", seed=0, batch_size=40, batch_unit=unit, cut=Cut(1000), window_rows=30
    )
    config = build_config(training__epochs=epochs, training__max_steps=None, training__batch_unit=unit)
    attempt: Any = Beats()
    _count_steps(Place(plan, Position(0, 0)), config=config, attempt=attempt)
    return plan, attempt.number


def test_every_window_that_is_counted_before_the_first_step_is_progress() -> None:
    plan, beats = count_steps(45.0)
    assert beats == 45 * 4
    assert plan.total_steps(epochs=45.0) == sum(plan.num_steps(epoch) for epoch in range(45))


def test_epochs_that_would_take_hours_to_count_are_refused_at_once() -> None:
    with pytest.raises(
        UserError, match=r"training\.epochs is 100000: .*max_steps instead \(an epoch has about 250,000 st"
    ):
        count_steps(100_000.0, num_rows=1_000_000)


def test_epochs_of_sequences_need_no_count_and_no_memory() -> None:
    plan, beats = count_steps(1e9, unit="sequences")
    assert (plan.total_steps(epochs=1e9), beats) == (3 * 10**9, 0)
