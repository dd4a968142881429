"""A good recipe, and what is wrong with others."""

from pathlib import Path

import pytest

from dstrain.config.load import ConfigError, load_config

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
