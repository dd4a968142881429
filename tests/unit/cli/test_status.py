"""`dstrain status`: its output and exit codes, and that it imports no torch."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dstrain.cli.app import app
from tests.unit.cluster.terminal_cases import run_on_terminal
from tests.unit.status.status_cases import (
    NOW,
    iso,
    write_outcome,
    write_run,
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path)


@contextmanager
def rank_of_this_host(run: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the run's lease and writes a rank's record, as training does."""
    code = """
import sys
from pathlib import Path
from dstrain.cluster.processes import this_process
from dstrain.attempt.lease import acquire
from dstrain.run_folder.outcome import RunOutcome, write_outcome
from dstrain.attempt.rank_records import Phases, ranks_dir
run = Path(sys.argv[1])
lease = acquire(run, holder=this_process(), stale_seconds=60)
phases = Phases(ranks_dir(run), rank=0, attempt=lease.number)
write_outcome(run, RunOutcome("running", None, attempt=lease.number))
phases.enter("step", step=3)
print("ready", flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", code, str(run)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def test_the_command_follows_a_real_process_from_running_to_killed_with_its_exit_codes(tmp_path: Path) -> None:
    runner = CliRunner()
    never = runner.invoke(app, ["status", str(tmp_path), "--json"])
    assert (never.exit_code, json.loads(never.stdout)["state"]) == (1, "never started")
    with rank_of_this_host(tmp_path) as process:
        running = runner.invoke(app, ["status", str(tmp_path)])
        assert running.exit_code == 0, running.output
        assert f"{tmp_path}: running since" in running.stdout
        assert "'step', step 3" in running.stdout
        silent = runner.invoke(app, ["status", str(tmp_path), "--quiet-seconds", "0", "--json"])
        assert (silent.exit_code, json.loads(silent.stdout)["state"]) == (1, "silent")
        process.send_signal(signal.SIGKILL)
        process.wait()
    killed = runner.invoke(app, ["status", str(tmp_path)])
    assert killed.exit_code == 1
    assert "killed" in killed.stdout


def test_a_finished_run_ends_the_command_with_0(run: Path) -> None:
    write_outcome(run, "finished", step=1000, exit_code=0)
    result = CliRunner().invoke(app, ["status", str(run), "--json"])
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert (told["state"], told["since"]) == ("finished", iso(NOW - 300))
    assert told["best"] == {"step": 100, "metric": "bleu", "value": 12.5, "interval": None}
    assert told["last_scores"] == {"step": 100, "scores": {"loss": 2.5, "bleu": 12.5}, "intervals": {}}


STATUS = [sys.executable, "-m", "dstrain", "status"]


def test_a_terminal_shows_a_run_until_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path.parent)  # a line is no wider than the terminal
    with rank_of_this_host(tmp_path) as process:
        watching = threading.Thread(target=lambda: (time.sleep(3), process.kill()), daemon=True)
        watching.start()
        code, printed = run_on_terminal([*STATUS, tmp_path.name, "--watch", "0.2"])
    assert code == 1
    first, *later = printed.split("\x1b[J")
    assert ": running since" in first
    assert "every 0.2 s; Ctrl-C ends this, and not the run" in first
    assert len(later) > 1
    assert ": killed" in later[-1]
    assert "Ctrl-C" not in later[-1]


def test_ctrl_c_ends_the_watching_and_not_the_run(tmp_path: Path) -> None:
    with rank_of_this_host(tmp_path) as process:
        code, printed = run_on_terminal(
            [*STATUS, "--watch", "0.2", str(tmp_path)], typed=b"\x03", wait_for="and not the run"
        )
        assert process.poll() is None
    assert code == 130
    assert "Traceback" not in printed


@pytest.mark.parametrize("term", ["dumb", None])
def test_a_dumb_terminal_gets_lines(term: str | None, run: Path) -> None:
    write_outcome(run, "finished", step=1000, exit_code=0)
    code, printed = run_on_terminal([*STATUS, "--watch", "0.2", str(run)], term=term)
    assert code == 0
    assert "\x1b" not in printed


def test_without_a_terminal_a_line_is_printed_when_something_has_changed(tmp_path: Path) -> None:
    with rank_of_this_host(tmp_path) as process:
        command = [*STATUS, str(tmp_path), "--watch", "0.2"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
            assert watching.stdout is not None
            assert watching.stdout.readline().startswith(f"{tmp_path}: running, step 3")
            time.sleep(1)  # nothing changes
            process.kill()
            process.wait()
            assert watching.stdout.readline().startswith(f"{tmp_path}: killed")
            rest = watching.stdout.read()
        assert watching.wait() == 1
    assert "what to do" in rest
    assert "\x1b" not in rest


def test_json_is_not_watched(run: Path) -> None:
    result = CliRunner().invoke(app, ["status", str(run), "--watch", "--json"])
    assert result.exit_code == 2


@pytest.mark.parametrize("content", [b"\x00\xffrubbish\n", b"7\n", b'{"step": "x"}\n', b"[1e999, NaN]\n", b""])
def test_a_folder_of_rubbish_is_no_run_in_progress(content: bytes, run: Path) -> None:
    for path in run.rglob("*"):
        if path.is_file():
            path.write_bytes(content)
    result = CliRunner().invoke(app, ["status", str(run)], catch_exceptions=False)
    assert result.exit_code == 1
    assert "none of its records can be read" in result.stdout
    assert result.stdout.startswith(f"{run}: unreadable\n")


@pytest.mark.parametrize("kept", ["config.yaml", "run.json", "metrics.jsonl"])
def test_one_record_that_can_be_read_says_something_of_a_run(kept: str, run: Path) -> None:
    for path in run.rglob("*"):
        if path.is_file() and path.name != kept:
            path.write_bytes(b"rubbish")
    assert "unreadable" not in CliRunner().invoke(app, ["status", str(run)], catch_exceptions=False).stdout


def test_a_name_that_no_folder_can_have_is_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["status", str(tmp_path / ("a" * 300))], catch_exceptions=False)
    assert result.exit_code == 1
    assert result.stderr.endswith(": File name too long\n")


@pytest.mark.parametrize("kind", ["link", "pipe", "large"])
def test_a_configuration_that_is_no_ordinary_file_is_not_read(kind: str, run: Path, tmp_path: Path) -> None:
    config, outside = run / "config.yaml", tmp_path / "outside.txt"
    outside.write_text("password\n")
    config.unlink()
    if kind == "link":
        config.symlink_to(outside)
    elif kind == "pipe":
        os.mkfifo(config)
    else:
        config.write_text("#" * (2 << 20))
    result = CliRunner().invoke(app, ["status", str(run)], catch_exceptions=False)
    assert "config.yaml cannot be read" in result.stdout
    assert ("at most 1,048,576 are read" if kind == "large" else "a link, or no ordinary file") in result.stdout
    assert "password" not in result.output


def test_a_folder_that_does_not_exist_ends_with_code_1(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["status", str(tmp_path / "nowhere")])
    assert result.exit_code == 1
    assert "no such folder" in result.stdout


def test_status_and_compare_need_no_torch(run: Path) -> None:
    code = (
        "import sys\nfrom dstrain.cli.app import app\n"
        "try: app(sys.argv[1:])\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'deepspeed', 'transformers', 'numpy', 'matplotlib') if m in sys.modules])"
    )
    for command in ("status", "compare"):
        done = subprocess.run(
            [sys.executable, "-c", code, command, str(run)], capture_output=True, text=True, check=True
        )
        assert "120" in done.stdout or "100" in done.stdout
        assert done.stdout.splitlines()[-1] == "[]"
