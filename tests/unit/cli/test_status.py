"""`dstrain status`: what it says of a real process, and its exit codes."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from typer.testing import CliRunner

from dstrain.cli.app import app
from tests.unit.cli.cli_cases import make_run


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


def test_a_finished_run_ends_with_code_0_and_its_scores(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", bleu=[3.0, 2.0])
    result = CliRunner().invoke(app, ["status", run, "--json"])
    assert result.exit_code == 0
    shown = json.loads(result.stdout)
    assert (shown["state"], shown["best"]) == ("finished", {"step": 10, "metric": "bleu", "value": 3.0})
    assert shown["last_scores"] == {"step": 20, "scores": {"bleu": 2.0, "loss": 7.0}}


def test_a_folder_that_does_not_exist_ends_with_code_1(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["status", str(tmp_path / "nowhere")])
    assert result.exit_code == 1
    assert "no such folder" in result.stdout
