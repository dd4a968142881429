"""The model that predicts: where its settings come from, what is refused, and what is said."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from dstrain.config.recipe import Model
from dstrain.data.vocabulary import WHOLE
from dstrain.errors import UserError
from dstrain.evaluation.predict import encode_sources
from dstrain.models.save import export_model
from dstrain.models.scratch import build_scratch_model, write_tokenizer
from dstrain.models.tokenizer import load_tokenizer
from dstrain.run.export import load_exported_model
from dstrain.run.predict_model import Predictor, describe, find_ignored, load_predictor
from dstrain.run.predict_request import PredictRequest, parse_arguments, plan_prediction
from dstrain.run_folder.converted import Conversion, write_conversion
from dstrain.serving.conversion import convert
from tests.unit.models.tiny_models import LANGUAGES, PAIRS, TASK_TOKENS, TEXTS, tiny_scratch

CPU = torch.device("cpu")
SEARCH = {"num_beams": 3, "length_penalty": 0.5, "max_new_tokens": 9}


def write_model(folder: Path, family: str = "m2m100", *, is_export: bool = True, **options: Any) -> str:
    """A tiny model folder, as dstrain exports it or, without its mark, as anybody may publish it."""
    languages = LANGUAGES.get(family, ())
    write_tokenizer(
        "mbart" if family == "mbart50" else family,
        vocabulary_size=500,
        texts=TEXTS,
        languages=languages,
        task_tokens=options.get("task_tokens", ()),
        folder=folder / "tokenizer",
    )
    tokenizer = load_tokenizer(str(folder / "tokenizer"))
    if languages:
        tokenizer._set_languages(*languages)
    model = build_scratch_model(tiny_scratch(family), tokenizer=tokenizer, seed=3, dropout=None)
    forced = {"forced_bos_token_id": tokenizer.language_id(languages[1])} if languages and family != "mbart" else {}
    if family == "mbart":
        forced = {"decoder_start_token_id": tokenizer.language_id(languages[1])}
    settings = options.get("settings", SEARCH)
    export_model(model, tokenizer=tokenizer, folder=folder / "model", generation={**settings, **forced}, step=40)
    if not is_export:
        (folder / "model" / "training_step.json").unlink()
    return str(folder / "model")


def request(*arguments: object) -> PredictRequest:
    return plan_prediction(parse_arguments([str(argument) for argument in arguments], program="predict"))


def load(*arguments: object) -> Predictor:
    return load_predictor(request(*arguments), device=CPU)


@pytest.mark.parametrize("family", ["m2m100", "nllb", "mbart", "marian", "t5", "mt5"])
def test_an_exported_folder_says_its_languages_and_its_search(tmp_path: Path, family: str) -> None:
    folder = write_model(tmp_path, family)
    found = load(folder)
    task, search = found.task, found.search
    assert (task.source_language, task.target_language) == LANGUAGES.get(family, (None, None))
    assert (search.evaluation.num_beams, search.evaluation.length_penalty, search.max_new_tokens) == (3, 0.5, 9)
    # as the ordinary classes read and generate
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSeq2SeqLM.from_pretrained(folder)
    text = PAIRS[0][0]
    pair = (task.source_language, task.target_language)
    (ids,) = encode_sources([text], languages=[pair], tokenizer=search.tokenizer)
    assert ids == tokenizer(text)["input_ids"]
    generation, stored = search.generation(task.target_language), model.generation_config
    for field in ("num_beams", "length_penalty", "max_new_tokens", "forced_bos_token_id", "decoder_start_token_id"):
        assert getattr(generation, field) == getattr(stored, field), field


def test_options_stand_above_what_the_folder_says(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    found = load(folder, "--beams", 2, "--max-new-tokens", 5, "--target-language", "ko", "--batch-tokens", 77)
    assert (found.search.evaluation.num_beams, found.search.max_new_tokens, found.search.batch_tokens) == (2, 5, 77)
    assert found.search.evaluation.length_penalty == 0.5
    assert (found.task.source_language, found.task.target_language) == ("ko", "ko")


def test_a_recipe_stands_above_what_the_folder_says_but_for_the_longest_length(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    found = load(folder, "--config", "demo_translation")
    assert found.search.evaluation.num_beams == 1
    assert found.search.max_new_tokens == 9
    assert (found.task.source_language, found.task.target_language) == ("ko", "en")


def test_a_published_folder_must_be_told_the_language_of_its_sources(tmp_path: Path) -> None:
    folder = write_model(tmp_path, is_export=False)
    with pytest.raises(UserError, match="does not say its source language: name it with --source-language, such as `"):
        load(folder)
    found = load(folder, "--source-language", "ko")
    assert (found.task.source_language, found.task.target_language) == ("ko", "en")


def test_a_folder_that_says_its_pairs_is_used_in_one_of_them(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    pairs = [["en", "ko"], ["ko", "en"], ["de", "fr"]]
    (tmp_path / "model" / "training_step.json").write_text(json.dumps({"step": 40, "pairs": pairs}))

    def languages(*options: str) -> tuple[str | None, str | None]:
        task = load(folder, *options).task
        return task.source_language, task.target_language

    assert languages() == ("en", "ko")
    assert languages("--source-language", "ko") == ("ko", "en")
    assert languages("--target-language", "fr") == ("de", "fr")
    wanted = request(folder, "--source-language", "af", "--target-language", "am")
    (said,) = find_ignored(load_predictor(wanted, device=CPU), request=wanted)
    assert said.startswith(
        "the model was never trained from `af` to `am`, but `en` to `ko`, `ko` to `en`, `de` to `fr`:"
    )
    known = request(folder, "--source-language", "ko")
    assert find_ignored(load_predictor(known, device=CPU), request=known) == []


def test_a_folder_without_a_length_has_that_of_the_task(tmp_path: Path) -> None:
    assert load(write_model(tmp_path, "t5", settings={})).search.max_new_tokens == 256


def test_positions_of_the_model_limit_both_sides(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "marian", settings={})
    config = Path(folder) / "config.json"
    positions = json.loads(config.read_text())["max_position_embeddings"]
    found = load(folder, "--max-new-tokens", 5000, "--max-source-tokens", 5000)
    assert found.search.max_new_tokens == positions - 1
    assert found.task.max_source_tokens == positions
    with pytest.raises(UserError, match=f"task.max_source_tokens is 5000, but the model has {positions} positions"):
        load(folder, "--max-source-tokens", 5000, "--config", "demo_translation")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target-language", "english"], "--target-language: language `english` is not a code of M2M100Tokenizer"),
        (["--format", "tsv", "--n-best", "4"], "--n-best 4 with 3 beams"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(tmp_path: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(write_model(tmp_path), *arguments)


def test_a_model_of_the_pointer_form_needs_its_recipe(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "mt5", task_tokens=TASK_TOKENS)
    with pytest.raises(UserError, match=r"its tokenizer has pointers such as <pt-0>.*--config RECIPE"):
        load(folder)
    assert load(folder, "--config", "demo_parsing").task.has_pointers


def test_a_name_that_is_nowhere_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="MODEL: `some/absent-model` is not a folder here and not in the local cache"):
        load("some/absent-model")


def test_the_settings_are_said_in_one_line(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    given = request(folder)
    expected = f"{folder}, step 40: ko to en, 3 beams, at most 9 new tokens; settings of the model folder"
    assert describe(load_predictor(given, device=CPU), request=given) == expected


def test_generation_defaults_are_only_called_dropped_where_they_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_model(tmp_path, "t5", is_export=False, settings=SEARCH | {"no_repeat_ngram_size": 3})
    with caplog.at_level(logging.WARNING):
        load(folder)
    assert [text for text in caplog.messages if "num_beams" in text or "max_new_tokens" in text] == []
    assert any("no_repeat_ngram_size=3 of the model is dropped" in text for text in caplog.messages)


def test_options_without_an_effect_are_named(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "t5")
    columns = ["--format", "tsv", "--source-language-column", "1"]
    given = request(folder, "--beams", 1, "--length-penalty", 2, "--pointers", *columns)
    found = find_ignored(load_predictor(given, device=CPU), request=given)
    assert [text.split(" is ignored")[0].split(" are ignored")[0] for text in found] == [
        "columns of languages",
        "--length-penalty",
        "--pointers",
    ]
    assert find_ignored(load(folder), request=request(folder)) == []


def test_a_code_of_a_row_that_the_tokenizer_lacks_is_named_with_its_line(tmp_path: Path) -> None:
    found = load(write_model(tmp_path))
    found.check_language("ko", where="rows.tsv:3")
    with pytest.raises(UserError, match=r"rows.tsv:3: language `kor` is not a code of M2M100Tokenizer"):
        found.check_language("kor", where="rows.tsv:3")


def write_converted(folder: Path) -> Path:
    """An exported folder with a converted model in the place of its weights."""
    made = Path(write_model(folder))
    tokenizer = load_tokenizer(str(made))
    section = Model(name=str(made))
    model = load_exported_model(section, tokenizer=tokenizer, seed=0, vocabulary=WHOLE, report=lambda sentence: None)
    convert(model, tokenizer=tokenizer, forbidden_ids=(), folder=made / "ctranslate2")
    write_conversion(made / "ctranslate2", Conversion("4.8.5", "float32", 64))
    (made / "model.safetensors").unlink()
    return made


def test_a_converted_folder_says_its_engine_and_has_the_settings_of_any_other(tmp_path: Path) -> None:
    folder = write_converted(tmp_path)
    given = request(folder)
    found = load_predictor(given, device=CPU)
    said = describe(found, request=given)
    assert said.startswith(f"{folder}, step 40: ko to en, 3 beams by CTranslate2 4.")
    assert said.endswith("(float32), at most 9 new tokens; settings of the model folder")
    assert found.search.evaluation.length_penalty == 0.5
    limit = found.search.model.config.max_position_embeddings
    assert load(folder, "--max-source-tokens", 5000).task.max_source_tokens == limit


def test_a_converted_folder_needs_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_converted(tmp_path)
    monkeypatch.setattr("dstrain.serving.conversion.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"CTranslate2 is not installed: pip install 'dstrain\[ctranslate2\]'"):
        load(folder)
