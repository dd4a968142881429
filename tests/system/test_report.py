"""The report that a run leaves: its document holds what the run recorded, also after a kill."""

import json
import signal
from pathlib import Path

from typer.testing import CliRunner

from dstrain.cli.app import app
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.record import load_record
from tests.system.runs import NUM_EVAL, build_run, train
from tests.system.torture import Kill, launch
from tests.unit.html_report.html_report_cases import decode


def test_a_finished_run_has_a_report_with_its_scores_texts_and_words(tmp_path: Path) -> None:
    config = build_run(tmp_path)
    assert train(config, world_size=2) == [0, 0]
    folder, record = RunFolder(tmp_path / "run"), load_record(tmp_path / "run")
    (run,) = decode(folder.report)["runs"]
    bleu = next(metric for metric in run["metrics"] if metric["name"] == "bleu")
    curves = {(curve["set"], curve["group"]): curve for curve in bleu["curves"]}
    assert curves["evaluation", None]["value"] == [row.scores["bleu"] for row in record.eval_rows]
    assert curves["evaluation", "dev"]["value"] == [row.groups["dev"]["bleu"] for row in record.eval_rows]
    assert run["train"]["step"] == list(range(1, 13))
    (texts,) = run["sets"]
    last = folder.hypotheses(record.eval_rows[-1].step)
    assert [row[-1] for row in texts["hypotheses"]] == (last / "hypotheses.txt").read_text().splitlines()
    assert texts["rows"]["group"] == ["dev"] * NUM_EVAL
    assert all(isinstance(number, int) for number in texts["rows"]["rarity"])
    assert str(tmp_path) not in json.dumps(run)
    assert decode(folder.report)["notes"] == []


def test_a_killed_and_resumed_run_shows_each_step_once_and_where_it_started_again(tmp_path: Path) -> None:
    config = build_run(tmp_path, checkpoint__background=False)  # that of step 4 is complete when step 8 begins
    folder = RunFolder(tmp_path / "run")
    assert launch(config, world_size=1, kill=Kill(drill="step:8")) == [-signal.SIGKILL]
    assert not folder.report.exists()
    result = CliRunner().invoke(app, ["report", str(folder.path)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    (killed,) = decode(folder.report)["runs"]
    assert killed["state"] == "killed"
    assert killed["train"]["step"][-1] < 12
    assert launch(config, world_size=1) == [0]
    (run,) = decode(folder.report)["runs"]
    resumed = next(event.step for event in load_record(folder.path).events if event.event == "resume")
    assert run["train"]["step"] == list(range(1, 13))
    assert [mark["step"] for mark in run["marks"] if mark["kind"] == "restart"] == [resumed]
    assert [attempt["first_step"] for attempt in run["attempts"]] == [0, resumed]
    assert run["attempts"][0]["last_step"] == killed["train"]["step"][-1] > resumed
    assert run["state"] == run["attempts"][1]["cause"] == "finished"
