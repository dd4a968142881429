"""Settings are the recipe's keys, each with its value; no folder of the machine and no key is among them."""

from pathlib import Path

from dstrain.html_report.files import read_run
from dstrain.html_report.settings import list_settings, summarize_run
from dstrain.reporting.standing import Standing
from tests.unit.html_report.html_report_cases import make_run
from tests.unit.reporting.reporting_cases import translation_config


def test_every_key_with_a_value_is_listed_and_paths_lose_their_folders(tmp_path: Path) -> None:
    sources = [{"path": "/home/anna/my data/train.tsv", "weight": 0.5}, {"path": "data/more.tsv", "weight": 0.5}]
    evaluation = [{"path": "~/eval.tsv"}]
    config = translation_config(
        data={"train": sources, "eval": evaluation}, output_dir=str(tmp_path / "run"), machine={"cache_dir": "/mnt/c"}
    )
    found = dict(list_settings(read_run(make_run(tmp_path / "run", config=config).path)))
    assert found["training.learning_rate"] == "0.0003"
    assert found["training.betas"] == "[0.9, 0.999]"
    assert found["evaluation.loss"] == "true"
    assert found["data.train.0.path"] == "…/train.tsv"
    assert found["data.train.1.path"] == "data/more.tsv"
    assert found["data.eval.0.path"] == "…/eval.tsv"
    assert found["output_dir"] == "…/run"
    assert found["machine.cache_dir"] == "…/c"
    assert "model.revision" not in found  # it has no value
    assert not any("anna" in value or str(tmp_path) in value for value in found.values())


def test_the_summary_says_what_is_trained_how_far_it_is_and_how_good(tmp_path: Path) -> None:
    found = dict(summarize_run(read_run(make_run(tmp_path / "run").path), standing=Standing("running")))
    assert found["state"] == "running"
    assert found["task"] == "translation"
    assert found["steps"] == "200 of 200"
    assert found["ranks"] == "2 (cpu)"
    assert found["training rows"] == "1,000"
    assert found["time trained"] == "1 h 2 min"
    best = read_run(tmp_path / "run").record.best
    assert best is not None
    assert found["best BLEU"] == f"{best.scores['bleu']:.4f} ± {best.intervals['bleu']:.4f} at step 200"


def test_a_run_without_its_records_still_has_a_summary(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", hypotheses=[])
    folder.info.unlink()
    found = dict(summarize_run(read_run(folder.path), standing=Standing("interrupted")))
    assert found == {"state": "interrupted", "task": "translation", "steps": "0"}


def test_the_step_is_that_which_is_known_best_and_none_is_made_up(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    steps = [
        dict(summarize_run(read_run(folder.path), standing=Standing("running", step=step)))["steps"]
        for step in (None, 0, 137)
    ]
    assert steps == ["200 of 200", "0 of 200", "137 of 200"]
    folder.metrics.write_text("no row\n")
    steps = [
        dict(summarize_run(read_run(folder.path), standing=Standing("running", step=step)))["steps"]
        for step in (None, 137)
    ]
    assert steps == ["not known", "137 of 200"]
