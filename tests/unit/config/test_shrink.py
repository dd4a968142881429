"""A recipe made small: what shrinks, what stays, and where it goes."""

import pytest

from dstrain.config.load import load_config
from dstrain.config.schema import RunConfig
from dstrain.config.shrink import DEBUG_STEPS, EVAL_ROWS, OVERFIT_STEPS, TRAIN_ROWS, shrink_config

RECIPES = (
    "debug",
    "demo_translation",
    "demo_parsing",
    "demo_text",
    "ko_en_m2m",
    "ko_en_scratch",
    "mt5_pointer_mtop",
    "mtop_pointer_scratch",
)


def shrink(recipe: str, *overrides: str, overfit: int | None = None) -> RunConfig:
    return shrink_config(load_config(recipe, overrides=overrides), overfit=overfit, world_size=1)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("overfit", [None, 4])
def test_every_shipped_recipe_can_be_shrunk(recipe: str, overfit: int | None) -> None:
    config = shrink(recipe, overfit=overfit)
    assert config.training.max_steps == (OVERFIT_STEPS if overfit else DEBUG_STEPS)
    assert config.training.epochs is None
    assert config.training.warmup_steps <= config.training.max_steps // 10
    assert [row.max_rows is not None and row.max_rows <= (overfit or TRAIN_ROWS) for row in config.data.train] == [True]
    assert config.machine.zero_stage == (0 if config.precision == "fp32" else 1)
    assert config.evaluation.every_steps == config.training.max_steps // 4
    assert RunConfig.model_validate(config.model_dump()) == config


def test_a_few_rows_of_the_first_source_are_taken() -> None:
    sources = [{"demo": "translation", "repeat": 3, "max_rows": 5}, {"demo": "translation", "split": "eval"}]
    config = shrink("debug", f"data.train={sources}", "data.eval=[{demo: translation, split: eval}]")
    (train,), (evaluated,) = config.data.train, config.data.eval
    assert (train.split, train.repeat, train.max_rows) == ("train", 1, 5)
    assert (evaluated.split, evaluated.max_rows) == ("eval", EVAL_ROWS)


def test_overfitting_learns_the_very_rows_it_scores_without_dropout() -> None:
    given = ("model.dropout=0.3", "training.batch_unit=target_tokens", "data.rules.overlap=error")
    config = shrink("demo_translation", *given, overfit=8)
    assert config.data.rules.overlap == "keep"
    assert config.data.eval == config.data.train
    assert config.data.train[0].max_rows == 8
    assert config.model.dropout == 0.0
    assert (config.training.batch_size, config.training.batch_unit) == (8, "sequences")
    assert config.training.schedule == "constant"


@pytest.mark.parametrize(
    ("overfit", "name", "folder"),
    [(None, "debug-debug", "/data/run-debug"), (8, "debug-overfit8", "/data/run-overfit8")],
)
def test_it_goes_to_a_folder_of_its_own(overfit: int | None, name: str, folder: str) -> None:
    assert shrink("debug", overfit=overfit).run_dir == f"runs/{name}"
    for given in ("/data/run", "/data/run/"):
        config = shrink("debug", f"output_dir={given}", overfit=overfit)
        assert (config.name, config.run_dir) == (name, folder)


def test_what_is_learned_from_stays_the_recipes_own() -> None:
    before, after = load_config("demo_parsing"), shrink("demo_parsing")
    assert (after.task, after.model, after.precision, after.seed) == (
        before.task,
        before.model,
        before.precision,
        before.seed,
    )
    assert after.training.learning_rate == before.training.learning_rate


@pytest.mark.parametrize(
    "overrides",
    [
        ("training.early_stopping={patience: 2}",),
        ("evaluation.every_steps=null", "evaluation.every_epochs=0.5"),
        ("machine.zero_stage=3", "machine.offload_parameters=true", "machine.offload_optimizer=true"),
        ("training.max_steps=null", "training.epochs=2.0"),
        ("checkpoint.every_steps=3",),
        ("evaluation.max_rows=2",),
        ("data.eval=[{demo: translation}, {demo: translation, name: news}]", "evaluation.best_metric=news/chrf"),
    ],
)
def test_settings_that_would_not_fit_give_way(overrides: tuple[str, ...]) -> None:
    config = shrink("debug", *overrides)
    assert config.training.early_stopping is None
    assert config.evaluation.every_epochs is None
    assert not config.machine.offload_parameters
    assert config.checkpoint.every_steps is None


@pytest.mark.parametrize("overfit", [None, 8])
def test_several_ranks_are_refused(overfit: int | None) -> None:
    with pytest.raises(ValueError, match="one process, found 2: start it with python"):
        shrink_config(load_config("debug"), overfit=overfit, world_size=2)


def test_a_debug_run_is_shown_in_no_tracker() -> None:
    assert shrink("debug", "logging.trackers.wandb={}").logging.trackers == {}
