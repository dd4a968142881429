from pathlib import Path
from typing import Any

import pytest

from dstrain.config.load import load_config
from dstrain.config.schema import RunConfig
from dstrain.config.spelling import format_suffix, keep_spelling

FILE = "data.train=[{path: a.tsv.gz}]"
NLLB = ["model.scratch.architecture=nllb", "task.source_language=kor_Hang", "task.target_language=eng_Latn"]


def config_of(*overrides: str) -> RunConfig:
    return load_config("debug", overrides=list(overrides))


def spelled(old: list[str], new: list[str]) -> tuple[Any, Any]:
    """A recipe that begins as `old` and is started again as `new`: what is compared with the checkpoint, and the checkpoint."""
    began = config_of(*old).model_dump(mode="json")
    return keep_spelling(config_of(*new), as_in=began).model_dump(mode="json"), began


@pytest.mark.parametrize(
    ("base", "key", "value"),
    [
        ([], "evaluation.best_metric", "bleu"),
        ([], "data.rules.unknown_token", "keep"),
        (["model.scratch=null", "model.name=x"], "model.add_languages", "{}"),
        ([FILE], "data.train.0.format", "tsv"),
        (["data.train=[{path: a.ko, target_path: a.en}]"], "data.train.0.format", "text"),
        (NLLB, "data.eval.0.source_language", "kor_Hang"),
        (NLLB, "data.train.0.target_language", "eng_Latn"),
        (["task.source_prefix='x '"], "data.eval.0.source_prefix", "'x '"),
    ],
)
def test_a_default_that_is_written_out_or_left_out_again_is_no_change(base: list[str], key: str, value: str) -> None:
    written, left_out = [*base, f"{key}={value}"], [*base, f"{key}=null"]
    for old, new in ((left_out, written), (written, left_out)):
        found, began = spelled(old, new)
        assert found == began


def test_the_default_of_parsing_is_another() -> None:
    parsing = ["task.kind=parsing", "data.train=[{demo: parsing}]", "data.eval=[{demo: parsing, split: eval}]"]
    found, began = spelled(parsing, [*parsing, "evaluation.best_metric=exact_match", "data.rules.unknown_token=error"])
    assert found == began


@pytest.mark.parametrize(
    ("base", "old", "new"),
    [
        ([], "evaluation.best_metric=null", "evaluation.best_metric=chrf"),
        ([], "evaluation.best_metric=bleu", "evaluation.best_metric=chrf"),
        ([], "data.rules.unknown_token=null", "data.rules.unknown_token=skip"),
        ([], "evaluation.max_new_tokens=null", "evaluation.max_new_tokens=128"),
        ([FILE], "data.train.0.format=null", "data.train.0.format=csv"),
        ([FILE], "data.train.0.quoted=null", "data.train.0.quoted=false"),
        (["task.source_prefix='x '"], "data.eval.0.source_prefix=null", "data.eval.0.source_prefix=''"),
    ],
)
def test_another_meaning_stays_a_change(base: list[str], old: str, new: str) -> None:
    found, began = spelled([*base, old], [*base, new])
    assert found == config_of(*base, new).model_dump(mode="json") != began


def test_a_value_stays_written_out_where_left_out_it_would_mean_another() -> None:
    found, _ = spelled([FILE], ["data.train=[{path: moved.txt, format: tsv}]"])
    assert found["data"]["train"][0]["format"] == "tsv"
    found, _ = spelled(NLLB, [*NLLB, "task.source_language=jpn_Jpan", "data.train.0.source_language=kor_Hang"])
    assert found["data"]["train"][0]["source_language"] == "kor_Hang"


@pytest.mark.parametrize(
    "began", [{}, {"evaluation": None, "data": {"train": [], "rules": 3}}, {"evaluation": {"best_metric": ["bleu"]}}]
)
def test_a_recipe_of_another_version_changes_nothing(began: dict[str, Any]) -> None:
    config = config_of("evaluation.best_metric=bleu")
    assert keep_spelling(config, as_in=began) == config


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.tsv", "tsv"), ("a.TSV", "tsv"), ("a.tsv.gz", "tsv"), ("a.b.jsonl.zst", "jsonl"), ("a.gz", ""), ("a", "")],
)
def test_the_suffix_of_the_format_comes_before_that_of_the_compression(name: str, expected: str) -> None:
    assert format_suffix(Path("folder.csv", name)) == expected
