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
        ("{scores: {Bleu: 1}}", "must match"),
        ("{scores: {bleu: high}}", "must be a number"),
        ("{scores: {bleu: 1e12}}", "must be at most"),
        ("{name: '<b>'}", "must match"),
        ("{nmae: x}", "did you mean `name`?"),
    ],
)
def test_a_wrong_value_is_named_with_its_key(value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config("debug", overrides=[f"card.published={value}"])
