"""The model of another run, copied into a run folder: whole, with a record, and not while it is being replaced."""

import hashlib
import logging
from pathlib import Path

import pytest

from dstrain.config.load import dump_config, load_config
from dstrain.config.schema import RunConfig
from dstrain.errors import UserError
from dstrain.run import base_model
from dstrain.run.base_model import make_base, share_base
from dstrain.run_folder.base import BaseRun, has_base, read_base
from dstrain.run_folder.layout import RunFolder
from tests.unit.run.run_cases import CPU


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A run with a best model, as far as its files are copied."""
    folder = tmp_path / "other"
    (folder / "best").mkdir(parents=True)
    (folder / "config.yaml").write_text(dump_config(load_config("debug")))
    (folder / "best" / "model.safetensors").write_bytes(b"weights")
    (folder / "best" / "config.json").write_text("{}")
    (folder / "best" / "training_step.json").write_text('{"step": 30}')
    return folder


def build(tmp_path: Path, from_run: object) -> RunConfig:
    return load_config("debug", overrides=[f"model={{from_run: '{from_run}'}}", f"output_dir={tmp_path / 'own'}"])


def test_the_model_is_copied_once_with_its_step_and_its_hash(
    tmp_path: Path, other: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = build(tmp_path, f"{other}@best")
    with caplog.at_level(logging.INFO):
        share_base(config, ranks=CPU, phases=None)
    own = RunFolder(tmp_path / "own")
    assert sorted(path.name for path in own.base.iterdir()) == [
        "config.json",
        "model.safetensors",
        "training_step.json",
    ]
    digest = hashlib.sha256(b"weights").hexdigest()
    assert read_base(own) == BaseRun(f"{other}@best", str(other), 30, digest, "ko", "en")
    assert caplog.messages == [f"the run begins with the weights of {other}, step 30, copied to {own.base}"]

    (other / "best" / "model.safetensors").write_bytes(b"better")
    share_base(config, ranks=CPU, phases=None)
    assert (own.base / "model.safetensors").read_bytes() == b"weights"
    changed = build(tmp_path, other)  # before the first step, a recipe may still name another one
    assert not has_base(changed)
    share_base(changed, ranks=CPU, phases=None)
    assert (own.base / "model.safetensors").read_bytes() == b"better"
    assert has_base(changed)


def test_a_recipe_without_another_run_copies_nothing(tmp_path: Path) -> None:
    share_base(load_config("debug", overrides=[f"output_dir={tmp_path / 'own'}"]), ranks=CPU, phases=None)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_replaced_meanwhile_is_copied_again(
    tmp_path: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter([10, 30, 30, 30])  # before and after the first copy, before and after the second
    monkeypatch.setattr(base_model, "read_exported_step", lambda folder: next(steps))
    assert make_base(build(tmp_path, other)).step == 30
    assert not (tmp_path / "own" / "base.tmp").exists()


def test_a_folder_that_no_run_has_exported_is_refused_and_leaves_nothing(tmp_path: Path, other: Path) -> None:
    (other / "best" / "training_step.json").unlink()
    with pytest.raises(UserError, match="best cannot be copied: it is no model of a run, or is being replaced"):
        make_base(build(tmp_path, other))
    assert not RunFolder(tmp_path / "own").base.exists()
    assert not has_base(build(tmp_path, other))
