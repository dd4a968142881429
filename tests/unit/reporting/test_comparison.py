"""Runs side by side: their order, and the recipe keys in which they differ."""

from typing import Any

import pytest

from dstrain.reporting.comparison import differing_keys, value_at


@pytest.mark.parametrize(
    ("recipes", "keys"),
    [
        ([{"a": 1}], []),
        ([{"a": 1}, {"a": 1}], []),
        ([{"a": 1, "b": 1}, {"a": 1, "b": 2}], ["b"]),
        ([{"a": {"b": 1}}, {"a": {"b": 1}}, {"a": {"b": 2}}], ["a.b"]),
        ([{"a": {"b": 1}}, {"a": {"b": 2}}, {"a": None}], ["a"]),
        ([{"a": [{"b": 1}]}, {"a": [{"b": 2}]}, {"a": []}], ["a"]),
        ([{"a": {"b": 1}, "ab": 1}, {"a": None, "ab": 2}], ["a", "ab"]),
    ],
)
def test_keys_that_differ_are_leaves_or_the_whole_where_only_some_have_it(
    recipes: list[dict[str, Any]], keys: list[str]
) -> None:
    assert differing_keys(recipes) == keys


@pytest.mark.parametrize(
    ("key", "value"), [("a.0.b", 1), ("a.1.b", None), ("a", [{"b": 1}]), ("c.d", None), ("c", "text"), ("e.f", None)]
)
def test_the_value_of_a_key_that_a_recipe_lacks_is_none(key: str, value: Any) -> None:
    assert value_at({"a": [{"b": 1}], "c": "text"}, key=key) == value
