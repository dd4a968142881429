"""`dstrain prepare`: the token sets are in the cache when it ends, and no run folder."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dstrain.cli.app import app


@pytest.mark.parametrize("setting", ["data.train.0.path=nowhere.tsv", "data.train.0.path=a\x00b"])
def test_a_recipe_that_cannot_run_is_refused_before_any_work(tmp_path: Path, setting: str) -> None:
    result = CliRunner().invoke(app, ["prepare", "debug", setting, f"machine.cache_dir={tmp_path / 'cache'}"])
    assert result.exit_code == 1
    assert "data.train.0" in result.stderr
    assert not (tmp_path / "cache").exists()


def test_the_token_sets_are_made_once_and_nothing_but_the_cache(tmp_path: Path) -> None:
    given = [f"machine.cache_dir={tmp_path / 'cache'}", f"output_dir={tmp_path / 'run'}"]
    first, second = (CliRunner().invoke(app, ["prepare", "debug", *given]) for _ in range(2))
    assert (first.exit_code, second.exit_code) == (0, 0)
    made = sorted(str(path) for path in (tmp_path / "cache" / "tokens").iterdir())
    for result in (first, second):
        assert sorted(line for line in result.stdout.splitlines() if "tokens" in line) == made
        assert "start the run with the same machine.cache_dir" in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
