"""`dstrain compare`: runs side by side, the best first, with the recipe keys in which they differ and no others."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dstrain.cli.app import app
from dstrain.config.load import dump_config, load_config
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.scores import ScoredTexts, Scores, write_scores
from tests.unit.cli.cli_cases import make_run
from tests.unit.html_report.html_report_cases import make_failed_starts


def compare(*arguments: str, columns: int = 1000) -> Result:
    return CliRunner().invoke(app, ["compare", *arguments], env={"COLUMNS": str(columns)})


def cells(result: Result) -> list[list[str]]:
    """A table of the terminal, whose columns are two spaces apart."""
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in result.stdout.splitlines()]


def test_the_table_has_the_best_run_first_and_a_column_for_every_key_that_differs(tmp_path: Path) -> None:
    low = make_run(tmp_path / "low", "training.learning_rate=1e-4", bleu=[3.0, 7.5])
    high = make_run(tmp_path / "high", "seed=7", bleu=[25.5, 20.0], loss=0.5)
    result = compare(low, high)
    assert result.exit_code == 0, result.output
    rate = str(load_config("debug").training.learning_rate)
    assert cells(result) == [
        [
            "run",
            "status",
            "step",
            "best bleu",
            "at step",
            "last training loss",
            "seconds trained",
            "seed",
            "training.learning_rate",
        ],
        [high, "finished", "40 of 40", "25.5000", "10", "0.5000", "61.7", "7", rate],
        [low, "finished", "40 of 40", "7.5000", "20", "1.2500", "61.7", str(load_config("debug").seed), "0.0001"],
    ]


def test_what_does_not_change_what_is_learned_has_no_column(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one")
    two = make_run(tmp_path / "two", "machine.zero_stage=2", "logging.every_steps=3")
    assert cells(compare(one, two))[0][-1] == "seconds trained"


def test_a_loss_is_better_the_lower_it_is_and_runs_without_a_score_come_last(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / "none", "evaluation.best_metric=loss", bleu=[]),
        make_run(tmp_path / "one", "evaluation.best_metric=loss", bleu=[1.0]),
        make_run(tmp_path / "three", "evaluation.best_metric=loss", bleu=[1.0, 1.0, 1.0]),
        make_run(tmp_path / "nan", "evaluation.best_metric=loss", bleu=[1.0], loss=math.nan),
    ]
    table = cells(compare(*runs))
    assert [Path(row[0]).name for row in table] == ["run", "three", "one", "nan", "none"]
    assert table[0][3] == "best loss"
    assert [row[3:5] for row in table[1:]] == [["6.0000", "30"], ["8.0000", "10"], ["8.0000", "10"], ["-", "-"]]
    assert table[3][5] == "nan"


def test_runs_that_were_scored_on_other_rows_are_not_ranked(tmp_path: Path) -> None:
    whole = make_run(tmp_path / "whole", bleu=[1.0])
    part = make_run(tmp_path / "part", "data.eval.0.max_rows=8", bleu=[9.0])
    result = compare(whole, part)
    assert result.exit_code == 0
    assert [row[0] for row in cells(result)[1:]] == [whole, part]  # as given
    reason = "not ranked: scores of different evaluation rows cannot be compared (data.eval.0.max_rows)\n"
    assert result.stderr == reason
    assert [run["name"] for run in json.loads(compare(whole, part, "--json").stdout)] == ["whole", "part"]
    assert compare(whole, make_run(tmp_path / "other", "seed=7")).stderr == ""


def test_runs_of_several_metrics_are_not_ranked_and_name_them(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / "a", "evaluation.best_metric=chrf", bleu=[1.0], chrf=50.0),
        make_run(tmp_path / "b", bleu=[30.0], chrf=10.0),
        make_run(tmp_path / "c", "evaluation.best_metric=chrf", bleu=[1.0], chrf=60.0),
    ]
    result = compare(*runs)
    assert [(Path(row[0]).name, row[3]) for row in cells(result)] == [
        ("run", "best score"),
        ("a", "chrf 50.0000"),
        ("b", "bleu 30.0000"),
        ("c", "chrf 60.0000"),
    ]
    assert result.stderr == "not ranked: the runs choose their best model by different metrics (bleu, chrf)\n"


def test_a_run_is_known_by_its_folder_alone_or_beside_others_of_any_name(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / folder, name=name) for folder, name in (("a", "same"), ("b", "same"), ("c", "other"))]
    assert [row[0] for row in cells(compare(*runs))[1:]] == runs
    for run in runs:
        assert cells(compare(run))[1][0] == run


def test_a_folder_is_shown_without_what_a_terminal_would_obey(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a\x1b[2Jb", name="plain")
    assert cells(compare(run))[1][0] == run.replace("\x1b", " ")


def test_a_terminal_of_80_columns_shows_whole_values_below_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, prefix in (("a", "x"), ("b", f"{'long ' * 30}end")):
        make_run(Path(name), f"task.source_prefix={prefix}", "training.betas=[0.8,0.9]" if name == "b" else "seed=3")
    lines = compare("a", "b", columns=80).stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[:3] == ["runs", "  1  a", "  2  b"]
    assert lines[4].split() == "run status step best bleu at step last training loss seconds trained".split()
    assert lines[5].split()[:3] == ["1", "finished", "40"]
    assert "seed" in lines
    start = lines.index("task.source_prefix")
    assert lines[start + 1] == "  1  x"
    assert " ".join(" ".join(lines[start + 2 : start + 5]).split()) == f"2 {'long ' * 30}end"


def test_a_pipe_has_no_width_and_gets_a_line_per_run(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", f"task.source_prefix={'long ' * 30}end")]
    command = [sys.executable, "-m", "dstrain", "compare", *runs]
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    piped = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout.splitlines()
    assert [line.split()[0] for line in piped] == ["run", *runs]


def test_what_is_no_run_is_named_and_skipped_with_exit_code_1(tmp_path: Path) -> None:
    run, broken = make_run(tmp_path / "run"), make_run(tmp_path / "broken")
    (tmp_path / "broken" / "metrics.jsonl").write_text("nonsense\n")
    (tmp_path / "deep").mkdir()
    for name, content in (
        ("config.yaml", dump_config(load_config("debug"))),
        ("run.json", "[" * 100_000),
        ("metrics.jsonl", ""),
    ):
        (tmp_path / "deep" / name).write_text(content)
    result = compare(str(tmp_path / "nowhere"), run, str(tmp_path), broken, str(tmp_path / "deep"))
    assert result.exit_code == 1
    assert [row[0] for row in cells(result)[1:]] == [run]
    skipped = result.stderr.splitlines()
    assert len(skipped) == 4
    for line, part in zip(
        skipped,
        ("nowhere is skipped: no such folder", "it holds no config.yaml", "metrics.jsonl:1", "deep"),
        strict=True,
    ):
        assert " is skipped: " in line
        assert part in line
    assert "Traceback" not in result.output


def test_nothing_but_folders_that_are_no_runs_prints_no_table(tmp_path: Path) -> None:
    result = compare(str(tmp_path))
    assert (result.exit_code, result.stdout) == (1, "")


def test_json_has_numbers_and_null_for_what_is_none(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a", "seed=7", loss=math.nan), make_run(tmp_path / "b", bleu=[])]
    result = compare(*runs, "--json")
    assert result.exit_code == 0
    first, second = json.loads(result.stdout)
    assert first["recipe"] == {"seed": 7}
    assert (first["run"], first["name"], first["state"], first["step"]) == (runs[0], "a", "finished", 40)
    assert (first["best"], first["best_step"], first["metric"]) == (12.0, 10, "bleu")
    assert (first["loss"], first["trained_seconds"]) == (None, 61.7)
    assert (second["best"], second["best_step"]) == (None, None)


def test_markdown_is_a_table_whose_cells_are_escaped(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", "task.source_prefix=x|y")]
    lines = compare(*runs, "--markdown").stdout.splitlines()
    assert len(lines) == 4
    assert lines[0].strip("|").split("|")[-1].strip() == "task.source_prefix"
    assert sum(r"x\|y" in line for line in lines) == 1


def add_evaluation(run: str, hits: list[int], *, references: list[str] | None = None) -> None:
    """The rows of the evaluation at step 10."""
    texts = references or [f"text {row}" for row in range(len(hits))]
    statistics = [
        {"bleu": (row, row, row, 0, 0, 0, row, 0, 0, 0), "exact_match": (float(hit),)} for row, hit in enumerate(hits)
    ]
    scored = ScoredTexts(texts, [texts], texts, texts, statistics)
    write_scores(Scores(scores={}), scored, folder=RunFolder(Path(run)), step=10)


def test_runs_on_the_same_references_have_differences_from_the_first_given(tmp_path: Path) -> None:
    first = make_run(tmp_path / "first", bleu=[9.0], exact_match=0.0)
    second = make_run(tmp_path / "second", bleu=[12.0], exact_match=0.3)
    add_evaluation(first, [0] * 20)
    add_evaluation(second, [1] * 6 + [0] * 14)
    result = compare(first, second)
    assert (result.exit_code, result.stderr) == (0, "")
    table, below = result.stdout.split("\n\n")
    assert [line.split()[0] for line in table.splitlines()[1:]] == [second, first]  # the best first
    assert below.startswith(f"second: {second}, first: {first}; the same 20 rows\n")
    assert "exact_match  0.0000  0.3000   +0.3000" in below
    assert "0.0313 (McNemar, exact)" in below
    assert "| exact_match " in compare(first, second, "--markdown").stdout
    best, baseline = json.loads(compare(first, second, "--json").stdout)
    assert baseline["against"] is None
    assert [each["metric"] for each in best["against"]["differences"]] == ["bleu", "exact_match"]


def test_runs_on_other_references_have_none_and_a_reason(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name) for name in ("first", "second")]
    add_evaluation(runs[0], [0] * 20)
    add_evaluation(runs[1], [0] * 20, references=["another", *(f"text {row}" for row in range(1, 20))])
    result = compare(*runs)
    assert result.exit_code == 0
    assert "the same" not in result.stdout
    assert result.stderr.startswith(f"{runs[1]} is not compared with {runs[0]}: 1 of 20 rows have other references")


def test_a_run_that_has_never_begun_to_train_is_skipped_with_its_reason(tmp_path: Path) -> None:
    run, failed = make_run(tmp_path / "run"), make_failed_starts(tmp_path / "failed").path
    result = compare(run, str(failed))
    assert result.exit_code == 1
    assert [row[0] for row in cells(result)[1:]] == [run]
    said = "it holds lease, outcome.json, and no config.yaml. Its last start failed (no weights): mend that, then give"
    assert result.stderr.startswith(f"{failed} is skipped: the run has never begun to train: {said}")
    assert len(result.stderr.splitlines()) == 1
