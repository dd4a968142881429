"""Programs that score an evaluation: real processes that print, fail, hang, and see nothing of the run."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dstrain.config.evaluation import External
from dstrain.evaluation.external import ExternalScores, Scorer, ScorerFailed, build_command, rehearse_external
from dstrain.run_folder.external import read_external
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.scores import ScoredTexts, write_texts

TEXTS = ScoredTexts(["a b", "c"], [["a b", "d"], ["x", "c"]], ["A", "C"], ["e:1", "e:2"])
SLEEPS = "import time; time.sleep(600)"


def program(code: str, *more: str, **settings: Any) -> External:
    """A Python program whose arguments are the hypotheses and more files."""
    command = (sys.executable, "-c", f"import os, sys, time\n{code}", "{hypotheses}", *more)
    return External(command=command, **settings)


def compute(external: External, folder: Path) -> float:
    """The score that a program gives to TEXTS."""
    write_texts(TEXTS, folder=folder)
    scorer = Scorer("own", external, texts=folder)
    return wait_for(scorer.poll)


def wait_for(poll: Callable[[], float | None]) -> float:
    while (value := poll()) is None:
        time.sleep(0.01)
    return value


def test_it_reads_all_files_and_the_last_number_of_the_last_line_counts(tmp_path: Path) -> None:
    code = "lines = [open(name).read().split(chr(10))[:-1] for name in sys.argv[1:]]\n"
    code += "print('rows 2'); print('score:', sum(map(len, lines)) + 0.5)\nprint()"
    assert compute(program(code, "{sources}", "{references}"), tmp_path) == 8.5


@pytest.mark.parametrize(
    ("line", "value"), [("hyp.txt\\tscore: 0.8421", 0.8421), ("-1.5e-3", -1.5e-3), ("BLEU = 30", 30.0), ("v1 .5", 0.5)]
)
def test_numbers_are_read_as_tools_print_them(tmp_path: Path, line: str, value: float) -> None:
    assert compute(program(f"print('{line}')"), tmp_path) == value


def test_references_alone_are_all_files_and_inside_a_word_the_first(tmp_path: Path) -> None:
    write_texts(TEXTS, folder=tmp_path)
    words = build_command(
        ("x", "{references}", "--ref={references}", "{hypotheses}{sources}", "{other}"), texts=tmp_path
    )
    first, second = (str(tmp_path / f"references{number}.txt") for number in ("", ".1"))
    assert words == [
        "x",
        first,
        second,
        f"--ref={first}",
        f"{tmp_path}/hypotheses.txt{tmp_path}/sources.txt",
        "{other}",
    ]


def test_it_knows_nothing_of_the_launcher_and_our_python_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "MASTER_ADDR", "SLURM_JOB_ID", "TORCHELASTIC_RUN_ID", "PYTHONPATH"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("KEPT", "7")
    names = "['RANK', 'MASTER_ADDR', 'SLURM_JOB_ID', 'TORCHELASTIC_RUN_ID', 'PYTHONPATH']"
    code = f"assert not set({names}) & set(os.environ); print(os.environ['KEPT'])"
    assert compute(program(code), tmp_path) == 7.0


@pytest.mark.parametrize(
    ("external", "why"),
    [
        (program("print('no model', file=sys.stderr); sys.exit(3)"), "ended with code 3; it printed: no model"),
        (program("os.kill(os.getpid(), 9)"), "was ended by SIGKILL; it printed: nothing"),
        (program("print('done')"), "printed no number in its last line; it printed: done"),
        (program("print(float('nan'))"), "printed no number in its last line"),
        (program("print('1' * 400)"), "printed no number in its last line"),
        (program(SLEEPS, timeout_minutes=0.001), "took longer than timeout_minutes, 0.001"),
        (External(command=("/no/such/program", "{hypotheses}")), "cannot be started .*: name the program by its full"),
        (External(command=("x\0y", "{hypotheses}")), "cannot be started"),
    ],
)
def test_a_program_without_a_score_is_named_with_what_it_printed(tmp_path: Path, external: External, why: str) -> None:
    with pytest.raises(ScorerFailed, match=rf"(?s)evaluation\.external\.own: .*{why}"):
        compute(external, tmp_path)


def test_a_program_is_ended_with_all_that_it_has_started(tmp_path: Path) -> None:
    code = f"import subprocess\nchild = subprocess.Popen([sys.executable, '-c', '{SLEEPS}'])\n"
    code += "open(sys.argv[2], 'w').write(str(child.pid)); time.sleep(600)"
    write_texts(TEXTS, folder=tmp_path)
    scorer = Scorer("own", program(code, str(tmp_path / "pid")), texts=tmp_path)
    while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text():
        assert scorer.poll() is None
        time.sleep(0.01)
    scorer.end()
    child = int((tmp_path / "pid").read_text())
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().rpartition(")")[2][:3]:
        time.sleep(0.01)


def test_a_rehearsal_tries_every_program_and_refuses_one_that_fails(tmp_path: Path) -> None:
    beats: list[int] = []
    rehearse_external({"good": program("print(1)")}, texts=TEXTS, beat=lambda: beats.append(1))
    assert beats
    with pytest.raises(ScorerFailed, match=r"external\.bad"):
        rehearse_external({"good": program("print(1)"), "bad": program("sys.exit(1)")}, texts=TEXTS, beat=lambda: None)


COUNTS = "open(os.path.join(os.path.dirname(sys.argv[1]), 'counted'), 'a').write('x'); print(2)"


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run folder with the texts of two evaluations."""
    folder = RunFolder(tmp_path)
    for step in (10, 20):
        folder.hypotheses(step).mkdir(parents=True)
        write_texts(TEXTS, folder=folder.hypotheses(step))
    return folder


def values(folder: RunFolder, step: int) -> dict[str, float]:
    return {name: score.value for name, score in read_external(folder, step=step).items()}


def test_every_evaluation_is_scored_by_some_and_the_last_by_all_and_none_twice(folder: RunFolder) -> None:
    programs = {"each": program(COUNTS, every="evaluation"), "end": program(COUNTS)}
    scores = ExternalScores(programs, folder=folder)
    for _ in range(2):
        scores.add(10)
        scores.add(20, is_last=True)
    scores.finish()
    assert values(folder, 10) == {"each": 2.0}
    assert values(folder, 20) == {"each": 2.0, "end": 2.0}
    again = ExternalScores(programs, folder=folder)
    again.add(20, is_last=True)
    assert not again.poll()
    assert (folder.hypotheses(20) / "counted").read_text() == "xx"


def test_polling_does_not_wait(folder: RunFolder) -> None:
    scores = ExternalScores({"slow": program(SLEEPS, every="evaluation")}, folder=folder)
    scores.add(10)
    scores.add(20)
    assert [scores.poll() for _ in range(3)] == [True] * 3
    scores.close()
    assert not scores.poll()


def test_a_program_that_fails_is_said_once_and_stops_nothing(
    folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    programs = {"bad": program("sys.exit(1)", every="evaluation"), "good": program("print(3)", every="evaluation")}
    scores = ExternalScores(programs, folder=folder)
    scores.add(10)
    scores.add(20)
    while scores.poll():
        time.sleep(0.01)
    assert values(folder, 10) == values(folder, 20) == {"good": 3.0}
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert [message.count("has no score `bad`") for message in warnings] == [1]


def test_at_the_end_a_program_that_fails_is_not_started_again(folder: RunFolder) -> None:
    code = COUNTS.replace("print(2)", "sys.exit(1)")
    scores = ExternalScores({"bad": program(code, every="evaluation")}, folder=folder)
    scores.add(10)
    scores.add(20)
    scores.finish()
    assert (folder.hypotheses(10) / "counted").read_text() == "x"
    assert not (folder.hypotheses(20) / "counted").exists()


def test_waiting_ends_when_it_should(folder: RunFolder) -> None:
    scores = ExternalScores({"slow": program(SLEEPS)}, folder=folder)
    scores.add(10, is_last=True)
    scores.finish(should_stop=lambda: True)
    assert values(folder, 10) == {}


def test_signals_to_the_group_of_the_run_do_not_reach_it(folder: RunFolder) -> None:
    write_texts(TEXTS, folder=folder.path)
    before = signal.getsignal(signal.SIGTERM)
    scorer = Scorer("own", program("print(os.getpgid(0))"), texts=folder.path)
    assert wait_for(scorer.poll) != os.getpgid(0)
    assert signal.getsignal(signal.SIGTERM) == before
