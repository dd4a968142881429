"""What commands share: mistakes of a user end in a message and a code, and anything else keeps its traceback."""

import pytest
import typer
from typer.testing import CliRunner

from dstrain.cli.app import app
from dstrain.cli.common import Command, clean_errors, with_default
from dstrain.cluster.exit_codes import EXIT_USAGE
from dstrain.errors import UserError


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserError("seed must be a number"), "seed must be a number"),
        (OSError("disk full"), "disk full"),
        (OSError(28, "no room", "a\x1b/b"), r"a\x1b/b: no room"),
    ],
)
def test_a_users_mistake_is_its_message_and_code_1(
    error: Exception, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as end, clean_errors():
        raise error
    assert end.value.exit_code == 1
    assert capsys.readouterr().err == f"{message}\n"


def test_a_fault_of_the_program_keeps_its_traceback() -> None:
    with pytest.raises(KeyError), clean_errors():
        raise KeyError("fault")


def test_an_exit_code_passes_through() -> None:
    with pytest.raises(typer.Exit) as end, clean_errors():
        raise typer.Exit(7)
    assert end.value.exit_code == 7


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["run", "--watch"], ["run", "--watch", "2"]),
        (["--watch", "run"], ["--watch", "2", "run"]),
        (["--watch", "0.5", "run"], ["--watch", "0.5", "run"]),
        (["run"], ["run"]),
    ],
)
def test_a_value_that_was_left_out_is_the_default(args: list[str], expected: list[str]) -> None:
    assert with_default(args, option="--watch", default="2") == expected


@pytest.mark.parametrize(
    ("arguments", "instead"),
    [
        (["train", "my_recipe.yaml", "--num_train_epochs", "3"], "train --config my_recipe.yaml training.epochs=3"),
        (["check", "--config", "debug", "--learning_rate", "1e-4"], "check debug training.learning_rate=1e-4"),
        (["plan", "debug", "--training.max_steps", "5", "--gpus", "2"], "plan debug training.max_steps=5 --gpus 2"),
        (["prepare", "debug", "seed", "3"], "prepare debug seed=3"),
        (["audit", "debug", "--json", "--fp16"], "audit debug --json precision=fp16"),
        (["evaluate", "runs/x", "--num_beams", "4"], "evaluate runs/x evaluation.num_beams=4"),
    ],
)
def test_arguments_of_other_tools_are_answered_with_the_command_to_type(arguments: list[str], instead: str) -> None:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == EXIT_USAGE
    assert result.stderr.splitlines()[-1].endswith(f" {instead}")
    assert result.stdout == ""


def test_a_command_without_overrides_refuses_an_option_as_before() -> None:
    result = CliRunner().invoke(app, ["verify", "runs/x", "--num_beams", "4"])
    assert result.exit_code == EXIT_USAGE
    assert "No such option" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["train", "--config", "{}", "seed=1", "--config={}"], "--config"),
        (["evaluate", "runs/x", "--config={}", "--config", "{}"], "--config"),
        (["predict", "runs/x", "--input", "{}", "--input", "{}"], "--input"),
        (["explain", "seed", "--config", "{}", "--config", "{}"], "--config"),
        (["push", "runs/x", "me/model", "--revision", "{}", "--revision", "{}"], "--revision"),
        (["track", "runs/x", "--name", "{}", "--to", "own", "--name", "{}"], "--name"),
        (["recipe", "copy", "debug", "--output", "{}", "--output", "{}"], "--output"),
    ],
)
def test_an_option_of_one_value_that_is_given_twice_is_an_error_with_both(arguments: list[str], option: str) -> None:
    values = iter(("a.yaml", "b.yaml"))
    given = [word.format(next(values)) if "{}" in word else word for word in arguments]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == EXIT_USAGE
    assert f'{option} is given twice, "a.yaml" and "b.yaml": leave one of them out' in result.stderr


def test_every_command_refuses_an_option_with_two_values() -> None:
    group = typer.main.get_group(app)
    commands = [*group.commands.values(), *getattr(group.commands["recipe"], "commands", {}).values()]
    assert [command.name for command in commands if not isinstance(command, Command)] == ["recipe"]


def test_an_option_that_may_have_several_values_is_taken_with_each() -> None:
    result = CliRunner().invoke(app, ["check", "debug", "--set", "seed=1", "--set", "name=again"])
    assert (result.exit_code, "name        again" in result.stdout) == (0, True)
