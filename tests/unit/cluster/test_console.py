"""What a rank prints: its messages with its number, and no noise of libraries. In processes of their own."""

import math
import os
import subprocess
import sys

import pytest

from dstrain.cluster.console import Screen, can_redraw, cleaned, duration, fitted, own_program, redraw, say
from tests.unit.cluster.terminal_cases import run_on_terminal

CODE = """
import logging, os, sys, warnings
from dataclasses import replace
from dstrain.cluster.console import quiet_libraries
from dstrain.cluster.environment import read_process_info
quiet_libraries(replace(read_process_info({}), rank=int(sys.argv[1])))
logging.getLogger("dstrain.run").info("an \\x1b[31minfo")
logging.getLogger("dstrain.run").warning("a warning")
logging.getLogger("DeepSpeed").warning("no GPU here")
logging.getLogger("DeepSpeed").error("a real error")
warnings.warn_explicit("deprecated", FutureWarning, "x.py", 1, module="torch.distributed.fsdp")
print(os.environ["PATH"].split(os.pathsep)[0] == os.path.dirname(sys.executable), os.environ["TOKENIZERS_PARALLELISM"])
"""


def run_rank(rank: int) -> tuple[list[str], str]:
    """Lines on standard error, and standard output."""
    command = [sys.executable, "-c", CODE, str(rank)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return done.stderr.splitlines(), done.stdout.strip()


@pytest.mark.parametrize(
    ("rank", "lines"),
    [
        (0, [r"an \x1b[31minfo", "a warning", "a real error"]),
        (3, ["rank 3: a warning", "rank 3: a real error"]),
    ],
)
def test_rank_0_prints_everything_and_others_their_warnings_with_their_number(rank: int, lines: list[str]) -> None:
    assert run_rank(rank)[0] == lines


def test_tools_beside_the_interpreter_are_found_and_tokenizers_use_one_thread() -> None:
    assert run_rank(0)[1] == "True false"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;PWNED\x07\x1b[2K\rall fine", r"\x1b]0;PWNED\x07\x1b[2K\rall fine"),
        ("\x9b31m \x85 \x7f", r"\x9b31m \x85 \x7f"),  # C1 controls, of one byte in Latin-1
        ("a\u202eb\u2066c\u200fd", r"a\u202eb\u2066c\u200fd"),
        ("a\u2028b\u2029\x0b\x0c", r"a\u2028b\u2029\x0b\x0c"),
        ("\udc80", r"\udc80"),  # a file name that is not UTF-8
        ("\U000e0041\ufeff\u00ad", r"\U000e0041\ufeff\xad"),  # drawn as nothing
    ],
)
def test_what_could_control_a_terminal_or_hide_in_it_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert cleaned(text) == shown


@pytest.mark.parametrize("text", ["two\nlines\tand a tab", "안녕, 世界 🙂", "a\u00a0b\u3000c", "می\u200cخواهم"])
def test_other_text_is_shown_as_it_is(text: str) -> None:
    assert cleaned(text) == text


def test_what_is_said_is_cleaned(capsys: pytest.CaptureFixture[str]) -> None:
    say("out\x1b[2K")
    say(ValueError("err\x1b]52;c;eA==\x07"), err=True)
    assert capsys.readouterr() == ("out\\x1b[2K\n", "err\\x1b]52;c;eA==\\x07\n")


def test_a_traceback_that_nothing_catches_is_cleaned() -> None:
    code = "from dstrain.cluster.console import clean_tracebacks; clean_tracebacks(); raise ValueError('a' + chr(27) + 'b')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == r"ValueError: a\x1bb"


PROGRAM = """
import atexit, sys
from dstrain.cluster.console import run_program

class Slow:
    def __del__(self):
        print("taken apart")

def main():
    global slow
    slow = Slow()
    atexit.register(print, "handler")
    print("work", end=" ")
    if sys.argv[1] == "fail":
        raise ValueError("broken")
    return int(sys.argv[1])

try:
    run_program(main)
finally:
    print("caller")
"""


@pytest.mark.parametrize(
    ("outcome", "code", "printed"),
    [
        ("0", 0, "work caller\nhandler\n"),
        ("85", 85, "work caller\nhandler\n"),
        ("fail", 1, "work caller\nhandler\ntaken apart\n"),
    ],
)
def test_a_program_ends_after_its_handlers_without_being_taken_apart(outcome: str, code: int, printed: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, outcome], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, printed)
    assert ("ValueError: broken" in done.stderr) == (outcome == "fail")


def test_a_line_is_drawn_in_the_place_of_the_last_one_and_cleaned(capsys: pytest.CaptureFixture[str]) -> None:
    redraw("1 of 2 \x1b[2J")
    redraw("")
    assert capsys.readouterr() == ("", "\r\x1b[K1 of 2 \\x1b[2J\r\x1b[K")


@pytest.mark.parametrize(("recipe", "code"), [("demo_translation", 0), ("nowhere", 1)])
def test_a_command_whose_output_no_one_reads_ends_quietly_with_its_own_code(recipe: str, code: int) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "dstrain", "check", "debug", recipe, "demo_parsing"]
    done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True, check=False, timeout=120)
    os.close(write_end)
    assert done.returncode == code
    assert [line for line in done.stderr.splitlines() if "nowhere" not in line] == []


def test_nothing_is_written_where_there_is_no_line_to_remove(capsys: pytest.CaptureFixture[str]) -> None:
    redraw("")
    assert capsys.readouterr() == ("", "")


def test_several_lines_are_drawn_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    redraw("a\nb\tc")
    redraw("")
    assert capsys.readouterr().err == "\r\x1b[Ka b c\r\x1b[K"


def test_letters_of_east_asia_take_two_columns() -> None:
    assert fitted("abc", columns=2) == "ab"
    assert fitted("연필 쉰", columns=5) == "연필"
    assert fitted("연필", columns=3) == "연"
    assert fitted("", columns=0) == ""


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (84, "training  [####            ] 250 of 1,000 steps, about 26 min 26 s left  loss 5.9191"),
        (83, "training  [####            ] 250 of 1,000 steps, about 26 min 26 s left"),
        (71, "training  [####            ] 250 of 1,000 steps, about 26 min 26 s left"),
        (70, "training  [####            ] 250 of 1,000 steps"),
        (46, "training  [####            ] 250 of 1,000"),
    ],
)
def test_parts_and_words_that_do_not_fit_are_left_out_whole(columns: int, shown: str) -> None:
    line = "training  [####            ] 250 of 1,000 steps, about 26 min 26 s left  loss 5.9191"
    assert fitted(line, columns=columns) == shown


LINES = """
import logging, os, sys
from dstrain.cluster.console import Screen, can_redraw, redraw, say, say_from_signal, set_up_log
set_up_log()
print("can" if can_redraw() else "cannot", flush=True)
if can_redraw():
    redraw("1 of 2 " + "x" * 100)
    logging.getLogger("dstrain").info("logged")
    say("said")
    say_from_signal("signalled")
    redraw("")
"""


def test_on_a_terminal_what_is_said_stands_above_the_line_that_is_drawn() -> None:
    code, printed = run_on_terminal([sys.executable, "-c", LINES], columns=40)
    line = "1 of 2 " + "x" * 32  # one column less than there are, so that the terminal does not go to the next line
    assert code == 0
    assert printed.split("\r\n")[0] == "can"
    assert f"\r\x1b[K{line}\r\x1b[Klogged\r\n{line}" in printed
    assert f"\r\x1b[Ksaid\r\n{line}" in printed
    assert "\r\x1b[Ksignalled\r\n" in printed
    assert printed.endswith("\r\x1b[K")


@pytest.mark.parametrize("term", ["dumb", "", None])
def test_a_dumb_terminal_has_no_line_that_is_drawn_again(term: str | None) -> None:
    code, printed = run_on_terminal([sys.executable, "-c", LINES], term=term)
    assert (code, printed) == (0, "cannot\r\n")


def test_a_pipe_is_no_terminal() -> None:
    done = subprocess.run([sys.executable, "-c", LINES], capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == ("cannot\n", "")
    assert not can_redraw(sys.__stdin__)  # pytest's is none either


def test_commands_are_shown_as_the_shell_finds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    tools = os.path.dirname(sys.executable)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}/usr/bin")  # as quiet_libraries leaves it
    words = own_program()
    assert words[1:] == ["-m", "dstrain"]
    assert os.path.samefile(words[0], sys.executable)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{tools}")
    assert own_program() == ["dstrain"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s"), (59.4, "59 s"), (60, "1 min"), (61, "1 min 1 s"), (3600 * 3 + 725, "3 h 12 min"), (1e5, "1 d 3 h")],
)
def test_time_spans_read_in_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("seconds", [math.nan, math.inf])
def test_a_time_span_that_is_not_finite_is_unknown(seconds: float) -> None:
    assert duration(seconds) == "?"


def test_a_text_takes_the_place_of_the_one_before_and_never_more_than_the_screen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "10")
    monkeypatch.setenv("LINES", "4")
    screen = Screen()
    for text in ("a\nb", "a line that is long\nb\nc\nd\ne", "연필 쉰세 자루\x1b[2J"):
        screen.show(text)
    screen.clear()
    screen.clear()
    assert capsys.readouterr().out == ("a\nb\n\x1b[2A\r\x1b[Ja line\nb\nc\n\x1b[3A\r\x1b[J연필 쉰세\n\x1b[1A\r\x1b[J")
