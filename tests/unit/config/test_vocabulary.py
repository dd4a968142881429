"""The keys that the schema knows."""

import pytest

from dstrain.config.schema import RunConfig
from dstrain.config.vocabulary import (
    about,
    all_keys,
    choices_at,
    default_at,
    fields_at,
    find_abbreviated,
    find_keys,
    first_inside,
    is_key,
    is_list,
    is_section,
    without_links,
)


def test_every_key_of_every_section_is_found_below_lists_and_optional_sections() -> None:
    keys = list(all_keys())
    assert len(keys) == len(set(keys))
    assert {key[0] for key in keys} == set(RunConfig.model_fields)
    for key in (("data", "train", "path"), ("model", "scratch", "num_heads"), ("machine", "watchdog", "save_minutes")):
        assert key in keys


def test_the_fields_of_a_section_are_those_at_its_path_and_none_elsewhere() -> None:
    assert "patience" in fields_at(("training", "early_stopping"))
    assert "hub" in fields_at(("data", "eval", 3))
    assert fields_at(()) == RunConfig.model_fields
    for path in (("seed",), ("nowhere",), ("seed", "deeper"), ("machine", "deepspeed", "fp16")):
        assert fields_at(path) == {}


def test_choices_are_those_of_a_key_that_has_some() -> None:
    assert list(choices_at(("precision",))) == ["fp32", "bf16", "fp16"]
    assert list(choices_at(("data", "rules", "unknown_token"))) == ["error", "skip", "keep"]
    assert list(choices_at(("seed",))) == []


def test_every_key_but_a_section_explains_itself_in_sentences() -> None:
    for *section, key in all_keys():
        said = " ".join((fields_at(tuple(section))[key].description or "").split())
        assert said.endswith(".") or fields_at((*section, key)), (section, key)


def test_what_is_said_about_a_key_is_its_first_sentence_on_one_line() -> None:
    assert about(("evaluation", "num_beams")) == "Beam size"
    assert about(("machine", "watchdog", "step_minutes")) == "Minutes for one optimizer step"
    assert about(("training", "label_smoothing")) == (
        "Probability mass that is spread over the vocabulary (Szegedy et al. 2016)"
    )
    assert about(("model",)) is None
    assert about(("nowhere",)) is None
    assert about(()) is None


@pytest.mark.parametrize(
    ("path", "default"),
    [
        (("evaluation", "best_by"), "point"),
        (("data", "rules", "overlap"), "keep"),
        (("training", "betas"), [0.9, 0.999]),
        (("evaluation", "external", "comet", "timeout_minutes"), 60.0),
        (("evaluation", "external"), None),
        (("training", "batch_size"), ...),
        (("nowhere",), ...),
    ],
)
def test_the_default_of_a_key_is_that_of_a_dumped_recipe(path: tuple[str, ...], default: object) -> None:
    assert default_at(path) == default


def test_keys_are_found_by_their_ends() -> None:
    assert find_keys("batch_size") == [("training", "batch_size"), ("evaluation", "batch_size")]
    assert find_keys("train.path") == [("data", "train", "path")]
    assert find_keys("nothing") == []


def test_sections_are_told_from_keys_and_lists() -> None:
    assert [is_section(key) for key in ("training", "data.train", "evaluation.external", "seed", "nowhere")] == [
        *(True, True, True, False, False)
    ]
    assert [is_list(key) for key in ("data.train", "training", "training.betas")] == [True, False, False]
    assert first_inside("data.train").startswith("data.train.0.")
    assert first_inside("evaluation.external") == "evaluation.external.NAME.command"
    assert is_key(first_inside("training"))
    assert not is_key("training.nothing")


def test_a_link_is_its_words_and_its_address() -> None:
    assert without_links("as said\n  (see [running.md](running.md#trackers)).") == (
        "as said (see docs/running.md#trackers)."
    )
    assert without_links("[Metrics](#metrics)") == "Metrics (docs/recipes.md#metrics)"
    assert without_links("[a page](https://a.org/b)") == "a page (https://a.org/b)"
    for path in all_keys():
        assert "](" not in (about(path) or "")


def test_the_one_key_that_a_name_abbreviates_is_found() -> None:
    assert find_abbreviated("lrate") == ["training.learning_rate"]
    assert find_abbreviated("btsz") == find_abbreviated("e") == find_abbreviated("qqq") == []
