"""Data files as recipes that load and pass the check with no edit."""

import json
from pathlib import Path
from typing import Any, Literal

import pytest

from dstrain.config.load import load_config
from dstrain.config.schema import RunConfig
from dstrain.draft.from_data import (
    DataDraft,
    check_request,
    divide,
    draft_from_data,
    find_family,
    recipe_path,
    run_name,
)
from dstrain.draft.look import Asked
from dstrain.draft.machine import Machine
from dstrain.draft.sections import Request
from dstrain.draft.split import split_rows
from dstrain.errors import UserError
from dstrain.tasks.demo.rows import demo_rows

CPU = Machine(0, 2, 8_000_000_000)


def demo_file(
    path: Path, demo: Literal["translation", "parsing", "text"], *, split: str = "train", every: int = 40
) -> str:
    rows = list(demo_rows(demo, split=split))[::every]
    path.write_text("".join(f"{row.source}\t{row.target}\n" for row in rows), encoding="utf-8")
    return str(path)


def draft_of(path: Path, *files: str, **request: Any) -> tuple[DataDraft, RunConfig]:
    """The draft, and the recipe as `dstrain check` accepts it, with the rows set apart."""
    draft = draft_from_data(Request(files=files, **request), machine=CPU, path=path)
    if draft.apart is not None:
        sources, train, evaluation = draft.apart
        split_rows(sources, num_rows=draft.train_rows.num_rows, train=train, evaluation=evaluation)
    path.write_text(draft.text, encoding="utf-8")
    return draft, load_config(str(path), check_files=True)


@pytest.mark.parametrize("demo", ["translation", "parsing", "text"])
def test_a_recipe_for_a_file_passes_the_check(demo: Literal["translation", "parsing", "text"], tmp_path: Path) -> None:
    file = demo_file(tmp_path / "train.tsv", demo)
    _, config = draft_of(tmp_path / "r.yaml", file)
    assert config.task.kind == demo
    assert [source.path for source in (*config.data.train, *config.data.eval)] == [
        str(tmp_path / "r.train.jsonl"), str(tmp_path / "r.eval.jsonl"),
    ]  # fmt: skip
    assert config.model.scratch is not None
    assert (config.task.source_language, config.task.target_language) == (
        ("ko", "en") if demo == "translation" else (None, None)
    )


def test_evaluation_rows_that_are_named_are_taken(tmp_path: Path) -> None:
    files = demo_file(tmp_path / "a.tsv", "text"), demo_file(tmp_path / "b.tsv", "text", split="eval", every=5)
    draft, config = draft_of(tmp_path / "r.yaml", files[0], evaluation_files=(files[1],))
    assert (config.data.train[0].path, config.data.eval[0].path) == files
    assert draft.apart is None
    assert draft.evaluation_rows is not None


def test_files_are_divided_by_their_names() -> None:
    assert divide(["train.tsv", "dev.tsv"], []) == (
        ["train.tsv"],
        ["dev.tsv"],
        ["dev.tsv: evaluation rows, by its name"],
    )
    train, evaluation, notes = divide(
        ["x.train.de", "x.train.en", "x.valid.de", "x.valid.en", "x.test.de", "x.test.en"], []
    )
    assert (train, evaluation) == (["x.train.de", "x.train.en"], ["x.valid.de", "x.valid.en"])
    assert notes[1].startswith("x.test.de, x.test.en: left out")
    assert divide(["a.tsv", "test.tsv"], [])[:2] == (["a.tsv"], ["test.tsv"])
    assert divide(["dev.tsv"], []) == (["dev.tsv"], [], [])
    assert divide(["latest.tsv", "developers.tsv"], []) == (["latest.tsv", "developers.tsv"], [], [])
    assert divide(["train.tsv", "dev.tsv"], ["x.tsv"])[:2] == (["train.tsv", "dev.tsv"], ["x.tsv"])


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("data/mtop/train.tsv", "mtop"),
        ("python_docs.train.tsv", "python-docs"),
        ("slips.csv", "slips"),
        ("x/train.jsonl.gz", "x"),
    ],
)
def test_a_run_is_called_after_its_file_or_folder(file: str, name: str) -> None:
    assert run_name([file]) == name
    assert recipe_path(Request(files=(file,)), output=None) == Path(f"{name}.yaml")
    assert recipe_path(Request(files=(file,)), output=Path("a/b.yaml")) == Path("a/b.yaml")


def test_languages_are_those_of_columns_or_suffixes(tmp_path: Path) -> None:
    lines = [json.dumps({"translation": {"nl": f"de kat {n}", "af": f"die kat {n}"}}) for n in range(20)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    draft, config = draft_of(tmp_path / "a.yaml", str(tmp_path / "a.jsonl"))
    assert (config.task.source_language, config.task.target_language) == ("nl", "af")
    assert "source_language: nl  # the name of its column" in draft.text
    for code in ("nl", "af"):
        (tmp_path / f"b.{code}").write_text("".join(f"kat {n}\n" for n in range(20)))
    files = (str(tmp_path / "b.nl"), str(tmp_path / "b.af"))
    _, config = draft_of(tmp_path / "b.yaml", *files)
    assert (config.task.kind, config.task.target_language) == ("translation", "af")
    _, config = draft_of(tmp_path / "c.yaml", *files, asked=Asked(target_language="de"))
    assert (config.task.source_language, config.task.target_language) == ("nl", "de")


@pytest.mark.parametrize(
    ("name", "config", "family"),
    [
        ("my-model", '{"model_type": "m2m_100"}', "m2m100"),
        ("my-t5", '{"model_type": "m2m_100"}', "t5"),
        ("my-model", '{"model_type": "mbart"}', "mbart"),
        ("my-model", '{"model_type": 7}', None),
        ("my-model", "[]", None),
        ("my-model", "{", None),
    ],
)
def test_the_family_of_a_folder_is_in_its_name_or_configuration(
    name: str, config: str, family: str | None, tmp_path: Path
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "config.json").write_text(config)
    found = find_family(str(folder))
    assert (found.name if found else None) == family


def test_rows_that_cannot_be_read_are_skipped_by_a_rule_that_says_so(tmp_path: Path) -> None:
    file, evaluation = demo_file(tmp_path / "a.tsv", "text"), demo_file(tmp_path / "b.tsv", "text", split="eval")
    with Path(file).open("ab") as opened:
        opened.write(b"\xff\tx\nonly one cell\n")
    draft, config = draft_of(tmp_path / "r.yaml", file, evaluation_files=(evaluation,))
    assert config.data.rules.undecodable == "skip"
    assert "2 rows cannot be read, the first at" in draft.text
    assert any("training rows that cannot be used: 2 undecodable" in note for note in draft.notes)


def test_names_with_signs_of_yaml_and_shells_are_quoted(tmp_path: Path) -> None:
    folder = tmp_path / "a # b: [c] $(d)"
    folder.mkdir()
    file = demo_file(folder / 'it\'s: "x".tsv', "text")
    _, config = draft_of(tmp_path / "r.yaml", file, evaluation_files=(file,))
    assert config.data.train[0].path == file


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"model": "t5-small", "size": "tiny"}, "--size is that of a model from scratch"),
        ({"name": "a/b"}, "--name: at most 100 letters"),
        ({"name": "x" * 101}, "--name: at most 100 letters"),
    ],
)
def test_options_that_cannot_be_are_refused(request_: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_request(Request(files=("a",), **request_))  # type: ignore[arg-type]


@pytest.mark.real_data
def test_real_data_get_the_tasks_that_they_have(real_data: Path, tmp_path: Path) -> None:
    mtop, docs = real_data / "mtop", real_data / "ko_en"
    _, config = draft_of(tmp_path / "a.yaml", str(mtop / "train.tsv"), evaluation_files=(str(mtop / "eval.tsv"),))
    assert (config.task.kind, config.task.form, config.training.max_steps) == ("parsing", "pointer", 3000)
    _, config = draft_of(tmp_path / "b.yaml", str(docs / "python_docs.train.tsv"), str(docs / "python_docs.dev.tsv"))
    assert (config.task.kind, config.task.source_language, config.task.target_language) == ("translation", "ko", "en")
    assert config.data.eval[0].path == str(docs / "python_docs.dev.tsv")


@pytest.mark.parametrize(
    ("codes", "model", "expected"),
    [
        (("swh_Latn", "zul_Latn"), None, ("nllb", "swh_Latn", "zul_Latn")),
        (("en_XX", "pt_XX"), None, ("mbart", "en_XX", "pt_XX")),
        (("ko", "en"), None, ("m2m100", "ko", "en")),
        (("en_XX", "kor_Hang"), None, ("m2m100", "en", "ko")),
        (("swh_Latn", "zul_Latn"), "facebook/nllb-200-distilled-600M", (None, "swh_Latn", "zul_Latn")),
        (("kor_Hang", "eng_Latn"), "facebook/m2m100_418M", (None, "ko", "en")),
        (("ko_KR", "en_XX"), "facebook/nllb-200-distilled-600M", (None, "kor_Hang", "eng_Latn")),
    ],
)
def test_columns_called_by_codes_of_a_family_name_the_languages(
    codes: tuple[str, str], model: str | None, expected: tuple[str | None, str, str], tmp_path: Path
) -> None:
    lines = [f"text of row {n}\tanother text {n}\n" for n in range(40)]
    (tmp_path / "pairs.tsv").write_text("\t".join(codes) + "\n" + "".join(lines), encoding="utf-8")
    _, config = draft_of(tmp_path / "r.yaml", str(tmp_path / "pairs.tsv"), model=model)
    architecture = config.model.scratch.architecture if config.model.scratch else None
    assert (architecture, config.task.source_language, config.task.target_language) == expected


def test_a_language_that_m2m100_lacks_stays_in_the_recipe_of_a_marian(tmp_path: Path) -> None:
    (tmp_path / "pairs.tsv").write_text("".join(f"text of row {n}\tanother text {n}\n" for n in range(40)))
    asked = Asked(source_language="mi", target_language="en")
    draft, config = draft_of(tmp_path / "r.yaml", str(tmp_path / "pairs.tsv"), asked=asked)
    assert config.model.scratch is not None
    assert (config.model.scratch.architecture, config.task.source_language) == ("marian", "mi")
    assert "M2M100 has none for `mi`" in draft.text


@pytest.mark.parametrize(
    ("codes", "architecture"),
    [
        (("ko", "en"), "m2m100"),
        (("kor_Hang", "eng_Latn"), "nllb"),
        (("ace_Arab", "min_Latn"), "nllb"),
        (("ko_KR", "en_XX"), "mbart"),
    ],
)
def test_a_model_from_scratch_has_the_codes_that_the_rows_name(
    codes: tuple[str, str], architecture: str, tmp_path: Path
) -> None:
    first, second = codes
    lines = [f"글 {n}\ttext {n}\t{first}\t{second}\ntext {n}\t글 {n}\t{second}\t{first}\n" for n in range(40)]
    (tmp_path / "both.tsv").write_text("source\ttarget\tfrom\tto\n" + "".join(lines), encoding="utf-8")
    _, config = draft_of(tmp_path / "r.yaml", str(tmp_path / "both.tsv"))
    assert config.model.scratch is not None
    assert config.model.scratch.architecture == architecture


def test_rows_that_name_their_languages_are_a_translation_in_each_of_their_directions(tmp_path: Path) -> None:
    lines = [f"글 {n}\ttext {n}\tko\ten\tx{n}\ntext {n}\t글 {n}\ten\tko\tx{n}\n" for n in range(40)]
    (tmp_path / "both.tsv").write_text("text\ttranslation\tfrom\tto\tid\n" + "".join(lines), encoding="utf-8")
    draft, config = draft_of(tmp_path / "r.yaml", str(tmp_path / "both.tsv"))
    assert config.task.kind == "translation"
    assert (config.task.source_language, config.task.target_language) == (None, None)
    for source in (*config.data.train, *config.data.eval):
        assert (source.source_language_column, source.target_language_column) == ("source_language", "target_language")
    assert [note for note in draft.notes if "`id`" in note] == [f"{tmp_path}/both.tsv: not used: column `id`"]
    _, named = draft_of(
        tmp_path / "s.yaml",
        str(tmp_path / "both.tsv"),
        evaluation_files=(str(tmp_path / "both.tsv"),),
        model="google/mt5-small",
    )
    assert named.data.train[0].source_language_column == "from"
    assert named.task.source_prefix == "translate {source_language} to {target_language}: "
