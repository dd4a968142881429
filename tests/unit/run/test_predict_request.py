"""What `dstrain predict` is asked to do, and what it refuses before anything is loaded."""

import json
from pathlib import Path
from typing import Any

import pytest

from dstrain.config.data import Source
from dstrain.config.load import dump_config, load_config
from dstrain.errors import UserError
from dstrain.run.predict_request import PredictRequest, check_beams, parse_arguments, plan_prediction
from dstrain.run_folder.layout import RunFolder
from dstrain.tasks.translation import Languages
from tests.unit.cli.cli_cases import make_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = Path(make_run(tmp_path / "run", f"output_dir={tmp_path / 'run'}", "evaluation.num_beams=3"))
    (folder / "best").mkdir()
    return folder


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.txt"
    path.write_text("one\n")
    return path


def request(*arguments: object) -> PredictRequest:
    return plan_prediction(parse_arguments([str(argument) for argument in arguments], program="predict"))


@pytest.mark.parametrize("folders", [["best", "final"], ["final"]])
def test_of_a_run_its_recipe_and_its_best_model_are_taken(tmp_path: Path, folders: list[str]) -> None:
    run = Path(make_run(tmp_path / "run"))
    for name in folders:
        (run / name).mkdir()
    found = request(run)
    assert (found.model, found.step) == (str(run / folders[0]), None)
    assert (found.run, found.recipe) == (RunFolder(run), str(run / "config.yaml"))
    config = load_config("debug")
    assert found.settings.evaluation == config.evaluation
    assert found.settings.precision == config.precision
    assert found.settings.task.kind == config.task.kind
    assert (found.is_stream, found.output, found.num_best, found.keeps_pointers) == (True, None, None, False)


def test_a_model_folder_in_a_run_is_used_with_the_recipe_of_the_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert request(run / "best").run == RunFolder(run)
    monkeypatch.chdir(run)
    assert request("best").run == RunFolder(run)


def test_any_other_model_has_no_recipe_unless_one_is_named(tmp_path: Path) -> None:
    found = request(tmp_path)
    assert (found.model, found.run, found.recipe) == (str(tmp_path), None, None)
    assert request("facebook/m2m100_418M").model == "facebook/m2m100_418M"
    found = request(tmp_path, "--config", "demo_parsing")
    assert (found.recipe, found.settings.task.kind) == ("demo_parsing", "parsing")


def test_options_stand_above_the_recipe(run: Path) -> None:
    given = ["--source-language", "ko", "--target-language", "de", "--prefix", "x: ", "--max-source-tokens", 33]
    search = ["--beams", 5, "--length-penalty", -1, "--max-new-tokens", 9]
    found = request(run, *given, *search, "--batch-tokens", 99, "--device", "cpu")
    task, machine = found.settings.task, found.settings.machine
    assert (task.source_language, task.target_language, task.source_prefix) == ("ko", "de", "x: ")
    assert (task.max_source_tokens, machine.evaluation_tokens, machine.device) == (33, 99, "cpu")
    assert found.given == {"num_beams": 5, "length_penalty": -1.0, "max_new_tokens": 9}


def test_a_checkpoint_has_the_longest_length_of_its_evaluation(tmp_path: Path) -> None:
    run = Path(make_run(tmp_path / "run", bleu=[1.0, 2.0]))
    metrics = run / "metrics.jsonl"
    text = metrics.read_text()
    for step, length in ((10, 31), (20, 32)):
        text = text.replace(f'"step": {step}, "lease"', f'"step": {step}, "lease"')
        lines = text.splitlines()
        text = "\n".join(
            line.replace('"generation": {}', f'"generation": {{"max_new_tokens": {length}}}')
            if f'"step": {step},' in line
            else line
            for line in lines
        )
    metrics.write_text(text + "\n")
    assert request(run, "--step", 10).given == {"max_new_tokens": 31}
    assert request(run, "--step", 20).given == {"max_new_tokens": 32}
    assert request(run, "--step", 15).given == {"max_new_tokens": 32}
    assert request(run, "--step", 10, "--max-new-tokens", 5).given == {"max_new_tokens": 5}


def test_a_checkpoint_without_an_evaluation_needs_the_longest_length(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", bleu=[])
    with pytest.raises(UserError, match=r"has no evaluation yet .* give --max-new-tokens"):
        request(run, "--step", 10)


@pytest.mark.parametrize(
    ("key", "values", "flag"),
    [
        ("source_language", ("ko", "en"), "--source-language"),
        ("target_language", ("ko", "en"), "--target-language"),
        ("source_prefix", (">>a<< ", ">>b<< "), "--prefix"),
    ],
)
def test_a_model_of_several_directions_must_be_told_which(
    tmp_path: Path, key: str, values: tuple[str, str], flag: str
) -> None:
    sources = ", ".join(f"{{path: x.tsv, {key}: '{value}'}}" for value in values)
    empty = "''" if key == "source_prefix" else "null"
    scored = f"data.eval=[{{path: x.tsv, {key}: '{values[0]}'}}]"
    config = load_config("debug", overrides=[f"data.train=[{sources}]", scored, f"task.{key}={empty}"])
    folder = tmp_path / "run"
    (folder / "best").mkdir(parents=True)
    (folder / "config.yaml").write_text(dump_config(config))
    with pytest.raises(UserError, match=f"several values of {key} .* say which with {flag}"):
        request(folder)
    given = getattr(request(folder, flag, values[1]).settings.task, key)
    assert given == values[1]


def test_rows_that_name_their_languages_say_which_a_model_knows(run: Path) -> None:
    info = run / "run.json"
    pairs = [["ko", "en", "", 9], ["en", "ko", "", 8], ["en", "de", "", 7]]
    info.write_text(json.dumps(json.loads(info.read_text()) | {"data": {"train": {"pairs": pairs}}}))
    config = load_config(str(run / "config.yaml"))
    task = config.task.model_copy(update={"source_language": None, "target_language": None})
    columns = {"source_column": "a", "target_column": "b", "source_language_column": "c", "target_language_column": "d"}
    rows = (Source.model_validate({"path": "rows.jsonl"} | columns),)
    data = config.data.model_copy(update={"train": rows, "eval": rows})
    RunFolder(run).config.write_text(dump_config(config.model_copy(update={"task": task, "data": data})))
    with pytest.raises(UserError, match=r"several values of source_language \(`ko`, `en`\): say which with --source"):
        request(run)
    found = request(run, "--source-language", "ko")
    assert (found.settings.task.source_language, found.settings.task.target_language) == ("ko", "en")
    assert found.trained == (Languages("ko", "en"), Languages("en", "ko"), Languages("en", "de"))
    with pytest.raises(UserError, match=r"several values of target_language \(`ko`, `de`\)"):
        request(run, "--source-language", "en")
    RunFolder(run).config.write_text(dump_config(config))  # its task is from `ko` to `en`
    found = request(run)
    assert (found.settings.task.source_language, found.settings.task.target_language) == ("ko", "en")


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("a.txt", [], ("lines", 0)),
        ("a.ko", [], ("lines", 0)),
        ("a.tsv.gz", [], ("tsv", 0)),
        ("a.jsonl", [], ("jsonl", "source")),
        ("a.txt", ["--format", "tsv", "--source-column", "2"], ("tsv", 2)),
        ("a.tsv", ["--source-column", "ko"], ("tsv", "ko")),
    ],
)
def test_the_form_follows_from_the_suffix(
    tmp_path: Path, name: str, arguments: list[str], expected: tuple[str, Any]
) -> None:
    (tmp_path / name).write_text("")
    found = request(tmp_path, "--input", tmp_path / name, *arguments)
    assert (found.layout.format, found.layout.source_column) == expected
    assert not found.is_stream


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}", "--input", "absent.txt"], "--input absent.txt: no such file"),
        (["{run}", "--input", "{run}"], "is a folder: name a file in it"),
        (
            ["{run}", "--output", "{run}/config.yaml/rows.tsv"],
            r"cannot be written: .*config\.yaml is not a folder: name",
        ),
        (["{run}", "--output", "{run}"], "is a folder: name a file in it"),
        (["{run}", "--output", "x.gz"], "the output is not compressed: leave out .gz"),
        (["{run}/absent"], "no such folder; give a run folder, a model folder"),
        (["{run}/best/../best", "--step", "3"], "--step needs a run folder"),
        (["{run}", "--source-column", "ko"], "--source-column ko: plain lines have no columns"),
        (["{run}", "--n-best", "2"], "plain lines have one text a row: give --format tsv"),
        (["{run}", "--format", "jsonl", "--source-column", "1"], "in JSON lines columns have names"),
        (["{run}", "--format", "tsv", "--n-best", "4"], "--n-best 4 with 3 beams: give --beams 4 or more"),
        (["{run}", "--format", "tsv", "--n-best", "1", "--beams", "1"], "--n-best 1 with 1 beam: give --beams 2"),
        (["{run}", "--n-best", "0"], "--n-best must be at least 1; found 0"),
        (["{run}", "--beams", "0"], "--beams input should be greater than or equal to 1; found 0"),
        (["{run}", "--batch-tokens", "0"], "--batch-tokens input should be greater than or equal to 1; found 0"),
        (["{run}", "--max-source-tokens", "0"], "--max-source-tokens input should be greater"),
        (["{run}", "--config", "absent"], "neither a file nor a shipped recipe"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_option(run: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        request(*(argument.format(run=run) for argument in arguments))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_is_not_read_as_plain_lines_by_mistake(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_text("a,b\n")
    with pytest.raises(UserError, match=f"{suffix} is not read here: write TSV, JSON lines or plain lines"):
        request(tmp_path, "--input", path)
    assert request(tmp_path, "--input", path, "--format", "lines").layout.format == "lines"


def test_a_checkpoint_folder_is_answered_with_the_command(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "step-00000010.lease-1"
    folder.mkdir(parents=True)
    with pytest.raises(UserError, match=f"is a checkpoint: dstrain predict {tmp_path} --step 10"):
        request(folder)


def test_a_run_without_a_model_names_its_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no model yet, neither best/ nor final/: take one of its checkpoints"):
        request(make_run(tmp_path / "run"))


def test_scores_need_as_many_beams_and_at_least_two() -> None:
    check_beams(2, num_beams=2)
    with pytest.raises(UserError, match="--n-best 1 with 1 beam"):
        check_beams(1, num_beams=1)


def test_an_option_of_one_value_that_is_given_twice_is_an_error_with_both(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse_arguments(["runs/x", "--beams", "3", "--beams", "4"], program="program")
    assert end.value.code == 2
    assert '--beams is given twice, "3" and "4": leave one of them out' in capsys.readouterr().err
