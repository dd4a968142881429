"""Rows of a file to predictions, in one process: the order, what is counted, and what is left after an error."""

import io
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dstrain.data import inputs
from dstrain.errors import UserError
from dstrain.evaluation.generate import evaluation_mode
from dstrain.run import predict as module
from dstrain.run.predict import ToldByRank0, Window, predict, search_window
from dstrain.run.predict_request import PredictRequest, parse_arguments, plan_prediction
from tests.unit.run.run_cases import CPU
from tests.unit.run.test_predict_model import load, write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model with languages."""
    return write_model(tmp_path_factory.mktemp("model"))


def request(*arguments: object) -> PredictRequest:
    return plan_prediction(parse_arguments([str(argument) for argument in arguments], program="predict"))


def run(tmp_path: Path, content: str, model: str, *arguments: object, name: str = "rows.tsv") -> str:
    """What is written for a file of this content."""
    (tmp_path / name).write_text(content)
    predict(request(model, "--input", tmp_path / name, "--output", tmp_path / "out", *arguments), ranks=CPU)
    return (tmp_path / "out").read_text()


ROWS = "커피 두 잔\tko\ten\n\t\t\ntwo cups\ten\tko\n네\tko\t\n \ten\ten\nyes\t\tko\n"


def test_rows_of_several_directions_keep_their_order_and_get_what_they_get_alone(tmp_path: Path, model: str) -> None:
    columns = ["--source-language-column", 1, "--target-language-column", 2]
    together = run(tmp_path, ROWS, model, *columns).splitlines()
    assert [line.rsplit("\t", 1)[0] for line in together if line.strip()] == [
        line for line in ROWS.splitlines() if line.strip()
    ]
    for line, row in zip(together, ROWS.splitlines(), strict=True):
        assert run(tmp_path, row + "\n", model, *columns) == line + "\n"
    assert together[4].endswith("\t")  # a blank source has an empty prediction
    assert len({line.split("\t")[-1] for line in together}) > 2


def test_small_windows_give_the_same_as_one(tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = "".join(f"{text}\n" for text in ("하나", "", "둘 셋 넷", "커피 두 잔", "네", "삼백", "오후"))
    whole = run(tmp_path, content, model, name="rows.txt")
    monkeypatch.setattr(inputs, "WINDOW_ROWS", 2)
    assert run(tmp_path, content, model, name="rows.txt") == whole
    assert whole.splitlines()[1] == ""


def test_what_became_of_the_rows_is_said_at_the_end(
    tmp_path: Path, model: str, caplog: pytest.LogCaptureFixture
) -> None:
    content = "".join(f"{'커피 두 잔 ' * number}\n" for number in (1, 20, 0, 21, 22, 23))
    with caplog.at_level(logging.INFO):
        run(tmp_path, content, model, "--max-source-tokens", 12, "--max-new-tokens", 2, name="rows.txt")
    said = caplog.messages
    assert said[0].startswith(f"{model}, step 40: ko to en, 3 beams, at most 2 new tokens")
    assert said[-4].startswith("6 rows in ")
    assert said[-3] == "1 row without a text: its prediction is empty"
    places = ", ".join(f"{tmp_path}/rows.txt:{number}" for number in (2, 4, 5))
    assert said[-2] == f"4 sources were cut to 12 tokens: {places}, … (--max-source-tokens)"
    assert said[-1] == "5 predictions were cut at 2 tokens (--max-new-tokens)"


def test_a_wrong_row_is_found_before_the_model_is_loaded(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "load_predictor", lambda *_, **__: pytest.fail("the model was loaded"))
    with pytest.raises(ToldByRank0, match=r"rows.tsv:2: 2 cells, but the first row has 1"):
        run(tmp_path, "one\ntwo\tthree\n", model)
    assert not (tmp_path / "out").exists()


def test_an_error_leaves_an_older_output_as_it_was(tmp_path: Path, model: str) -> None:
    (tmp_path / "out").write_text("older\n")
    with pytest.raises(UserError, match=r"rows.tsv:2: language `xx` is not a code of"):
        run(tmp_path, "one\tko\ntwo\txx\n", model, "--source-language-column", 1)
    assert (tmp_path / "out").read_text() == "older\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "rows.tsv"]


def test_a_row_without_a_language_is_refused_where_no_option_names_one(tmp_path: Path) -> None:
    published = write_model(tmp_path / "published", is_export=False)
    with pytest.raises(
        UserError, match=r"rows.tsv:2: the row names no source language: fill the cell, or give --source"
    ):
        run(tmp_path, "one\tko\ntwo\t\n", published, "--source-language-column", 1)


def test_a_prefix_names_the_languages_of_each_row(tmp_path: Path, model: str) -> None:
    columns = ["--source-language-column", 1, "--target-language-column", 2]
    rows = "커피\tko\ten\ncoffee\ten\tko\n"
    together = run(tmp_path, rows, model, *columns, "--prefix", "{source_language} {target_language} ").splitlines()
    for line, prefix in zip(together, ("ko en ", "en ko "), strict=True):
        (row,) = [row for row in rows.splitlines() if line.startswith(row)]
        assert run(tmp_path, row + "\n", model, *columns, "--prefix", prefix) == line + "\n"


def test_rows_of_languages_that_were_not_trained_are_counted(
    tmp_path: Path, model: str, caplog: pytest.LogCaptureFixture
) -> None:
    (Path(model) / "training_step.json").write_text('{"step": 40, "pairs": [["ko", "en"]]}')
    columns = ["--source-language-column", 1, "--target-language-column", 2]
    with caplog.at_level("WARNING"):
        run(tmp_path, "커피\tko\ten\ncoffee\tfr\tko\ncoffee\tde\tko\n", model, *columns)
    (said,) = [record.message for record in caplog.records if "not trained" in record.message]
    assert said.startswith("2 rows of languages that were not trained; the first is ")
    assert "rows.tsv:2: the model was never trained from `fr` to `ko`, but `ko` to `en`" in said


def test_windows_of_a_stream_are_written_when_they_are_done(
    model: str, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr(inputs, "WINDOW_ROWS", 2)
    content: Any = io.BytesIO("네\n커피\n삼백\n\xff".encode()[:-2] + b"\xff\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(content)))
    with pytest.raises(UserError, match="stdin:4: not UTF-8"):
        predict(request(model), ranks=CPU)
    assert capsysbinary.readouterr().out.count(b"\n") == 2


def test_a_terminal_gets_no_control_characters_and_a_pipe_gets_them(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "read_text", lambda *_, **__: "a\x1b[2Jb")
    (tmp_path / "rows.txt").write_text("네\n")
    given = request(model, "--input", tmp_path / "rows.txt")
    predict(given, ranks=CPU)
    assert capsys.readouterr().out == "a\x1b[2Jb\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    predict(given, ranks=CPU)
    assert capsys.readouterr().out == "a\\x1b[2Jb\n"


def test_nobody_who_reads_on_is_told_to_the_other_ranks_as_the_end(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Window] = []
    monkeypatch.setattr(type(CPU), "broadcast", lambda self, value, form: sent.append(value) or value)

    def fail(text: str, *, file: Any) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(module, "_write", fail)
    with pytest.raises(BrokenPipeError):
        run(tmp_path, "네\n", model, name="rows.txt")
    assert sent[-1] == Window([], is_over=True)
    assert not (tmp_path / "out").exists()


def test_a_window_that_comes_back_incomplete_is_never_written(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    search = load(model).search
    sources = [module.Source([5, 6, 2], "en"), module.Source([5, 7, 8, 2], "en")]
    assert [each.row for each in search_window(sources, search=search, ranks=CPU)] == [0, 1]
    ranks = replace(CPU)
    monkeypatch.setattr(type(ranks), "gather", lambda self, value, form: [value[:1]])
    with pytest.raises(RuntimeError, match="exactly once"):
        search_window(sources, search=search, ranks=ranks)


def test_the_settings_of_the_model_are_read_outside_the_mode_in_which_it_has_none(model: str) -> None:
    search = load(model).search
    before = search.generation("en")
    assert before.eos_token_id is not None
    with evaluation_mode(search.model, loss_module=search.model):
        assert search.generation("en").eos_token_id is None
    assert search.generation("en").to_dict() == before.to_dict()


def test_an_output_that_cannot_be_written_is_named_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full").open("w")  # noqa: SIM115  (closing it would write again)
    monkeypatch.setattr(sys, "stdout", full)
    with module._open_output(None) as write:
        write("a\n")
        with pytest.raises(
            UserError, match=r"^standard output cannot be written \(No space left on device\): make room"
        ):
            write("")
    monkeypatch.undo()
    with pytest.raises(OSError, match="No space left"):
        full.close()
