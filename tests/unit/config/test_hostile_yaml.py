"""Configurations of a stranger: each is a RunConfig or a ConfigError that says where, and none takes more than it weighs."""

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dstrain.config import load, yaml_source
from dstrain.config.load import ConfigError, load_config
from dstrain.config.schema import RunConfig
from dstrain.config.shipped import recipes_folder

SHARED_FOLDER = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
MAX_LINE = 2000
"""Characters of a line of an error, where keys are no longer than those of these tests."""

WHOLE = {
    "name": "x",
    "model": {"scratch": {"architecture": "marian"}},
    "task": {"kind": "translation"},
    "data": {"train": [{"demo": "translation"}], "eval": [{"demo": "translation"}]},
    "training": {"batch_size": 1, "max_steps": 1, "learning_rate": 0.1},
}


def read(path: Path | str, *, overrides: tuple[str, ...] = ()) -> RunConfig | ConfigError:
    """What comes of a configuration; anything but a ConfigError is a fault."""
    try:
        return load_config(str(path), overrides=overrides, check_files=True)
    except ConfigError as refusal:
        error = refusal
    message = str(error)
    assert error.problems
    assert message.encode()  # it can be printed
    assert max(map(len, message.splitlines())) < MAX_LINE
    assert all(problem.where.file for problem in error.problems)
    return error


def read_text(folder: Path, text: str) -> RunConfig | ConfigError:
    path = folder / "run.yaml"
    path.write_bytes(text.encode("utf-8", errors="surrogatepass"))
    return read(path)


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["", "~", "..", "/", "a/b/c", "x" * 300, "\0", "\ud800", "no", "1:30", "extends"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=10,
)
fragments = st.sampled_from(
    "a b name: x model: data: training: - [ ] { } , : ? | > & * ! % @ ` ' \" # &a *a <<: !!int !!float !!bool !!null "
    "!!binary !!set !!omap !!timestamp !!python/object:os.system !x -1 1e400 0x_ 0b 0o7 .inf .nan ~ --- ... %YAML "
    "\\x \\uD800 \\U00110000 \\UFFFFFFFF extends: = 1_ - -- +".split()
    + ["\n", "\n  ", "\n    ", " ", "\t", "\ufeff", "\x85", "\u2028", "\x00", "\x1b", "한국어"]
)


def every_key(tree: Any, *, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path for key, value in items for path in [(*at, key), *every_key(value, at=(*at, key))]]


@settings(suppress_health_check=SHARED_FOLDER, max_examples=500)
@given(parts=st.lists(fragments, max_size=16))
def test_pieces_of_yaml_in_any_order_are_read_or_refused(parts: list[str], tmp_path: Path) -> None:
    read_text(tmp_path, "".join(parts))


@settings(suppress_health_check=SHARED_FOLDER, max_examples=300)
@given(parts=st.lists(fragments, max_size=8))
def test_pieces_of_yaml_in_the_place_of_a_value_are_read_or_refused(parts: list[str], tmp_path: Path) -> None:
    text = json.dumps(WHOLE)[1:-1]
    read_text(tmp_path, f"{{{text}, seed: {''.join(parts)}}}")


@settings(suppress_health_check=SHARED_FOLDER, max_examples=300)
@given(content=st.binary(max_size=200))
def test_any_bytes_are_no_configuration(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    assert isinstance(read(path), ConfigError)


@settings(suppress_health_check=SHARED_FOLDER, max_examples=300)
@given(data=st.data(), value=values)
def test_a_value_of_any_kind_in_any_place_is_read_or_refused(data: st.DataObject, value: Any, tmp_path: Path) -> None:
    tree: Any = json.loads(json.dumps(WHOLE))
    path = data.draw(st.sampled_from([*every_key(WHOLE), ("machine",), ("checkpoint",), ("seed",), ("extends",)]))
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    read_text(tmp_path, json.dumps(tree))


@settings(suppress_health_check=SHARED_FOLDER, max_examples=300)
@given(data=st.data())
def test_a_configuration_with_bytes_exchanged_is_read_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    whole = json.dumps(WHOLE, indent=1).encode()
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, min(len(whole), start + 8)))
    path = tmp_path / "run.yaml"
    path.write_bytes(whole[:start] + data.draw(st.binary(max_size=8)) + whole[stop:])
    read(path)


keys = st.one_of(
    st.sampled_from([".".join(map(str, path)) for path in every_key(WHOLE)] + ["seed", "machine.zero_stage"]),
    st.text(max_size=12),
)


@settings(suppress_health_check=SHARED_FOLDER, max_examples=400)
@given(key=keys, parts=st.lists(fragments, max_size=6))
def test_an_override_of_any_kind_is_read_or_refused(key: str, parts: list[str], tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(json.dumps(WHOLE))
    text = f"{key}={''.join(parts)}".encode("utf-8", errors="replace").decode()
    read(path, overrides=(text,))


MALICE: dict[str, str] = {
    "lists in lists": "[" * 20_000,
    "mappings in mappings": "{a: " * 20_000,
    "lists in lists that end": "[" * 5_000 + "]" * 5_000,
    "sections in sections": "\n".join(" " * depth + "a:" for depth in range(700)),
    "lists of a hundred levels": "seed: " + "[" * 100 + "]" * 100,
    "a number of 100 000 hexadecimal digits": "seed: 0x" + "f" * 100_000,
    "a number of 100 000 binary digits": "seed: 0b" + "1" * 100_000,
    "a number of 100 000 digits": "seed: " + "9" * 100_000,
    "a fraction of 100 000 digits": "seed: 0." + "9" * 100_000,
    "an empty number": "seed: !!int ''",
    "an empty fraction": "seed: !!float ''",
    "a sign alone": "seed: !!int '-'",
    "a letter that does not exist": 'name: "\\U00110000"',
    "a letter beyond all numbers": 'name: "\\UFFFFFFFF"',
    "half a letter": 'name: "\\uD800"',
    "half a letter in a key": '"\\uD800": 1',
    "a version of many digits": "%YAML 1." + "9" * 5000 + "\n---\na: 1",
    "an alias of itself": "a: &a [*a]",
    "an alias of nothing": "a: *b",
    "an object": "name: !!python/object/apply:os.system [ls]",
    "a name as long as no file's": "extends: " + "x" * 5000,
    "a base with a zero": 'extends: "a\\0b"',
    "a base that is a folder": "extends: .",
    "a base that is itself": "extends: run.yaml",
    "a path as long as no file's": json.dumps(WHOLE | {"data": {"train": [{"path": "x" * 5000}], "eval": []}}),
    "a model as long as no folder's": json.dumps(WHOLE | {"model": {"name": "/" + "x" * 5000}}),
    "a path with a zero": json.dumps(WHOLE | {"data": {"train": [{"path": "a\0b"}], "eval": []}}),
}


@pytest.mark.parametrize("text", MALICE.values(), ids=MALICE.keys())
def test_malice_is_refused_in_words(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.MAX_LINE", 6000)
    error = read_text(tmp_path, text)
    assert isinstance(error, ConfigError)
    assert "run.yaml" in str(error)


@pytest.mark.parametrize("value", ["[" * 20_000, "0x" + "f" * 100_000, '"\\U00110000"', '"\\uD800"', "!!int ''"])
def test_malice_in_an_override_is_refused_in_words(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.MAX_LINE", 300_000)
    error = read("debug", overrides=(f"seed={value}",))
    assert isinstance(error, ConfigError)
    assert "seed" in str(error)


def laughs(levels: int) -> str:
    """A few lines that stand for 10 ** levels values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]")
    return "\n".join(lines)


def test_aliases_that_stand_for_a_billion_values_are_refused_before_they_are_made(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(laughs(9))
    tracemalloc.start()
    try:
        error = read(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(error, ConfigError)
    assert f"more than {yaml_source.MAX_VALUES:,} values" in str(error)
    assert peak < 32 << 20


def test_an_alias_used_a_few_times_is_no_fault(tmp_path: Path) -> None:
    text = json.dumps({key: value for key, value in WHOLE.items() if key != "data"})[1:-1]
    config = read_text(tmp_path, f"{{{text}, data: {{train: &rows [demo: translation], eval: *rows}}}}")
    assert isinstance(config, RunConfig)
    assert config.data.train == config.data.eval


def test_a_file_far_larger_than_a_configuration_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("")
    os.truncate(path, 64 << 30)
    error = read(path)
    assert isinstance(error, ConfigError)
    assert f"larger than {load.MAX_CONFIG_BYTES:,} bytes" in str(error)


def test_many_unknown_keys_are_all_reported_in_good_time(tmp_path: Path) -> None:
    error = read_text(tmp_path, "\n".join(f"k{number}: 1" for number in range(1000)))
    assert isinstance(error, ConfigError)
    assert len(error.problems) >= 1000


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "", ".", "/", "\ud800"])
def test_a_name_that_is_no_file_is_refused_in_words(name: str) -> None:
    with pytest.raises(ConfigError, match="neither a file nor a shipped recipe"):
        load_config(name)


def test_a_pipe_is_no_configuration(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.yaml")
    assert isinstance(read(tmp_path / "run.yaml"), ConfigError)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(json.dumps(WHOLE))

    def fail(path: Path, *args: Any, **kwargs: Any) -> Any:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "open", fail)
    error = read(path)
    assert isinstance(error, ConfigError)
    assert f"{path}:1: cannot be read; found Input/output error" in str(error)


def test_every_shipped_recipe_is_far_from_the_limits() -> None:
    for path in recipes_folder().glob("*.yaml"):
        assert path.stat().st_size < load.MAX_CONFIG_BYTES / 20
