"""Values from the files of a run folder: every error names the file and line."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from dstrain.run_folder import reading
from dstrain.run_folder.layout import EXPORTED_STEP
from dstrain.run_folder.reading import (
    RunFolderError,
    parse_json,
    read_bytes,
    read_exported_pairs,
    read_exported_step,
    read_lines,
    validate,
)


def test_a_line_of_json_is_parsed() -> None:
    assert parse_json(b'{"step": 3, "scores": [1.5, null]}', where="metrics.jsonl:1") == {
        "step": 3,
        "scores": [1.5, None],
    }


@pytest.mark.parametrize("line", [b'{"step":', b"", b"\xff"])
def test_a_line_that_is_not_json_is_an_error_with_its_place_and_content(line: bytes) -> None:
    with pytest.raises(RunFolderError, match=r"^metrics\.jsonl:7: not JSON \(.*; correct or remove the line") as caught:
        parse_json(line, where="metrics.jsonl:7")
    assert repr(line) in str(caught.value)


def test_of_a_long_line_only_the_beginning_is_shown() -> None:
    with pytest.raises(RunFolderError) as caught:
        parse_json(b"x" * 10_000, where="metrics.jsonl:7")
    assert len(str(caught.value)) < 300


def test_a_value_of_the_right_type_is_returned() -> None:
    assert validate(TypeAdapter(dict[str, int]), value={"step": 3}, where="run.json") == {"step": 3}


def test_every_fault_of_a_value_is_named() -> None:
    with pytest.raises(RunFolderError, match=r"^run\.json: a\.0: .* integer.*; b\.1: .* integer"):
        validate(TypeAdapter(dict[str, list[int]]), value={"a": ["x"], "b": [1, "y"]}, where="run.json")
    with pytest.raises(RunFolderError, match=r"^run\.json: value: "):
        validate(TypeAdapter(int), value="x", where="run.json")


def test_the_step_of_a_model_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / EXPORTED_STEP).write_text('{"step": 12}\n')
    assert read_exported_step(tmp_path) == 12
    assert read_exported_step(tmp_path / "nowhere") is None


@pytest.mark.parametrize("content", [None, "", "{}", "[]", '{"step": null}', '{"step": "x"}'])
def test_a_folder_that_does_not_name_its_step_has_none(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / EXPORTED_STEP).write_text(content)
    assert read_exported_step(tmp_path) is None


def make_hostile(path: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "link":
        other = path.with_name("other")
        other.write_text("{}")
        path.symlink_to(other)
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(30 << 30)  # takes no room on the disk


@pytest.mark.parametrize("read", [read_bytes, lambda path: list(read_lines(path))])
@pytest.mark.parametrize("kind", ["pipe", "device", "link", "folder", "sparse"])
def test_only_an_ordinary_file_of_a_sane_size_is_read(
    kind: str, read: Callable[[Path], object], tmp_path: Path
) -> None:
    make_hostile(tmp_path / "record", kind)
    with pytest.raises(OSError, match="at most .* are read" if kind == "sparse" else "no ordinary file") as caught:
        read(tmp_path / "record")
    assert caught.value.filename == str(tmp_path / "record")


@pytest.mark.parametrize(
    ("content", "lines"), [(b"", [b""]), (b"a\n\nb\n", [b"a", b"", b"b", b""]), (b"a\nb", [b"a", b"b"])]
)
def test_the_lines_of_a_file_end_with_what_follows_the_last_break(
    content: bytes, lines: list[bytes], tmp_path: Path
) -> None:
    (tmp_path / "rows").write_bytes(content)
    assert list(read_lines(tmp_path / "rows")) == lines


def test_an_endless_line_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_RECORD_BYTES", 10)
    (tmp_path / "rows").write_bytes(b"short\n" + b"x" * 20)
    with pytest.raises(OSError, match="a line has more than 10 bytes"):
        list(read_lines(tmp_path / "rows", max_bytes=1000))


def test_json_that_is_nested_too_deeply_is_an_error_with_its_place() -> None:
    with pytest.raises(RunFolderError, match=r"^run\.json: JSON nested too deeply"):
        parse_json(b"[" * 100_000, where="run.json")


@pytest.mark.parametrize("content", ["{}", '{"pairs": 3}', '{"pairs": [["ko"]]}', '{"pairs": [["ko", 3]]}', "not JSON"])
def test_a_folder_that_does_not_say_its_pairs_has_none(content: str, tmp_path: Path) -> None:
    assert read_exported_pairs(tmp_path) == []
    (tmp_path / EXPORTED_STEP).write_text(content)
    assert read_exported_pairs(tmp_path) == []
    (tmp_path / EXPORTED_STEP).write_text('{"step": 3, "pairs": [["ko", "en"], ["en", null]]}')
    assert read_exported_pairs(tmp_path) == [("ko", "en"), ("en", None)]
