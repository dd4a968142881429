"""Whether a run resumes: a change of recipe or data is refused or allowed by its name; another machine is not a change."""

import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import to_json

from dstrain.checkpoint.changes import Part
from dstrain.checkpoint.manifest import CheckpointError, save_manifest
from dstrain.checkpoint.resume import (
    Resume,
    ResumeRefused,
    TrainingInputs,
    check_inputs,
    check_recipe,
    find_checkpoint,
)
from dstrain.checkpoint.state import RunState
from dstrain.checkpoint.store import CheckpointName, begin_save, commit_save, trim_checkpoint
from dstrain.config.differences import differences
from dstrain.config.load import load_config
from dstrain.config.schema import RECIPE_KEYS
from tests.unit.checkpoint.checkpoint_cases import STATE, WEIGHTS, break_file, build_manifest, claims, ignore

DATA = {
    "train": "f00",
    "eval": "ba4",
    "data.train.0": "aaa",
    "data.train.1": "bbb",
    "data.eval.0": "ccc",
    "tokenizer": "ddd",
}
PLACES = {"data.train.0": "one.tsv", "data.train.1": "two.tsv", "data.eval.0": "test.tsv"}
CUT = {"micro_batch_tokens": 512, "micro_batch_size": None}


def without(recipe: dict[str, Any], *keys: str) -> dict[str, Any]:
    """A recipe as a version wrote it that did not have these keys."""
    for key in keys:
        *sections, last = key.split(".")
        section = recipe
        for name in sections:
            section = section[name]
        del section[last]
    return recipe


def start(*overrides: str, data: dict[str, str] | None = None, cut: dict[str, Any] | None = None) -> TrainingInputs:
    config = load_config("debug", overrides=overrides)
    return TrainingInputs(
        config.model_dump(mode="json", include=set(RECIPE_KEYS)), DATA | (data or {}), PLACES, cut or CUT
    )


def save_run(
    root: Path,
    *,
    step: int = 40,
    lease: int = 1,
    data: dict[str, str] | None = None,
    recipe: dict[str, Any] | None = None,
    **values: Any,
) -> Path:
    state = RunState(
        step=step, epoch=2, step_in_epoch=5, cut=CUT, data=DATA | (data or {}), hooks={"log": {"a": 1}}, **values
    )
    parts = begin_save(root, name=CheckpointName(step, lease))
    (parts / WEIGHTS).write_text("weights")
    (parts / STATE).write_bytes(to_json(asdict(state), inf_nan_mode="constants"))
    manifest = build_manifest(parts, step=step, lease=lease, recipe=recipe or dict(start().recipe))
    return commit_save(parts, manifest=manifest, on_stage=ignore)


def find(root: Path, *, by: TrainingInputs | None = None, allowed: tuple[str, ...] = ()) -> Resume:
    found = find_checkpoint(root)
    assert found is not None
    return check_inputs(found, inputs=by or start(), allowed=allowed)


def refusal(root: Path, *, by: TrainingInputs, allowed: tuple[str, ...] = ()) -> str:
    with pytest.raises(ResumeRefused) as caught:
        find(root, by=by, allowed=allowed)
    return str(caught.value)


def test_a_new_run_has_nothing_to_resume_from(tmp_path: Path) -> None:
    assert find_checkpoint(tmp_path) is None
    assert find_checkpoint(tmp_path / "nowhere") is None


def test_an_unchanged_run_resumes_with_its_complete_state(tmp_path: Path) -> None:
    directory = save_run(tmp_path, applied_steps=38, skipped_steps=2, loss_scaler={"scale": 2.0**16})
    resume = find(tmp_path)
    assert (resume.directory, resume.world_size, resume.allowed) == (directory, 2, ())
    state = resume.state
    assert (state.step, state.epoch, state.step_in_epoch) == (40, 2, 5)
    assert (state.applied_steps, state.skipped_steps, state.loss_scaler) == (38, 2, {"scale": 65536.0})
    assert (state.cut, state.data, state.hooks) == (CUT, DATA, {"log": {"a": 1}})


def test_a_checkpoint_without_a_later_key_resumes_with_what_it_meant_then(tmp_path: Path) -> None:
    recipe = dict(start().recipe)
    recipe["task"] = {key: value for key, value in recipe["task"].items() if key != "segmentation"}
    save_run(tmp_path, recipe=recipe)
    assert find(tmp_path, by=start("task.segmentation=published")).allowed == ()
    assert "task.segmentation: 'published' in the checkpoint, 'words' now" in refusal(tmp_path, by=start())


@pytest.mark.parametrize(
    "override",
    [
        "machine.zero_stage=3",
        "checkpoint.keep_last=9",
        "logging.every_steps=1",
        "name=other",
        "output_dir=elsewhere",
    ],
)
def test_another_machine_is_not_a_change(override: str, tmp_path: Path) -> None:
    save_run(tmp_path)
    assert find(tmp_path, by=start(override)).allowed == ()


def test_data_at_another_path_are_not_a_change_if_their_content_is_the_same(tmp_path: Path) -> None:
    save_run(tmp_path)
    recipe = dict(start().recipe)
    paths = {"path": "/other/machine/rows.ko", "target_path": ["/other/machine/rows.en"]}
    train = [dict(source, **paths) for source in recipe["data"]["train"]]
    moved = replace(start(), recipe=recipe | {"data": recipe["data"] | {"train": train}})
    assert find(tmp_path, by=moved).allowed == ()


@pytest.mark.parametrize(
    ("override", "key", "old", "new"),
    [
        ("training.learning_rate=0.5", "training.learning_rate", None, "0.5"),
        ("seed=7", "seed", "42", "7"),
        ("precision=bf16", "precision", "'fp32'", "'bf16'"),
        ("data.rules.too_long=skip", "data.rules.too_long", "'truncate'", "'skip'"),
        ("data.train.0.max_rows=3", "data.train.0.max_rows", None, "3"),
        ("training.betas=[0.8, 0.9]", "training.betas.0", "0.9", "0.8"),
    ],
)
def test_a_changed_recipe_is_refused_with_the_key_both_values_and_the_ways_out(
    override: str, key: str, old: str | None, new: str, tmp_path: Path
) -> None:
    directory = save_run(tmp_path)
    message = refusal(tmp_path, by=start(override))
    before = {path: value for path, value, _ in differences(start().recipe, start(override).recipe)}
    assert f"{key}: {old or repr(before[key])} in the checkpoint, {new} now" in message
    assert str(directory) in message
    assert f"--allow-changed {key}" in message
    assert "output_dir" in message
    assert "If allowed: " in message


def test_every_change_is_listed_at_once(tmp_path: Path) -> None:
    save_run(tmp_path)
    message = refusal(
        tmp_path, by=start("seed=7", "precision=bf16", data={"data.eval.0": "00b"}, cut={"micro_batch_tokens": 9})
    )
    for part in (
        "precision: ",
        "seed: 42",
        "'ccc' in the checkpoint, '00b' now",
        "machine.micro_batch_tokens",
    ):
        assert part in message
    assert message.count("--allow-changed") == 4


def test_a_changed_source_is_named_with_its_file_and_the_token_ids_that_follow_from_it_are_not(tmp_path: Path) -> None:
    save_run(tmp_path)
    message = refusal(tmp_path, by=start(data={"data.train.1": "new", "train": "new"}))
    assert "data.train.1 (content of two.tsv): 'bbb' in the checkpoint, 'new' now" in message
    assert message.count(" in the checkpoint, ") == 1


def test_a_changed_tokenizer_explains_the_token_ids_of_both_splits(tmp_path: Path) -> None:
    save_run(tmp_path)
    message = refusal(tmp_path, by=start(data={"tokenizer": "new", "train": "new", "eval": "new"}))
    assert "tokenizer (fingerprint): 'ddd' in the checkpoint, 'new' now" in message
    assert message.count(" in the checkpoint, ") == 1


@pytest.mark.parametrize("split", ["train", "eval"])
def test_other_token_ids_without_a_known_cause_are_refused_and_their_split_is_named(split: str, tmp_path: Path) -> None:
    save_run(tmp_path)
    message = refusal(tmp_path, by=start(data={split: "123"}))
    assert f"data.{split} (fingerprint of the token ids): {DATA[split]!r} in the checkpoint, '123' now" in message


def test_a_source_that_was_added_or_removed_is_a_change(tmp_path: Path) -> None:
    save_run(tmp_path)
    fewer = {key: value for key, value in DATA.items() if key != "data.train.1"}
    assert "data.train.1 (content of two.tsv): 'bbb' in the checkpoint, null now" in refusal(
        tmp_path, by=replace(start(), data=fewer)
    )
    assert "data.train.2 (fingerprint): null in the checkpoint, 'x' now" in refusal(
        tmp_path, by=start(data={"data.train.2": "x"})
    )


def test_another_cut_is_refused_and_named_as_a_key_of_machine(tmp_path: Path) -> None:
    save_run(tmp_path)
    message = refusal(tmp_path, by=start(cut=CUT | {"micro_batch_tokens": 77}))
    assert "machine.micro_batch_tokens (cuts steps into micro-batches" in message
    assert "512 in the checkpoint, 77 now" in message


@pytest.mark.parametrize("allowed", [("training.learning_rate",), ("training",), ("seed", "training")])
def test_an_allowed_change_is_accepted_and_kept_for_the_card(allowed: tuple[str, ...], tmp_path: Path) -> None:
    save_run(tmp_path)
    (change,) = find(tmp_path, by=start("training.learning_rate=0.5"), allowed=allowed).allowed
    assert (change.field, change.new) == ("training.learning_rate", 0.5)


@pytest.mark.parametrize("allowed", ["training.learning", "train", "learning_rate", "", "training.learning_rate.x"])
def test_a_field_of_a_similar_name_is_not_allowed_with_it(allowed: str, tmp_path: Path) -> None:
    save_run(tmp_path)
    assert "learning_rate" in refusal(tmp_path, by=start("training.learning_rate=0.5"), allowed=(allowed,))


def test_an_allowed_change_is_not_listed_in_the_refusal(tmp_path: Path) -> None:
    save_run(tmp_path)
    message = refusal(tmp_path, by=start("seed=7", "precision=bf16"), allowed=("seed",))
    assert "precision" in message
    assert "seed: " not in message


def test_a_warning_says_that_an_allowed_field_has_not_changed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_run(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert find(tmp_path, allowed=("seed",)).allowed == ()
    assert "--allow-changed seed is ignored" in caplog.text


def test_a_broken_checkpoint_is_skipped_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_run(tmp_path, step=20)
    broken = break_file(save_run(tmp_path, step=40))
    with caplog.at_level(logging.WARNING):
        assert find(tmp_path).state.step == 20
    assert str(broken) in caplog.text


def test_a_run_whose_checkpoints_are_all_broken_does_not_start_again(tmp_path: Path) -> None:
    break_file(save_run(tmp_path, step=20))
    break_file(save_run(tmp_path, step=40))
    assert "none of the 2 checkpoints in" in refusal(tmp_path, by=start())


def test_a_run_with_checkpoints_of_weights_only_does_not_start_again(tmp_path: Path) -> None:
    trim_checkpoint(save_run(tmp_path))
    assert "none of the 1 checkpoints in" in refusal(tmp_path, by=start())


def test_checkpoints_of_a_writer_that_no_longer_held_the_lease_are_skipped(tmp_path: Path) -> None:
    save_run(tmp_path, step=20)
    save_run(tmp_path, step=40)
    save_run(tmp_path, step=30, lease=2)
    found = find_checkpoint(tmp_path, claims=claims(0, 20))
    assert found is not None
    assert found.state.step == 30
    assert find(tmp_path).state.step == 40


def test_a_run_that_started_again_is_not_stopped_by_broken_checkpoints_of_an_earlier_writer(tmp_path: Path) -> None:
    break_file(save_run(tmp_path, step=40))
    assert find_checkpoint(tmp_path, claims=claims(0, 0)) is None


def test_only_the_checkpoint_that_would_be_used_is_compared(tmp_path: Path) -> None:
    save_run(tmp_path, step=20, data={"train": "old", "eval": "old"})
    save_run(tmp_path, step=40)
    assert find(tmp_path).state.step == 40


def test_a_state_of_another_step_than_in_its_manifest_is_refused(tmp_path: Path) -> None:
    directory = save_run(tmp_path, step=40)
    (directory / STATE).write_bytes(to_json(asdict(RunState(step=39, epoch=0, step_in_epoch=0, cut={}, data={}))))
    save_manifest(build_manifest(directory, step=40), directory=directory)
    with pytest.raises(CheckpointError, match=rf"{STATE}: is of step 39, the manifest says 40"):
        find_checkpoint(tmp_path)


def test_the_recipe_alone_is_compared_before_the_data_are_known(tmp_path: Path) -> None:
    save_run(tmp_path)
    found = find_checkpoint(tmp_path)
    assert found is not None
    check_recipe(found, recipe=start().recipe)
    check_recipe(found, recipe=start("seed=7").recipe, allowed=["seed"])
    with pytest.raises(ResumeRefused, match="seed: 42 in the checkpoint, 7 now"):
        check_recipe(found, recipe=start("seed=7").recipe)


@pytest.mark.parametrize(
    ("override", "field"),
    [
        ("model.scratch.hidden_size=64", "model.scratch.hidden_size: 32 in the checkpoint, 64 now"),
        ("model.scratch.num_heads=4", "model.scratch.num_heads: 2 in the checkpoint, 4 now"),
        ("task.target_language=fr", "task.target_language: 'en' in the checkpoint, 'fr' now"),
    ],
)
def test_a_change_that_cannot_be_allowed_is_refused_by_its_name_and_never_offered(
    override: str, field: str, tmp_path: Path
) -> None:
    save_run(tmp_path)
    by = start(override, "training.learning_rate=0.5")
    message = refusal(tmp_path, by=by, allowed=(field.split(".", maxsplit=1)[0], "training"))
    assert f"{field}. Cannot be allowed: " in message
    assert "--allow-changed" not in message
    assert "learning_rate" not in message
    assert "If allowed: the learning rate follows" in refusal(tmp_path, by=by)


def test_a_tokenizer_cannot_be_changed(tmp_path: Path) -> None:
    save_run(tmp_path)
    message = refusal(tmp_path, by=start(data={"tokenizer": "new"}), allowed=("tokenizer",))
    assert "now. Cannot be allowed: the weights belong to the pieces of the tokenizer" in message


def test_the_command_that_starts_from_the_weights_can_be_copied(tmp_path: Path) -> None:
    run = tmp_path / "my run"
    save_run(run / "checkpoints")
    message = refusal(run / "checkpoints", by=start("seed=7"))
    assert f"dstrain export '{run}' '{run}-weights', then the same command with 'model.name={run}-weights'" in message
    assert f"model.scratch=null 'output_dir={run}-2'" in message


def test_what_depends_on_an_allowed_change_is_named(tmp_path: Path) -> None:
    save_run(tmp_path)
    assert find(tmp_path).parts == frozenset()
    resume = find(
        tmp_path, by=start("training.batch_size=8", "evaluation.num_beams=2"), allowed=("training", "evaluation")
    )
    assert resume.parts == {Part.PLACE, Part.SCORES}
    assert resume.before("training.batch_size", now=8) == 16
    assert resume.before("seed", now=42) == 42


def test_other_token_ids_are_not_put_down_to_a_change_that_leaves_them(tmp_path: Path) -> None:
    save_run(tmp_path)
    message = refusal(tmp_path, by=start("seed=7", data={"train": "123"}), allowed=("seed",))
    assert "data.train (fingerprint of the token ids): 'f00' in the checkpoint, '123' now" in message


def test_a_key_that_the_version_of_the_checkpoint_lacked_is_no_change_at_its_default(tmp_path: Path) -> None:
    keys = ("evaluation.best_by", "data.rules.overlap", "training.early_stopping.significant")
    stopping = "training.early_stopping={patience: 2}"
    save_run(tmp_path, recipe=without(dict(start(stopping).recipe), *keys))
    assert find(tmp_path, by=start(stopping)).allowed == ()
    other = "data.rules.overlap=skip_train"
    assert "data.rules.overlap: null in the checkpoint, 'skip_train' now" in refusal(
        tmp_path, by=start(stopping, other)
    )
