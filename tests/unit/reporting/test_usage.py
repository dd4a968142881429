"""How to use a model: the code on the card, run as it is printed there."""

import ast
import contextlib
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dstrain.config.recipe import Model
from dstrain.models.adapters import add_adapter, save_adapter
from dstrain.models.families import generation_arguments
from dstrain.models.load import grow_embeddings
from dstrain.models.partial import make_plain
from dstrain.models.save import export_model
from dstrain.models.scratch import build_scratch_model, write_tokenizer
from dstrain.models.tokenizer import Seq2SeqTokenizer, load_tokenizer
from dstrain.reporting.card import build_card
from dstrain.reporting.usage import build_adapter_usage, build_usage, explain_usage, load_from_hub
from dstrain.run_folder.record import RunRecord, build_record
from dstrain.tasks.parsing import as_typed, from_pointer, respace_plain
from dstrain.tasks.words import cut_words
from tests.unit.models.tiny_models import LANGUAGES, TASK_TOKENS, TEXTS, tiny_scratch
from tests.unit.reporting.reporting_cases import parsing_config, run_info, translation_config

UTTERANCE = "set an alarm for 7 am"


def build(config: Any, *, exports: dict[str, int] | None = None, **info: Any) -> RunRecord:
    return build_record(config, info=run_info(**info), rows=[], exports={"best": 3} if exports is None else exports)


def export(
    family: str,
    folder: Path,
    *,
    languages: tuple[str | None, str | None] = (None, None),
    always: tuple[str, str] | None = None,
) -> tuple[Any, Seq2SeqTokenizer]:
    """A random model in `folder/best`; one that generates no other tokens than the two of `always`."""
    write_tokenizer(
        family,
        vocabulary_size=400,
        texts=TEXTS,
        languages=[language for language in languages if language],
        task_tokens=TASK_TOKENS,
        folder=folder / "tokenizer",
    )
    tokenizer = load_tokenizer(str(folder / "tokenizer"))
    model = build_scratch_model(tiny_scratch(family), tokenizer=tokenizer, seed=1).eval()
    if always is not None:
        # one of two opposite logits is positive, and all others are 0
        head, direction = model.get_output_embeddings(), torch.randn(model.config.d_model)
        head.weight = torch.nn.Parameter(torch.zeros_like(head.weight))
        for token, sign in zip(always, (1.0, -1.0), strict=True):
            head.weight.data[tokenizer.tokenizer.convert_tokens_to_ids(token)] = sign * direction
    generation = {
        "num_beams": 1,
        "max_new_tokens": 12,
        **generation_arguments(model, tokenizer, target_language=languages[1]),
    }
    export_model(model, tokenizer=tokenizer, folder=folder / "best", generation=generation, step=3)
    model.generation_config.update(**generation)
    return model, tokenizer


def run_code(card: str, *, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the only Python block of the card prints, which is a list."""
    (block,) = re.findall(r"^```python\n(.*?)^```$", card, flags=re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(folder)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(block, {})
    found: list[str] = eval(printed.getvalue())
    return found


def generate(model: Any, tokenizer: Seq2SeqTokenizer, text: str, *, source_language: str | None = None) -> str:
    (ids,), _ = tokenizer.encode([text], [""], source_language=source_language, target_language=None)
    hypotheses = model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long))
    return tokenizer.decode(hypotheses[0].tolist()[1:])


@pytest.mark.parametrize("family", ["m2m100", "nllb", "mbart", "marian", "t5"])
def test_the_code_of_a_translation_card_prints_what_the_model_generates(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    languages = LANGUAGES.get(family, (None, None))
    model, tokenizer = export(family, tmp_path, languages=languages)
    task = {"kind": "translation", "source_language": languages[0], "target_language": languages[1]}
    prefix = "yes:  " if family in ("marian", "t5") else ""
    config = translation_config(task=task | {"source_prefix": prefix}, precision="fp32", model={"name": "base"})
    card = build_card(build(config, model={"architecture": type(model).__name__}))
    text = f"{prefix}the text to translate"
    expected = generate(model, tokenizer, text, source_language=languages[0])
    (found,) = run_code(card, folder=tmp_path, monkeypatch=monkeypatch)
    assert found.replace("<unk>", "").split() == expected.replace("<unk>", "").split()


@pytest.mark.parametrize(("family", "code"), [("m2m100", "mic"), ("nllb", "mic_Latn"), ("mbart", "myv_XX")])
def test_the_code_sets_an_added_source_language(
    family: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = export(family, tmp_path, languages=LANGUAGES[family])
    tokenizer = load_tokenizer(str(tmp_path / "best"), added_languages=[code])
    grow_embeddings(model, num_rows=tokenizer.vocabulary_size)
    target = LANGUAGES[family][1]
    generation = {"max_new_tokens": 12, **generation_arguments(model, tokenizer, target_language=target)}
    tokenizer.save(tmp_path / "saved", source_language=code, target_language=target)
    tokenizer = load_tokenizer(str(tmp_path / "saved"))
    export_model(model, tokenizer=tokenizer, folder=tmp_path / "best", generation=generation, step=3)
    task = {"kind": "translation", "source_language": code, "target_language": target}
    config = translation_config(task=task, model={"name": "base", "add_languages": {code: target}})
    card = build_card(build(config, model={"architecture": type(model).__name__}))
    found: list[Any] = []
    monkeypatch.setattr(type(model), "generate", lambda self, ids, **given: found.append(ids) or ids)
    run_code(card, folder=tmp_path, monkeypatch=monkeypatch)
    (expected,), _ = tokenizer.encode(["the text to translate"], [""], source_language=code, target_language=target)
    assert found[0][0].tolist() == expected
    assert tokenizer.language_id(code) in expected


@pytest.mark.parametrize("architecture", ["M2M100ForConditionalGeneration", "MBartForConditionalGeneration"])
def test_the_name_of_a_language_is_only_text_in_the_code(architecture: str) -> None:
    code = 'x"; __import__("os").mkdir("evil"); "'
    task = {"kind": "translation", "source_language": code, "target_language": "fr", "source_prefix": code}
    config = translation_config(task=task, model={"name": "base", "add_languages": {code: "fr"}})
    card = build_card(build(config, model={"architecture": architecture}))
    (written,) = re.findall(r"```python\n(.*?)\n```", card, flags=re.DOTALL)
    assert "mkdir" in written
    calls = [node.func for node in ast.walk(ast.parse(written)) if isinstance(node, ast.Call)]
    assert {"__import__", "mkdir"}.isdisjoint(getattr(call, "attr", getattr(call, "id", "")) for call in calls)


@pytest.mark.parametrize("segmentation", ["words", "published"])
def test_the_code_of_a_pointer_card_puts_words_back(
    segmentation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = export("t5", tmp_path, always=("<pt-3>", "<pt-4>"))
    task = {"kind": "parsing", "segmentation": segmentation, "source_prefix": "parse: "}
    text = " ".join(cut_words(UTTERANCE)) if segmentation == "words" else as_typed(UTTERANCE)
    raw = generate(model, tokenizer, f"parse: {text}")
    assert "<pt-" in raw
    card = build_card(build(parsing_config(task=task)))
    (found,) = run_code(card, folder=tmp_path, monkeypatch=monkeypatch)
    assert found == from_pointer(raw, source=text)
    assert set(found.split()) <= {"for", "7"}


def test_the_code_of_a_plain_card_restores_spaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = export("t5", tmp_path, always=("[SL:DATE_TIME", "[IN:CREATE_ALARM"))
    card = build_card(build(parsing_config(task={"kind": "parsing", "form": "plain"})))
    expected = respace_plain(generate(model, tokenizer, UTTERANCE))
    assert run_code(card, folder=tmp_path, monkeypatch=monkeypatch) == [expected]


@pytest.mark.parametrize("subject", [None, "best"])
def test_the_code_of_an_adapter_puts_it_into_its_base_model(
    subject: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = export("t5", tmp_path)
    base = tmp_path / ("base" if subject is None else "best/base")
    model.save_pretrained(base)
    section = Model.model_validate({"name": str(base), "adapter": {"rank": 2, "targets": ["q", "v"]}})
    assert section.adapter is not None
    add_adapter(model, section.adapter, seed=1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    make_plain(model)
    save_adapter(tmp_path / "best" / "adapter", model=model, whole=model, section=section, has_rows=False)
    config = translation_config(model={"from_run": "runs/other", "adapter": {"rank": 2, "targets": ["q", "v"]}})
    record = replace(build(config), subject=subject)
    (block,) = re.findall(r"^```python\n(.*?)^```$", str(build_adapter_usage(record)), flags=re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path if subject is None else tmp_path / "best")
    names: dict[str, Any] = {}
    exec(block, names)
    (ids,), _ = tokenizer.encode(["a text"], ["another"], source_language=None, target_language=None)
    inputs = {"input_ids": torch.tensor([ids]), "decoder_input_ids": torch.tensor([[0, *ids]])}
    with torch.no_grad():
        found, expected = names["model"].eval()(**inputs).logits, model.eval()(**inputs).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert "The adapter alone, for peft" in build_card(record)
    assert "from_pretrained(base, 'me/model', subfolder='adapter')" in load_from_hub(
        str(build_adapter_usage(replace(record, subject="best"))), repo="me/model", revision=None
    )


def test_new_tokens_are_made_room_for_and_without_an_adapter_there_is_no_code_of_one() -> None:
    adapter = {"name": "facebook/m2m100_418M", "revision": "v1", "adapter": {"rank": 2, "targets": ["q"]}}
    record = build(
        translation_config(model=adapter), model={"base": "facebook/m2m100_418M", "origin": "hub", "new_tokens": 3}
    )
    text = str(build_adapter_usage(record))
    assert "base = AutoModelForSeq2SeqLM.from_pretrained('facebook/m2m100_418M', revision='v1')" in text
    assert "base.resize_token_embeddings(len(AutoTokenizer.from_pretrained('best')))" in text
    assert build_adapter_usage(replace(record, subject="average")) is None
    assert build_adapter_usage(build(translation_config())) is None


def test_a_run_without_a_model_says_so() -> None:
    record = build(translation_config(), exports={})
    assert build_usage(record) is None
    assert explain_usage(record) == ["No model has been exported yet."]


def test_the_last_model_is_used_where_there_is_no_best() -> None:
    assert "from_pretrained('final')" in str(build_usage(build(translation_config(), exports={"final": 9})))


def test_a_model_that_only_transformers_5_reads_says_so() -> None:
    warning = "the output head is its own: it is trained so; transformers 4 will not scale the logits of an export"
    (sentence,) = explain_usage(build(translation_config(), warnings=[warning]))
    assert "is read by transformers 5." in sentence
    (sentence,) = explain_usage(build(translation_config()))
    assert "is read by transformers 4.57 or 5." in sentence


def test_several_pairs_say_how_another_is_chosen() -> None:
    source = {"path": "a.tsv"}
    by_token = translation_config(data={"train": [source, source | {"target_language": "de"}], "eval": [source]})
    (first, _) = explain_usage(build(by_token))
    assert "trained to translate `ko` to `en`, `ko` to `de`. By default the folder translates `ko` to `en`" in first
    prefixed = [source | {"source_prefix": ">>eng<< "}, source | {"target_language": "de", "source_prefix": ">>deu<< "}]
    (first, _) = explain_usage(build(translation_config(data={"train": prefixed, "eval": [source]})))
    assert "`'>>eng<< '` for `ko` to `en`, `'>>deu<< '` for `ko` to `de`" in first


def both_ways(family: str, *, prefixes: tuple[str, str] = ("", "")) -> dict[str, Any]:
    """What run.json says of training rows in both directions."""
    first, second = LANGUAGES.get(family, ("ko", "en"))
    pairs = [[first, second, prefixes[0], 9], [second, first, prefixes[1], 8]]
    return {"train": {"pairs": pairs}}


BY_COLUMNS = {
    "path": "a.tsv",
    "source_column": "text",
    "target_column": "translation",
    "source_language_column": "from",
    "target_language_column": "to",
}


@pytest.mark.parametrize("family", ["m2m100", "nllb", "mbart", "mbart50"])
def test_the_code_translates_in_each_direction_that_the_rows_have(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    languages = LANGUAGES[family]
    model, tokenizer = export(family, tmp_path, languages=languages)
    # mBART-50 is no architecture of models from scratch
    section = {"name": "base"} if family == "mbart50" else {"scratch": tiny_scratch(family).model_dump()}
    data = {"train": [BY_COLUMNS], "eval": [BY_COLUMNS]}
    config = translation_config(task={"kind": "translation"}, precision="fp32", model=section, data=data)
    record = build(config, data=both_ways(family), model={"architecture": type(model).__name__})
    card = build_card(record)
    calls: list[tuple[list[int], dict[str, Any]]] = []

    def note(self: Any, ids: torch.Tensor, **given: Any) -> torch.Tensor:
        calls.append((ids[0].tolist(), given))
        return ids

    monkeypatch.setattr(type(model), "generate", note)
    (block,) = re.findall(r"^```python\n(.*?)^```$", card, flags=re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    assert len(calls) == 2
    for (ids, given), (source, target) in zip(calls, (languages, languages[::-1]), strict=True):
        (expected,), _ = tokenizer.encode(
            ["the text to translate"], [""], source_language=source, target_language=target
        )
        assert ids == expected
        wanted = generation_arguments(model, tokenizer, target_language=target)
        told = {key: value for key, value in given.items() if key != "attention_mask"}
        assert told
        assert told.items() <= wanted.items()
    assert f"translate `{languages[0]}` to `{languages[1]}`, `{languages[1]}` to `{languages[0]}`" in card
    codes = [code.split("_")[0] for code in languages]
    assert "language:\n" + "".join(f"- {code}\n" for code in codes) in card
    assert f"translation from `{languages[0]}` to `{languages[1]}`, from `{languages[1]}`" in card


@pytest.mark.parametrize("family", ["t5", "marian"])
def test_the_code_of_a_family_without_language_tokens_shows_the_prefix_of_each_direction(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = export(family, tmp_path)
    data = {"train": [BY_COLUMNS], "eval": [BY_COLUMNS]}
    config = translation_config(task={"kind": "translation"}, precision="fp32", data=data)
    pairs = both_ways(family, prefixes=("to English: ", "to Korean: "))
    card = build_card(build(config, data=pairs, model={"architecture": type(model).__name__}))
    found: list[list[int]] = []
    monkeypatch.setattr(type(model), "generate", lambda self, ids, **given: found.extend(ids.tolist()) or ids)
    assert len(run_code(card, folder=tmp_path, monkeypatch=monkeypatch)) == 2
    texts = [f"to {language}: the text to translate" for language in ("English", "Korean")]
    expected, _ = tokenizer.encode(texts, ["", ""], source_language=None, target_language=None)
    assert [[i for i in ids if i != tokenizer.pad_token_id] for ids in found] == expected


def test_many_pairs_are_not_all_in_the_code() -> None:
    pairs = [[f"x{letter}", "en", "", 9] for letter in "abcdef"]
    data = {"train": [BY_COLUMNS], "eval": [BY_COLUMNS]}
    config = translation_config(task={"kind": "translation"}, data=data)
    record = build(config, data={"train": {"pairs": pairs}})
    text = str(build_usage(record))
    assert "'xd'" in text
    assert "'xe'" not in text
    assert "# and 2 more" in text
    assert ", and 2 more" in explain_usage(record)[0]


@pytest.mark.parametrize("revision", [None, "v2"])
def test_the_card_of_a_model_loads_its_own_folder_and_on_the_hub_its_name(
    revision: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = export("t5", tmp_path)
    config = translation_config(task={"kind": "translation"}, precision="fp32", model={"name": "base"})
    record = replace(build(config, model={"architecture": type(model).__name__}), subject="best")
    card = build_card(record)
    (found,) = run_code(card, folder=tmp_path / "best", monkeypatch=monkeypatch)
    expected = generate(model, tokenizer, "the text to translate")
    assert found.replace("<unk>", "").split() == expected.replace("<unk>", "").split()
    there = load_from_hub(card, repo="me/model", revision=revision)
    given = "'me/model'" if revision is None else "'me/model', revision='v2'"
    assert there.count(f"from_pretrained({given})") == 2
    assert there == card.replace("from_pretrained('.')", f"from_pretrained({given})")
