"""`dstrain audit`: all of the audit in words or JSON; nothing is written but the cache and the file that is asked for."""

import json
from pathlib import Path

from typer.testing import CliRunner

from dstrain.cli.app import app


def test_the_audit_is_printed_and_written_where_it_is_asked_for(tmp_path: Path) -> None:
    given = [f"machine.cache_dir={tmp_path / 'cache'}", f"output_dir={tmp_path / 'run'}"]
    output = tmp_path / "audit.json"
    printed = CliRunner().invoke(app, ["audit", "debug", *given, "--output", str(output)])
    assert printed.exit_code == 0, printed.output
    assert "evaluation rows that are in training, of" in printed.stdout
    assert "near source" in printed.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit.json", "cache"]
    as_json = CliRunner().invoke(app, ["audit", "debug", *given, "--json"])
    assert json.loads(as_json.stdout) == json.loads(output.read_text())


def test_a_recipe_that_cannot_run_is_refused_before_any_work(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["audit", "debug", "data.train.0.path=nowhere.tsv", f"machine.cache_dir={tmp_path / 'cache'}"]
    )
    assert result.exit_code == 1
    assert "data.train.0" in result.stderr
    assert not (tmp_path / "cache").exists()


def test_alarms_and_rules_that_end_a_run_have_an_exit_code(tmp_path: Path) -> None:
    recipe = [
        "audit",
        "debug",
        f"machine.cache_dir={tmp_path / 'cache'}",
        f"data.train=[{{path: {tmp_path / 'a.tsv'}}}]",
    ]
    (tmp_path / "a.tsv").write_text("".join(f"word {row}\tthe answer {row}\n" for row in range(40)) + "a b\tc d\n" * 20)
    plain, strict = (CliRunner().invoke(app, [*recipe, *more]) for more in ([], ["--strict"]))
    assert "repeat an earlier one letter for letter: data.rules.duplicates=skip" in plain.stdout
    assert (plain.exit_code, strict.exit_code) == (0, 1)
    assert plain.stdout == strict.stdout
    assert plain.stdout.count("data.rules.duplicates=skip") == 1
    assert "duplicates" not in plain.stderr
    with (tmp_path / "a.tsv").open("a") as file:
        file.write("one cell\n")
    refused = CliRunner().invoke(app, recipe)
    assert refused.exit_code == 1, refused.output
    assert "data.rules.undecodable is `error`" in refused.stdout
    assert "(a.tsv:61)" in refused.stdout
