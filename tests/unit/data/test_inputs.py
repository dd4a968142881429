"""Rows to predict: what is read of them, what is refused with its place, and that nothing of a row is lost."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from dstrain.data import inputs
from dstrain.data.inputs import InputRow, Layout, Prediction, read_inputs, read_windows, write_row
from dstrain.errors import UserError

BOTH = [Prediction("one", -0.5), Prediction("two\tparts", -1.25)]


def read(tmp_path: Path, content: str, layout: Layout) -> list[InputRow]:
    path = tmp_path / "rows"
    path.write_text(content, encoding="utf-8", newline="")
    return list(read_inputs(path, layout=layout))


def through(tmp_path: Path, content: str, layout: Layout, *, predictions: Any = None) -> str:
    """The output for a file: the same predictions for every row with a source."""
    found = predictions or ([*BOTH] if layout.has_several else [Prediction("text")])
    rows = read(tmp_path, content, layout)
    return "".join(write_row(row, found if row.source.strip() else [], layout=layout) for row in rows)


def test_a_line_is_a_row_whatever_it_holds_and_empty_ones_stay(tmp_path: Path) -> None:
    content = "\ufeffone\ttab \r\n\n \n\u2028two\n{"
    rows = read(tmp_path, content, Layout("lines"))
    assert [row.source for row in rows] == ["one\ttab ", "", " ", "\u2028two", "{"]
    assert through(tmp_path, content, Layout("lines")) == "text\n\n\ntext\ntext\n"


def test_tsv_keeps_every_cell_and_gets_a_column(tmp_path: Path) -> None:
    content = "a\tb\t\nc\td\te\n\n\t\tx\n"
    assert through(tmp_path, content, Layout("tsv", 1)) == "a\tb\t\ttext\nc\td\te\ttext\n\n\t\tx\t\n"


def test_columns_by_name_need_a_header_which_names_the_new_columns(tmp_path: Path) -> None:
    layout = Layout("tsv", "ko", source_language_column="from", target_language_column=0, has_several=True)
    content = "to\tfrom\tko\nen\t\t하나\nde\tko_KR\t둘\nx\ty\t\n"
    rows = read(tmp_path, content, layout)
    assert [(row.source, row.source_language, row.target_language) for row in rows[1:]] == [
        ("하나", None, "en"),
        ("둘", "ko_KR", "de"),
        ("", "y", "x"),
    ]
    assert through(tmp_path, content, layout).splitlines() == [
        "to\tfrom\tko\tprediction\trank\tscore",
        "en\t\t하나\tone\t1\t-0.5",
        "en\t\t하나\ttwo parts\t2\t-1.25",
        "de\tko_KR\t둘\tone\t1\t-0.5",
        "de\tko_KR\t둘\ttwo parts\t2\t-1.25",
        "x\ty\t\t\t\t",
    ]


def test_an_object_keeps_its_numbers_and_keys_as_they_are_written(tmp_path: Path) -> None:
    content = '{"id": 1.10, "a": {"b": "eins"}, "big": 12345678901234567890, "id": 2}\n\n{ "a": {"b": null} } \n'
    found = through(tmp_path, content, Layout("jsonl", "a.b"), predictions=[Prediction('q"\n')])
    first, empty, last = found.splitlines()
    assert first == content.splitlines()[0].removesuffix("}") + ', "prediction": "q\\"\\n"}'
    assert empty == ""
    assert json.loads(last) == {"a": {"b": None}, "prediction": ""}


def test_an_object_with_several_predictions_has_a_list(tmp_path: Path) -> None:
    found = through(tmp_path, '{"source": "x"}\n', Layout("jsonl", "source", has_several=True))
    assert json.loads(found) == {
        "source": "x",
        "predictions": [{"text": "one", "score": -0.5}, {"text": "two\tparts", "score": -1.25}],
    }


@pytest.mark.parametrize(
    ("layout", "content", "message"),
    [
        (Layout("jsonl", "source"), '{"source": "a"}\n{"source"\n', ":2: not JSON"),
        (Layout("jsonl", "source"), "[1]\n", ":1: not a JSON object"),
        (Layout("jsonl", "source"), "[" * 100_000, ":1: not JSON"),
        (
            Layout("jsonl", "source"),
            '{"text": "a", "in": {"x": 1}}\n',
            "no column `source`; the columns are `text`, `in.x`",
        ),
        (Layout("jsonl", "source"), '{"source": 7}\n', "`source` is a value of type `int` instead of text"),
        (Layout("jsonl", "source"), '{"source": "\\ud800"}\n', "not Unicode"),
        (Layout("jsonl", "source"), '{"source": "a", "prediction": 1}\n', "a key `prediction` already"),
        (Layout("tsv", 0), "a\tb\nc\n", ":2: 1 cells, but the first row has 2"),
        (Layout("tsv", 2), "a\tb\n", ":1: 2 cells, but column 2 \\(counted from 0\\) is needed"),
        (Layout("tsv", "ko"), "en\tde\n", "no column `ko`; the columns are `en`, `de`"),
        (Layout("tsv", "ko"), "ko\tko\n", "2 columns are named `ko`"),
        (Layout("tsv", "ko"), "ko\tprediction\n", "a column `prediction` already"),
        (Layout("tsv", 0), '"say ""hi"""\tb\n', "doubled quotes"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line_and_the_way_out(
    tmp_path: Path, layout: Layout, content: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path, content, layout)


def test_bytes_that_are_no_text_end_the_reading_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(b"good\nb\xffd\n")
    rows = read_inputs(tmp_path / "rows", layout=Layout("lines"))
    assert next(rows).source == "good"
    with pytest.raises(UserError, match="rows:2: not UTF-8 at byte 2 of the line: correct the file"):
        next(rows)


def test_a_stream_is_read_once_and_named_as_it_is_called() -> None:
    stream: Any = io.BufferedReader(io.BytesIO(b"one\ntwo\n\xff\n"))  # type: ignore[arg-type]
    rows = read_inputs(Path("stdin"), layout=Layout("lines"), file=stream)
    assert [next(rows).where, next(rows).where] == ["stdin:1", "stdin:2"]
    with pytest.raises(UserError, match="stdin:3: not UTF-8"):
        next(rows)


def test_windows_end_at_a_number_of_rows_or_of_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "WINDOW_ROWS", 3)
    monkeypatch.setattr(inputs, "WINDOW_CHARACTERS", 10)
    rows = [InputRow("", text, text) for text in ("a", "b", "c", "d", "e" * 12, "f")]
    assert [[row.line[0] for row in window] for window in read_windows(iter(rows))] == [
        ["a", "b", "c"],
        ["d", "e"],
        ["f"],
    ]
    assert list(read_windows(iter([]))) == []
