"""Rows of Parquet files are those that were written, and a small file cannot take much memory."""

import datetime
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from dstrain.data import parquet
from dstrain.data.parquet import column_names, read_rows

ROWS = [
    {"text": "one", "number": 1, "more": {"text": "a", "list": ["p", "q"]}, "words": {"k": "v"}, "kind": "x"},
    {"text": "two", "number": None, "more": {"text": None, "list": []}, "words": {}, "kind": "y"},
    {"text": None, "number": 3, "more": None, "words": None, "kind": "x"},
    {"text": "one", "number": 4, "more": {"text": "a", "list": None}, "words": {"k": "w"}, "kind": None},
]
SCHEMA = pyarrow.schema(
    {
        "text": pyarrow.large_string(),
        "number": pyarrow.int64(),
        "more": pyarrow.struct({"text": pyarrow.string(), "list": pyarrow.list_(pyarrow.string())}),
        "words": pyarrow.map_(pyarrow.string(), pyarrow.string()),
        "kind": pyarrow.dictionary(pyarrow.int8(), pyarrow.string()),
    }
)


def write(path: Path, table: pyarrow.Table, **options: object) -> Path:
    pyarrow.parquet.write_table(table, path, compression="zstd", **options)
    return path


@pytest.mark.parametrize("num_bytes", [parquet.BATCH_BYTES, 0])
@pytest.mark.parametrize("use_dictionary", [True, False])
def test_rows_are_those_that_were_written_at_once_and_one_by_one(
    use_dictionary: bool, num_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "BATCH_BYTES", num_bytes)
    table = pyarrow.Table.from_pylist(ROWS, schema=SCHEMA)
    path = write(tmp_path / "x.parquet", table, use_dictionary=use_dictionary, row_group_size=3)
    assert column_names(path) == SCHEMA.names
    assert list(read_rows(path, columns=SCHEMA.names)) == table.to_pylist()
    assert list(read_rows(path, columns=["number", "text"])) == table.select(["number", "text"]).to_pylist()


def test_a_row_that_cannot_be_decoded_does_not_end_the_file(tmp_path: Path) -> None:
    texts = pyarrow.array([b"good", b"\xff", b"good"]).view(pyarrow.string())
    rows = list(read_rows(write(tmp_path / "x.parquet", pyarrow.table({"text": texts})), columns=["text"]))
    assert [row if isinstance(row, dict) else type(row) for row in rows] == [
        {"text": "good"},
        UnicodeDecodeError,
        {"text": "good"},
    ]
    late = pyarrow.array([0, 2**60], type=pyarrow.timestamp("ms"))
    rows = list(read_rows(write(tmp_path / "y.parquet", pyarrow.table({"time": late})), columns=["time"]))
    assert rows[0] == {"time": datetime.datetime(1970, 1, 1)}
    assert isinstance(rows[1], Exception)


def test_a_row_with_too_much_text_is_left_out_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "MAX_LINE_BYTES", 10)
    monkeypatch.setattr(parquet, "BATCH_BYTES", 10)
    path = write(tmp_path / "x.parquet", pyarrow.table({"a": ["short", "x" * 11], "b": [["y"], ["y"]]}))
    first, second = read_rows(path, columns=["a", "b"])
    assert first == {"a": "short", "b": ["y"]}
    assert str(second) == "more than 10 bytes of text"


@pytest.mark.parametrize(("column", "use_dictionary"), [("text", True), ("text", False), ("struct", True)])
def test_a_small_file_does_not_take_much_memory(column: str, use_dictionary: bool, tmp_path: Path) -> None:
    large = pyarrow.array(["x" * 1_000_000])
    texts = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 500, pyarrow.int32()), large).dictionary_decode()
    array = texts if column == "text" else pyarrow.StructArray.from_arrays([texts], names=["text"])
    path = write(tmp_path / "x.parquet", pyarrow.table({"column": array}), use_dictionary=use_dictionary)
    assert path.stat().st_size < 100_000, "of 500 MB"
    code = """
import resource, sys
from pathlib import Path
import pyarrow.compute, pyarrow.parquet
from dstrain.data.parquet import read_rows
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert sum(1 for row in read_rows(Path(sys.argv[1]), columns=["column"])) == 500
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 300, "MB"
