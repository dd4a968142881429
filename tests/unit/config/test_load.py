"""Configuration files end to end: every fault at once with its place, `extends`, overrides, missing files, names."""

import subprocess
import sys
from pathlib import Path

import pytest

from dstrain.config import load
from dstrain.config.load import ConfigError, find_config, load_config

GOOD = """\
name: trial
model:
  name: some/model
task:
  kind: translation
data:
  train:
    - demo: translation
  eval:
    - demo: translation
      split: eval
training:
  batch_size: 16
  epochs: 6
  learning_rate: 3e-4
"""


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    return path


def faults(path: Path | str, *overrides: str, check_files: bool = False) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load_config(str(path), overrides=overrides, check_files=check_files)
    assert str(raised.value).splitlines() == [str(problem) for problem in raised.value.problems]
    return str(raised.value).splitlines()


def write(tmp_path: Path, text: str, *, name: str = "run.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_good_file_becomes_a_frozen_configuration(good: Path) -> None:
    config = load_config(str(good))
    assert config.training.learning_rate == 3e-4
    assert config.training.epochs == 6.0
    assert config.best_metric == "bleu"
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 1


def test_every_kind_of_fault_is_reported_at_once_with_file_and_line(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """\
name: a b
seed: true
precision: fp61
model: {name: some/model, scratch: {vocabulary_size: 3e3}, dropout: no}
task:
  kind: parsing
  form: pionter
data:
  train: [{path: x.tsv, hub: x}, {path: 5}]
  eval: [{demo: translation, source_column: 1.5, split: 2022-01-01, repeat: 2}]
training:
  batch_size: 3e3
  learning_rte: 3e-4
  learning_rate: "3e-4"
  epochs: 3
  max_steps: 7
  betas: [0.9]
  warmup_steps: 010
evaluation: {best_metric: bleu, every_steps: 5, every_epochs: 1}
machine:
  zero_stage: 1
  offload_parameters: true
  deepspeed:
    gradient_cliping: 1
    zero_optimization: {stage: 2}
micro_batch_size: 3
gradient_clipping: 1
""",
    )
    found = [line.removeprefix(f"{path}:") for line in faults(path, "trainig.x=1", "logging.every_steps=0")]
    assert found == [
        '1: name: must match ^[A-Za-z0-9][A-Za-z0-9._-]*$; found "a b"; '
        "Name of the run folder and the model card: letters, digits, `.`, `_` and `-`",
        "2: seed: must be a whole number; found true; Seed of the initial weights, the data order and dropout",
        "3: precision: must be 'fp32', 'bf16' or 'fp16'; found \"fp61\"; did you mean `fp16`?",
        "4: model.dropout: YAML reads a plain `no` as false; found `no`; quote it, or write true or false",
        "4: model.scratch.architecture: is required; found nothing; "
        "Model family whose architecture and tokenizer format are used",
        "4: model.scratch.vocabulary_size: must be a whole number; found 3000.0; write 3000",
        "4: model.name: give exactly one of `name` (hub name or folder) and `scratch`; found both; null unsets one",
        "7: task.form: must be 'pointer' or 'plain'; found \"pionter\"; did you mean `pointer`?",
        "9: data.train.0.path: give exactly one of `path`, `hub` and `demo`; found path and hub; null unsets one",
        "9: data.train.1.path: must be text; found 5; quote it",
        "10: data.eval.0.split: YAML reads this as a date; found `2022-01-01`; quote it",
        "10: data.eval.0.source_column: must be text or a whole number; found 1.5; quote it",
        "10: data.eval.0.repeat: evaluation rows cannot be repeated: a score counts every row once; remove `repeat`",
        "10: data.eval.0.demo: demo `translation` has no rows for task.kind `parsing`: make them equal",
        "12: training.batch_size: must be a whole number; found 3000.0; write 3000",
        "13: training.learning_rte: unknown key; found 0.0003; did you mean `learning_rate`?",
        '14: training.learning_rate: must be a number; found "3e-4"; remove the quotes',
        "16: training.max_steps: give exactly one of `epochs` and `max_steps`; found both; null unsets one",
        "17: training.betas: must have at least 2 items; found [0.9]",
        "18: training.warmup_steps: YAML reads a number with a leading 0 in base 8; found `010`; "
        "quote it, or remove the 0",
        "19: evaluation.every_steps: give only one of `every_steps` and `every_epochs`; null unsets one",
        "19: evaluation.best_metric: `bleu` is not computed for task.kind `parsing`: take one of exact_match, loss",
        "22: machine.offload_parameters: offload_parameters needs zero_stage 3; found 1",
        "24: machine.deepspeed.gradient_cliping: unknown to DeepSpeed 0.19.8; did you mean `gradient_clipping`? "
        "It is refused here: set `training.max_grad_norm` instead",
        "25: machine.deepspeed.zero_optimization.stage: set `machine.zero_stage` instead",
        "26: micro_batch_size: unknown key; found 3; did you mean `machine.micro_batch_size`?",
        "27: gradient_clipping: unknown key; found 1; set `training.max_grad_norm` instead",
        "override `logging.every_steps=0`: logging.every_steps: must be at least 1; found 0; "
        "Optimizer steps between rows of metrics.jsonl",
        'override `trainig.x=1`: trainig: unknown key; found {"x": 1}; did you mean `training`?',
    ]


def test_an_empty_mapping_lists_what_is_required_with_its_meaning(tmp_path: Path) -> None:
    found = faults(write(tmp_path, "seed: 1\n"))
    assert {line.split(": ")[1] for line in found} == {"name", "model", "task", "data", "training"}
    assert all(line.startswith(f"{tmp_path}/run.yaml:1: ") for line in found)


@pytest.mark.parametrize(
    "required", ["name: trial\n", "  batch_size: 16\n", "  learning_rate: 3e-4\n", "  epochs: 6\n"]
)
def test_a_missing_required_key_does_not_hide_conflicts_elsewhere(tmp_path: Path, required: str) -> None:
    text = GOOD.replace(required, "") + "evaluation: {best_metric: exact_match}\n"
    found = faults(write(tmp_path, text))
    assert len(found) == 2
    assert any("`exact_match` is not computed for task.kind `translation`" in line for line in found)


def test_a_conflict_with_a_wrong_value_is_not_invented(tmp_path: Path) -> None:
    text = GOOD.replace("kind: translation", "kind: parsin") + "evaluation: {best_metric: exact_match}\n"
    (line,) = faults(write(tmp_path, text))
    assert "did you mean `parsing`?" in line
    text = GOOD + "machine: {zero_stage: three, offload_parameters: true}\n"
    (line,) = faults(write(tmp_path, text))
    assert "machine.zero_stage: must be a whole number" in line


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.max_steps=5", "exactly one of `epochs` and `max_steps`; found both; null unsets one"),
        ("training.epochs=null", "exactly one of `epochs` and `max_steps`; found none"),
        ("training.early_stopping.patience=2", "needs evaluation.every_steps or evaluation.every_epochs"),
        ("model.scratch.architecture=marian", "found both; null unsets one"),
        ("machine.zero_stage=4", "must be at most 3; found 4"),
        ("training.learning_rate=0", "must be greater than 0"),
        ("model.dropout=1.0", "must be less than 1"),
        ("data.eval=[]", "must have at least 1 items; found []"),
        ("data.eval={}", "must be a list; found {}; write `'data.eval=[{path: file.tsv}]'`"),
        ("data.train=[a.tsv]", "found \"a.tsv\"; write `'data.train=[{path: file.tsv}]'`"),
        (
            "data.eval.0.hub=x",
            "found hub and demo; null unsets one; or replace the list: `'data.eval=[{path: file.tsv}]'`",
        ),
        ("training=3", "must be a section of keys; found 3"),
        ("machine.deepspeed.fp16.enabled=true", "set `precision` instead"),
        ("model.revision=12345678", "must be text; found 12345678; quote it"),
        ("checkpoint.keep_last=1", "must be at least 2"),
        ("model.name=null", "exactly one of `name` (hub name or folder) and `scratch`; found none"),
        ("data.train.0.target_path=x", "`target_path` goes with `path`"),
        ("data.train=[{path: x, format: text}]", "format `text` needs `target_path`"),
    ],
)
def test_an_override_is_checked_like_the_file_and_named(good: Path, override: str, message: str) -> None:
    (line,) = faults(good, override)
    assert message in line
    assert line.startswith(f"override `{override}`: ")


def test_the_form_of_a_list_is_shown_as_it_stands_in_a_file_and_fits(tmp_path: Path) -> None:
    written = GOOD.replace("    - demo: translation\n      split: eval\n", "    - file.tsv\n")
    (line,) = faults(write(tmp_path, written))
    assert line.endswith('data.eval.0: must be a section of keys; found "file.tsv"; write `eval: [{path: file.tsv}]`')
    shown = line.rpartition("`eval: ")[2].removesuffix("`")
    config = load_config(str(write(tmp_path, GOOD)), overrides=[f"data.eval={shown}"])
    assert [source.path for source in config.data.eval] == ["file.tsv"]


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
    assert load_config(str(good), overrides=["model.name=facebook/m2m100_418M", "precision=fp16"]).precision == "fp16"


def test_scratch_conflicts_are_found(good: Path) -> None:
    found = faults(good, "model.name=null", "model.scratch.architecture=mbart")
    assert [line.split(": ")[1:] for line in found] == [
        ["task.source_language", "is needed by architecture `mbart`"],
        ["task.target_language", "is needed by architecture `mbart`"],
    ]
    (line,) = faults(good, "model.name=null", "model.scratch={architecture: marian, hidden_size: 100, num_heads: 3}")
    assert "hidden_size 100 is not a multiple of num_heads 3" in line


def test_a_child_overrides_single_keys_of_its_base(tmp_path: Path, good: Path) -> None:
    child = write(tmp_path, "extends: good.yaml\nname: child\ntraining:\n  batch_size: 32\n")
    config, base = load_config(str(child)), load_config(str(good))
    assert (config.name, config.training.batch_size) == ("child", 32)
    assert config.training.model_copy(update={"batch_size": 16}) == base.training


def test_a_child_takes_the_other_alternative_with_null(tmp_path: Path, good: Path) -> None:
    child = write(
        tmp_path,
        """\
extends: good.yaml
model: {name: null, scratch: {architecture: marian}}
training: {epochs: null, max_steps: 10}
""",
    )
    config = load_config(str(child))
    assert config.model.name is None
    assert (config.training.epochs, config.training.max_steps) == (None, 10)


def test_faults_of_base_and_child_keep_their_own_file_and_line(tmp_path: Path) -> None:
    write(tmp_path, GOOD.replace("epochs: 6", "epochs: six"), name="base.yaml")
    child = write(tmp_path, "extends: base.yaml\n\ntraining:\n  batch_size: many\n")
    assert [line.split(": ")[:2] for line in faults(child)] == [
        [f"{tmp_path}/base.yaml:14", "training.epochs"],
        [f"{tmp_path}/run.yaml:4", "training.batch_size"],
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: nowhere.yaml\n", "run.yaml:1: extends: no such file"),
        ("extends: [good.yaml]\n", "must be the name of another file"),
        ("extends: middle.yaml\n", "extends another file itself; only one level is allowed"),
        ("extends: broken.yaml\n", "broken.yaml:3: not valid YAML"),
    ],
)
def test_a_base_that_cannot_be_used_is_one_fault(tmp_path: Path, good: Path, text: str, message: str) -> None:
    write(tmp_path, f"extends: {good.name}\n" + GOOD, name="middle.yaml")
    write(tmp_path, "name: x\nseed: [\n", name="broken.yaml")
    (line,) = faults(write(tmp_path, text))
    assert message in line


def test_a_file_that_is_not_utf8_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"name: x\n# caf\xe9\n")
    assert faults(path) == [f"{path}:2: not UTF-8; found 233"]


def test_missing_files_are_reported_only_when_asked_for(
    tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    overrides = ["data.train.0={path: a.ko, target_path: b.en}", "model.name=./my/model", "data.eval.0={path: ~/x.tsv}"]
    assert load_config(str(good), overrides=overrides).model.name == "./my/model"
    found = faults(good, *overrides, check_files=True)
    assert sorted(line.split(": ", maxsplit=1)[0].split("=")[0] for line in found) == [
        "override `data.eval.0",
        "override `data.train.0",
        "override `data.train.0",
        "override `model.name",
    ]
    assert any("`~` is not expanded" in line for line in found)
    for name in ("a.ko", "b.en"):
        (tmp_path / name).touch()
    (tmp_path / "my" / "model").mkdir(parents=True)
    assert load_config(str(good), overrides=overrides[:2], check_files=True).data.train[0].path == "a.ko"


def test_missing_files_are_reported_beside_other_faults(good: Path) -> None:
    found = faults(good, "data.train.0={path: nowhere.tsv}", "seed=x", check_files=True)
    assert len(found) == 2


def test_a_hub_name_is_no_missing_folder(good: Path) -> None:
    assert load_config(str(good), check_files=True).model.name == "some/model"


def test_a_shipped_recipe_is_found_by_name_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config("demo_translation").name == "demo-translation"
    assert load_config("debug").name == "debug"


def test_an_installed_package_brings_its_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dstrain" / "recipes").mkdir(parents=True)
    monkeypatch.setattr(load, "__file__", str(tmp_path / "dstrain" / "config" / "load.py"))
    assert load.recipes_folder() == tmp_path / "dstrain" / "recipes"


def test_a_file_comes_before_a_recipe_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("debug").write_text(GOOD)
    assert load_config("debug").name == "trial"


@pytest.mark.parametrize("name", ["demo_translaton", "no/such.yaml", "../configs/debug", "."])
def test_an_unknown_name_lists_what_exists(name: str) -> None:
    with pytest.raises(ConfigError, match="neither a file nor a shipped recipe; shipped recipes: debug, demo_parsing"):
        find_config(name)


def test_loading_imports_nothing_heavy(good: Path) -> None:
    code = (
        "import sys; from dstrain.config.load import load_config, dump_config; "
        f"dump_config(load_config({str(good)!r}, check_files=True)); "
        "print([m for m in ('torch','deepspeed','transformers','datasets','numpy','sacrebleu') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_layers_are_not_compiled_under_zero_3_and_null_leaves_it_open(tmp_path: Path) -> None:
    text = GOOD + "machine: {zero_stage: 3, compile: true}\n"
    (line,) = faults(write(tmp_path, text))
    assert "machine.compile: compile needs zero_stage 0, 1 or 2" in line
    assert "found 3: set compile to false or null" in line
    path = str(write(tmp_path, text))
    assert load_config(path, overrides=["machine.compile=null"]).machine.compile is None
    assert load_config(path, overrides=["machine.zero_stage=2"]).machine.compile is True
