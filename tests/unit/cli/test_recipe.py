"""`dstrain recipe from-card`: a card in, a recipe out that the check accepts up to the data."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dstrain.cli.app import app
from tests.unit.draft.card_texts import KO_EN, POINTER


@pytest.mark.parametrize("card", [KO_EN, POINTER], ids=lambda path: path.stem)
def test_a_card_becomes_a_recipe_that_lacks_nothing_but_data(
    card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["recipe", "from-card", str(card)])
    assert result.exit_code == 0, result.output
    recipe = f"{card.stem}.yaml"
    assert result.stdout.splitlines()[-1] == f"next: dstrain check {recipe}"
    checked = CliRunner().invoke(app, ["check", recipe])
    problems = [line.split(": ")[1:3] for line in checked.stderr.splitlines()]
    assert [key for key, _ in problems] == ["data.train.0.path", "data.eval.0.path"]
    assert all(problem.startswith("no such file; found") for _, problem in problems)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    output = tmp_path / "r.yaml"
    arguments = ["recipe", "from-card", str(KO_EN), "--output", str(output)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    content = output.read_text()
    assert content.startswith(f"# deepspeed --module dstrain.train --config {output}\n")
    again = CliRunner().invoke(app, arguments)
    assert (again.exit_code, again.stderr) == (
        1,
        f"{output} exists already: name another file with --output, or remove it\n",
    )
    assert output.read_text() == content


@pytest.mark.parametrize("name", ["nowhere.md", "."])
def test_what_is_no_card_is_refused_by_its_message(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["recipe", "from-card", name])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"{name}: ")
    assert not list(tmp_path.iterdir())
