"""Settings of different sections that cannot go together."""

from pathlib import Path

import pytest

from dstrain.config.load import load_config
from tests.unit.config.config_cases import faults

LANGUAGES = ["task.source_language=ko", "task.target_language=en"]
CODES = "which tells languages apart by their codes"


def test_early_stopping_cannot_wait_for_scores_of_another_job(good: Path) -> None:
    overrides = ["training.early_stopping.patience=2", "evaluation.every_steps=5", "machine.evaluation_job=[]"]
    (line,) = faults(good, *overrides)
    assert "training.early_stopping" in line
    assert "cannot wait for scores of another job" in line


@pytest.mark.parametrize(
    "name", ["google/mt5-small", "t5-base", "google/flan-t5-small", "google/umt5-base", "./runs/mt5/best"]
)
def test_fp16_is_refused_for_names_of_the_t5_family_unless_forced(good: Path, name: str) -> None:
    (line,) = faults(good, f"model.name={name}", "precision=fp16")
    assert line.startswith("override `precision=fp16`: precision: `fp16` overflows in `")
    config = load_config(str(good), overrides=[f"model.name={name}", "precision=fp16", "model.allow_fp16_t5=true"])
    assert config.precision == "fp16"


def test_fp16_is_fine_for_other_models(good: Path) -> None:
    overrides = ["model.name=facebook/m2m100_418M", "precision=fp16", *LANGUAGES]
    assert load_config(str(good), overrides=overrides).precision == "fp16"


def test_scratch_conflicts_are_found(good: Path) -> None:
    found = faults(good, "model.name=null", "model.scratch.architecture=mbart")
    assert [line.split(": ")[1:] for line in found] == [
        ["task.source_language", f"is needed by architecture `mbart`, {CODES}"],
        ["task.target_language", f"is needed by architecture `mbart`, {CODES}"],
    ]
    (line,) = faults(good, "model.name=null", "model.scratch={architecture: marian, hidden_size: 100, num_heads: 3}")
    assert "hidden_size 100 is not a multiple of num_heads 3" in line


def test_an_adapter_goes_with_a_named_model_and_without_freezing(good: Path) -> None:
    (line,) = faults(good, "model.adapter.rank=4", "model.freeze=[encoder]")
    assert "an adapter freezes every weight of the model already: remove `freeze`" in line
    scratch = ["task.source_language=ko_KR", "task.target_language=en_XX", "model.scratch.architecture=mbart"]
    (line,) = faults(good, "model.name=null", *scratch, "model.adapter.rank=4")
    assert "`adapter` goes with `name`" in line


def test_demo_rows_of_another_task_are_named_by_their_place(good: Path) -> None:
    (line,) = faults(good, "data.train.0.demo=parsing")
    assert "data.train.0.demo: demo `parsing` has no rows for task.kind `translation`: make them equal" in line


def test_a_metric_of_another_task_is_refused_with_those_of_this_one(good: Path) -> None:
    (line,) = faults(good, "evaluation.best_metric=exact_match")
    why = "`exact_match` is not computed for task.kind `translation`: take one of bleu, chrf, loss"
    assert line.endswith(f"{why}, or add `exact_match` to evaluation.metrics")


def test_early_stopping_needs_evaluations_before_the_end(good: Path) -> None:
    (line,) = faults(good, "training.early_stopping.patience=2")
    assert line.endswith("training.early_stopping: needs evaluation.every_steps or evaluation.every_epochs")
    overrides = ["training.early_stopping.patience=2", "evaluation.every_epochs=0.5"]
    assert load_config(str(good), overrides=overrides).training.early_stopping is not None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("output_dir=~/runs/x", "output_dir: `~` is not expanded: write the full path; found ~/runs/x"),
        ("output_dir=$SCRATCH/x", "output_dir: `$` is not expanded: write the full path; found $SCRATCH/x"),
        ("machine.cache_dir=/data/${USER}/c", "machine.cache_dir: `$` is not expanded"),
    ],
)
def test_a_path_that_only_a_shell_would_expand_is_refused(override: str, message: str, good: Path) -> None:
    (line,) = faults(good, override)
    assert message in line


def test_the_best_metric_may_be_that_of_a_named_evaluation_set_only(good: Path) -> None:
    named = "data.eval=[{demo: translation, split: eval, name: flores}, {demo: translation, split: eval}]"
    config = load_config(str(good), overrides=[named, "evaluation.best_metric=flores/chrf"])
    assert (config.best_metric, config.data.eval_sets) == ("flores/chrf", ("flores",))
    allowed = "take one of bleu, chrf, loss, flores/bleu, flores/chrf"
    for metric, why in (
        (
            "news/bleu",
            "is of an evaluation set `news`, which no source of data.eval has as its name (the names are flores)",
        ),
        ("flores/loss", "is not computed: the loss is that of all evaluation rows, not of one set"),
        ("flores/blue", "is not computed for task.kind `translation`"),
        ("flores/", "is not computed for task.kind `translation`"),
    ):
        (line,) = faults(good, named, f"evaluation.best_metric={metric}")
        assert line.endswith(f"`{metric}` {why}: {allowed}")
    (line,) = faults(good, "evaluation.best_metric=flores/bleu")
    assert line.endswith("(no source has a name): take one of bleu, chrf, loss")


def test_training_rows_have_one_file_of_targets_and_evaluation_rows_may_have_several(good: Path) -> None:
    several = "[{path: a.ko, target_path: [a.en, b.en]}]"
    assert load_config(str(good), overrides=[f"data.eval={several}"]).data.eval[0].target_paths == ("a.en", "b.en")
    (line,) = faults(good, f"data.train={several}")
    assert "data.train.0.target_path: training rows have one target" in line


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "path: a.tsv, target_column: 0",
            "target_column: is the source_column too, `0`: name the column of the targets",
        ),
        ("path: a.jsonl, source_column: x, target_column: x", "is the source_column too, `x`"),
        ("hub: a, source_column: x, target_column: x", "is the source_column too, `x`"),
        ("path: a.ko, target_path: a.ko", "target_path: names a file twice"),
        ("path: a.ko, target_path: [a.en, a.en]", "target_path: names a file twice"),
    ],
)
def test_two_sides_are_not_one_column_or_file(good: Path, source: str, message: str) -> None:
    assert any(message in line for line in faults(good, f"data.eval=[{{{source}}}]"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "model={name: https://huggingface.co/google/mt5-small}",
            "model.name: `https://huggingface.co/google/mt5-small` is a URL",
        ),
        ("data.eval=[{path: https://a.b/c.tsv}]", "path: `https://a.b/c.tsv` is a URL: download the file"),
        ("data.eval=[{hub: https://a.b/c}]", "hub: `https://a.b/c` is a URL: write owner/name"),
    ],
)
def test_a_url_is_no_name(good: Path, override: str, message: str) -> None:
    (line,) = faults(good, override)
    assert message in line


def test_training_rows_have_no_set(good: Path) -> None:
    (line,) = faults(good, "data.train=[{demo: translation, name: flores}]")
    assert "training rows are not scored" in line


@pytest.mark.parametrize(
    "model",
    [
        "model.scratch.architecture=marian",
        "model.scratch.architecture=mt5",
        "model.name=t5-base",
        "model.name=Helsinki-NLP/opus-mt-en-mul",
    ],
)
def test_target_languages_that_only_a_prefix_could_tell_apart_are_refused_without_one(good: Path, model: str) -> None:
    origin = [] if model.startswith("model.name") else ["model.name=null"]
    task = ["task.source_language=en", "task.target_language=de"]
    rows = "data.train=[{demo: translation}, {demo: translation, target_language: fr}]"
    (line,) = faults(good, *origin, model, *task, rows)
    assert "data.train.1.target_language: this model has no language tokens" in line
    assert "tells `fr` from the `de` of data.train.0: give each of both a source_prefix of its own" in line
    told = "data.train=[{demo: translation}, {demo: translation, target_language: fr, source_prefix: 'to French: '}]"
    load_config(str(good), overrides=[*origin, model, *task, told])
    (line,) = faults(good, *origin, model, *task, "data.eval=[{demo: translation, target_language: fr}]")
    assert "data.eval.0.target_language" in line  # rows that no training row has taught the model


def test_language_tokens_tell_target_languages_apart(good: Path) -> None:
    rows = "data.train=[{demo: translation}, {demo: translation, target_language: fr}]"
    load_config(str(good), overrides=["model.name=facebook/m2m100_418M", *LANGUAGES, rows])


@pytest.mark.parametrize(
    "name", ["facebook/m2m100_418M", "facebook/nllb-200-distilled-600M", "models/mbart-large-cc25"]
)
def test_a_published_model_with_language_tokens_needs_the_languages_of_every_source(good: Path, name: str) -> None:
    model, source = f"model.name={name}", "{demo: translation, source_language: ko, target_language: en}"
    found = faults(good, model, "task.source_language=ko")
    assert [line.split(": ", 1)[1] for line in found] == [
        f"task.target_language: is needed by model.name `{name}`, {CODES}"
    ]
    found = faults(good, model, "task.source_language=ko", f"data.train=[{source}, {{demo: translation}}]")
    assert [line.split(": ", 2)[1] for line in found] == ["data.train.1.target_language", "data.eval.0.target_language"]
    load_config(str(good), overrides=[model, f"data.train=[{source}]", f"data.eval=[{source}]"])
    parsing = ["task.kind=parsing", "data.train=[{demo: parsing}]", "data.eval=[{demo: parsing}]"]
    load_config(str(good), overrides=[model, *parsing])  # a parse is in no language


@pytest.mark.parametrize("name", ["google/mt5-small", "me/from-nllb-to-t5", "owner/m2m", "runs/x/best"])
def test_other_models_may_leave_the_languages_out(good: Path, name: str) -> None:
    load_config(str(good), overrides=[f"model.name={name}"])


def test_a_language_is_not_added_like_itself(good: Path) -> None:
    (line,) = faults(good, "model.add_languages={myv: myv}")
    assert "model.add_languages: `myv` would begin as itself: name a language that the model has" in line


def test_languages_are_added_to_a_stored_model_alone(good: Path) -> None:
    added = "model.add_languages={myv_XX: fi_FI}"
    config = load_config(str(good), overrides=["model.name=facebook/mbart-large-cc25", *LANGUAGES, added])
    assert config.model.add_languages == {"myv_XX": "fi_FI"}
    (line,) = faults(good, "model.name=null", "model.scratch.architecture=t5", added)
    assert "model.add_languages: `add_languages` goes with `name`" in line


def test_a_compact_embedding_that_would_change_what_is_learned_is_refused(good: Path) -> None:
    wanted = "machine.compact_embedding=true"
    (line,) = faults(good, wanted, "training.weight_decay=0.1")
    assert "training.weight_decay 0.1 changes rows that training does not read: set it to null or false" in line
    (line,) = faults(good, wanted, "model.vocabulary=seen")
    assert "`seen` leaves these rows out already: set it to null or false" in line
    for null in ("machine.compact_embedding=null", "machine.compact_embedding=false"):
        load_config(str(good), overrides=[null, "training.weight_decay=0.1", "model.vocabulary=seen"])


SIGNIFICANT = ["training.early_stopping={patience: 2, significant: true}", "evaluation.every_steps=5"]


@pytest.mark.parametrize(
    ("asked", "key"),
    [
        (["evaluation.best_by=tied_keeps_older"], "evaluation.best_by"),
        (SIGNIFICANT, "training.early_stopping.significant"),
    ],
)
def test_ties_need_a_metric_of_rows(good: Path, asked: list[str], key: str) -> None:
    load_config(str(good), overrides=asked)
    (line,) = faults(good, *asked, "evaluation.best_metric=loss")
    assert key in line
    assert "needs a metric with numbers of each row, and `loss` has none: choose the best by another" in line


def test_ties_are_not_kept_between_evaluations_of_other_jobs(good: Path) -> None:
    (line,) = faults(good, "evaluation.best_by=tied_keeps_older", "machine.evaluation_job=[]")
    assert "evaluation.best_by" in line
    assert "may come in any order: take `point`, or set the job to null" in line


def test_a_limit_over_the_positions_of_a_new_model_is_refused_at_its_line(good: Path) -> None:
    model = ["model.name=null", "model.scratch.architecture=marian", "model.scratch.max_positions=128"]
    (line,) = faults(good, *model, "task.max_source_tokens=200", "task.max_target_tokens=128")
    assert (
        "task.max_source_tokens: is 200, but the model has 128 positions: lower it to 128, or raise max_positions"
        in line
    )
    load_config(str(good), overrides=[*model, "task.max_source_tokens=128", "task.max_target_tokens=128"])


@pytest.mark.parametrize(("architecture", "is_refused"), [("mbart", True), ("m2m100", False), ("t5", False)])
def test_positions_limit_the_families_that_learn_them(good: Path, architecture: str, is_refused: bool) -> None:
    overrides = [
        "model.name=null", f"model.scratch.architecture={architecture}", "task.max_source_tokens=1000", *LANGUAGES
    ]  # fmt: skip
    if is_refused:
        assert any("has 512 positions" in line for line in faults(good, *overrides))
    else:
        load_config(str(good), overrides=overrides)
