"""Whether a run goes on: a changed recipe or changed data is refused by name, another machine is not."""

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from checkpoint_cases import break_file, build_manifest

from dstrain.checkpoint.resume import ResumeRefused, differences, find_resume
from dstrain.checkpoint.state import STATE_FILE, RunIdentity, RunState
from dstrain.checkpoint.store import begin_save, commit_save
from dstrain.config.load import load_config, recipe_hash
from dstrain.config.schema import RECIPE_KEYS

DATA = {"train": "f00", "eval": "ba4"}


def identify(*overrides: str) -> RunIdentity:
    config = load_config("debug", overrides=overrides)
    return RunIdentity(recipe_hash(config), config.model_dump(mode="json", include=set(RECIPE_KEYS)), {})


def save_run(root: Path, *, step: int = 40, data: dict[str, str] | None = None) -> Path:
    state = RunState(
        step=step, epoch=2, step_in_epoch=5, cut={"micro_batch_tokens": 512}, data=data or DATA, hooks={"log": {"a": 1}}
    )
    parts = begin_save(root, step=step)
    (parts / "rank-00000.safetensors").write_text("weights")
    (parts / STATE_FILE).write_text(json.dumps(asdict(state)))
    return commit_save(parts, manifest=build_manifest(parts, step=step, recipe=identify().recipe))


def test_a_new_run_has_nothing_to_go_on_from(tmp_path: Path) -> None:
    assert find_resume(tmp_path, identity=identify(), data=DATA) is None


def test_an_unchanged_run_goes_on_with_its_whole_state(tmp_path: Path) -> None:
    directory = save_run(tmp_path)
    resume = find_resume(tmp_path, identity=identify(), data=DATA)
    assert resume is not None
    assert (resume.directory, resume.world_size) == (directory, 2)
    assert (resume.state.step, resume.state.epoch, resume.state.step_in_epoch) == (40, 2, 5)
    assert resume.state.hooks == {"log": {"a": 1}}


@pytest.mark.parametrize(
    "override",
    [
        "machine.zero_stage=3",
        "machine.micro_batch_tokens=77",
        "checkpoint.keep_last=9",
        "logging.every_steps=1",
        "name=other",
        "output_dir=elsewhere",
    ],
)
def test_another_machine_is_no_change(override: str, tmp_path: Path) -> None:
    save_run(tmp_path)
    assert find_resume(tmp_path, identity=identify(override), data=DATA) is not None


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
def test_a_changed_recipe_is_refused_with_key_and_both_values(
    override: str, key: str, old: str | None, new: str, tmp_path: Path
) -> None:
    directory = save_run(tmp_path)
    with pytest.raises(ResumeRefused) as refusal:
        find_resume(tmp_path, identity=identify(override), data=DATA)
    before = {path: value for path, value, _ in differences(identify().recipe, identify(override).recipe)}
    line = f"{key}: {old or repr(before[key])} in the checkpoint, {new} now"
    assert line in str(refusal.value)
    assert str(directory) in str(refusal.value)
    assert "output_dir" in str(refusal.value)


def test_every_change_is_listed_at_once(tmp_path: Path) -> None:
    save_run(tmp_path)
    identity = identify("seed=7", "precision=bf16")
    with pytest.raises(ResumeRefused, match=r"(?s)precision.*seed.*eval data: fingerprint ba4.*00b now"):
        find_resume(tmp_path, identity=identity, data=DATA | {"eval": "00b"})


@pytest.mark.parametrize("split", ["train", "eval"])
def test_changed_data_are_refused_by_split(split: str, tmp_path: Path) -> None:
    save_run(tmp_path)
    with pytest.raises(ResumeRefused, match=f"{split} data: fingerprint {DATA[split]} in the checkpoint, 123 now"):
        find_resume(tmp_path, identity=identify(), data=DATA | {split: "123"})


def test_a_broken_checkpoint_is_passed_over_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_run(tmp_path, step=20)
    broken = break_file(save_run(tmp_path, step=40))
    with caplog.at_level(logging.WARNING):
        resume = find_resume(tmp_path, identity=identify(), data=DATA)
    assert resume is not None
    assert resume.state.step == 20
    assert str(broken) in caplog.text


def test_only_the_checkpoint_that_would_be_used_is_compared(tmp_path: Path) -> None:
    save_run(tmp_path, step=20, data={"train": "old", "eval": "old"})
    save_run(tmp_path, step=40)
    assert find_resume(tmp_path, identity=identify(), data=DATA) is not None


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({}, {}, []),
        ({"a": 1}, {"a": 1.0}, []),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, [("a.b", 1, 2)]),
        ({"b": 1, "a": 1}, {"b": 2, "a": 2}, [("a", 1, 2), ("b", 1, 2)]),
        ({"a": 1}, {}, [("a", 1, None)]),
        ({}, {"a": 1}, [("a", None, 1)]),
        ({"a": None}, {}, []),
        ({"a": None}, {"a": {"b": 1}}, [("a", None, {"b": 1})]),
        ({"a": [1, 2]}, {"a": [1, 3]}, [("a.1", 2, 3)]),
        ({"a": [1]}, {"a": [1, 2]}, [("a", [1], [1, 2])]),
        ({"a": [{"b": 1}]}, {"a": [{"b": 2}]}, [("a.0.b", 1, 2)]),
        ({"a": "1"}, {"a": 1}, [("a", "1", 1)]),
    ],
)
def test_differences_are_leaves_in_order(old: Any, new: Any, expected: list[tuple[str, Any, Any]]) -> None:
    assert list(differences(old, new)) == expected
