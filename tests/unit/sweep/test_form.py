"""The form of a sweep file: what is refused, with its line, before any member is planned."""

import re
from pathlib import Path

import pytest
import yaml

from dstrain.config.load import ConfigError
from dstrain.sweep.members import read_sweep
from tests.unit.sweep.sweep_cases import GRID, refusal


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gird: {seed: [1]}\n", 'FILE:3: gird: unknown key; found {"seed": [1]}; did you mean `grid`?'),
        ("", "FILE:1: give exactly one of `grid` and `list`; found none"),
        (f"{GRID}list: [{{seed: 1}}]\n", "FILE:6: give exactly one of `grid` and `list`; found grid and list"),
        ("grid: {}\n", "FILE:3: grid: must be a mapping of keys to values; found {}"),
        ("grid:\n  seed: 1\n", "FILE:4: grid.seed: must be a list of values; found 1; write `seed: […]`"),
        ("grid:\n  seed: []\n", "FILE:4: grid.seed: must be a list of values; found []"),
        ("list: []\n", "FILE:3: list: must be one mapping of keys to values per member; found []"),
        ("list:\n  - {seed: 1}\n  - 5\n", "FILE:5: list.1: must be a mapping of keys to values; found 5"),
        ("overrides: 3\nlist: [{}]\n", "FILE:3: overrides: must be a mapping of keys to values; found 3"),
        ("grid:\n  output_dir: [a, b]\n", "FILE:4: grid.output_dir: every member has its own folder"),
        ("overrides: {output_dir: a}\nlist: [{}]\n", "FILE:3: overrides.output_dir: every member has its own folder"),
        ("list: [{name: a}]\n", "FILE:3: list.0.name: names the model card and cannot be varied"),
        ("list: [{seed: no}]\n", "FILE:3: list.0.seed: YAML reads a plain `no` as false"),
        ("grid: {seed: [1, 1:30]}\n", "FILE:3: grid.seed.1: YAML reads this as a number in base 60"),
        ("list: [{--debug: 1}]\n", "FILE:3: list.0.--debug: is not a key of a recipe"),
        ("list: [{'seed=1 name': 1}]\n", "FILE:3: list.0.seed=1 name: is not a key of a recipe"),
        ("list: [", "not valid YAML"),
        ("grid: {seed: [1, 2], name: [a]}\nlits: 4\n", "FILE:4: lits: unknown key"),
    ],
)
def test_what_is_no_sweep_is_refused_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    assert message in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("", "FILE:1: config: must be text; found nothing; a recipe file, or the name of a shipped recipe"),
        ("config: [debug]\n", 'FILE:1: config: must be text; found ["debug"]'),
        (
            "config: nowhere\n",
            'FILE:1: config: neither a file nor a shipped recipe; found "nowhere"; shipped recipes: ',
        ),
    ],
)
def test_a_sweep_needs_a_recipe(head: str, message: str, tmp_path: Path) -> None:
    assert refusal(tmp_path, GRID, head=head).startswith(message)


def test_a_file_that_is_missing_empty_or_no_text_is_refused(tmp_path: Path) -> None:
    for content, message in (
        (None, "cannot be read; found No such file or directory"),
        (b"", "a configuration is a mapping of keys to values; found nothing"),
        (b"{}", "give exactly one of `grid` and `list`"),
        (b"config: \xff", "not UTF-8"),
        (b"#" * (1 << 20) + b"#", "not a sweep"),
    ):
        if content is not None:
            (tmp_path / "sweep.yaml").write_bytes(content)
        with pytest.raises(ConfigError, match=re.escape(message)):
            read_sweep(str(tmp_path / "sweep.yaml"))


def test_a_grid_beyond_what_an_array_can_hold_is_refused_before_it_is_made(tmp_path: Path) -> None:
    grid = {f"training.key_{number}": list(range(100)) for number in range(20)}
    assert "makes more than 1,001 members" in refusal(tmp_path, yaml.dump({"grid": grid}))


def test_without_a_recipe_only_the_form_is_told(tmp_path: Path) -> None:
    message = refusal(tmp_path, "list: [{seed: x}, 5]\n", "seed", head="config: nowhere\n")
    assert [line.partition(";")[0] for line in message.splitlines()] == [
        "FILE:1: config: neither a file nor a shipped recipe",
        "FILE:3: list.1: must be a mapping of keys to values",
        "override `seed`: an override is written `dotted.key=value`",
    ]


@pytest.mark.parametrize("typed", ["training.learning_rate=1e-5", "training={max_steps: 3}", "seed=1"])
def test_what_is_typed_may_not_undo_what_the_sweep_varies(typed: str, tmp_path: Path) -> None:
    assert "which the sweep varies" in refusal(tmp_path, GRID, typed)


@pytest.mark.parametrize(("typed", "message"), [("seed", "`dotted.key=value`"), ("output_dir=x", "has its own folder")])
def test_what_is_typed_must_be_an_override(typed: str, message: str, tmp_path: Path) -> None:
    assert message in refusal(tmp_path, GRID, typed)
