"""The shipped recipes: they load, they explain themselves, and the seeds' recipes hold the seeds' numbers."""

import re
import tomllib
from pathlib import Path

import pytest

from dstrain.config.load import dump_config, load_config
from dstrain.config.schema import RunConfig
from dstrain.config.shipped import recipes_folder

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted((ROOT / "configs").glob("*.yaml"))
NAMES = {
    "debug",
    "demo_parsing",
    "demo_text",
    "demo_translation",
    "ko_en_m2m",
    "ko_en_scratch",
    "mt5_pointer_mtop",
    "mtop_pointer_scratch",
}
LAUNCHED = re.compile(r"^# (?:deepspeed|python) launch/train\.py --config configs/(\w+)\.yaml( --debug)?$")

every_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)


def test_the_promised_recipes_are_there() -> None:
    assert {recipe.stem for recipe in RECIPES} == NAMES
    assert {recipe.stem for recipe in recipes_folder().glob("*.yaml")} == NAMES


@every_recipe
def test_a_recipe_loads_and_its_dump_repeats_it(recipe: Path, tmp_path: Path) -> None:
    config = load_config(str(recipe))
    assert config.name == recipe.stem.replace("_", "-")
    (tmp_path / "config.yaml").write_text(dump_config(config))
    assert load_config(str(tmp_path / "config.yaml")) == config


@every_recipe
def test_a_recipe_opens_with_the_command_that_runs_it(recipe: Path) -> None:
    first = recipe.read_text().splitlines()[0]
    match = LAUNCHED.match(first)
    assert match
    assert match[1] == recipe.stem


@every_recipe
def test_every_line_of_a_recipe_has_a_comment(recipe: Path) -> None:
    bare = [line for line in recipe.read_text().splitlines() if line.strip() and not re.search(r"^#|  # \S", line)]
    assert bare == []


@every_recipe
def test_the_lines_of_a_recipe_fit_a_screen(recipe: Path) -> None:
    assert [line for line in recipe.read_text().splitlines() if len(line) > 120] == []


@every_recipe
def test_local_data_of_a_recipe_lie_under_data(recipe: Path) -> None:
    data = load_config(str(recipe)).data
    paths = [source.path for source in (*data.train, *data.eval) if source.path is not None]
    assert all(path.startswith("data/") for path in paths)


@every_recipe
def test_a_recipe_passes_the_check_once_its_data_are_there(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = load_config(str(recipe)).data
    for source in (*data.train, *data.eval):
        if source.path is not None:
            Path(source.path).parent.mkdir(parents=True, exist_ok=True)
            Path(source.path).write_text("a\tb\n")
    load_config(str(recipe), check_files=True)


@every_recipe
def test_the_demos_and_the_debug_recipe_need_no_download(recipe: Path) -> None:
    config = load_config(str(recipe))
    if recipe.stem.startswith(("demo", "debug")):
        assert all(source.demo for source in (*config.data.train, *config.data.eval))
        assert config.model.scratch is not None


def assert_the_seeds_optimizer(config: RunConfig) -> None:
    training = config.training
    assert training.optimizer == "adam"
    assert (training.betas, training.epsilon, training.weight_decay) == ((0.9, 0.999), 1e-8, 0.0)
    assert (training.schedule, training.warmup_steps) == ("linear", 0)
    assert training.batch_unit == "sequences"
    assert config.seed == 42
    assert config.evaluation.batch_size == 16
    assert config.evaluation.max_new_tokens is None


def test_ko_en_m2m_holds_the_numbers_of_its_card() -> None:
    config = load_config("ko_en_m2m")
    assert_the_seeds_optimizer(config)
    assert config.model.name == "facebook/m2m100_418M"
    assert (config.task.kind, config.task.source_language, config.task.target_language) == ("translation", "ko", "en")
    assert (config.training.learning_rate, config.training.batch_size, config.training.epochs) == (3e-4, 16, 6.0)
    assert config.precision == "fp16"
    assert config.evaluation.every_steps == 5000
    assert config.best_metric == "bleu"


def test_mt5_pointer_mtop_holds_the_numbers_of_its_card() -> None:
    config = load_config("mt5_pointer_mtop")
    assert_the_seeds_optimizer(config)
    assert config.model.name == "google/mt5-small"
    assert (config.task.kind, config.task.form, config.task.source_prefix) == ("parsing", "pointer", "parse: ")
    assert (config.task.max_source_tokens, config.task.max_target_tokens) == (1024, 128)
    assert (config.training.learning_rate, config.training.batch_size) == (1e-3, 16 * 32)
    assert config.training.max_steps == 3000
    assert config.evaluation.every_steps == 200
    assert config.precision != "fp16"
    assert config.best_metric == "exact_match"


@pytest.mark.parametrize(
    ("recipe", "line"),
    [
        ("mt5_pointer_mtop", "max_new_tokens: 20"),
        ("mt5_pointer_mtop", "best_metric: loss"),
        ("mt5_pointer_mtop", "micro_batch_size: 16"),
        ("ko_en_m2m", "layerdrop: 0.05"),
        ("ko_en_m2m", "best_metric: loss"),
    ],
)
def test_the_seeds_own_choice_is_a_line_away_and_valid(recipe: str, line: str) -> None:
    assert f"`{line}`" in (ROOT / "configs" / f"{recipe}.yaml").read_text()
    key, value = line.split(": ")
    sections = {"micro_batch_size": "machine", "layerdrop": "model"}
    load_config(recipe, overrides=[f"{sections.get(key, 'evaluation')}.{key}={value}"])


def test_the_hub_lines_that_ko_en_m2m_offers_are_valid() -> None:
    source = "{hub: Helsinki-NLP/opus-100, subset: en-ko, source_column: translation.ko, target_column: translation.en}"
    assert load_config("ko_en_m2m", overrides=[f"data.train.0={source}"]).data.train[0].subset == "en-ko"


def test_the_wheel_carries_the_recipes() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert build["force-include"]["configs"] == "dstrain/recipes"
