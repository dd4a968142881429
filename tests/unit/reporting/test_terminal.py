"""Text for a terminal: times, tables, and foreign text without control characters."""

import math

from dstrain.reporting.terminal import (
    MAX_LINE,
    MAX_LINES,
    UNKNOWN,
    aligned,
    from_iso,
    moment,
    printable,
    to_iso,
)


def test_times_round_trip_and_what_is_not_a_time_is_none() -> None:
    assert to_iso(1_800_000_000.0) == "2027-01-15T08:00:00+00:00"
    assert from_iso("2027-01-15T08:00:00+00:00") == 1_800_000_000.0
    assert moment(1_800_000_000.0) == "2027-01-15 08:00:00 UTC"
    assert [to_iso(None), to_iso(math.nan), to_iso(1e300), from_iso("yesterday")] == [None] * 4
    assert moment(math.inf) == UNKNOWN


def test_columns_are_as_wide_as_their_widest_cell_and_lines_have_no_trailing_space() -> None:
    assert aligned([("run", "step"), ("debug", "1")]) == "run    step\ndebug  1"


def test_foreign_text_has_no_control_characters_and_limited_length() -> None:
    assert printable("\x1b[31mred\x07\nnext ") == " [31mred \nnext"
    lines = printable("x" * (MAX_LINE + 5) + "\nline" * MAX_LINES).splitlines()
    assert (len(lines), len(lines[0]), lines[-1]) == (MAX_LINES + 1, MAX_LINE, "… 1 more lines")
