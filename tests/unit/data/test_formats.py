"""File formats: what is read, what is said about what cannot be read, and that only a line feed ends a line."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from dstrain.data.formats import read_aligned, read_jsonl, read_parquet
from dstrain.data.lines import read_lines
from dstrain.data.records import Broken, Column, Reader, Record
from dstrain.data.tables import read_csv, read_tsv

SEPARATORS = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg"
"""What str.splitlines takes for ends of lines."""


def _write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _write_table(path: Path, **columns: Any) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=2)
    return path


def _cells(reader: Reader, path: Path, columns: Sequence[Column]) -> list[tuple[Any, ...]]:
    records = list(reader(path, columns))
    assert all(isinstance(record, Record) for record in records), records
    return [record.cells for record in records if isinstance(record, Record)]


def _broken(reader: Reader, path: Path, columns: Sequence[Column]) -> tuple[list[Broken], int]:
    records = list(reader(path, columns))
    broken = [record for record in records if isinstance(record, Broken)]
    return broken, len(records) - len(broken)


def test_only_a_line_feed_ends_a_line(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.txt", f"{SEPARATORS}\none\r\ntwo\rstill two\n\nlast")
    assert list(read_lines(path)) == [
        Record(f"{path}:1", (SEPARATORS,)),
        Record(f"{path}:2", ("one",)),
        Record(f"{path}:3", ("two\rstill two",)),
        Record(f"{path}:4", ("",)),
        Record(f"{path}:5", ("last",)),
    ]


def test_a_byte_order_mark_is_not_text(tmp_path: Path) -> None:
    assert _cells(read_tsv, _write(tmp_path / "a.tsv", b"\xef\xbb\xbfko\ten\n1\t2\n"), ["ko", "en"]) == [("1", "2")]
    assert _cells(read_csv, _write(tmp_path / "a.csv", b"\xef\xbb\xbfko,en\n1,2\n"), ["ko", "en"]) == [("1", "2")]


@pytest.mark.parametrize(
    ("reader", "content", "columns"),
    [
        (read_tsv, b"good\tgood\n\xffbad\tbad\ngood\tgood\n", [0, 1]),
        (read_csv, b"good,good\n\xffbad,bad\ngood,good\n", [0, 1]),
        (read_jsonl, b'{"s":"good","t":"x"}\n{"s":"\xffbad","t":"x"}\n{"s":"good","t":"x"}\n', ["s", "t"]),
    ],
)
def test_bytes_that_are_not_utf_8_are_named_with_their_line(
    tmp_path: Path, reader: Reader, content: bytes, columns: list[Column]
) -> None:
    path = _write(tmp_path / "data", content)
    (broken,), num_good = _broken(reader, path, columns)
    assert broken.where == f"{path}:2"
    assert "not UTF-8" in broken.problem
    assert r"\xffbad" in broken.text
    assert num_good == 2


def test_tsv_takes_quotes_for_text(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tsv", '"그는\t"He said ""no"" \n"open\tb\\tc\n')
    assert _cells(read_tsv, path, [0, 1]) == [('"그는', '"He said ""no"" '), ('"open', "b\\tc")]


def test_tsv_columns_by_name_need_a_header_and_by_number_none(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tsv", f"id\tko\ten\n1\t하나\t{SEPARATORS}\n")
    assert _cells(read_tsv, path, ["ko", "en"]) == [("하나", SEPARATORS)]
    assert _cells(read_tsv, path, ["ko", "en", 0]) == [("하나", SEPARATORS, "1")]
    assert _cells(read_tsv, path, [1, 2]) == [("ko", "en"), ("하나", SEPARATORS)]


@pytest.mark.parametrize("reader", [read_tsv, read_csv])
def test_a_missing_column_names_those_that_exist(tmp_path: Path, reader: Reader) -> None:
    path = _write(tmp_path / "a", "id\tko\n1\t2\n" if reader is read_tsv else "id,ko\n1,2\n")
    with pytest.raises(ValueError, match=r"a:1: no column `en`; the columns are `id`, `ko`"):
        list(reader(path, ["ko", "en"]))


def test_a_named_column_in_an_empty_file_asks_for_a_header(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.tsv:1: columns are given by name, but there is no header"):
        list(read_tsv(_write(tmp_path / "a.tsv", ""), ["ko", "en"]))


def test_too_few_columns_are_named_with_their_line(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tsv", "1\t2\nno tab here\n3\t4\n")
    (broken,), num_good = _broken(read_tsv, path, [0, 1])
    assert broken == Broken(f"{path}:2", "1 column, but column 1 (counted from 0) is needed", "no tab here")
    assert num_good == 2


def test_a_blank_line_is_an_empty_record(tmp_path: Path) -> None:
    assert _cells(read_tsv, _write(tmp_path / "a.tsv", "1\t2\n\n"), [0, 1])[1] == ("", "")
    assert _cells(read_csv, _write(tmp_path / "a.csv", "1,2\n\n"), [0, 1])[1] == ("", "")
    assert _cells(read_jsonl, _write(tmp_path / "a.jsonl", '{"s":"1","t":"2"}\n \n'), ["s", "t"])[1] == ("", "")


def test_csv_cells_may_be_quoted_and_hold_line_feeds(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.csv", f'ko,en\r\n"a, b","say ""hi""\nthere"\r\n{SEPARATORS},x\r\n')
    records = list(read_csv(path, ["ko", "en"]))
    assert records == [Record(f"{path}:2", ("a, b", 'say "hi"\nthere')), Record(f"{path}:4", (SEPARATORS, "x"))]


@pytest.mark.parametrize("line", ['"open,b', '"a"b,c', "a\rb,c"])
def test_broken_csv_is_named_with_its_line(tmp_path: Path, line: str) -> None:
    path = _write(tmp_path / "a.csv", f"1,2\n{line}\n")
    (broken,), num_good = _broken(read_csv, path, [0, 1])
    assert broken.where == f"{path}:2"
    assert "not CSV" in broken.problem
    assert broken.text == line
    assert num_good == 1


def test_jsonl_reaches_into_nested_objects(tmp_path: Path) -> None:
    lines = [{"translation": {"ko": "하나", "en": SEPARATORS}, "a.b": "dot"}, {"translation": None, "a.b": None}]
    path = _write(tmp_path / "a.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    found = _cells(read_jsonl, path, ["translation.ko", "translation.en", "a.b"])
    assert found == [("하나", SEPARATORS, "dot"), (None, None, None)]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"s": "a", "t": ', "not JSON"),
        ('["a", "b"]', "not a JSON object"),
        ('{"s": "a", "u": {"v": 1}}', "no column `t`; the columns are `s`, `u.v`"),
        (r'{"s": "a", "t": "\ud83d"}', "half of a surrogate pair"),
    ],
)
def test_broken_json_is_named_with_its_line(tmp_path: Path, line: str, problem: str) -> None:
    path = _write(tmp_path / "a.jsonl", '{"s": "a", "t": "b"}\n' + line + "\n")
    (broken,), num_good = _broken(read_jsonl, path, ["s", "t"])
    assert broken.where == f"{path}:2"
    assert problem in broken.problem
    assert num_good == 1


def test_parquet_is_read_over_row_groups_and_into_structs(tmp_path: Path) -> None:
    pairs = [{"ko": f"k{row}", "en": f"e{row}"} for row in range(5)]
    path = _write_table(tmp_path / "a.parquet", translation=pairs, other=list(range(5)))
    records = list(read_parquet(path, ["translation.ko", "translation.en"]))
    assert records == [Record(f"{path}:{row + 1}", (f"k{row}", f"e{row}")) for row in range(5)]


def test_parquet_text_that_is_not_utf_8_costs_its_row_only(tmp_path: Path) -> None:
    raw = pyarrow.array([b"good", b"\xffbad", b"good"], type=pyarrow.binary())
    path = _write_table(tmp_path / "a.parquet", s=raw.view(pyarrow.string()), t=["x", "y", "z"])
    (broken,), num_good = _broken(read_parquet, path, ["s", "t"])
    assert (broken.where, broken.problem, broken.text) == (f"{path}:2", "not UTF-8", r"\xffbad")
    assert num_good == 2


def test_a_missing_parquet_column_names_those_that_exist(tmp_path: Path) -> None:
    path = _write_table(tmp_path / "a.parquet", s=["a"], t=["b"])
    with pytest.raises(ValueError, match=r"no column `u\.v`; the columns are `s`, `t`"):
        list(read_parquet(path, ["s", "u.v"]))


def test_another_file_is_not_taken_for_parquet(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.parquet: not a Parquet file"):
        list(read_parquet(_write(tmp_path / "a.parquet", "ko\ten\n"), ["s", "t"]))


@pytest.mark.parametrize("reader", [read_jsonl, read_parquet])
def test_a_number_is_not_a_column_where_columns_have_names(tmp_path: Path, reader: Reader) -> None:
    with pytest.raises(ValueError, match=r"column 0 is a number.*set source_column and target_column to names"):
        list(reader(tmp_path / "a", [0, 1]))


def test_aligned_files_are_read_line_by_line(tmp_path: Path) -> None:
    source = _write(tmp_path / "a.ko", f"하나\n{SEPARATORS}\n\n")
    target = _write(tmp_path / "a.en", "one\ntwo\nthree\n")
    assert list(read_aligned(source, target)) == [
        Record(f"{source}:1", ("하나", "one")),
        Record(f"{source}:2", (SEPARATORS, "two")),
        Record(f"{source}:3", ("", "three")),
    ]


def test_aligned_files_name_the_file_with_the_bad_bytes(tmp_path: Path) -> None:
    source = _write(tmp_path / "a.ko", b"1\n2\n\xff\n")
    target = _write(tmp_path / "a.en", b"1\n\xfe\n3\n")
    records = list(read_aligned(source, target))
    assert [record.where for record in records] == [f"{source}:1", f"{target}:2", f"{source}:3"]
    assert [type(record) for record in records] == [Record, Broken, Broken]


def test_aligned_files_of_different_lengths_are_refused_with_both_counts(tmp_path: Path) -> None:
    source, target = _write(tmp_path / "a.ko", "1\n2\n3"), _write(tmp_path / "a.en", "1\n2\n")
    with pytest.raises(ValueError, match=r"a\.ko has 3 lines and .*a\.en has 2"):
        next(read_aligned(source, target))
