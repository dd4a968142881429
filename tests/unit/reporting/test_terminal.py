"""Text for a terminal: durations, times, tables, and foreign text without control characters."""

import pytest

from dstrain.reporting.terminal import duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s"), (59.4, "59 s"), (60, "1 min"), (61, "1 min 1 s"), (3600 * 3 + 725, "3 h 12 min"), (1e5, "1 d 3 h")],
)
def test_time_spans_read_in_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text
