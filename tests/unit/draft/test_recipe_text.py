"""Recipes as commented text: what is read back is what was meant, whatever strangers wrote."""

import pytest
import yaml

from dstrain.draft.recipe_text import WIDTH, Items, Line, Rows, Section, all_lines, section, write_recipe

HOSTILE = (
    "a\nseed: 1",
    "x # y",
    "a: b",
    "- a",
    "\u2028seed: 1",
    "{a: 1}",
    "!!python/name:os.system",
    "'",
    '"',
    "no",
    "1e5",
)


def test_sections_lists_and_rows_are_read_back_as_they_were() -> None:
    source = Section((Line("path", "a.tsv"), Line("source_column", 0, "first")))
    lines = [
        Line("name", "x", "a name"),
        section("data", Line("train", Items((source, source)), "rows"), Line("betas", [0.9, 0.999]), why="data"),
        section("card", Line("steps", Rows(({"step": 1, "scores": {"bleu": 1e-08}},)), "a table"), why="card"),
    ]
    text = write_recipe(lines, head=["first", ""])
    item = {"path": "a.tsv", "source_column": 0}
    assert yaml.safe_load(text.replace("1e-08", "1.0e-08")) == {
        "name": "x",
        "data": {"train": [item, item], "betas": [0.9, 0.999]},
        "card": {"steps": [{"step": 1, "scores": {"bleu": 1e-08}}]},
    }
    assert text.startswith("# first\n#\n\nname: x  # a name\n\ndata:  # data\n  train:  # rows\n    - path: a.tsv\n")


@pytest.mark.parametrize("text", HOSTILE)
def test_what_strangers_write_is_a_value_or_a_comment_and_nothing_else(text: str) -> None:
    lines = [Line("name", text, text, "question"), section("model", Line("revision", text, text * 60), why=text)]
    assert yaml.safe_load(write_recipe(lines, head=[text])) == {"name": text, "model": {"revision": text}}


def test_a_comment_that_does_not_fit_stands_above_its_line() -> None:
    text = write_recipe([section("model", Line("name", "x", "word " * 60), why="m")], head=[])
    above, value = text.splitlines()[-3:-1], text.splitlines()[-1]
    assert value == "  name: x"
    assert all(line.startswith("  # word") and len(line) <= WIDTH for line in above)


def test_a_comment_above_the_first_key_of_an_item_leaves_the_list_whole() -> None:
    items = Items((Section((Line("path", "a.tsv", "word " * 60), Line("target_column", 1))),))
    text = write_recipe([section("data", Line("train", items), why="rows")], head=[])
    assert yaml.safe_load(text) == {"data": {"train": [{"path": "a.tsv", "target_column": 1}]}}


def test_secrets_are_masked_in_comments() -> None:
    token = "hf_" + "a" * 34
    assert token not in write_recipe([Line("name", "x", f"from {token}")], head=[f"with {token}"])


def test_every_value_has_its_dotted_key() -> None:
    source = Section((Line("path", "a.tsv"),))
    lines = [Line("name", "x"), section("data", Line("train", Items((source, source))), why="")]
    assert [key for key, _ in all_lines(lines)] == ["name", "data.train.0.path", "data.train.1.path"]
