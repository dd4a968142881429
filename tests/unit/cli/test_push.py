"""`dstrain push`: what it says, what it sends, and what it refuses before anything is done."""

from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner, Result

from dstrain.cli.app import app
from dstrain.sharing.push import Push, plan_push
from tests.unit.sharing.sharing_cases import make_shared_run, snapshot


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["push", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object, **more: object) -> None:
        raise AssertionError("a request")

    monkeypatch.setattr("dstrain.sharing.hub.send", refuse)
    monkeypatch.setattr("dstrain.sharing.hub.get_token", lambda: None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.example")


@pytest.mark.usefixtures("no_network")
def test_a_dry_run_says_what_would_go_up_without_token_network_or_change(tmp_path: Path) -> None:
    run = make_shared_run(tmp_path / "run")
    before = snapshot(run)
    result = invoke(run, "me/model", "--dry-run")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == f"{run}/best, step 10, to https://hub.example/me/model, branch main"
    assert any(line.endswith("  model.safetensors") for line in lines)
    assert any(line.startswith("note: no licence is stated") for line in lines)
    assert lines[-1] == "nothing was sent: --dry-run; --show-card prints the card that would go up"
    assert snapshot(run) == before


@pytest.mark.usefixtures("no_network")
def test_the_card_that_would_go_up_is_printed_alone_on_standard_output(tmp_path: Path) -> None:
    run = make_shared_run(tmp_path / "run")
    before = snapshot(run)
    result = invoke(run, "me/model", "--show-card")
    assert result.exit_code == 0
    assert result.stdout == plan_push(run, repo="me/model").card + "\n"
    assert "from_pretrained('me/model')" in result.stdout
    assert f"{run}/best, step 10, to https://hub.example/me/model, branch main" in result.stderr
    assert result.stderr.endswith("nothing was sent: --show-card\n")
    assert snapshot(run) == before


@pytest.mark.usefixtures("no_network")
def test_a_secret_in_the_card_is_found_where_there_is_no_token(tmp_path: Path) -> None:
    run = make_shared_run(tmp_path / "run")
    card = run / "best" / "README.md"
    card.write_text("hf_" + "a" * 34 + "\n")
    result = invoke(run, "me/model")
    assert result.exit_code == 1
    assert f"{card}:" in result.stderr
    assert "there is no token" not in result.stderr


def test_what_goes_up_is_said_before_it_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dstrain.sharing.hub.check_access", lambda: None)

    def send(push: Push, *, report: Callable[[str], None]) -> str:
        report("sending")
        return f"https://huggingface.co/{push.repo}/commit/1"

    monkeypatch.setattr("dstrain.sharing.hub.send", send)
    result = invoke(make_shared_run(tmp_path / "run"), "me/model", "--private", "--best", "--revision", "v2")
    lines = result.stdout.splitlines()
    assert lines.index("sending") > next(number for number, line in enumerate(lines) if " files, " in line)
    assert lines[-1] == "https://huggingface.co/me/model/commit/1"


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["me/model"], "there is no token for the Hub"),
        (["model", "--dry-run"], "the name on the Hub must be owner/name"),
        (["me/model", "--final", "--best"], "which model? give one of --best, --final, --average and --step"),
        (["me/model", "--final", "--step", "3"], "which model? give one of"),
        (["me/model", "--final", "--dry-run"], "holds no final/: it has best/"),
        (["me/model", "--revision", "refs/pr/1", "--dry-run"], "--revision must be the name of a branch"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_1(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = invoke(make_shared_run(tmp_path / "run"), *arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.usefixtures("no_network")
def test_of_an_unfinished_run_no_checkpoint_is_sent(tmp_path: Path) -> None:
    run = make_shared_run(tmp_path / "run", status="stop")
    result = invoke(run, "me/model", "--step", 10, "--dry-run")
    assert result.exit_code == 1
    assert "has not finished, and of such a run only the best model so far is sent: leave out --step" in result.stderr


@pytest.mark.usefixtures("no_network")
def test_there_is_no_option_for_a_token(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["push", "x", "me/model", "--token", "hf_x"]).exit_code == 2
