"""Lines of files: their ends, compression, byte order marks, and files that hold no text in UTF-8."""

import gzip
from pathlib import Path

import pyarrow
import pytest

from dstrain.config import spelling
from dstrain.data.lines import COMPRESSIONS, count_lines, read_lines
from dstrain.data.records import Broken, Record

MARK = "\ufeff"


def lines(path: Path, content: bytes) -> list[str]:
    path.write_bytes(content)
    return [line.cells[0] if isinstance(line, Record) else f"broken: {line.problem}" for line in read_lines(path)]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a\nb", ["a", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"a\r\r\nb\r\r\n", ["a", "b"]),
        (b"a\rb\rc\r", ["a", "b", "c"]),
        (b"a\rb\rc\n", ["a", "b", "c"]),
        (b"a\r\rb\r", ["a", "", "b"]),
        (b"one\nstill\rone\nc\n", ["one", "still\rone", "c"]),
        (b"a\u2028b\n".replace(b"\\u2028", b"\xe2\x80\xa8"), ["a\u2028b"]),
        (b"", []),
        (b"\n", [""]),
        (b"\r", [""]),
    ],
)
def test_what_ends_a_line(content: bytes, expected: list[str], tmp_path: Path) -> None:
    assert lines(tmp_path / "a.txt", content) == expected
    assert count_lines(tmp_path / "a.txt") == len(expected)


def test_a_byte_order_mark_at_the_start_of_any_line_is_not_text(tmp_path: Path) -> None:
    content = f"{MARK}a\n{MARK}{MARK}b{MARK}\n{MARK}\n"
    assert lines(tmp_path / "a.txt", content.encode()) == ["a", f"b{MARK}", ""]


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".GZ"])
def test_compressed_files_are_read_by_their_suffix_whatever_the_number_of_parts(suffix: str, tmp_path: Path) -> None:
    parts = [f"{MARK}하나\r\n둘\n".encode(), b"three\n"]
    pack = pyarrow.Codec("zstd").compress if suffix == ".zst" else gzip.compress
    content = b"".join(bytes(pack(part)) for part in parts)
    assert lines(tmp_path / f"a.txt{suffix}", content) == ["하나", "둘", "three"]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize(
    "content",
    [b"no archive\n", gzip.compress(b"cut short")[:-9], b"\x28\xb5\x2f\xfd\x20"],
    ids=["text", "gzip cut short", "zstd cut short"],
)
def test_a_damaged_archive_is_named(suffix: str, content: bytes, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"a\.tsv\{suffix}: cannot be read to its end \(.+\): copy or download"):
        lines(tmp_path / f"a.tsv{suffix}", content)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (gzip.compress(b"a", mtime=0), "compressed with gzip: give its name the suffix .gz"),
        (b"\x28\xb5\x2f\xfdrest", "compressed with zstd: give its name the suffix .zst"),
        (b"PK\x03\x04rest", "a ZIP archive or an Excel workbook"),
        (b"PAR1rest", "a Parquet file: set `format: parquet`"),
        ("ko\ten\n".encode("utf-16"), "UTF-16, not UTF-8: convert it with iconv"),
        ("ko\ten\n".encode("utf-16-be"), "UTF-16, not UTF-8: convert it with iconv -f UTF-16BE"),
        ("ko\ten\n".encode("utf-16-le"), "UTF-16, not UTF-8: convert it with iconv -f UTF-16LE"),
        (bytes(100), "no text but a binary file"),
        (b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00>\x00\x01" + bytes(3), "no text but a binary file"),
    ],
)
def test_a_file_of_another_kind_is_named(content: bytes, kind: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"a\.tsv.*{kind}"):
        lines(tmp_path / "a.tsv", content)


def test_a_zero_byte_here_and_there_is_text(tmp_path: Path) -> None:
    assert lines(tmp_path / "a.txt", b"a\x00b\n\x00\n") == ["a\x00b", "\x00"]


def test_bytes_that_are_not_utf_8_spoil_their_line_only(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"a\nb\xff\nc\n")
    assert list(read_lines(path))[1] == Broken(f"{path}:2", "not UTF-8 at byte 2 of the line", "b\\xff")


def test_every_compression_is_known_where_formats_are_named() -> None:
    assert tuple(COMPRESSIONS) == spelling.COMPRESSIONS


def test_a_file_that_is_open_already_is_read_once_and_stays_open(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\n\n")
    with path.open("rb") as file:
        assert list(read_lines(Path("stdin"), file=file)) == [
            Record("stdin:1", ("one",)),
            Record("stdin:2", ("two",)),
            Record("stdin:3", ("",)),
        ]
        assert not file.closed
