"""The section `card`: it is checked like any other, and never changes what is learned."""

import pytest

from dstrain.config.load import ConfigError, dump_config, load_config, recipe_hash
from dstrain.config.schema import RECIPE_KEYS

PUBLISHED = "{name: x, scores: {bleu: 25.8}, steps: [{step: 10, epoch: 0.5, scores: {loss: 0.7}}, {step: 20}]}"


def test_published_results_travel_with_the_configuration() -> None:
    config = load_config("debug", overrides=[f"card.published={PUBLISHED}"])
    assert config.card.published is not None
    assert [row.step for row in config.card.published.steps] == [10, 20]
    assert config.card.published.steps[0].scores == {"loss": 0.7}
    assert load_config("x", content=dump_config(config).encode()) == config


def test_published_results_are_no_part_of_what_is_learned() -> None:
    config = load_config("debug", overrides=[f"card.published={PUBLISHED}"])
    assert "card" not in RECIPE_KEYS
    assert recipe_hash(config) == recipe_hash(load_config("debug"))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{steps: [{step: 20}, {step: 10}]}", "each step must come once, in rising order"),
        ("{steps: [{step: 20}, {step: 20}]}", "each step must come once, in rising order"),
        ("{steps: [{epoch: 1}]}", "card.published.steps.0.step: is required"),
        ("{steps: [{step: 0}]}", "must be at least 1"),
        ("{scores: {Bleu: 1}}", "must be made of the letters a to z, digits and `_`"),
        ("{scores: {bleu: high}}", "must be a number"),
        ("{scores: {bleu: 1e12}}", "must be at most"),
        ("{name: '<b>'}", "must be made of the letters"),
        ("{nmae: x}", "did you mean `name`?"),
    ],
)
def test_a_wrong_value_is_named_with_its_key(value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config("debug", overrides=[f"card.published={value}"])


STATED = """{license: mit, base_model: google/mt5-small, tags: [parsing, low resource],
intended_use: "Research.\\n\\nNo more."}"""


def test_what_is_stated_travels_with_the_configuration_and_changes_nothing_that_is_learned() -> None:
    config = load_config("ko_en_m2m", overrides=[f"card={STATED}"])
    assert config.card.license == "mit"
    assert config.card.tags == ("parsing", "low resource")
    assert config.card.intended_use == "Research.\n\nNo more."
    assert load_config("x", content=dump_config(config).encode()) == config
    assert recipe_hash(config) == recipe_hash(load_config("ko_en_m2m"))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{license: Apache 2.0}", "card.license: must be a licence identifier of the Hub: did you mean `apache-2.0`"),
        ("{license: ours}", "take `other` with license_name"),
        ("{license: other}", "card.license_name: is required with license `other`"),
        ("{license: mit, license_name: mine}", "card.license_name: goes with license `other` only"),
        ("{license_link: LICENSE}", "card.license_link: goes with license `other` only"),
        (
            "{license: other, license_name: mine, license_link: /home/ann/LICENSE}",
            "card.license_link: must be an address",
        ),
        (
            "{license: other, license_name: mine, license_link: 'http://x'}",
            "card.license_link: must be an address",
        ),
        ("{base_model: /home/ann/model}", "card.base_model: must be a hub name such as google/mt5-small"),
        ("{base_model: ./model}", "card.base_model: must be a hub name such as google/mt5-small"),
        ("{base_model: a/b/c}", "card.base_model: must be a hub name such as google/mt5-small"),
        ("{tags: ['license:mit']}", "card.tags.0: must be made of the letters"),
        ("{tags: [a, a]}", "card.tags: each tag must come once"),
        ("{tags: a}", "card.tags: must be a list"),
        ("{intended_use: ''}", "card.intended_use"),
        ('{intended_use: "a\\x1b[31m"}', "has the control character"),
        ("{intended_use: hf_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}", "holds a token or password"),
        ("{licence: mit}", "did you mean `license`"),
    ],
)
def test_a_wrong_statement_is_named_with_its_key(value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config("ko_en_m2m", overrides=[f"card={value}"])


def test_a_model_with_random_weights_has_no_base_model() -> None:
    with pytest.raises(ConfigError, match=r"card.base_model: a model with random weights was made from no other"):
        load_config("debug", overrides=["card.base_model=t5-small"])


def test_another_licence_needs_its_name_and_may_have_a_link() -> None:
    card = load_config("debug", overrides=["card={license: other, license_name: ours-1.0, license_link: LICENSE}"]).card
    assert (card.license, card.license_name, card.license_link) == ("other", "ours-1.0", "LICENSE")
