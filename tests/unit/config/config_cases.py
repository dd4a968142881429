"""A good recipe, and what is wrong with others."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dstrain.config.load import ConfigError, load_config
from dstrain.config.section import ConflictError, Section

GOOD = """\
name: trial
model:
  name: some/model
task:
  kind: translation
data:
  train:
    - demo: translation
  eval:
    - demo: translation
      split: eval
training:
  batch_size: 16
  epochs: 6
  learning_rate: 3e-4
"""


def faults(path: Path | str, *overrides: str, check_files: bool = False) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load_config(str(path), overrides=overrides, check_files=check_files)
    assert str(raised.value).splitlines() == [str(problem) for problem in raised.value.problems]
    return str(raised.value).splitlines()


def write(tmp_path: Path, text: str, *, name: str = "run.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def assert_refused(section: type[Section], values: dict[str, Any], *, keys: tuple[str, ...], message: str) -> None:
    """The section has one conflict of these keys, and says this."""
    with pytest.raises(ValidationError) as refusal:
        section.model_validate(values)
    (error,) = refusal.value.errors()
    conflict = error["ctx"]["error"]
    assert isinstance(conflict, ConflictError)
    assert [found for found, _ in conflict.conflicts] == [keys]
    assert message in str(conflict)
