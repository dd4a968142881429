"""In which leaves two trees differ, and by which dotted key they are named."""

from typing import Any

import pytest

from dstrain.config.differences import differences


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({}, {}, []),
        ({"a": 1}, {"a": 1.0}, []),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, [("a.b", 1, 2)]),
        ({"b": 1, "a": 1}, {"b": 2, "a": 2}, [("a", 1, 2), ("b", 1, 2)]),
        ({"a": 1}, {}, [("a", 1, None)]),
        ({}, {"a": 1}, [("a", None, 1)]),
        ({"a": None}, {}, []),
        ({"a": None}, {"a": {"b": 1}}, [("a", None, {"b": 1})]),
        ({"a": [1, 2]}, {"a": [1, 3]}, [("a.1", 2, 3)]),
        ({"a": [1]}, {"a": [1, 2]}, [("a", [1], [1, 2])]),
        ({"a": [{"b": 1}]}, {"a": [{"b": 2}]}, [("a.0.b", 1, 2)]),
        ({"a": "1"}, {"a": 1}, [("a", "1", 1)]),
    ],
)
def test_differences_are_leaves_in_order(old: Any, new: Any, expected: list[tuple[str, Any, Any]]) -> None:
    assert list(differences(old, new)) == expected
