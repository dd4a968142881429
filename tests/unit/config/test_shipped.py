"""What is shipped: found in a clone and in a wheel, by name from anywhere, the current folder first."""

from pathlib import Path

import pytest

from dstrain.config.shipped import (
    PACKAGE,
    SCRIPTS,
    as_own,
    find_recipe,
    recipes_folder,
    script_folders,
    shipped_recipes,
    suggest_recipes,
)

ROOT = Path(__file__).resolve().parents[3]


def test_a_clone_has_recipes_and_scripts_beside_the_package() -> None:
    assert recipes_folder(package=ROOT / "dstrain") == ROOT / "configs"
    assert script_folders(package=ROOT / "dstrain") == [ROOT / "launch", ROOT / "slurm"]
    assert all(
        (folder / file).is_file() for folder, file in zip(script_folders(), ("train.py", "train.sbatch"), strict=True)
    )


def test_a_wheel_has_them_inside_the_package(tmp_path: Path) -> None:
    for inner in ("recipes", "scripts/launch", "scripts/slurm"):
        (tmp_path / inner).mkdir(parents=True)
    assert recipes_folder(package=tmp_path) == tmp_path / "recipes"
    assert script_folders(package=tmp_path) == [tmp_path / "scripts" / name for name in SCRIPTS]


def test_a_name_is_found_with_and_without_its_suffix_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = recipes_folder() / "debug.yaml"
    assert find_recipe("debug") == find_recipe("debug.yaml") == find_recipe(str(shipped)) == shipped
    for nothing in ("debag", "configs/debug", "./debug", ".", "..", "", "a\0b", "a" * 300):
        assert find_recipe(nothing) is None


def test_the_current_folder_comes_before_what_is_shipped_and_a_file_before_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("debug.yaml").touch()
    assert find_recipe("debug") == Path("debug.yaml")
    Path("debug").touch()
    assert find_recipe("debug") == Path("debug")
    Path("inner").mkdir()
    assert find_recipe("debug", folder=Path("inner")) == recipes_folder() / "debug.yaml"


def test_the_names_are_listed_with_the_nearest() -> None:
    assert (
        suggest_recipes("elsewhere/Debug.yml")
        == f"shipped recipes: {', '.join(shipped_recipes())}; did you mean `debug`?"
    )
    assert "did you mean" not in suggest_recipes("zzz")


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_copy_opens_with_the_command_that_runs_it(name: str) -> None:
    text = (recipes_folder() / f"{name}.yaml").read_text()
    copy = as_own(text, file=Path("my own.yaml"))
    program = "python -m" if name == "debug" else "deepspeed --module"
    options = " --debug" if name == "debug" else ""
    assert copy.splitlines()[0] == f"# {program} dstrain.train --config 'my own.yaml'{options}"
    assert copy.splitlines()[1:] == text.splitlines()[1:]
    assert as_own(copy, file=Path("again.yaml")) == copy


def test_the_package_is_the_one_that_is_imported() -> None:
    assert (PACKAGE / "config" / "shipped.py").is_file()
