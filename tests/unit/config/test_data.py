"""Data sources: settings that cannot go together, and what is derived from them."""

from typing import Any

import pytest

from dstrain.config.data import Data, Source
from dstrain.config.section import Section
from tests.unit.config.config_cases import assert_refused

DEMO = {"demo": "parsing"}


@pytest.mark.parametrize(
    ("section", "values", "keys", "message"),
    [
        (Source, {}, ("path", "hub", "demo"), "found none"),
        (Source, {"path": "x", "hub": "y"}, ("path", "hub", "demo"), "found path and hub"),
        (Source, {"demo": "parsing", "target_path": "x"}, ("target_path", "path", "format"), "goes with `path`"),
        (Source, {"path": "x", "target_path": "y", "format": "tsv"}, ("target_path", "path", "format"), "goes with"),
        (Source, {"path": "x", "format": "text"}, ("format", "target_path"), "needs `target_path`"),
        (Data, {"train": [DEMO], "eval": [DEMO, DEMO | {"repeat": 2}]}, ("eval.1.repeat",), "cannot be repeated"),
        (
            Data,
            {"train": [DEMO | {"weight": 1.0}], "eval": [DEMO], "temperature": 2.0},
            ("temperature", "train.0.weight"),
            "give one",
        ),
        (
            Data,
            {"train": [DEMO, DEMO | {"weight": 1.0}], "eval": [DEMO]},
            ("train.0.weight", "train.1.weight"),
            "each has",
        ),
        (
            Data,
            {"train": [DEMO | {"repeat": 2}], "eval": [DEMO], "temperature": 2.0},
            ("train.0.repeat", "temperature", "train.0.weight"),
            "does not go with",
        ),
        (Data, {"train": [DEMO], "eval": [DEMO | {"weight": 2.0}]}, ("eval.0.weight",), "not weighted"),
    ],
)
def test_settings_that_exclude_each_other_are_refused_with_their_keys(
    section: type[Section], values: dict[str, Any], keys: tuple[str, ...], message: str
) -> None:
    assert_refused(section, values, keys=keys, message=message)


@pytest.mark.parametrize(
    ("source", "place"),
    [({"path": "a.tsv"}, "a.tsv"), ({"hub": "mtop"}, "mtop"), ({"demo": "parsing"}, "demo:parsing")],
)
def test_a_source_names_its_place(source: dict[str, str], place: str) -> None:
    assert Source.model_validate(source).place == place
