"""What commands share: a user's mistake ends in its message and code 1, and anything else keeps its traceback."""

import pytest
import typer

from dstrain.cli.common import clean_errors
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
