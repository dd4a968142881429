"""What `model.from_run` must name, checked before anything is loaded."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from dstrain.config.load import load_config
from dstrain.config.schema import RunConfig
from dstrain.errors import UserError
from dstrain.run.base_check import check_base
from dstrain.run_folder.base import BaseRun
from tests.unit.cli.cli_cases import make_run


def build(tmp_path: Path, from_run: str) -> RunConfig:
    return load_config("debug", overrides=[f"model={{from_run: '{from_run}'}}", f"output_dir={tmp_path / 'own'}"])


def test_a_recipe_without_another_run_and_a_run_with_a_model_pass(tmp_path: Path) -> None:
    check_base(load_config("debug"))
    run = make_run(tmp_path / "run")
    (Path(run) / "best").mkdir()
    check_base(build(tmp_path, run))
    check_base(build(tmp_path, f"{run}@best"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", "absent is not a run folder, it holds no config.yaml; write RUN, RUN@best or RUN@STEP"),
        ("run", "run holds no best/ nor final/: take a checkpoint, RUN@STEP .dstrain verify"),
        ("run@best", "run holds no best/: take a checkpoint"),
        ("run@30", "run/checkpoints"),
        ("own", "own is this run's own folder"),
    ],
)
def test_a_run_without_the_weights_is_refused_with_the_way_out(tmp_path: Path, name: str, message: str) -> None:
    make_run(tmp_path / "run")
    with pytest.raises(UserError, match=message):
        check_base(build(tmp_path, f"{tmp_path}/{name}"))


def test_weights_that_are_copied_already_need_no_other_run(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    record = BaseRun(f"{tmp_path}/gone", run=f"{tmp_path}/gone", step=1, sha256="")
    (tmp_path / "own" / "base.json").write_text(json.dumps(asdict(record)))
    check_base(build(tmp_path, f"{tmp_path}/gone"))
    with pytest.raises(UserError, match="is not a run folder"):
        check_base(build(tmp_path, f"{tmp_path}/gone@best"))
