"""Languages and prefixes that the tokenizer lacks: each error names the key of the recipe."""

from pathlib import Path
from typing import Any

import pytest

from dstrain.errors import UserError
from dstrain.models.scratch import write_tokenizer
from dstrain.models.tokenizer import Seq2SeqTokenizer, load_tokenizer
from dstrain.run.languages import check_scratch_languages, check_tokenizer, find_untaught, marian_codes
from tests.unit.models.tiny_models import LANGUAGES, TEXTS
from tests.unit.run.run_cases import build_config

DE, FR = {"path": "de.tsv", "source_prefix": ">>deu<< "}, {"path": "fr.tsv", "source_prefix": ">>fra<< "}
TASK = {"kind": "translation", "source_language": "en", "target_language": "de"}


def build_tokenizer(family: str, folder: Path, *, tokens: list[str] | None = None) -> Seq2SeqTokenizer:
    languages = LANGUAGES.get(family, ())
    write_tokenizer(
        family, vocabulary_size=400, texts=TEXTS, languages=languages, task_tokens=tokens or [], folder=folder
    )
    return load_tokenizer(str(folder))


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"task__source_language": "xx"}, "task.source_language"),
        ({"task__target_language": "xx"}, "task.target_language"),
        (
            {"data__train": [{"path": "a.tsv"}, {"path": "b.tsv", "target_language": "xx"}]},
            "data.train.1.target_language",
        ),
        ({"data__eval": [{"path": "a.tsv", "source_language": "xx"}]}, "data.eval.0.source_language"),
    ],
)
def test_an_unknown_language_is_named_with_its_key(changes: dict[str, Any], key: str, tmp_path: Path) -> None:
    config = build_config(**changes)
    with pytest.raises(
        UserError, match=rf"^{key}: language `xx` is not a code of model.scratch.architecture `m2m100`; use"
    ):
        check_scratch_languages(config)
    with pytest.raises(UserError, match=rf"^{key}: language `xx` is not a code of M2M100Tokenizer; use for example"):
        check_tokenizer(config, tokenizer=build_tokenizer("m2m100", tmp_path))


@pytest.mark.parametrize("family", ["m2m100", "nllb", "mbart", "mbart50"])
@pytest.mark.parametrize("side", ["source_language", "target_language"])
def test_a_language_that_the_tokenizer_would_fill_in_is_required(side: str, family: str, tmp_path: Path) -> None:
    source, target = LANGUAGES[family]
    named = {"task__source_language": source, "task__target_language": target} | {f"task__{side}": None}
    tokenizer = build_tokenizer(family, tmp_path)
    config = build_config(model={"name": "some/folder"}, **named)
    with pytest.raises(UserError, match=rf"^task\.{side}: is needed by \w+Tokenizer.* name it, for example `"):
        check_tokenizer(config, tokenizer=tokenizer)
    code = {"source_language": source, "target_language": target}[side]
    rows = [{"path": "a.tsv", side: code}]
    check_tokenizer(
        build_config(model={"name": "some/folder"}, **named, data={"train": rows, "eval": rows}), tokenizer=tokenizer
    )
    mixed = {"train": [*rows, {"path": "b.tsv"}], "eval": rows}
    with pytest.raises(UserError, match=rf"^data\.train\.1\.{side}: is needed by"):
        check_tokenizer(build_config(model={"name": "some/folder"}, **named, data=mixed), tokenizer=tokenizer)


@pytest.mark.parametrize("family", ["m2m100", "nllb", "mbart"])
def test_the_codes_of_a_family_are_those_of_its_new_tokenizer(family: str, tmp_path: Path) -> None:
    source, target = LANGUAGES[family]
    changes = {"architecture": family, "vocabulary_size": 300}
    config = build_config(model__scratch=changes, task__source_language=source, task__target_language=target)
    check_scratch_languages(config)
    check_tokenizer(config, tokenizer=build_tokenizer(family, tmp_path))


def test_families_without_language_tokens_take_any_code(tmp_path: Path) -> None:
    config = build_config(model__scratch={"architecture": "t5"}, task__target_language="xx")
    check_scratch_languages(config)
    check_tokenizer(config, tokenizer=build_tokenizer("t5", tmp_path))


def test_the_codes_in_the_prefixes_of_a_new_marian_model_become_tokens(tmp_path: Path) -> None:
    config = build_config(
        model__scratch={"architecture": "marian"}, task=TASK, data__train=[DE, FR], data__eval=[{"path": "e.tsv"}]
    )
    assert marian_codes(config) == [">>deu<<", ">>fra<<"]
    tokenizer = build_tokenizer("marian", tmp_path, tokens=marian_codes(config))
    check_tokenizer(config, tokenizer=tokenizer)
    texts = [f"{prefix}yes" for prefix in (">>deu<< ", ">>fra<< ")]
    (german, french), _ = tokenizer.encode(texts, ["", ""], source_language=None, target_language=None)
    assert german[0] != french[0]
    assert german[1:] == french[1:]


def test_a_prefix_that_the_tokenizer_lacks_is_refused(tmp_path: Path) -> None:
    config = build_config(model__scratch={"architecture": "t5"}, task=TASK, data__train=[DE])
    assert marian_codes(config) == []
    with pytest.raises(
        UserError, match=r"^data.train.0.source_prefix: '>>deu<< ' has a code or characters that the tok"
    ):
        check_tokenizer(config, tokenizer=build_tokenizer("marian", tmp_path))


@pytest.mark.parametrize(
    ("train", "evaluated", "said"),
    [
        ({}, {}, []),
        ({"source_prefix": ">>deu<< "}, {"source_prefix": ">>deu<< "}, []),
        ({"source_prefix": ">>deu<< "}, {}, ["has the source_prefix '', which no training source has ('>>deu<< ')"]),
        ({}, {"source_prefix": "x "}, ["has the source_prefix 'x ', which no training source has ('')"]),
        ({"target_language": "de"}, {"target_language": "de"}, []),
        ({"target_language": "de"}, {}, ["is from `ko` to `en`, which no training source is"]),
        ({}, {"source_language": "ja"}, ["is from `ja` to `en`, which no training source is"]),
    ],
)
def test_what_evaluation_rows_have_and_no_training_row_is_said(
    train: dict[str, str], evaluated: dict[str, str], said: list[str]
) -> None:
    data = {"train": [{"path": "a.tsv"} | train], "eval": [{"path": "b.tsv"} | evaluated]}
    found = find_untaught(build_config(data=data))
    assert found == [f"data.eval.0 (b.tsv) {sentence}" for sentence in said]
    both = {"train": [*data["train"], {"path": "c.tsv"} | evaluated], "eval": data["eval"]}
    assert find_untaught(build_config(data=both)) == []


def test_an_added_language_that_no_training_row_has_is_said() -> None:
    model = {"name": "some/model", "add_languages": {"myv": "fi"}}
    (sentence,) = find_untaught(build_config(model=model))
    assert sentence == "model.add_languages.myv: no training source is in `myv`"
    assert find_untaught(build_config(model=model, task__source_language="myv")) == []
