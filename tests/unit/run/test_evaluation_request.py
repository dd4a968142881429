"""What `dstrain evaluate` is asked to score, and what it refuses."""

from pathlib import Path

import pytest

from dstrain.config.load import ConfigError, dump_config, load_config
from dstrain.errors import UserError
from dstrain.run.evaluation_request import EvaluationRequest, parse_arguments, plan_evaluation
from dstrain.run_folder.layout import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(dump_config(load_config("debug", overrides=[f"output_dir={folder}"])))
    return folder


def request(*arguments: object) -> EvaluationRequest:
    return plan_evaluation(parse_arguments([str(argument) for argument in arguments], program="evaluate"))


@pytest.mark.parametrize("folders", [["best", "final"], ["final"]])
def test_of_a_run_folder_its_own_recipe_and_its_best_model_are_taken(run: Path, folders: list[str]) -> None:
    for name in folders:
        (run / name).mkdir()
    found = request(run)
    assert (found.model, found.config.name, found.output) == (str(run / folders[0]), "debug", run / "evaluate")
    assert (found.step, found.is_pending, found.card_of) == (None, False, None)


def test_a_model_is_scored_where_its_training_rows_are_not(run: Path) -> None:
    (run / "best").mkdir()
    given = ["data.train=[{path: absent.tsv}]", "model={name: ./absent}"]
    assert request(run, *given).model == str(run / "best")
    with pytest.raises(ConfigError, match=r"data.eval.0.path.*no such file"):
        request(run, "data.eval=[{path: absent.tsv}]")


def test_a_checkpoint_is_named_by_its_step(run: Path, tmp_path: Path) -> None:
    found = request(run, "--step", 7, "--output", tmp_path / "out", "data.eval=[{demo: translation}]")
    assert (found.model, found.step, found.output) == (str(run), 7, tmp_path / "out")


def test_another_test_set_joins_the_run(run: Path) -> None:
    (run / "best").mkdir()
    found = request(run, "--as", "flores", "evaluation.max_rows=5")
    assert (found.output, found.card_of, found.config.evaluation.max_rows) == (
        run / "test_sets" / "flores",
        RunFolder(run),
        5,
    )


def test_other_rows_need_not_have_the_set_that_chooses_the_best_model_of_the_run(run: Path) -> None:
    named = ["data.eval=[{demo: translation, split: eval, name: news}]", "evaluation.best_metric=news/bleu"]
    (run / "config.yaml").write_text(dump_config(load_config("debug", overrides=named)))
    (run / "best").mkdir()
    assert request(run).config.data.eval_sets == ("news",)
    assert request(run, "--as", "flores", "data.eval=[{demo: translation}]").config.data.eval_sets == ()


def test_overrides_without_effect_on_scores_are_named(run: Path) -> None:
    (run / "best").mkdir()
    given = ["training.learning_rate=1", "evaluation.num_beams=2", "data.eval=[{demo: translation}]", "seed=3"]
    assert request(run, "--as", "other", *given).ignored == ("training.learning_rate=1", "seed=3")
    assert request(run, "evaluation={num_beams: 2}").ignored == ()


def test_what_decides_a_score_and_is_not_as_in_the_run_is_recorded(run: Path) -> None:
    (run / "best").mkdir()
    same = ["--as", "x", "evaluation.batch_size=4", "data.eval=[{demo: translation, max_rows: 4}]"]
    assert request(run, *same).changes == {}
    assert request(run, *same, "data.rules.unknown_token=keep").changes == {}  # as null for translation
    given = [
        "evaluation.bleu_tokenizer=char",
        "task.max_source_tokens=8",
        "evaluation.max_rows=3",
        "task.target_language=fr",
    ]
    assert request(run, *same, *given).changes == {
        "evaluation.bleu_tokenizer": "char",
        "evaluation.max_rows": 3,
        "task.max_source_tokens": 8,
        "target_language": "fr",
    }
    rows = "data.eval=[{demo: translation, source_language: ja}, {demo: translation, source_prefix: 'x '}]"
    assert request(run, "--as", "x", rows).changes == {"source_language": ["ja", "ko"], "source_prefix": ["", "x "]}
    assert request("some/model", "--config", "debug").changes is None


def test_pending_evaluations_are_scored_into_the_run_folder_by_the_runs_own_recipe(run: Path) -> None:
    found = request(run, "--pending", "machine.cache_dir=/elsewhere")
    assert (found.is_pending, found.output, found.config.machine.cache_dir) == (True, run, "/elsewhere")


def test_a_model_of_any_origin_takes_a_recipe(tmp_path: Path) -> None:
    found = request("some/model", "name=mine", "--config", "debug")
    assert (found.model, found.config.name, found.output) == ("some/model", "mine", Path("evaluate/mine"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["some/model"], "name a recipe with --config"),
        (["some/model", "--config", "debug", "sead=1"], "did you mean `seed`?"),
        (["some/model", "--config", "debug", "--step", "3"], "--step needs a run folder, and some/model is not one"),
        (["some/model", "--config", "debug", "--as", "x"], "--as needs a run folder"),
        (["some/model", "--config", "debug", "--pending"], "--pending needs a run folder"),
        (["{run}"], "score one of its checkpoints with --step"),
        (["{run}", "--pending", "--step", "3"], "omit --step, --as, --output and --config"),
        (["{run}", "--pending", "evaluation.num_beams=5"], "`evaluation.num_beams=5` would change that"),
        (["{run}", "--step", "3", "--as", "x", "--output", "y"], "omit --output, or --as"),
        (["{run}", "--step", "3", "--as", "a/b", "evaluation.max_rows=3"], "a name has at most 200 letters"),
        (["{run}", "--step", "3", "--as", "x", "machine.cache_dir=y"], "run's own evaluation rows under another name"),
        (["{run}", "--step", "3", "data.eval=[{{demo: translation}}]"], "give this test set a name, --as NAME"),
        (["{run}", "--step", "3", "data.eval.0.max_rows=3"], "data.eval names other rows than those of {run}"),
        (["{run}", "--step", "3", "--config", "demo_translation"], "data.eval names other rows"),
        (["{run}/checkpoints/step-00000004.lease-1", "--config", "debug"], "{run} --step 4"),
        (["{run}/absent", "--config", "debug"], "{run}/absent: no such folder"),
    ],
)
def test_what_cannot_be_scored_is_refused(arguments: list[str], message: str, run: Path) -> None:
    (run / "checkpoints" / "step-00000004.lease-1").mkdir(parents=True)
    with pytest.raises(UserError) as caught:
        request(*(argument.format(run=run) for argument in arguments))
    assert message.format(run=run) in str(caught.value)
    assert sorted(path.name for path in run.iterdir()) == ["checkpoints", "config.yaml"]


def test_a_configuration_that_is_a_link_is_refused(run: Path, tmp_path: Path) -> None:
    (run / "config.yaml").rename(tmp_path / "moved.yaml")
    (run / "config.yaml").symlink_to(tmp_path / "moved.yaml")
    with pytest.raises(UserError, match=r"config\.yaml: a link, or no ordinary file: remove it"):
        request(str(run), "--step", "3")


@pytest.mark.parametrize("model", ["a" * 300, f"{'a' * 300}/b", f"/x/{'a' * 300}"])
def test_a_name_that_no_folder_can_have_is_one_line(model: str) -> None:
    with pytest.raises(UserError, match="MODEL has a name of 300 bytes"):
        request(model, "--config", "debug")


def test_an_option_of_one_value_that_is_given_twice_is_an_error_with_both(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse_arguments(["runs/x", "--step", "3", "--step", "4"], program="program")
    assert end.value.code == 2
    assert '--step is given twice, "3" and "4": leave one of them out' in capsys.readouterr().err
