"""What is said while rows are predicted, with a clock that is passed in."""

import logging

import pytest

from dstrain.run.predict_progress import PredictProgress, describe_progress, draw_bar


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_rate_and_the_time_that_is_left_follow_from_the_rows_that_are_done() -> None:
    assert describe_progress(50, total=200, seconds=10.0) == "50 of 200 rows, 5.0 rows/s, about 30 s left"
    assert describe_progress(50, total=None, seconds=10.0) == "50 rows, 5.0 rows/s"
    assert describe_progress(0, total=200, seconds=0.0) == "0 of 200 rows, 0.0 rows/s"


def test_the_bar_is_as_wide_as_the_share_that_is_done() -> None:
    assert draw_bar(1, total=2) == "[############            ] "
    assert draw_bar(3, total=2) == f"[{'#' * 24}] "
    assert draw_bar(1, total=None) == draw_bar(0, total=0) == ""


def test_a_terminal_sees_one_line_that_is_drawn_again(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    progress = PredictProgress(4, is_terminal=True, clock=clock)
    progress.show(1)
    clock.now += 1.0
    progress.show(2)
    progress.close()
    assert capsys.readouterr() == (
        "",
        "\r\x1b[K[############            ] 2 of 4 rows, 2.0 rows/s, about 1 s left\r\x1b[K",
    )


def test_a_log_gets_a_line_now_and_then(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    progress = PredictProgress(None, is_terminal=False, clock=clock)
    with caplog.at_level(logging.INFO):
        for seconds in (1.0, 28.0, 2.0, 1.0):
            clock.now += seconds
            progress.show(62)
        progress.close()
    assert caplog.messages == ["62 rows, 2.0 rows/s"]
    assert progress.seconds == 32.0
    assert capsys.readouterr() == ("", "")
