"""The first records of every format with all their cells."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dstrain.config.data import Source
from dstrain.data.peek import Peek, peek
from dstrain.errors import UserError


def peeked(path: Path, content: str, *, file_format: str, num_rows: int = 10, quoted: bool | None = None) -> Peek:
    path.write_text(content, encoding="utf-8")
    return peek(Source(path=str(path), quoted=quoted), file_format=file_format, num_rows=num_rows)


def test_rows_of_tables_have_numbered_cells_and_as_many_as_the_first(tmp_path: Path) -> None:
    found = peeked(tmp_path / "a.tsv", 'id\ten\tko\n1\ta "b"\tc\n\n2\td\n3\te\tf\n', file_format="tsv")
    assert found == Peek((0, 1, 2), (("id", "en", "ko"), ("1", 'a "b"', "c"), ("3", "e", "f")))
    found = peeked(tmp_path / "a.csv", 'x,y\n"a, b","c\nd"\n', file_format="csv")
    assert found.rows == (("x", "y"), ("a, b", "c\nd"))
    quoted = peeked(tmp_path / "b.tsv", '"a ""b"""\tc\n', file_format="tsv", quoted=True)
    assert quoted.rows == (('a "b"', "c"),)


def test_only_so_many_rows_are_read(tmp_path: Path) -> None:
    assert len(peeked(tmp_path / "a.tsv", "a\tb\n" * 50, file_format="tsv", num_rows=7).rows) == 7


def test_objects_have_the_names_of_all_their_fields(tmp_path: Path) -> None:
    lines = [
        {"id": 1, "translation": {"ko": "가", "en": "a"}},
        {"id": 2, "note": "x"},
        [1],
        {"translation": {"ko": "나"}},
    ]
    content = "".join(json.dumps(line) + "\n" for line in lines) + "{broken\n\n"
    found = peeked(tmp_path / "a.jsonl", content, file_format="jsonl")
    assert found.columns == ("id", "translation.ko", "translation.en", "note")
    assert found.rows == ((1, "가", "a", None), (2, None, None, "x"), (None, "나", None, None))


def test_parquet_is_read_by_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a", "b"], "label": [1, 2]}), path)
    found = peek(Source(path=str(path)), file_format="parquet", num_rows=1)
    assert found == Peek(("text", "label"), (("a", 1),))


def test_a_dataset_of_the_hub_is_read_by_its_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    stored = datasets.Dataset.from_dict({"document": ["a", "b"], "summary": ["c", "d"]})
    monkeypatch.setattr(datasets, "load_dataset", lambda *given, **named: stored)
    found = peek(Source(hub="some/set"), file_format="hub", num_rows=1)
    assert found == Peek(("document", "summary"), (("a", "c"),))


@pytest.mark.parametrize(("name", "content"), [("a.tsv", ""), ("a.csv", "\n\n"), ("a.jsonl", "[1]\n"), ("b.jsonl", "")])
def test_a_file_without_a_record_is_refused(name: str, content: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no row can be read"):
        peeked(tmp_path / name, content, file_format=name[2:])
