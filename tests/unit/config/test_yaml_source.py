"""YAML text with places, and its traps."""

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dstrain.config.yaml_source import (
    Document,
    Where,
    apply_override,
    escaped,
    merge_documents,
    read_document,
    write_value,
)


def read(text: str) -> Document:
    return read_document(text, file="run.yaml")


def read_clean(text: str) -> dict[str, object]:
    document = read(text)
    assert document.problems == []
    return document.value


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("3e-4", 3e-4),
        ("1E5", 1e5),
        ("-2.5e+3", -2500.0),
        (".5e1", 5.0),
        ("5.e1", 50.0),
        ("3.0e-4", 3e-4),
        ("1_000", 1000),
    ],
)
def test_numbers_as_people_write_them_are_numbers(written: str, value: float) -> None:
    assert read_clean(f"x: {written}") == {"x": value}


@pytest.mark.parametrize("written", ["true", "True", "false"])
def test_true_and_false_stay_booleans(written: str) -> None:
    assert read_clean(f"x: {written}") == {"x": written.lower() == "true"}


@pytest.mark.parametrize("written", ["'no'", '"3e-4"', '"1:30"', "'2022-01-01'", "'010'", "'null'"])
def test_a_quoted_value_is_text(written: str) -> None:
    assert read_clean(f"x: {written}") == {"x": written[1:-1]}


@pytest.mark.parametrize(
    "written", ["no", "yes", "on", "Off", "NO", "1:30", "1:30.5", "2022-01-01", "010", "-07", "0_7"]
)
def test_what_yaml_would_read_as_something_surprising_is_refused_with_quote_it(written: str) -> None:
    document = read(f"a: 1\nx: {written}")
    assert document.value == {"a": 1}
    (problem,) = document.problems
    assert str(problem).startswith("run.yaml:2: x: YAML reads ")
    assert f"found `{written}`; quote it" in str(problem)


@pytest.mark.parametrize("written", [".inf", "-.inf", ".nan"])
def test_infinities_are_refused(written: str) -> None:
    assert "must be a finite number" in str(read(f"x: {written}").problems[0])


@pytest.mark.parametrize("written", ["no: 1", "1: 1", "~: 1", "? [a]\n: 1"])
def test_keys_must_be_text(written: str) -> None:
    assert "a key must be text" in str(read(written).problems[0])


def test_a_key_given_twice_is_a_problem_that_names_both_lines() -> None:
    document = read("a: 1\nb:\n  c: 1\n  c: 2\n")
    assert [str(problem) for problem in document.problems] == [
        "run.yaml:4: b.c: given twice, first at run.yaml:3; remove one of them"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a configuration is a mapping of keys to values; found nothing"),
        ("- a", "a configuration is a mapping"),
        ("just text", "a configuration is a mapping"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
        ("a: 1\nb: [", "not valid YAML"),
        ("a: \x00", "not valid YAML"),
    ],
)
def test_a_text_that_is_no_mapping_is_one_problem(text: str, message: str) -> None:
    document = read(text)
    assert document.value == {}
    assert message in str(document.problems[0])


def test_a_syntax_error_names_its_line() -> None:
    assert str(read("a: 1\nb: 2\n\tc: 3\n").problems[0]).startswith("run.yaml:3: not valid YAML")


@pytest.mark.parametrize(
    "written", ["!!python/object/apply:os.system [ls]", "!!binary aGk=", "!!set {a}", "!own x", "!!int x"]
)
def test_tags_make_no_objects(written: str) -> None:
    document = read(f"x: {written}")
    assert document.value == {}
    assert len(document.problems) == 1


def test_aliases_are_followed_but_not_into_themselves() -> None:
    assert read_clean("a: &one {b: 1}\nc: *one") == {"a": {"b": 1}, "c": {"b": 1}}
    assert "contains itself" in str(read("a: &one [*one]").problems[0])


def test_merge_keys_are_refused() -> None:
    assert "use `extends:`" in str(read("a: &one {b: 1}\nc:\n  <<: *one").problems[0])


def test_places_are_those_of_keys_and_of_list_items() -> None:
    document = read("a:\n  b: 1\n  c:\n    - 1\n    - d: 2\n")
    lines = {path: where.line for path, where in document.where.items()}
    assert lines[("a", "b")] == 2
    assert lines[("a", "c")] == 3
    assert lines[("a", "c", 1)] == 5
    assert lines[("a", "c", 1, "d")] == 5
    assert document.place(("a", "missing")).line == 1


def test_merging_keeps_the_file_each_value_came_from() -> None:
    base = read_document("a:\n  b: 1\n  c: 2\nd: [1, 2]\n", file="base.yaml")
    child = read_document("\n\na:\n  c: 3\nd: [4]\n", file="child.yaml")
    merged = merge_documents(base, child=child)
    assert merged.value == {"a": {"b": 1, "c": 3}, "d": [4]}
    assert str(merged.where[("a", "b")]) == "base.yaml:2"
    assert str(merged.where[("a", "c")]) == "child.yaml:4"
    assert ("d", 1) not in merged.where


def test_merging_replaces_a_mapping_by_null_and_null_by_a_mapping() -> None:
    base, child = read("a: {b: 1}\nc: null"), read("a: null\nc: {d: 1}")
    assert merge_documents(base, child=child).value == {"a": None, "c": {"d": 1}}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("a.b=2", {"a": {"b": 2}, "l": [{"x": 1}]}),
        ("a.b=3e-4", {"a": {"b": 3e-4}, "l": [{"x": 1}]}),
        ("a.b=null", {"a": {"b": None}, "l": [{"x": 1}]}),
        ("a.b='no'", {"a": {"b": "no"}, "l": [{"x": 1}]}),
        ("a.b=x=y", {"a": {"b": "x=y"}, "l": [{"x": 1}]}),
        ("a={c: 1}", {"a": {"c": 1}, "l": [{"x": 1}]}),
        ("l.0.x=/data/x.tsv", {"a": {"b": 1}, "l": [{"x": "/data/x.tsv"}]}),
        ("l=[{x: 2}, {x: 3}]", {"a": {"b": 1}, "l": [{"x": 2}, {"x": 3}]}),
        ("new.deep.key=1", {"a": {"b": 1}, "l": [{"x": 1}], "new": {"deep": {"key": 1}}}),
    ],
)
def test_an_override_sets_one_value(override: str, expected: dict[str, object]) -> None:
    document = read("a:\n  b: 1\nl:\n  - x: 1\n")
    apply_override(document, text=override)
    assert document.problems == []
    assert document.value == expected


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("a.b", "an override is written `dotted.key=value`"),
        ("=1", "an override is written `dotted.key=value`"),
        ("a.b=", "has no value; give one; `a.b=null` unsets the key"),
        ("a..b=1", "an override is written `dotted.key=value`"),
        ("a.b=no", "a.b: YAML reads a plain `no` as false; found `no`; quote it"),
        ("a.b=1:30", "quote it"),
        ("a.b=[", "the value is not valid YAML"),
        ("a.b.c=1", "a.b: has no key `c` inside: it is a plain value; found 1"),
        ("l.1.x=1", "l: is a list of 1, numbered from 0; it has no item `1`"),
        ("l.x=1", "it has no item `x`"),
        ("l.-1=1", "it has no item `-1`"),
    ],
)
def test_a_faulty_override_is_a_problem_that_names_it(override: str, message: str) -> None:
    document = read("a:\n  b: 1\nl:\n  - x: 1\n")
    apply_override(document, text=override)
    assert document.value == {"a": {"b": 1}, "l": [{"x": 1}]}
    (problem,) = document.problems
    assert str(problem).startswith(f"override `{override}`: ")
    assert message in str(problem)


values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(st.characters(exclude_categories=["Cs"])),
        st.sampled_from(
            ["3e-4", "no", "1:30", "null", "~", "007", "$HOME", "a: b", "a #b", " a", "", "2020-01-01", "\x85"]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text("abc.", min_size=1), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(values)
def test_any_value_comes_back_as_it_was_written(value: Any) -> None:
    document = Document({}, {(): Where("x", 1)})
    text = write_value(value)
    apply_override(document, text=f"key={text}")
    assert document.problems == []
    assert document.value == {"key": value}
    assert type(document.value["key"]) is type(value)
    assert "\0" not in text


@pytest.mark.parametrize("text", ["0.0001", "linear", "true", "null", "two words; $HOME", "runs/a=b"])
def test_a_plain_value_stays_plain(text: str) -> None:
    assert write_value(yaml.safe_load(text)) == text


def test_a_problem_is_one_line_whatever_is_in_an_override() -> None:
    for override in ("note=a\nb\nc", "a\nb=1", "seed.x\ny=1", "note=\x1b[2J: [", "a\u2028b"):
        document = read_document("seed: 1", file="r.yaml")
        apply_override(document, text=override)
        lines = [*map(str, document.problems), *map(str, document.where.values())]
        assert all(line.isprintable() for line in lines), override
    assert escaped("note=a\nb 안") == "note=a\\nb 안"
