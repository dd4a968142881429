"""Data files of a stranger: each gives rows, unusable rows, or a ValueError that names the file; never anything else."""

import io
import json
import os
import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dstrain.config.data import Rules, Source
from dstrain.config.recipe import Task
from dstrain.data.bad_rows import BadRow, BadRowLog
from dstrain.data.lines import OTHER_KINDS
from dstrain.data.sources import Row, fingerprint_source, read_rows

SHARED_FOLDER = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
TASK = Task(kind="translation", source_language="ko", target_language="en")
SKIP = Rules(undecodable="skip", empty="skip")
STRICT = Rules(undecodable="error", empty="error")
NAMED: dict[str, Any] = {"source_column": "s", "target_column": "t.inside", "group_column": "g"}


def read(path: Path, *, rules: Rules = SKIP, **source: Any) -> tuple[list[Row], list[BadRow]]:
    """The rows of a file and those left out; a file that is refused gives neither, and is named."""
    bad: list[BadRow] = []
    rows: list[Row] = []
    try:
        rows += read_rows([Source(path=str(path), **source)], task=TASK, rules=rules, on_bad=bad.append)
    except ValueError as error:
        refusal = error
    else:
        refusal = None
    if refusal is not None:
        # not what Python says of itself: KeyError, UnicodeDecodeError and their like name no file
        assert str(path.parent) in str(refusal), repr(refusal)
    for row in rows:
        assert row.where.startswith(str(path))
        assert row.source.strip().encode()
        assert row.target.strip().encode()
        assert row.group is None or row.group.encode()
    listed = BadRowLog()
    for row_left_out in bad:
        listed(row_left_out)
    listed.save(path.with_name("bad.jsonl"))
    return rows, bad


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


rubbish = st.lists(
    st.one_of(
        st.binary(max_size=8),
        st.sampled_from(
            [
                *(
                    b"\t",
                    b",",
                    b'"',
                    b"\n",
                    b"\r",
                    b"\r\n",
                    b"\0",
                    b"\xef\xbb\xbf",
                    b"\xff\xfe",
                    b"\xed\xa0\x80",
                    b"\xf5",
                ),
                *(b"{", b"}", b"[", b"]", b":", b'"s"', b'"t"', b"null", b"1e999", b"NaN", b"-0", b"\\ud800", b"\\"),
                *(
                    "한국어".encode(),
                    "\u2028".encode(),
                    b"s",
                    b"t",
                    b"g",
                    b"9" * 5000,
                    b'{"s": "a", "t": {"inside": "b"}}',
                ),
            ]
        ),
    ),
    max_size=16,
).map(b"".join)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just("\ud800")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["s", "t", "g", "inside", "", "\ud800", "t.inside"]), inner, max_size=4),
    ),
    max_leaves=8,
)


@pytest.mark.parametrize("rules", [SKIP, STRICT], ids=["skip", "error"])
@pytest.mark.parametrize(
    ("suffix", "columns"),
    [
        ("jsonl", NAMED),
        ("tsv", {}),
        ("tsv", {"source_column": "s", "target_column": "t"}),
        ("csv", {"group_column": 2}),
        ("csv", {"source_column": "s", "target_column": 1}),
        ("parquet", NAMED),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())) or "numbers",
)
@settings(suppress_health_check=SHARED_FOLDER, max_examples=150)
@given(content=rubbish)
def test_rubbish_is_read_or_refused_by_name(
    content: bytes, suffix: str, columns: dict[str, Any], rules: Rules, tmp_path: Path
) -> None:
    read(write(tmp_path / f"rows.{suffix}", content), rules=rules, **columns)


@settings(suppress_health_check=SHARED_FOLDER, max_examples=300)
@given(content=rubbish, other=rubbish)
def test_rubbish_in_aligned_files_is_read_or_refused_by_name(content: bytes, other: bytes, tmp_path: Path) -> None:
    target = write(tmp_path / "rows.en", other)
    rows, bad = read(write(tmp_path / "rows.ko", content), target_path=str(target))
    if not any(part.startswith(start) for part in (content, other) for start, _ in OTHER_KINDS):
        num_lines = {len(split_lines(part)) for part in (content, other)}
        assert len(rows) + len(bad) == (num_lines.pop() if len(num_lines) == 1 else 0)


def split_lines(content: bytes) -> list[bytes]:
    """The lines of a file: at line feeds, or at carriage returns too where more of these stand alone."""
    alone = len(re.findall(rb"\r(?![\r\n])", content))
    ends = rb"\r\n|\r|\n" if alone > content.count(b"\n") else rb"\n"
    lines = re.split(ends, content)
    return lines if lines[-1] else lines[:-1]


@settings(suppress_health_check=SHARED_FOLDER, max_examples=400)
@given(records=st.lists(values, max_size=4))
def test_any_json_is_a_row_or_an_unusable_row(records: list[Any], tmp_path: Path) -> None:
    content = "".join(json.dumps(record) + "\n" for record in records)
    assume(not content.startswith("[{"))  # refused as a whole: one array instead of a line for each object
    rows, bad = read(write(tmp_path / "rows.jsonl", content.encode()), **NAMED)
    assert len(rows) + len(bad) == len(records)


def parquet(**options: Any) -> bytes:
    table = pyarrow.table({"s": ["a", "b", None], "t": [{"inside": "x"}, {"inside": "y"}, None], "g": [1, 2, 3]})
    target = io.BytesIO()
    pyarrow.parquet.write_table(table, target, **options)
    return target.getvalue()


PARQUET = parquet(compression="none")


def test_the_parquet_file_that_the_attacks_start_from_is_read(tmp_path: Path) -> None:
    rows, bad = read(write(tmp_path / "rows.parquet", PARQUET), **NAMED)
    assert ([(row.source, row.target, row.group) for row in rows], len(bad)) == ([("a", "x", "1"), ("b", "y", "2")], 1)


@settings(suppress_health_check=SHARED_FOLDER, max_examples=600)
@given(data=st.data())
def test_parquet_with_bytes_exchanged_is_read_or_refused_by_name(data: st.DataObject, tmp_path: Path) -> None:
    start = data.draw(st.integers(0, len(PARQUET)))
    stop = data.draw(st.integers(start, min(len(PARQUET), start + 4)))
    changed = PARQUET[:start] + data.draw(st.binary(max_size=4)) + PARQUET[stop:]
    read(write(tmp_path / "rows.parquet", changed), **NAMED)


def test_parquet_cut_short_anywhere_is_refused_by_name(tmp_path: Path) -> None:
    for length in range(0, len(PARQUET), 7):
        assert read(write(tmp_path / "rows.parquet", PARQUET[:length]), **NAMED) == ([], [])


@pytest.mark.parametrize("compression", ["snappy", "gzip", "zstd", "lz4", "brotli"])
def test_a_compressed_page_that_is_damaged_is_refused_by_name(compression: str, tmp_path: Path) -> None:
    whole = parquet(compression=compression)
    for place in range(4, len(whole) // 2, 3):
        changed = whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :]
        read(write(tmp_path / "rows.parquet", changed), **NAMED)


TABLES: dict[str, dict[str, Any]] = {
    "dates beyond the calendar": {"s": pyarrow.array([2**62], type=pyarrow.timestamp("us")), "t": ["x"]},
    "durations": {"s": pyarrow.array([2**62], type=pyarrow.duration("ns")), "t": ["x"]},
    "bytes": {"s": pyarrow.array([b"\xff"]), "t": ["x"]},
    "text that is no UTF-8": {"s": pyarrow.array([b"\xff"]).view(pyarrow.string()), "t": ["x"]},
    "lists": {"s": [[["a"]]], "t": ["x"]},
    "nothing but nulls": {"s": pyarrow.nulls(2), "t": pyarrow.nulls(2)},
    "no rows": {"s": pyarrow.array([], type=pyarrow.string()), "t": pyarrow.array([], type=pyarrow.string())},
    "numbers": {"s": [1.5], "t": [float("nan")]},
}


@pytest.mark.parametrize("columns", TABLES.values(), ids=TABLES.keys())
def test_parquet_of_other_types_is_read_or_refused_by_name(columns: dict[str, Any], tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "rows.parquet")
    assert read(tmp_path / "rows.parquet", source_column="s", target_column="t")[0] == []


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pyarrow.Table.from_arrays([pyarrow.array(["a"])] * 3, names=["s", "s", "t"])
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    write(tmp_path / "rows.tsv", b"s\ts\tt\na\tb\tc\n")
    write(tmp_path / "rows.csv", b"s,s,t\na,b,c\n")
    for suffix in ("parquet", "tsv", "csv"):
        source = Source(path=str(tmp_path / f"rows.{suffix}"), source_column="s", target_column="t")
        with pytest.raises(ValueError, match=rf"rows\.{suffix}.*: two columns are named `s`"):
            list(read_rows([source], task=TASK, rules=SKIP, on_bad=lambda row: None))


NESTED = 100_000
LINES: dict[str, tuple[str, bytes]] = {
    "lists in lists": ("jsonl", b"[" * NESTED),
    "lists in lists that end": ("jsonl", b'{"s": "a", "g": ' + b"[" * NESTED + b"]" * NESTED + b"}"),
    "objects in objects": ("jsonl", b'{"s":' * NESTED),
    "a number of many digits": ("jsonl", b'{"s": ' + b"9" * NESTED + b"}"),
    "a group of many digits": ("jsonl", b'{"s": "a", "t": {"inside": "b"}, "g": 1' + b"0" * 4290 + b"}"),
    "half a letter in a group": ("jsonl", b'{"s": "a", "t": {"inside": "b"}, "g": ["\\ud800"]}'),
    "half a letter in a key": ("jsonl", b'{"\\ud800": 1}'),
    "a quote that is never closed": ("csv", b'a,"' + b"b\n" * NESTED),
    "a cell larger than the reader takes": ("csv", b"a," + b"b" * (1 << 18)),
    "zeros": ("csv", b"\0,\0\n"),
    "quotes alone": ("csv", b'"' * (NESTED + 1)),
    "as many cells as there are letters": ("tsv", b"\t" * NESTED),
    "nothing but ends of lines": ("tsv", b"\n" * 1000),
    "another encoding": ("tsv", "하나\tone\n".encode("utf-16")),
    "one letter without an end": ("tsv", b"\xf0"),
    "nothing": ("parquet", b""),
    "its mark alone": ("parquet", b"PAR1PAR1"),
    "a footer larger than the file": ("parquet", b"PAR1" + b"\xff\xff\xff\x7fPAR1"),
    "an encrypted footer": ("parquet", b"PARE" + b"\0" * 20 + b"\x14\0\0\0PARE"),
}


@pytest.mark.parametrize(("suffix", "content"), LINES.values(), ids=LINES.keys())
@pytest.mark.parametrize("rules", [SKIP, STRICT], ids=["skip", "error"])
def test_malice_is_read_or_refused_by_name(rules: Rules, suffix: str, content: bytes, tmp_path: Path) -> None:
    columns = NAMED if suffix in ("jsonl", "parquet") else {}
    read(write(tmp_path / f"rows.{suffix}", content + b"\n"), rules=rules, **columns)


@pytest.mark.parametrize("depth", [*range(10, 1200, 45), *range(900, 1000, 7)])
def test_json_of_any_depth_is_a_row_or_an_unusable_row(depth: int, tmp_path: Path) -> None:
    nested = "[" * depth + "]" * depth
    lines = [
        f'{{"s": "a", "t": {{"inside": "b"}}, "g": {nested}}}',
        f'{{"s": {nested}, "t": null}}',
        f'{{"x": {nested}}}',
    ]
    rows, bad = read(write(tmp_path / "rows.jsonl", "\n".join(lines).encode()), **NAMED)
    assert len(rows) + len(bad) == 3


def pieces(num_bytes: int) -> Iterator[bytes]:
    yield from (b"x" * 1000 + b"\t" + b"y" * 1000 + b"\n" for _ in range(num_bytes // 2002))


def test_a_large_file_is_never_held_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    path.write_bytes(b"".join(pieces(32 << 20)))
    tracemalloc.start()
    try:
        source = Source(path=str(path))
        num_rows = sum(1 for _ in read_rows([source], task=TASK, rules=SKIP, on_bad=lambda row: None))
        fingerprint_source(source)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert num_rows > 10_000
    assert peak < 4 << 20


@pytest.mark.parametrize("suffix", ["jsonl", "tsv", "csv", "parquet"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "nowhere"])
def test_what_is_not_a_file_is_refused_by_name(kind: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows.{suffix}"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"device": "/dev/zero", "nowhere": "nowhere"}[kind])
    with pytest.raises(ValueError, match=rf"rows\.{suffix}` is not a file"):
        list(read_rows([Source(path=str(path), **NAMED)], task=TASK, rules=SKIP, on_bad=lambda row: None))


@pytest.mark.parametrize(("path", "why"), [("x" * 5000, "may have 255"), ("a\0b", r"U\+0000, which no path has")])
def test_a_path_that_no_file_can_have_is_refused(path: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Source(path=path, format="tsv")
