"""The strict base class of every section, and the error for settings that exclude each other."""

import pytest
from pydantic import ValidationError

from dstrain.config.section import ConflictError, PositiveInt, Probability, Section


class Example(Section):
    """A section."""

    count: PositiveInt = 1
    """How many."""
    share: Probability = 0.0


def test_a_section_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Example().count = 2


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"cuont": 1}, "extra_forbidden"),
        ({"count": "1"}, "int_type"),
        ({"count": 1.0}, "int_type"),
        ({"count": True}, "int_type"),
        ({"count": 0}, "greater_than_equal"),
        ({"share": "0.5"}, "float_type"),
        ({"share": -0.1}, "greater_than_equal"),
        ({"share": 1.0}, "less_than"),
    ],
)
def test_unknown_keys_other_types_and_values_out_of_range_are_refused(values: dict[str, object], kind: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        Example.model_validate(values)
    assert [error["type"] for error in refusal.value.errors()] == [kind]


def test_a_docstring_under_a_field_is_its_description() -> None:
    assert Example.model_fields["count"].description == "How many."


def test_a_conflict_carries_its_keys_and_says_every_message() -> None:
    error = ConflictError((("a", "b"), "a excludes b"), (("c",), "c is wrong"))
    assert str(error) == "a excludes b; c is wrong"
    assert [keys for keys, _ in error.conflicts] == [("a", "b"), ("c",)]
