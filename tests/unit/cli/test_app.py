"""The `dstrain` command: its commands, the ways to start it, and what a start leaves unimported."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import dstrain.cli
from dstrain import __version__
from dstrain.cli.app import COMMANDS, GROUPS, app

RUNNER = CliRunner()
NO_COMMANDS = {"__init__", "__main__", "app", "common", "completion"}
"""Modules of the folder that are not commands."""

every_start = pytest.mark.parametrize("start", [["-m", "dstrain"], ["-m", "dstrain.cli"]], ids=lambda start: start[1])


def test_version_is_printed() -> None:
    assert RUNNER.invoke(app, ["--version"]).stdout.startswith("dstrain 0.")


def test_every_file_of_the_folder_is_a_command_and_every_command_has_its_file() -> None:
    files = {path.stem for path in Path(str(dstrain.cli.__path__[0])).glob("*.py")}
    assert files - NO_COMMANDS == {*COMMANDS, *GROUPS}
    assert [command.callback.__name__ for command in app.registered_commands if command.callback] == list(COMMANDS)
    assert [group.name for group in app.registered_groups] == list(GROUPS)


def test_help_lists_the_commands_in_their_order_each_with_what_it_does() -> None:
    result = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, ["--help"])
    assert result.exit_code == 0
    listed = [re.search(rf"^\W*{name} ", result.stdout, re.MULTILINE) for name in (*COMMANDS, *GROUPS)]
    places = [match.start() for match in listed if match is not None]
    assert len(places) == len(listed)
    assert places == sorted(places)
    assert all(command.callback and command.callback.__doc__ for command in app.registered_commands)


def start_module(start: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *start, *arguments], capture_output=True, text=True, check=False)


@every_start
def test_a_module_prints_the_version_as_the_command_does(start: list[str]) -> None:
    done = start_module(start, "--version")
    by_command = RUNNER.invoke(app, ["--version"])
    assert (done.returncode, done.stdout) == (by_command.exit_code, by_command.stdout)
    assert done.stdout.startswith(f"dstrain {__version__} ")


@every_start
def test_a_module_refuses_a_wrong_command_as_the_command_does(start: list[str]) -> None:
    done = start_module(start, "chekc")
    by_command = RUNNER.invoke(app, ["chekc"], prog_name="dstrain")
    assert (done.returncode, done.stdout) == (by_command.exit_code, "") == (2, "")
    assert done.stderr == by_command.stderr
    assert "No such command 'chekc'" in done.stderr


def test_a_start_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom dstrain.cli.app import app\n"
        "try: app(['--version'])\nexcept SystemExit as end: assert end.code == 0\n"
        "heavy = ('torch', 'deepspeed', 'transformers', 'datasets', 'numpy', 'sacrebleu', 'matplotlib')\n"
        "print([module for module in heavy if module in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
