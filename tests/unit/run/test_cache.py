"""Where the cache is, and what is said where it cannot be written."""

from pathlib import Path

import pytest

from dstrain.errors import UserError
from dstrain.run.cache import cache_dir, make_cache_dir
from tests.unit.run.run_cases import build_config


def test_the_recipe_wins_over_the_environment_and_that_over_the_home_folder() -> None:
    unset = build_config(machine__cache_dir=None)
    assert cache_dir(build_config(machine__cache_dir="/scratch/c"), environment={"XDG_CACHE_HOME": "/x"}) == Path(
        "/scratch/c"
    )
    assert cache_dir(unset, environment={"XDG_CACHE_HOME": "/x"}) == Path("/x/dstrain")
    assert cache_dir(unset, environment={}) == Path.home() / ".cache" / "dstrain"


def test_a_cache_that_cannot_be_written_is_named_with_the_key(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    config = build_config(machine__cache_dir=str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match=r"machine\.cache_dir: .*file/cache cannot be written \(Not a directory\)"):
        make_cache_dir(config)
    assert make_cache_dir(build_config(machine__cache_dir=str(tmp_path / "new"))) == tmp_path / "new"
    assert list((tmp_path / "new").iterdir()) == []
