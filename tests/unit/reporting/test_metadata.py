"""The front matter: it round-trips through the Hub's classes and states the headline, languages, data and base model."""

from pathlib import Path

import pytest

from dstrain.config.data import Source
from dstrain.config.metrics import KINDS, choosing_metrics
from dstrain.reporting.card import build_card
from dstrain.reporting.metadata import label, source_name, title
from dstrain.run_folder.record import RunRecord, build_record
from tests.unit.reporting.card_cases import load, rebuild
from tests.unit.reporting.reporting_cases import (
    BLEU_SIGNATURE,
    CHRF_SIGNATURE,
    parsing_record,
    run_info,
    translation_config,
    translation_record,
    translation_row,
)


@pytest.mark.parametrize("record", [translation_record(), parsing_record()], ids=["translation", "parsing"])
def test_metadata_round_trips_and_the_model_index_holds_the_headline(record: RunRecord, tmp_path: Path) -> None:
    loaded = load(build_card(record), folder=tmp_path)
    data = loaded.data.to_dict()
    assert rebuild(data) == data
    assert data["tags"] == ["dstrain"]
    assert "license" not in data
    assert record.best is not None
    assert loaded.data.eval_results is not None
    values = {result.metric_type: result.metric_value for result in loaded.data.eval_results}
    assert values == {name: round(value, 4) for name, value in record.best.scores.items()}


def test_the_front_matter_states_what_the_recipe_states(tmp_path: Path) -> None:
    card = {
        "license": "other",
        "license_name": "ours-1.0",
        "license_link": "LICENSE",
        "base_model": "me/base",
        "tags": ["news"],
    }
    record = translation_record(translation_config(card=card))
    text = build_card(record)
    data = load(text, folder=tmp_path).data.to_dict()
    assert {key: data[key] for key in ("license", "license_name", "license_link", "base_model")} == {
        key: card[key] for key in ("license", "license_name", "license_link", "base_model")
    }
    assert data["tags"] == ["dstrain", "news"]
    assert rebuild(data) == data
    assert "is a fine-tuned version of [me/base](https://huggingface.co/me/base) on" in text


def test_a_local_folder_is_no_base_model_unless_the_recipe_states_one(tmp_path: Path) -> None:
    info = run_info(model={"base": "/srv/models/base", "origin": "folder"})
    for card, base in (({}, None), ({"base_model": "me/base"}, "me/base")):
        config = translation_config(model={"name": "models/base"}, card=card)
        assert load(build_card(translation_record(config, info=info)), folder=tmp_path).data.base_model == base


def test_the_model_index_holds_only_scores_that_an_evaluation_gives(tmp_path: Path) -> None:
    scores = {
        "bleu": 1.0,
        "loss": 2.0,
        "script>\n| `rm -rf`": 3.0,
        "gen_len/evil": 4.0,
        "flores/bleu": 5.0,
        "other/bleu": 6.0,
    }
    data = {"train": [{"path": "a.tsv"}], "eval": [{"path": "b.tsv", "name": "flores"}]}
    row = translation_row(10, bleu=1.0, loss=2.0, scores=scores)
    record = build_record(translation_config(data=data), info=run_info(), rows=[row])
    found = load(build_card(record), folder=tmp_path).data.eval_results
    assert found is not None
    assert [result.metric_type for result in found] == ["bleu", "loss", "flores/bleu"]


def test_the_front_matter_states_languages_base_model_and_hub_data(tmp_path: Path) -> None:
    parsing = load(build_card(parsing_record()), folder=tmp_path).data
    assert (parsing.language, parsing.base_model, parsing.datasets) == (["en"], "google/mt5-small", ["mtop"])
    assert parsing.eval_results is not None
    result = parsing.eval_results[0]
    assert (result.dataset_type, result.dataset_config, result.dataset_split) == ("mtop", "en", "validation")
    translation = load(build_card(translation_record()), folder=tmp_path).data
    assert (translation.language, translation.datasets) == (["ko", "en"], None)
    assert translation.eval_results is not None
    assert {result.metric_args["signature"] for result in translation.eval_results if result.metric_args} == {
        BLEU_SIGNATURE,
        CHRF_SIGNATURE,
    }


def test_codes_of_model_families_become_iso_codes_and_norwegian_stays_a_string(tmp_path: Path) -> None:
    task = {"kind": "translation", "source_language": "kor_Hang", "target_language": "no"}
    data = load(build_card(translation_record(translation_config(task=task))), folder=tmp_path).data
    assert data.language == ["kor", "no"]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ({"hub": "mtop"}, "mtop"),
        ({"hub": "mtop", "subset": "en"}, "mtop (en)"),
        ({"path": "/data/tatoeba/train.tsv"}, "tatoeba/train.tsv"),
        ({"path": "../train.tsv"}, "train.tsv"),
        ({"demo": "translation"}, "built-in translation demo"),
    ],
)
def test_a_source_is_named_by_its_hub_name_the_end_of_its_path_or_its_demo(source: dict[str, str], name: str) -> None:
    assert source_name(Source.model_validate(source)) == name


@pytest.mark.parametrize(("metric", "shown"), [("bleu", "Bleu"), ("chrf", "chrF"), ("gen_len", "Gen Len")])
def test_scores_have_readable_names(metric: str, shown: str) -> None:
    assert label(metric) == shown


def test_every_metric_of_the_table_has_a_title_and_another_its_own_name() -> None:
    assert all(title(metric) for kind in KINDS for metric in choosing_metrics(kind, sets=["dev"]))
    assert title("dev/novelty") == "novelty (dev)"
