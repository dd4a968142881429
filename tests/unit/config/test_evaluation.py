"""Settings of the evaluation that cannot go together, and the programs that a recipe may name."""

from typing import Any

import pytest

from dstrain.config.evaluation import Evaluation, External
from dstrain.config.load import ConfigError, load_config
from dstrain.config.section import Section
from tests.unit.config.config_cases import assert_refused

READS = ["score", "{hypotheses}"]


@pytest.mark.parametrize(
    ("section", "values", "keys", "message"),
    [
        (Evaluation, {"every_steps": 1, "every_epochs": 1.0}, ("every_steps", "every_epochs"), "only one"),
        (Evaluation, {"metrics": ["bleu", "blue"]}, ("metrics",), "`blue` is no metric: take bleu, chrf"),
        (Evaluation, {"metrics": ["bleu", "a.b:bleu"]}, ("metrics",), "two scores would be called `bleu`"),
        (Evaluation, {"metrics": ["a:x", "b:x"]}, ("metrics",), "two scores would be called `x`"),
        (Evaluation, {"metrics": ["a:gen_len"]}, ("metrics",), "two scores would be called `gen_len`"),
        (Evaluation, {"metrics": ["rouge", "a:rouge_l"]}, ("metrics",), "two scores would be called `rouge_l`"),
        (Evaluation, {"best_metric": "loss", "loss": False}, ("best_metric", "loss"), "needs `loss: true`"),
        (Evaluation, {"external": {"bleu": {"command": READS}}}, ("external.bleu",), "would be called `bleu`"),
        (
            Evaluation,
            {"metrics": ["a:comet"], "external": {"comet": {"command": READS}}},
            ("external.comet",),
            "would be called `comet`",
        ),
        (External, {"command": ["score", "{sources}"]}, ("command",), "does not read the hypotheses"),
    ],
)
def test_settings_that_exclude_each_other_are_refused_with_their_keys(
    section: type[Section], values: dict[str, Any], keys: tuple[str, ...], message: str
) -> None:
    assert_refused(section, values, keys=keys, message=message)


def test_a_program_is_named_in_the_recipe_or_key_by_key() -> None:
    command = "evaluation.external.comet.command=[comet, '{hypotheses}']"
    config = load_config("debug", overrides=[command, "evaluation.external.comet.every=evaluation"])
    assert config.evaluation.external == {
        "comet": External(command=("comet", "{hypotheses}"), every="evaluation", timeout_minutes=60.0)
    }


@pytest.mark.parametrize(
    ("external", "messages"),
    [
        ("{comet: {every: end}}", ["external.comet.command: is required"]),
        (
            "{comet: {every: ends, comand: [x]}}",
            ["comet.every: must be 'evaluation' or 'end'", "comet.comand: unknown key", "did you mean `command`?"],
        ),
        ("{comet: {command: []}}", ["external.comet.command: must have at least 1 item"]),
        ("{a b: {command: [x, '{hypotheses}']}}", ["evaluation.external"]),
        ("[x]", ["evaluation.external: must be a section of keys"]),
    ],
)
def test_a_wrong_program_is_reported_with_its_key_and_with_every_other_error(
    external: str, messages: list[str]
) -> None:
    overrides = [f"evaluation.external={external}", "training.batch_size=0"]
    with pytest.raises(ConfigError) as caught:
        load_config("debug", overrides=overrides)
    for message in (*messages, "training.batch_size: must be at least 1"):
        assert message in str(caught.value)
