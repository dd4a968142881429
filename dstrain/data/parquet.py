"""Batches of rows of a Parquet file, whose memory is bounded before they are decoded. Knows nothing of what cells mean.

A file of a kilobyte can hold a long text once and refer to it in every row. So texts are read as references, and a batch is
decoded at once only if that is known to be small; otherwise row by row.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dstrain.data.lines import MAX_LINE_BYTES

BATCH_ROWS = 1024
BATCH_BYTES = 64 << 20
"""Most bytes of the texts of a batch that is decoded at once."""
LARGE_BYTES = 1 << 30
"""With more bytes of one column in a row group, its cells may be anything: few rows are read at a time."""
FEW_ROWS = 16

Row = dict[str, Any] | Exception
"""The cells by column; or why they cannot be read."""


def column_names(path: Path) -> list[str]:
    """The top-level columns of a file. Raises errors of pyarrow and OSError."""
    import pyarrow.parquet

    names: list[str] = pyarrow.parquet.read_schema(path).names
    return names


def read_rows(path: Path, *, columns: Sequence[str]) -> Iterator[Row]:
    """The rows of some top-level columns. Raises errors of pyarrow and OSError."""
    # large, and needed for Parquet only
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        schema = file.schema_arrow
        num_rows = _batch_rows(file.metadata, columns=columns)
        leaves = map(file.schema.column, range(len(file.schema)))
        texts = [leaf.path for leaf in leaves if leaf.path in columns and _is_text(leaf)]
    plain = pyarrow.schema([schema.field(name) for name in dict.fromkeys(columns)])
    with pyarrow.parquet.ParquetFile(path, read_dictionary=texts) as file:
        for batch in file.iter_batches(batch_size=num_rows, columns=list(plain.names)):
            yield from _decode(batch.select(plain.names), schema=plain)


def _is_text(leaf: Any) -> bool:
    return leaf.physical_type == "BYTE_ARRAY" and leaf.logical_type.type in ("STRING", "NONE", "JSON", "ENUM")


def _batch_rows(metadata: Any, *, columns: Sequence[str]) -> int:
    """How many rows are read at a time, by what the file says of its columns."""
    rows = BATCH_ROWS
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            size = max(1, column.total_uncompressed_size)
            if column.path_in_schema in columns:
                rows = min(rows, BATCH_BYTES * max(1, group.num_rows) // size, FEW_ROWS if size > LARGE_BYTES else rows)
            elif any(column.path_in_schema.startswith(f"{name}.") for name in columns):
                # pyarrow reads no references here, so every row may hold the longest text, which may be all there is
                rows = min(rows, max(FEW_ROWS, BATCH_BYTES // size))
    return max(1, rows)


def _decode(batch: Any, *, schema: Any) -> Iterator[Row]:
    if sum(map(_text_bytes, batch.columns)) <= BATCH_BYTES:
        try:
            yield from batch.cast(schema).to_pylist()
        except (ValueError, OverflowError):  # of one of its rows
            pass
        else:
            return
    for index in range(batch.num_rows):
        yield _decode_row(batch.slice(index, 1), schema=schema)


def _decode_row(row: Any, *, schema: Any) -> Row:
    if sum(map(_text_bytes, row.columns)) > MAX_LINE_BYTES:
        return ValueError(f"more than {MAX_LINE_BYTES:,} bytes of text")
    try:
        decoded: dict[str, Any] = row.cast(schema).to_pylist()[0]
    except (ValueError, OverflowError) as error:  # not UTF-8, or a date that Python cannot represent
        return error
    return decoded


def _text_bytes(column: Any) -> int:
    """The bytes of all texts of a column once they are decoded."""
    import pyarrow.compute
    from pyarrow import types

    if types.is_struct(column.type):
        return sum(map(_text_bytes, column.flatten()))
    if any(is_kind(column.type) for is_kind in (types.is_list, types.is_large_list, types.is_fixed_size_list)):
        return _text_bytes(column.flatten())
    if types.is_dictionary(column.type):
        lengths = _lengths(column.dictionary)
        return 0 if lengths is None else pyarrow.compute.sum(lengths.take(column.indices)).as_py() or 0
    lengths = _lengths(column)
    return 0 if lengths is None else pyarrow.compute.sum(lengths).as_py() or 0


def _lengths(texts: Any) -> Any:
    """The bytes of each text; None for anything else than texts."""
    import pyarrow.compute
    from pyarrow import types

    kinds = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    return pyarrow.compute.binary_length(texts) if any(is_kind(texts.type) for is_kind in kinds) else None
