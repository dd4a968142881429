"""`dstrain report`: where the page is, and one line for what is wrong."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dstrain.cli.app import app
from dstrain.cluster.processes import this_process
from dstrain.run_folder.layout import RunFolder
from tests.unit.html_report.html_report_cases import decode, make_failed_starts, make_killed_run, make_run

ROOT = Path(__file__).resolve().parents[3]


def invoke(*arguments: Path | str) -> Result:
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def test_the_report_of_one_run_lies_in_its_folder(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    result = invoke(folder.path)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{folder.report} (")
    assert decode(folder.report)["runs"][0]["state"] == "finished"


def test_the_report_of_several_runs_lies_where_the_command_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    runs = [make_run(tmp_path / "runs" / "a"), make_killed_run(tmp_path / "runs" / "b")]
    result = invoke(*(run.path for run in runs))
    assert result.exit_code == 0, result.output
    assert [run["folder"] for run in decode(tmp_path / "report.html")["runs"]] == ["a", "b"]
    result = invoke(tmp_path / "runs", "--output", "sweep.html")
    assert result.stdout.startswith("sweep.html (")
    assert [run["folder"] for run in decode(tmp_path / "sweep.html")["runs"]] == ["a", "b"]


def test_what_the_run_is_doing_is_said_as_status_says_it(tmp_path: Path) -> None:
    folder = make_killed_run(tmp_path / "run")
    for end in folder.ends():
        end.unlink()
    lines = folder.metrics.read_text().splitlines()
    folder.metrics.write_text("\n".join(lines[:-1]) + "\n")
    assert invoke(folder.path).exit_code == 0
    status = CliRunner().invoke(app, ["status", str(folder.path), "--json"])
    assert f'"{decode(folder.report)["runs"][0]["state"]}"' in status.stdout


def test_a_run_that_has_never_begun_to_train_has_a_page_with_its_reason_and_what_to_do(tmp_path: Path) -> None:
    failed = make_failed_starts(tmp_path / "failed")
    make_run(tmp_path / "trained")
    (tmp_path / "logs").mkdir()
    assert invoke(failed.path).exit_code == 0
    (run,) = decode(failed.report)["runs"]
    advice = (
        "mend what the message says; then the same command begins at the first step, since there is no checkpoint yet"
    )
    assert (run["state"], run["why"], run["advice"]) == ("failed", "no weights", advice)
    assert invoke(tmp_path, "--output", tmp_path / "all.html").exit_code == 0
    assert [run["name"] for run in decode(tmp_path / "all.html")["runs"]] == ["failed", "trained"]


def test_damaged_files_are_counted_on_the_terminal_too(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    assert invoke(folder.path).stderr == ""
    folder.metrics.write_text("no row\n")
    assert invoke(folder.path).stderr == "1 note about damaged or missing files: see Notes\n"
    folder.info.unlink()
    assert invoke(folder.path).stderr == "2 notes about damaged or missing files: see Notes\n"
    (run,) = decode(folder.report)["runs"]
    assert run["unread"] == ["rows"]


def test_a_start_that_was_killed_before_it_acquired_the_folder_has_a_page_too(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "killed")
    folder.claims.mkdir(parents=True)
    gone = replace(this_process(), process_start=this_process().process_start + 1)
    folder.start_mark.write_text(json.dumps(asdict(gone)))
    assert invoke(folder.path).exit_code == 0
    (run,) = decode(folder.report)["runs"]
    assert (run["name"], run["state"], run["attempts"]) == ("killed", "killed", [])
    assert run["why"] == "it ended before it had begun: it was killed while it imported libraries"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "no such folder"),
        (["empty"], "not a run folder"),
        (["run", "--output", "empty"], "exists and is no report"),
        (["run", "--output", "nowhere/x.html"], "no such folder"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    make_run(tmp_path / "run")
    result = invoke(*arguments)
    assert result.exit_code == 1
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""


def test_a_report_is_written_without_torch(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    code = "import sys; from dstrain.cli.app import app; app(['report', 'run'], standalone_mode=False)\n"
    code += "assert not {'torch', 'transformers', 'datasets', 'matplotlib'} & set(sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    assert decode(tmp_path / "run" / "report.html")["runs"][0]["name"] == "run"
