"""What a user sees of whole runs: on a real terminal, and in the log of a program without one."""

import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

from dstrain.cluster.environment import free_port
from dstrain.cluster.processes import this_process
from dstrain.run_folder.outcome import read_outcome
from dstrain.status.inspect import inspect_status
from tests.unit.cluster.terminal_cases import run_on_terminal, screen_of

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(sys.executable).parent
TRAIN = [sys.executable, str(ROOT / "launch" / "train.py")]
PHASES = (
    "importing torch, transformers and DeepSpeed",
    "making the tokenizer",
    "reading and tokenising the training rows",
    "reading and tokenising the evaluation rows",
    "making a model of random weights",
    "setting up DeepSpeed",
)
TOOK = re.compile(r": (?:[\d,]+ rows in )?(\d+\.\d s|\d+ min.*)$")


def overrides(folder: Path, *more: str) -> list[str]:
    folders = [f"output_dir={folder / 'run'}", f"machine.cache_dir={folder / 'cache'}"]
    return ["--config", "debug", *folders, "logging.tensorboard=false", *more]


VARIABLES = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PATH": f"{TOOLS}:/usr/bin:/bin"}


def run_in_log(command: list[str], *, cwd: Path) -> list[str]:
    """The lines that a program without a terminal prints, on both outputs together."""
    done = subprocess.run(
        command, cwd=cwd, env=VARIABLES, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True, timeout=300
    )
    assert b"\r" not in done.stdout
    assert b"\x1b" not in done.stdout
    return done.stdout.decode().splitlines()


def assert_phases(lines: list[str]) -> None:
    found = [line for line in lines if TOOK.search(line)]
    assert [TOOK.sub("", line) for line in found] == list(PHASES)


def test_a_log_has_a_line_for_each_phase_and_a_command_at_the_end_that_works(tmp_path: Path) -> None:
    lines = run_in_log([*TRAIN, *overrides(tmp_path)], cwd=tmp_path)
    assert lines[0] == f"{tmp_path / 'run'}: begins on 1 rank"
    assert_phases(lines)
    assert sum(line.startswith("    hypothesis  ") for line in lines) == 2 * 3  # two evaluations
    first, second = (place for place, line in enumerate(lines) if re.match(r"evaluation at step \d+ \(", line))
    shown = [[line for line in lines[place + 1 : place + 10] if "hypothesis" not in line] for place in (first, second)]
    assert shown[0] == shown[1]  # the same rows, with the same references
    end = lines.index(f"{tmp_path / 'run'}: finished at step 20 of 20")
    assert lines[end + 1] == "  why    all 20 steps are done (training.max_steps)"
    assert re.match(r"  best   bleu [\d.]+ ± [\d.]+ at step \d+, in ", lines[end + 2])
    commands = [line[9:] for line in lines[end:] if "  # " in line]
    assert len(commands) == 3
    for command in commands:
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=VARIABLES, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (command, done.stderr)


def test_a_terminal_shows_bars_that_are_gone_in_the_end(tmp_path: Path) -> None:
    code, printed = run_on_terminal([*TRAIN, *overrides(tmp_path)], columns=150, variables=VARIABLES, cwd=tmp_path)
    assert code == 0, printed
    assert re.search(r"\r\x1b\[Ktraining  \[#+ *\] \d+ of 20 steps, ", printed)
    lines = screen_of(printed)
    assert lines[0] == f"{tmp_path / 'run'}: begins on 1 rank"
    assert_phases(lines)
    assert not [line for line in lines if line.startswith(("training  ", "evaluation  ", "rehearsal  "))]
    assert f"{tmp_path / 'run'}: finished at step 20 of 20" in lines
    # what is finished says so again, and how to go on
    code, printed = run_on_terminal([*TRAIN, *overrides(tmp_path)], columns=150, variables=VARIABLES, cwd=tmp_path)
    assert code == 0
    assert "is finished; use another output_dir to start a new run" in printed
    assert "dstrain predict " in printed


def test_ctrl_c_on_a_terminal_says_how_to_resume_and_that_command_does(tmp_path: Path) -> None:
    long = overrides(tmp_path, "training.max_steps=100000", "evaluation.every_steps=100000", "training.warmup_steps=2")
    code, printed = run_on_terminal(
        [*TRAIN, *long], columns=150, variables=VARIABLES, cwd=ROOT, typed=b"\x03", wait_for="] 2"
    )
    assert code == 85, printed
    lines = screen_of(printed)
    outcome = read_outcome(tmp_path / "run")
    assert outcome is not None
    (end,) = (place for place, line in enumerate(lines) if "stopped early, its work saved at step" in line)
    assert lines[end] == f"{tmp_path / 'run'}: stopped early, its work saved at step {outcome.step:,} of 100,000"
    assert lines[end + 1] == "  why    received SIGINT (Ctrl-C)"
    resume = next(line[9:] for line in lines[end:] if "# resume from" in line)
    words = shlex.split(resume, comments=True)
    assert words[:2] == ["python", "launch/train.py"]
    # the same steps, and a length that it has reached, so that it ends at once
    again = [sys.executable, *words[1:], "training.max_steps=1", "--allow-changed", "training.max_steps"]
    done = subprocess.run(again, cwd=ROOT, env=VARIABLES, capture_output=True, text=True, check=False, timeout=300)
    assert f"the run has {outcome.step} steps already" in done.stderr


def test_a_watcher_sees_a_start_and_a_restart_before_the_lease_is_acquired(tmp_path: Path) -> None:
    run = tmp_path / "run"
    steps = ["evaluation.every_steps=20", "checkpoint.every_steps=10"]
    first = watch_states([*TRAIN, *overrides(tmp_path, *steps)], run=run)
    assert first == ["starting", "running", "finished"]
    longer = ["training.max_steps=30", "--allow-changed", "training.max_steps"]
    again = watch_states([*TRAIN, *overrides(tmp_path, *steps, *longer)], run=run)
    assert again == ["starting", "running", "finished"]


def watch_states(command: list[str], *, run: Path) -> list[str]:
    """The states of a run from the first that is due to a start, each once."""
    before = look(run)
    found: list[str] = []
    with subprocess.Popen(
        command, cwd=ROOT, env=VARIABLES, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None:
            state = look(run)
            if state != (found[-1] if found else before):
                found.append(state)
            time.sleep(0.1)
    return found if found[-1] == look(run) else [*found, look(run)]


def look(run: Path) -> str:
    return inspect_status(run, now=time.time(), observer=this_process()).state


def test_of_two_ranks_one_speaks(tmp_path: Path) -> None:
    command = [str(TOOLS / "torchrun"), "--nproc-per-node", "2", "--master_port", str(free_port()), *TRAIN[1:]]
    lines = run_in_log([*command, *overrides(tmp_path, "machine.min_micro_batches=2")], cwd=tmp_path)
    assert lines.count(f"{tmp_path / 'run'}: begins on 2 ranks") == 1
    assert_phases(lines)
    assert sum(line.startswith("rehearsal: ") for line in lines) == 1
    assert sum("finished at step 20 of 20" in line for line in lines) == 1
