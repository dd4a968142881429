"""Which runs have a small model to export."""

from pathlib import Path

import pytest

from dstrain.config.load import dump_config
from dstrain.errors import UserError
from dstrain.run.trim import export_trimmed
from dstrain.run_folder.layout import RunFolder
from tests.unit.run.run_cases import build_config


def test_a_run_with_the_whole_vocabulary_has_none(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(dump_config(build_config(output_dir=str(tmp_path))))
    with pytest.raises(UserError, match=r"--trim is for runs with model\.vocabulary `seen`"):
        export_trimmed(RunFolder(tmp_path), directory=tmp_path / "step", to=tmp_path / "model")
