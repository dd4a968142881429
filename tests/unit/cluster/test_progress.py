"""What is shown of long work, with a clock that is passed in, on a terminal and without one."""

import logging
import subprocess
import sys

import pytest

from dstrain.cluster.progress import Progress, describe_progress, draw_bar, phase
from tests.unit.cluster.terminal_cases import run_on_terminal, screen_of


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def describe(
    done: int, *, since: int = 0, total: int | None = None, unit: str | None = "rows", seconds: float = 10.0
) -> str:
    return describe_progress(done, since=since, total=total, unit=unit, seconds=seconds)


def test_the_rate_and_the_time_that_is_left_follow_from_what_is_done() -> None:
    assert describe(50, total=200) == "50 of 200 rows, 5.0 rows/s, about 30 s left"
    assert describe(50) == "50 rows, 5.0 rows/s"
    assert describe(0, total=200, seconds=0.0) == "0 of 200 rows"


def test_when_all_is_done_nothing_is_left() -> None:
    assert describe(200, total=200) == "200 of 200 rows, 20.0 rows/s"
    assert describe(201, total=200) == "200 of 200 rows, 20.1 rows/s"


def test_work_that_was_done_before_is_no_speed() -> None:
    assert describe(150, since=100, total=200, unit="steps") == "150 of 200 steps, 5.0 steps/s, about 10 s left"


def test_no_end_is_foretold_that_lies_a_century_away() -> None:
    assert describe(1, total=10**18, unit="steps") == f"1 of {10**18:,} steps, 0.1 steps/s"


def test_what_is_not_counted_has_the_time_that_has_passed() -> None:
    assert describe(0, unit=None, seconds=61.0) == "1 min 1 s"
    assert describe(0, unit="rows", seconds=3.0) == "3 s"


def test_the_bar_is_as_wide_as_the_share_that_is_done() -> None:
    assert draw_bar(1, total=2) == "[########        ] "
    assert draw_bar(3, total=2) == f"[{'#' * 16}] "
    assert draw_bar(1, total=None) == draw_bar(0, total=0) == ""


def test_a_terminal_sees_one_line_that_is_drawn_again(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    caplog.set_level(logging.INFO)
    progress = Progress("predicting", unit="rows", total=4, is_terminal=True, clock=clock)
    progress.show(1)  # just begun: not drawn
    clock.now += 1.0
    progress.note = "loss 2.5"
    progress.advance(1)
    progress.close()
    line = "predicting  [########        ] 2 of 4 rows, about 1 s left  loss 2.5"
    assert capsys.readouterr() == ("", f"\r\x1b[K{line}\r\x1b[K")
    assert caplog.messages == []


def test_the_total_is_asked_for_when_it_is_first_needed(caplog: pytest.LogCaptureFixture) -> None:
    clock, asked = Clock(), []

    def count() -> int:
        asked.append(clock.now)
        return 4

    caplog.set_level(logging.INFO)
    progress = Progress("reading", unit="rows", total=count, is_terminal=True, clock=clock)
    clock.now += 1.0
    progress.advance(0)  # hashing comes first, and has no rows
    assert asked == []
    for _ in range(2):
        clock.now += 1.0
        progress.advance(1)
    progress.close()
    assert asked == [102.0]


def test_a_log_gets_a_line_now_and_then(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    caplog.set_level(logging.INFO)
    progress = Progress("predicting", unit="rows", is_terminal=False, clock=clock)
    for seconds in (1.0, 28.0, 2.0, 1.0):
        clock.now += seconds
        progress.show(62)
    progress.close()
    assert caplog.messages == ["predicting: 62 rows, 2.0 rows/s"]
    assert progress.seconds == 32.0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_where_the_log_is_silent_nothing_is_shown(
    is_terminal: bool, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.WARNING)
    clock = Clock()
    progress = Progress("predicting", unit="rows", total=4, is_terminal=is_terminal, clock=clock)
    clock.now += 1000.0
    progress.show(2)
    progress.close()
    with phase("loading"):
        pass
    assert (caplog.messages, capsys.readouterr()) == ([], ("", ""))


def test_a_phase_leaves_a_line_with_what_it_did_and_how_long_it_took(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    with phase("loading the model", clock=clock):
        clock.now += 2.345
    with phase("tokenising", unit="rows", clock=clock) as progress:
        progress.advance(1200)
        clock.now += 75.0
    with phase("tokenising", unit="rows", clock=clock):  # all were in the cache
        clock.now += 1.0
    assert caplog.messages == ["loading the model: 2.3 s", "tokenising: 1,200 rows in 1 min 15 s"]


def test_a_phase_that_fails_leaves_no_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(ValueError, match="no"), phase("loading the model"):
        raise ValueError("no")
    assert caplog.messages == []


PHASES = """
import logging, time
from dstrain.cluster import progress
from dstrain.cluster.console import set_up_log
progress.DRAW_SECONDS = progress.SAY_SECONDS = 0.05
set_up_log()
with progress.phase("loading the model"):
    time.sleep(0.5)
    logging.getLogger("dstrain").warning("a warning")
with progress.phase("tokenising", unit="rows", total=4) as shown:
    for _ in range(4):
        time.sleep(0.1)
        shown.advance(1)
"""


def test_on_a_terminal_phases_are_drawn_while_they_last_and_only_their_ends_stay() -> None:
    code, printed = run_on_terminal([sys.executable, "-c", PHASES])
    assert code == 0
    assert "\r\x1b[Kloading the model  " in printed
    assert "] 3 of 4 rows, " in printed
    first, second, third, last = screen_of(printed)
    assert first == "a warning"
    assert second.startswith("loading the model: 0.")
    assert third.startswith("tokenising: 4 rows in 0.")
    assert last == ""


def test_no_colour_is_ever_used() -> None:
    for variables in ({}, {"NO_COLOR": "1"}):
        _, printed = run_on_terminal([sys.executable, "-c", PHASES], variables=variables)
        _, *escapes = printed.split("\x1b")
        assert {escape[:2] for escape in escapes} == {"[K"}


def test_elsewhere_there_are_plain_lines_alone() -> None:
    done = subprocess.run([sys.executable, "-c", PHASES], capture_output=True, check=True, timeout=60)
    assert done.stdout == b""
    assert not {b"\r", b"\x1b"} & {done.stderr[place : place + 1] for place in range(len(done.stderr))}
    lines = done.stderr.decode().splitlines()
    assert any(line.startswith("loading the model: ") and line.endswith(" so far") for line in lines)
    assert any(line.startswith("tokenising: ") and " of 4 rows, " in line for line in lines)
    assert lines[-1].startswith("tokenising: 4 rows in ")
