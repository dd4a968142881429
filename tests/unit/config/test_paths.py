"""Paths that no file system takes are refused with their key, wherever a recipe has one."""

import pytest

from dstrain.config.load import ConfigError, load_config
from dstrain.config.paths import path_problem

LONG = "a" * 256


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("a" * 255, None),
        (f"/x/{'a' * 255}/b", None),
        (LONG, "has a name of 256 bytes, and a file or folder may have 255"),
        ("é" * 128, "has a name of 256 bytes, and a file or folder may have 255"),
        (f"x/{LONG}/y", "has a name of 256 bytes, and a file or folder may have 255"),
        ("/x" * 2048, "has 4,096 bytes, and a path may have 4,095"),
        ("", "is empty"),
        (" ", "is empty"),
        ("a\0b", "has the character U+0000, which no path has"),
        ("a\udcffb", None),  # a byte of a name that is not UTF-8
    ],
)
def test_what_no_file_can_be_called_is_told_apart(path: str, problem: str | None) -> None:
    assert path_problem(path) == problem


@pytest.mark.parametrize(
    "key", ["output_dir", "machine.cache_dir", "model.name", "data.train.0.path", "data.eval.0.target_path"]
)
@pytest.mark.parametrize(("value", "rule"), [(LONG, "has a name of 256 bytes"), ('""', "is empty")])
def test_every_key_with_a_path_is_named_with_what_is_wrong(key: str, value: str, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("debug", overrides=[f"{key}={value}"])
    assert any(f": {key}: {rule}" in str(problem) for problem in caught.value.problems), str(caught.value)


def test_a_list_of_paths_names_the_wrong_one() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("debug", overrides=[f"data.eval=[{{path: a.ko, target_path: [a.en, {LONG}]}}]"])
    (problem,) = caught.value.problems
    assert "data.eval.0.target_path" in str(problem)
    assert "has a name of 256 bytes" in str(problem)


@pytest.mark.parametrize("key", ["name", "data.eval.0.name"])
def test_a_name_is_bounded(key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key}: must have at most 200 characters"):
        load_config("debug", overrides=[f"{key}={'a' * 201}"])
    assert load_config("debug", overrides=[f"{key}={'a' * 200}"])


@pytest.mark.parametrize("key", ["output_dir", "machine.cache_dir", "data.train.0.path", "model.scratch"])
def test_a_lone_tilde_in_an_override_is_no_quiet_null(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("debug", overrides=[f"{key}=~"])
    (problem,) = caught.value.problems
    assert f"{key}: YAML reads a plain `~` as null" in str(problem)
    assert f"write the full path, or `{key}=null` to unset the key" in str(problem)


def test_a_tilde_in_quotes_is_refused_as_a_folder() -> None:
    with pytest.raises(ConfigError, match="`~` is not expanded"):
        load_config("debug", overrides=["output_dir='~'"])


def test_long_inline_values_are_no_paths() -> None:
    rows = ", ".join("{demo: translation, max_rows: 8}" for _ in range(30))
    config = load_config("debug", overrides=[f"data.train=[{rows}]"])
    assert len(config.data.train) == 30
