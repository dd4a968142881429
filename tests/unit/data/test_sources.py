"""Sources: rows with their languages and places, and what the rules make of rows that cannot be used."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from dstrain.config.data import Rules, Source
from dstrain.config.recipe import Task
from dstrain.data.bad_rows import BadRow, BadRowLog, UnusableRowError
from dstrain.data.sources import NEWER, Row, check_first_record, fingerprint_source, fingerprint_sources, read_rows
from dstrain.tasks.demo.rows import demo_rows

TRANSLATION = Task(kind="translation", source_language="ko", target_language="en")
NAMED: dict[str, Any] = {"source_column": "ko", "target_column": "en"}


def _write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def _read(
    *sources: Source, task: Task = TRANSLATION, has_references: bool = False, **rules: Any
) -> tuple[list[Row], list[BadRow]]:
    bad: list[BadRow] = []
    given = read_rows(sources, task=task, rules=Rules(**rules), on_bad=bad.append, has_references=has_references)
    rows = list(given)
    return rows, bad


def _texts(rows: list[Row]) -> list[tuple[str, str]]:
    return [(row.source, row.target) for row in rows]


def test_the_format_comes_from_the_suffix_or_from_the_recipe(tmp_path: Path) -> None:
    tsv = Source(path=_write(tmp_path / "a.TSV", "하나\tone\n"))
    told = Source(path=_write(tmp_path / "a.txt", "둘,two\n"), format="csv")
    jsonl = Source(path=_write(tmp_path / "a.jsonl", '{"ko": "셋", "en": "three"}\n'), **NAMED)
    pair = Source(path=_write(tmp_path / "a.ko", "넷\n"), target_path=_write(tmp_path / "a.en", "four\n"))
    rows, bad = _read(tsv, told, jsonl, pair)
    assert _texts(rows) == [("하나", "one"), ("둘", "two"), ("셋", "three"), ("넷", "four")]
    assert bad == []


def test_an_unknown_suffix_asks_for_the_format(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.dat: the suffix does not say the format: .* jsonl, tsv, csv, parquet"):
        _read(Source(path=_write(tmp_path / "a.dat", "1\t2\n")))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.tsv` is not a file"):
        _read(Source(path=str(tmp_path / "nowhere.tsv")))
    with pytest.raises(ValueError, match=r"nowhere\.tsv` is not a file"):
        fingerprint_sources([Source(path=str(tmp_path / "nowhere.tsv"))])


@pytest.mark.parametrize("content", ["", "\n", " \n\n\t\n"])
@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl", "a.txt"])
def test_a_file_without_a_row_is_told_by_its_key_and_path(tmp_path: Path, name: str, content: str) -> None:
    path = _write(tmp_path / name, content)
    aligned = {"target_path": _write(tmp_path / "b.txt", content)} if name == "a.txt" else {}
    named = NAMED if name == "a.jsonl" else {}
    with pytest.raises(ValueError, match=r"^data\.eval\.0: .*a\.\w+ has no row: it is empty, or all of it is blank"):
        check_first_record(Source(path=path, **aligned, **named), key="data.eval.0")


def test_a_header_alone_is_no_row_and_blank_lines_before_a_row_are_passed_over(tmp_path: Path) -> None:
    header = Source(path=_write(tmp_path / "header.tsv", "ko\ten\n"), **NAMED)
    with pytest.raises(ValueError, match=r"header\.tsv has no row"):
        check_first_record(header, key="data.train.1")
    path = _write(tmp_path / "late.tsv", "\n\n하나\tone\n")
    check_first_record(Source(path=path), key="data.train.1")
    with pytest.raises(ValueError, match=r"late\.tsv has no row in its first 2 rows"):
        check_first_record(Source(path=path, max_rows=2), key="data.train.1")


def test_a_row_carries_languages_group_place_and_weight(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tsv", "하나\tone\tnumber\n")
    rows, _ = _read(
        Source(path=path, group_column=2, repeat=3),
        Source(path=path, source_language="de", target_language="ko", source_prefix=">>kor<< "),
    )
    assert rows == [
        Row("하나", "one", "ko", "en", "number", f"{path}:1", repeat=3, data_source=0),
        Row("하나", "one", "de", "ko", None, f"{path}:1", source_prefix=">>kor<< ", data_source=1),
    ]


def test_max_rows_takes_the_first_rows_of_its_source(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tsv", "".join(f"s{row}\tt{row}\n" for row in range(9)))
    rows, _ = _read(Source(path=path, max_rows=2), Source(path=path, max_rows=1))
    assert [row.source for row in rows] == ["s0", "s1", "s0"]


def test_text_is_kept_as_it_stands(tmp_path: Path) -> None:
    rows, _ = _read(Source(path=_write(tmp_path / "a.tsv", ' two  spaces \t"quoted"\u2028end\n')))
    assert _texts(rows) == [(" two  spaces ", '"quoted"\u2028end')]


def test_empty_sides_are_skipped_and_listed(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tsv", "1\t2\n \t2\n1\t\u3000\n\n1\t2\n")
    rows, bad = _read(Source(path=path))
    assert [row.where for row in rows] == [f"{path}:1", f"{path}:5"]
    assert [(row.where, row.reason, row.text, row.action) for row in bad] == [
        (f"{path}:2", "empty", " \t2", "skip"),
        (f"{path}:3", "empty", "1\t\u3000", "skip"),
        (f"{path}:4", "empty", "\t", "skip"),
    ]


def test_a_null_is_an_empty_side_and_a_number_is_not_text(tmp_path: Path) -> None:
    lines = [{"ko": None, "en": "x"}, {"ko": "x", "en": 7}, {"ko": "x", "en": "y"}]
    path = _write(tmp_path / "a.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    rows, bad = _read(Source(path=path, **NAMED), undecodable="skip")
    assert len(rows) == 1
    assert [(row.where, row.reason) for row in bad] == [(f"{path}:1", "empty"), (f"{path}:2", "undecodable")]


@pytest.mark.parametrize(
    ("content", "rule", "message"),
    [
        (b"1\t2\n\xff\t2\n", "undecodable", r"a\.tsv:2: not UTF-8 .*xff.*data\.rules\.undecodable=skip"),
        (b"1\t2\nonly one\n", "undecodable", r"a\.tsv:2: 1 column,.*only one.*data\.rules\.undecodable=skip"),
        (b"1\t2\n1\t\n", "empty", r"a\.tsv:2: the target is empty.*data\.rules\.empty=skip"),
        (b"1\t2\n\t2\n", "empty", r"a\.tsv:2: the source is empty.*data\.rules\.empty=skip"),
    ],
)
def test_the_rule_error_names_the_line_the_value_and_the_way_out(
    tmp_path: Path, content: bytes, rule: str, message: str
) -> None:
    source = Source(path=_write(tmp_path / "a.tsv", content))
    with pytest.raises(UnusableRowError, match=message):
        _read(source, **{rule: "error"})
    rows, bad = _read(source, **{rule: "skip"})
    assert (len(rows), [row.reason for row in bad]) == (1, [rule])


def test_a_long_text_is_shortened_in_the_message(tmp_path: Path) -> None:
    source = Source(path=_write(tmp_path / "a.tsv", "x" * 5000 + "\n"))
    with pytest.raises(UnusableRowError) as caught:
        _read(source)
    assert len(str(caught.value)) < 700


def test_aligned_files_have_no_groups(tmp_path: Path) -> None:
    paths = {"path": _write(tmp_path / "a.ko", "1\n"), "target_path": _write(tmp_path / "a.en", "1\n")}
    with pytest.raises(ValueError, match="group_column is `2`, but aligned text files have no columns"):
        _read(Source(**paths, group_column=2))


def test_demo_rows_come_with_their_groups() -> None:
    rows, bad = _read(Source(demo="translation", split="eval", max_rows=5))
    expected = demo_rows("translation", split="eval")[:5]
    assert [(row.source, row.target, row.group) for row in rows] == [
        (row.source, row.target, row.group) for row in expected
    ]
    assert rows[4].where == "demo/translation/eval:4"
    assert bad == []


def test_a_demo_split_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="train or eval"):
        _read(Source(demo="translation", split="test"))


def test_the_fingerprint_follows_content_and_reading_but_not_the_place(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tsv", "1\t2\n")
    moved = _write(tmp_path / "b.tsv", "1\t2\n")
    other = _write(tmp_path / "c.tsv", "1\t3\n")
    first = fingerprint_sources([Source(path=path)])
    assert fingerprint_sources([Source(path=moved)]) == first
    different = [
        [Source(path=other)],
        [Source(path=path), Source(path=path)],
        [Source(path=path, repeat=2)],
        [Source(path=path, source_language="ko", target_language="en")],
        [Source(path=path, source_column=1, target_column=0)],
        [Source(demo="translation")],
        [Source(demo="translation", split="eval")],
    ]
    assert len({first, *(fingerprint_sources(sources) for sources in different)}) == 8


@pytest.fixture
def datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The `datasets` library without the network and with an empty cache."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return tmp_path


def test_a_hub_dataset_out_of_reach_names_the_way_out(datasets_cache: Path) -> None:
    source = Source(hub="nobody/nothing", **NAMED)
    with pytest.raises(ValueError, match=r"hub `nobody/nothing` is not in the local cache.*HF_HUB_OFFLINE=1.*`path`"):
        _read(source)
    with pytest.raises(ValueError, match=r"hub `nobody/nothing` is not in the local cache"):
        fingerprint_sources([source])


def test_a_hub_dataset_is_read_by_nested_names(datasets_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    folder = datasets_cache / "stored"
    folder.mkdir()
    lines = [{"translation": {"ko": f"k{row}", "en": f"e{row}"}} for row in range(3)]
    _write(folder / "train.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    load = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda name, *given, **named: load(str(folder), *given, **named))
    source = Source(hub="some/opus", source_column="translation.ko", target_column="translation.en")
    rows, _ = _read(source)
    assert _texts(rows) == [("k0", "e0"), ("k1", "e1"), ("k2", "e2")]
    assert rows[2].where == "some/opus/train:2"
    assert fingerprint_sources([source]) == fingerprint_sources([source])
    with pytest.raises(ValueError, match=r"no column `ko`; the columns are `translation`"):
        _read(Source(hub="some/opus", **NAMED))
    with pytest.raises(ValueError, match="column 0 is a number"):
        _read(Source(hub="some/opus"))


@pytest.mark.parametrize("name", ["some/opus", "opus"])
def test_a_hub_dataset_is_never_a_folder_of_that_name(
    name: str, datasets_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(datasets_cache)
    Path(name).mkdir(parents=True)
    _write(Path(name, "train.jsonl"), json.dumps({"ko": "private", "en": "private"}) + "\n")
    with pytest.raises(
        ValueError, match=f"hub `{name}`: here is a file or folder of that name; start from another folder"
    ):
        _read(Source(hub=name, **NAMED))


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "num_rows"),
    [
        ("mtop/train.tsv", 15_667),
        ("mtop/eval.tsv", 2_235),
        ("ko_en/tatoeba.tsv", 3_853),
        ("ko_en/python_docs.train.tsv", 21_217),
        ("ko_en/park_news.dev.tsv", 1_000),
    ],
)
def test_every_row_of_the_real_files_is_read(real_data: Path, name: str, num_rows: int) -> None:
    rows, bad = _read(Source(path=str(real_data / name)))
    assert (len(rows), bad) == (num_rows, [])
    lines = (real_data / name).read_bytes().decode().split("\n")
    assert [f"{row.source}\t{row.target}" for row in rows] == lines[:-1]


def test_a_bad_row_with_half_a_character_is_listed_all_the_same(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.jsonl", r'{"ko": "\ud83d"}' + "\n")
    log = BadRowLog()
    rows = read_rows([Source(path=path, **NAMED)], task=TRANSLATION, rules=Rules(undecodable="skip"), on_bad=log)
    assert list(rows) == []
    log.save(tmp_path / "bad_rows.jsonl")
    listed = json.loads((tmp_path / "bad_rows.jsonl").read_text(encoding="utf-8"))
    assert json.loads(listed["text"]) == {"ko": "\ud83d"}
    assert log.count("skip") == {"undecodable": 1}


def test_evaluation_rows_have_the_references_in_a_cell_or_in_several_files_without_blank_ones(tmp_path: Path) -> None:
    cells = ['["one", "1"]', '["", "two", null]', '"three"', '[" ", ""]', "[]"]
    jsonl = "".join(f'{{"ko": "s{row}", "en": {cell}}}\n' for row, cell in enumerate(cells))
    first, second = _write(tmp_path / "a.en", "one\n\nthree\n"), _write(tmp_path / "b.en", "1\ntwo\n\n")
    lists = Source(path=_write(tmp_path / "a.jsonl", jsonl), **NAMED)
    files = Source(path=_write(tmp_path / "a.ko", "s0\ns1\ns2\n"), target_path=(first, second))
    for source, num_bad in ((lists, 2), (files, 0)):
        rows, bad = _read(source, has_references=True)
        assert [(row.target, row.other_targets) for row in rows] == [("one", ("1",)), ("two", ()), ("three", ())]
        assert [row.where.rpartition(":")[2] for row in rows] == ["1", "2", "3"]
        assert [row.reason for row in bad] == ["empty"] * num_bad


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        ('["one", 1]', "a value of type `int` instead of text"),
        (r'["\ud800"]', "not Unicode"),
        ('[["a"]]', "type `list`"),
    ],
)
def test_a_list_that_is_not_of_texts_is_unusable(cell: str, problem: str, tmp_path: Path) -> None:
    source = Source(path=_write(tmp_path / "a.jsonl", f'{{"ko": "a", "en": {cell}}}\n'), **NAMED)
    with pytest.raises(UnusableRowError, match=problem):
        _read(source, has_references=True)


def test_a_list_of_targets_is_refused_in_training_rows(tmp_path: Path) -> None:
    source = Source(path=_write(tmp_path / "a.jsonl", '{"ko": "a", "en": ["b", "c"]}\n'), **NAMED)
    with pytest.raises(UnusableRowError, match=r"a\.jsonl:1: a list of 2 targets: a training row has one"):
        _read(source)


def test_only_a_prefix_of_its_own_changes_the_fingerprint_of_a_source(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tsv", "1\t2\n")
    plain, prefixed = (fingerprint_source(Source(path=path, source_prefix=prefix)) for prefix in (None, "to French: "))
    assert plain != prefixed
    content = [
        [hashlib.sha256(b"1\t2\n").hexdigest()],
        Source(path=path).model_dump(exclude={"path", "target_path", "weight", *NEWER}),
    ]
    assert plain == hashlib.sha256(json.dumps(content).encode()).hexdigest()  # that of checkpoints made before the key


def test_columns_name_the_languages_of_each_row(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.jsonl", "\n".join(
        json.dumps({"ko": str(number), "en": "x", "from": source, "to": target})
        for number, (source, target) in enumerate([("ko", "en"), (" ja ", ""), ("", "fr"), (None, None)])
    ))  # fmt: skip
    columns = {"source_language_column": "from", "target_language_column": "to"}
    rows, bad = _read(Source(path=path, **NAMED, **columns))
    assert [(row.source_language, row.target_language) for row in rows] == [
        ("ko", "en"), ("ja", "en"), ("ko", "fr"), ("ko", "en"),
    ]  # fmt: skip
    assert bad == []


def test_a_row_without_a_language_in_its_column_is_refused_where_the_recipe_names_none(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tsv", "a\tb\ten\nc\td\t\n")
    source = Source(path=path, target_language_column=2)
    with pytest.raises(UnusableRowError, match=r"a\.tsv:2: no language in the column `2` \(target_language_column\)"):
        _read(source, task=Task(kind="translation"))
    rows, bad = _read(source, task=Task(kind="translation"), undecodable="skip")
    assert [row.target_language for row in rows] == ["en"]
    assert [each.where for each in bad] == [f"{path}:2"]


def test_two_aligned_files_have_no_columns(tmp_path: Path) -> None:
    pair = {"path": _write(tmp_path / "a.ko", "a\n"), "target_path": _write(tmp_path / "a.en", "b\n")}
    for key in ("group_column", "source_language_column", "target_language_column"):
        with pytest.raises(ValueError, match=f"{key} is `2`, but aligned text files have no columns"):
            _read(Source(**pair, **{key: 2}))
