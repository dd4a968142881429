"""Names in a recipe: what may be one, and an error that says in words what is wanted."""

import json
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from dstrain.config.load import ConfigError, load_config
from dstrain.config.names import FileName, HubName, KeyName, LicenseText, PublishedName, Tag
from dstrain.config.schema import RunConfig


@pytest.mark.parametrize(
    ("form", "taken", "refused"),
    [
        (FileName, ["a", "9-a_B.c", "x" * 200], ["", ".a", "a b", "a/b", "ü", "a\n", "x" * 201]),
        (PublishedName, ["a b/c.d"], [" a", "<b>", "a+b"]),
        (Tag, ["low resource", "c++"], ["license:mit", "-a"]),
        (KeyName, ["comet_22"], ["Comet", "_a", "2a", "a-b"]),
        (HubName, ["t5-small", "google/mt5-small"], ["/srv/model", "./model", "~/model", "a/b/c", "a/", "a/b\n"]),
        (LicenseText, ["https://example.org/x", "LICENSE", "LICENSE.md"], ["http://x", "/x/LICENSE", "https://a b"]),
    ],
)
def test_a_name_is_taken_as_a_whole_or_refused(form: Any, taken: list[str], refused: list[str]) -> None:
    adapter = TypeAdapter(form)
    for text in taken:
        assert adapter.validate_python(text) == text
    for text in refused:
        with pytest.raises(ValidationError):
            adapter.validate_python(text)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "card.base_model=/some/path",
            'card.base_model: must be a hub name such as google/mt5-small; found "/some/path"; The model that this one was made '
            "from, by its name on the Hub; leave it out for one that is not there",
        ),
        (
            "name=a b",
            "name: must be made of the letters a to z and A to Z, digits, `.`, `_` and `-`, and begin with a letter",
        ),
        ("card.tags=['a:b']", 'digits, spaces, `.`, `_`, `+` and `-`, and begin with a letter or digit; found "a:b"'),
        (
            "logging.trackers={W-B: {}}",
            "must be made of the letters a to z, digits and `_`, and begin with a letter; found",
        ),
    ],
)
def test_an_error_says_in_words_what_is_wanted_and_what_was_found(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as found:
        load_config("debug", overrides=[override])
    assert message in str(found.value)


def test_no_key_of_a_recipe_has_a_bare_pattern_which_an_error_could_only_show() -> None:
    assert '"pattern"' not in json.dumps(RunConfig.model_json_schema())
    assert '"patternProperties"' not in json.dumps(RunConfig.model_json_schema())
