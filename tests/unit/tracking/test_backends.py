"""Trackers by name: those of dstrain, those of installed packages, and what is refused before a run starts."""

import sys
from pathlib import Path

import pytest

from dstrain.config.load import load_config
from dstrain.config.machine import Tracker as TrackerSettings
from dstrain.config.schema import RunConfig
from dstrain.errors import UserError
from dstrain.run_folder.layout import RunFolder
from dstrain.tracking import backends
from dstrain.tracking.backends import BUILT_IN, check_trackers, find_tracker, make_tracker, wanted_trackers
from tests.unit.tracking.tracking_cases import install_package


def recipe(*overrides: str) -> RunConfig:
    return load_config("debug", overrides=[f"logging.{override}" for override in overrides])


@pytest.fixture
def _nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda package: None)


@pytest.fixture
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(install_package(tmp_path)))
    monkeypatch.delitem(sys.modules, "own_trackers", raising=False)


def test_a_tracker_that_nobody_knows_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(UserError) as refused:
        check_trackers(recipe("trackers.wanbd={}"))
    said = str(refused.value)
    assert said.startswith(
        "logging.trackers.wanbd: there is no tracker `wanbd`: take one of tensorboard, wandb, mlflow, or"
    )
    assert "in the group dstrain.trackers" in said


@pytest.mark.usefixtures("_nothing_is_installed")
@pytest.mark.parametrize(
    ("override", "key", "extra"),
    [
        ("trackers.wandb={}", "logging.trackers.wandb", "wandb"),
        ("trackers.mlflow.project=x", "logging.trackers.mlflow", "mlflow"),
        ("tensorboard=true", "logging.tensorboard", "tensorboard"),
    ],
)
def test_a_missing_package_is_refused_with_the_command_that_installs_it(override: str, key: str, extra: str) -> None:
    with pytest.raises(UserError) as refused:
        check_trackers(recipe(override))
    assert str(refused.value) == (
        f"{key}: the package `{extra}` is not installed: pip install 'dstrain[{extra}]', or remove the key and use "
        "`dstrain track` later"
    )


def test_the_extras_of_the_package_have_the_names_of_the_trackers() -> None:
    pyproject = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    assert [name for name in BUILT_IN if f'\n{name} = ["{name}' not in pyproject] == []


@pytest.mark.usefixtures("_nothing_is_installed")
def test_tensorboard_is_left_out_where_nobody_asked_for_it_and_it_is_not_installed() -> None:
    config = recipe()
    check_trackers(config)
    assert wanted_trackers(config) == ()


def test_tensorboard_is_written_where_it_is_installed_and_others_where_the_recipe_names_them() -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    assert wanted_trackers(recipe()) == ("tensorboard",)
    assert wanted_trackers(recipe("trackers={wandb: {}, mlflow: {}}")) == ("tensorboard", "wandb", "mlflow")
    assert wanted_trackers(recipe("tensorboard=false", "trackers.wandb={}")) == ("wandb",)


def test_a_folder_that_has_the_name_of_a_package_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_scores").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not backends._is_installed("own_scores")
    (tmp_path / "own_scores" / "__init__.py").touch()
    assert backends._is_installed("own_scores")


@pytest.mark.usefixtures("own_package")
def test_a_package_brings_a_tracker_by_an_entry_point(tmp_path: Path) -> None:
    check_trackers(recipe("trackers.own={}"))
    settings = TrackerSettings(uri="http://host", project="p")
    tracker = make_tracker("own", folder=RunFolder(tmp_path), settings=settings)
    assert tracker.destination == "http://host"
    assert tracker.place.folder == tmp_path / "trackers" / "own"  # type: ignore[attr-defined]


@pytest.mark.usefixtures("own_package")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "broken",
            r"`own_trackers:Broken` is no tracker: it must be a class derived from dstrain\.tracking\.tracker\.Tracker",
        ),
        (
            "absent",
            r"\(own_trackers_that_are_absent:Own\) cannot be imported \(ModuleNotFoundError: .*install its package",
        ),
    ],
)
def test_an_entry_point_that_is_no_tracker_is_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_tracker(name)


def test_none_connects_or_imports_before_it_is_opened(tmp_path: Path) -> None:
    loaded = {name for name in ("wandb", "mlflow") if name in sys.modules}
    for name, tracker in BUILT_IN.items():
        assert tracker is BUILT_IN[name]
        make = tracker(backends.Place(tmp_path, "p", "http://nowhere.invalid"))
        assert make.destination
    assert loaded == {name for name in ("wandb", "mlflow") if name in sys.modules}
    assert list(tmp_path.iterdir()) == []
