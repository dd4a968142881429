"""`dstrain init`: data files in, a recipe out that the check accepts, and nothing written where that fails."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dstrain.cli.app import app

ROWS = "".join(f"가나다 {n}\tthe text {n}\n" for n in range(50))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.tsv").write_text(ROWS, encoding="utf-8")
    return tmp_path


def test_a_file_becomes_a_recipe_and_the_rows_are_set_apart(folder: Path) -> None:
    result = CliRunner().invoke(app, ["init", "pairs.tsv", "--yes"])
    assert result.exit_code == 0, result.output
    assert (
        "wrote pairs.train.jsonl (40 rows) and pairs.eval.jsonl (10 rows)\nwrote pairs.yaml\nnext:\n" in result.stdout
    )
    assert sorted(path.name for path in folder.iterdir()) == [
        "pairs.eval.jsonl",
        "pairs.train.jsonl",
        "pairs.tsv",
        "pairs.yaml",
    ]
    checked = CliRunner().invoke(app, ["check", "pairs.yaml"])
    assert checked.exit_code == 0, checked.output


def test_options_are_taken_for_guesses(folder: Path) -> None:
    options = "--name mine --task text --size base --source-column 1 --target-column 0 --device cuda".split()
    (folder / "dev.tsv").write_bytes((folder / "pairs.tsv").read_bytes())
    result = CliRunner().invoke(app, ["init", "pairs.tsv", "--eval", "dev.tsv", "--output", "r.yaml", *options])
    assert result.exit_code == 0, result.output
    written = (folder / "r.yaml").read_text()
    for line in ("name: mine  #", "precision: bf16  #", "kind: text  #", "hidden_size: 256  #", "source_column: 1  #"):
        assert line in written
    assert CliRunner().invoke(app, ["check", "r.yaml"]).exit_code == 0


@pytest.mark.parametrize("taken", ["pairs.yaml", "pairs.train.jsonl", "pairs.eval.jsonl"])
def test_a_file_that_exists_is_left_alone_and_nothing_else_is_written(taken: str, folder: Path) -> None:
    (folder / taken).write_text("mine")
    result = CliRunner().invoke(app, ["init", "pairs.tsv", "--yes"])
    assert result.exit_code == 1
    assert f"{taken} exists already" in result.stderr
    assert (folder / taken).read_text() == "mine"
    assert sorted(path.name for path in folder.iterdir()) == sorted(["pairs.tsv", taken])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.tsv"], "no such file"),
        (["pairs.tsv", "--eval", "./pairs.tsv"], "is a file of training rows"),
        (["pairs.tsv", "--model", "t5-small", "--size", "tiny"], "give one of them"),
        (["pairs.tsv", "--name", "a b"], "--name"),
        (["pairs.tsv", "--source-column", "9", "--target-column", "8"], "no usable row"),
    ],
)
def test_a_mistake_is_its_message_and_nothing_is_written(arguments: list[str], message: str, folder: Path) -> None:
    result = CliRunner().invoke(app, ["init", *arguments, "--yes"])
    assert result.exit_code == 1
    assert message in result.stderr
    assert [path.name for path in folder.iterdir()] == ["pairs.tsv"]


@pytest.mark.parametrize(("answer", "is_written"), [("y\n", True), ("\n", True), ("n\n", False)])
def test_in_a_terminal_it_asks_before_it_writes(
    answer: str, is_written: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dstrain.cli.init.in_terminal", lambda: True)
    result = CliRunner().invoke(app, ["init", "pairs.tsv"], input=answer)
    assert result.exit_code == 0, result.output
    assert "Write pairs.yaml?" in result.stdout
    assert (folder / "pairs.yaml").exists() == is_written
