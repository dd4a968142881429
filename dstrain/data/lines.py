"""Opens local data files and cuts them into lines: compression, ends of lines, byte order marks, files of another kind.

A line feed ends a line, with any carriage returns before it; U+2028, U+0085 and similar characters are part of the text. In a
file whose lines end with carriage returns alone, as an old Mac wrote it, these end a line.
"""

import io
import re
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO, cast

from dstrain.data.records import Broken, Record, Records
from dstrain.errors import UserError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MARKS = re.compile(rb"^(?:\xef\xbb\xbf)+")

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
"""Suffix of a compressed file to pyarrow's name of the compression."""

SAMPLE_BYTES = 1 << 20
"""How much of a file decides which character ends its lines."""

MAX_LINE_BYTES = 64 << 20
"""Most bytes of a line: without a bound, a file that never ends a line would be read into memory whole."""

LONE_RETURN = re.compile(rb"\r(?![\r\n])")

OTHER_KINDS = (
    (b"\x1f\x8b", "compressed with gzip: give its name the suffix .gz"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd: give its name the suffix .zst"),
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook: unpack it, or export its sheet as CSV"),
    (b"PAR1", "a Parquet file: set `format: parquet`"),
    (b"\xff\xfe", "UTF-16, not UTF-8: convert it with iconv -f UTF-16 -t UTF-8"),
    (b"\xfe\xff", "UTF-16, not UTF-8: convert it with iconv -f UTF-16 -t UTF-8"),
)
"""First bytes of files that are no text in UTF-8, and what to say of them."""
SAMPLED_FOR_ZEROS, FEWEST_FOR_ZEROS = 400, 8
"""Bytes among which zeros are counted, and how many there must be for it."""


def read_lines(path: Path, *, file: io.BufferedReader | None = None) -> Records:
    """Each line as a record of one cell, without its end and a byte order mark.

    `file` is open already, such as standard input, and read once; `path` is then its name in messages.

    Raises UserError if the file is damaged, or none of text in UTF-8.
    """
    for number, line in enumerate(read_byte_lines(path, file=file), start=1):
        where, content = f"{path}:{number}", line.rstrip(b"\r\n")
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            yield Broken(where, f"not UTF-8 at byte {error.start + 1} of the line", text=show_bytes(content))
            continue
        yield Record(where, (text,))


def read_byte_lines(path: Path, *, file: io.BufferedReader | None = None) -> Iterator[bytes]:
    r"""Each line as it is in the file, but without byte order marks at its start, and ended by \n or \r\n.

    Files that were joined have such marks in the middle. `file` is as in `read_lines`.

    Raises UserError if the file is damaged, or none of text in UTF-8, or if a line has more than MAX_LINE_BYTES bytes.
    """
    try:
        with _open(path) if file is None else nullcontext(file) as opened:
            sample = opened.peek(SAMPLE_BYTES)
            _check_kind(path, sample)
            for number, line in enumerate(_split(opened, sample=sample), start=1):
                if len(line) > MAX_LINE_BYTES:
                    raise UserError(
                        f"{path}:{number}: a line of more than {MAX_LINE_BYTES:,} bytes: split or remove it; if the file is no "
                        "text, correct `path` or `format`"
                    )
                yield _MARKS.sub(b"", line) if line.startswith(BYTE_ORDER_MARK) else line
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: cannot be read to its end ({error}): copy or download the file again") from error


def count_lines(path: Path) -> int:
    """The number of lines of a file."""
    return sum(1 for _ in read_byte_lines(path))


def show_bytes(content: bytes) -> str:
    """Bytes as text; those that are not UTF-8 as escapes."""
    return content.decode("utf-8", errors="backslashreplace").rstrip("\r\n")


def _open(path: Path) -> io.BufferedReader:
    compression = COMPRESSIONS.get(path.suffix.lower())
    if compression is None:
        return io.BufferedReader(path.open("rb", buffering=0), SAMPLE_BYTES)
    import pyarrow  # large, and needed for compressed files only

    return io.BufferedReader(pyarrow.input_stream(str(path), compression=compression), SAMPLE_BYTES)


def _split(file: io.BufferedReader, *, sample: bytes) -> Iterator[bytes]:
    if len(LONE_RETURN.findall(sample)) > sample.count(b"\n"):
        # Latin-1 maps each byte to one character and back, and a text file without `newline` takes each kind of end
        texts = io.TextIOWrapper(cast(BinaryIO, file), encoding="latin-1")
        while text := texts.readline(MAX_LINE_BYTES + 1):
            yield text.encode("latin-1")
        return
    while line := file.readline(MAX_LINE_BYTES + 1):
        yield line.rstrip(b"\r\n") + b"\r\n" if line.endswith(b"\r\r\n") else line


def _check_kind(path: Path, sample: bytes) -> None:
    for start, kind in OTHER_KINDS:
        if sample.startswith(start):
            raise UserError(f"{path} is {kind}")
    head = sample[:SAMPLED_FOR_ZEROS]
    if len(head) < FEWEST_FOR_ZEROS:
        return
    first, second = (half.count(0) / len(half) for half in (head[::2], head[1::2]))
    # in UTF-16 every second byte of Latin text is 0, and hardly another
    if max(first, second) > 0.7 and min(first, second) < 0.1:
        order = "BE" if first > second else "LE"
        raise UserError(f"{path} looks like UTF-16, not UTF-8: convert it with iconv -f UTF-16{order} -t UTF-8")
    if head.count(0) > 0.2 * len(head):
        raise UserError(f"{path} is no text but a binary file, with many zero bytes: name a text file in UTF-8")
