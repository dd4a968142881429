"""Columns are found by name, also in nested records."""

import pytest

from dstrain.data.records import Broken, Record, check_names, check_once, pick_cells, top_level_names


def test_cells_are_picked_by_name_and_by_dotted_name() -> None:
    record = {"a": 1, "b": {"c": "x", "d": None}, "b.c": "dot"}
    assert pick_cells(record, ["a", "b.c", "b.d", "b.d.e"], where="f:1") == Record("f:1", (1, "dot", None, None))


def test_a_missing_field_names_those_that_exist() -> None:
    found = pick_cells({"a": 1, "b": {"c": 2}}, ["b.x"], where="f:1")
    assert isinstance(found, Broken)
    assert found.problem.startswith("no column `b.x`; the columns are `a`, `b.c`")


def test_columns_that_contain_dotted_names() -> None:
    assert top_level_names(["b.c", "a", "b.d"], available=["a", "b"], where="f") == ["b", "a"]
    with pytest.raises(ValueError, match=r"f: no column `x\.y`"):
        top_level_names(["x.y"], available=["a"], where="f")


def test_numbers_are_no_names_and_names_are_given_once() -> None:
    with pytest.raises(ValueError, match="f: column 3 is a number"):
        check_names(["a", 3], where="f")
    with pytest.raises(ValueError, match="f: two columns are named `a`"):
        check_once("a", available=["a", "b", "a"], where="f")
