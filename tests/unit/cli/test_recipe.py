"""`dstrain recipe`: a card in, a recipe out that the check accepts up to the data; shipped recipes listed and copied."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dstrain.cli.app import app
from dstrain.config.load import load_config
from dstrain.config.shipped import shipped_recipes
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
    problems = [line.split(": ", 2)[1:] for line in checked.stderr.splitlines()]
    assert [key for key, _ in problems] == ["data.train.0.path", "data.eval.0.path"]
    assert all(problem.startswith("no such file: ") for _, problem in problems)


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


def test_the_shipped_recipes_are_listed_with_what_they_are_for() -> None:
    result = CliRunner().invoke(app, ["recipe", "list"])
    assert result.exit_code == 0
    lines = dict(line.split("  ", 1) for line in result.stdout.splitlines())
    assert [name.strip() for name in lines] == shipped_recipes()
    purposes = {name.strip(): purpose.strip() for name, purpose in lines.items()}
    assert purposes["debug"] == "The smallest complete run, in one process and in seconds"
    assert purposes["mt5_pointer_mtop"] == "The recipe of the model card `t5-small-pointer-mtop`"
    assert all(30 < len(purpose) < 130 for purpose in purposes.values())


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_copy_of_a_shipped_recipe_means_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = load_config(name)
    result = CliRunner().invoke(app, ["recipe", "copy", name, "--output", "mine.yaml"])
    assert (result.exit_code, result.stdout) == (0, "wrote mine.yaml\nnext: dstrain check mine.yaml\n")
    assert load_config("mine.yaml") == load_config("mine") == shipped
    first = Path("mine.yaml").read_text().splitlines()[0]
    assert first.removeprefix("# ").startswith(("deepspeed --module dstrain.train", "python -m dstrain.train"))
    again = CliRunner().invoke(app, ["recipe", "copy", name, "--output", "mine.yaml"])
    assert (again.exit_code, "exists already" in again.stderr) == (1, True)


def test_a_copy_has_the_name_of_the_recipe_and_is_found_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, ["recipe", "copy", "demo_text"]).exit_code == 0
    Path("demo_text.yaml").write_text(Path("demo_text.yaml").read_text().replace("name: demo-text", "name: mine"))
    assert load_config("demo_text").name == "mine"


def test_a_recipe_that_is_not_shipped_is_refused_with_the_nearest_name() -> None:
    result = CliRunner().invoke(app, ["recipe", "copy", "demo-text"])
    assert result.exit_code == 1
    assert "did you mean `demo_text`?" in result.stderr
