"""Everything that is wrong with a document: all of it at once, each with its place, and nothing invented."""

import json
from pathlib import Path

import pytest

from dstrain.config.load import load_config
from dstrain.config.problems import HARMLESS, find_problems
from dstrain.config.vocabulary import all_keys, fields_at
from dstrain.config.yaml_source import read_document
from dstrain.errors import UserError
from tests.unit.config.config_cases import GOOD, faults, write


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
        "1: name: must be made of the letters a to z and A to Z, digits, `.`, `_` and `-`, and begin with a "
        'letter or digit; found "a b"; '
        "Name of the run folder and the model card: at most 200 letters, digits, `.`, `_` and `-`",
        "2: seed: must be a whole number; found true; Seed of the initial weights, the data order and dropout",
        "3: precision: must be 'fp32', 'bf16' or 'fp16'; found \"fp61\"; did you mean `fp16`?",
        "4: model.dropout: YAML reads a plain `no` as false; found `no`; quote it, or write true or false",
        "4: model.scratch.architecture: is required; found nothing; "
        "Model family whose architecture and tokenizer format are used",
        "4: model.scratch.vocabulary_size: must be a whole number; found 3000.0; write 3000",
        "4: model.name: give exactly one of `name` (hub name or folder), `scratch` and `from_run`; found name and scratch; null "
        "unsets one",
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
        "19: evaluation.best_metric: `bleu` is not computed for task.kind `parsing`: take one of exact_match, loss"
        ", or add `bleu` to evaluation.metrics",
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
        ("model.scratch.architecture=marian", "found name and scratch; null unsets one"),
        ("machine.zero_stage=4", "must be at most 3; found 4"),
        ("training.learning_rate=0", "must be greater than 0"),
        ("model.dropout=1.0", "must be less than 1"),
        ("data.eval=[]", "must have at least 1 item; found []"),
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
        ("model.name=null", "exactly one of `name` (hub name or folder), `scratch` and `from_run`; found none"),
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


def test_every_required_key_has_a_harmless_value_so_that_it_hides_nothing() -> None:
    required = [path for path in all_keys() if fields_at(path[:-1])[path[-1]].is_required()]
    assert ("training", "batch_size") in required
    harmless = {
        tuple(key for key in path if key != 0) for path in HARMLESS
    }  # items of a list have no part of their own
    assert {path for path in required if path not in harmless} == set()


def test_a_document_without_problems_is_a_configuration() -> None:
    config, problems = find_problems(read_document(GOOD, file="run.yaml"))
    assert problems == []
    assert config is not None
    assert config.name == "trial"


@pytest.mark.parametrize(
    ("key", "value", "meant"),
    [("machine.device", "gpu", "cuda"), ("precision", "bfloat16", "bf16"), ("precision", "half", "fp16")],
)
def test_a_value_by_another_tools_name_is_understood(key: str, value: str, meant: str) -> None:
    with pytest.raises(UserError, match=f"did you mean `{meant}`"):
        load_config("debug", overrides=[f"{key}={value}"])


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("lr", "did you mean `training.learning_rate`?"),
        ("lrate", "did you mean `training.learning_rate`?"),
        ("training.lrate", "did you mean `training.learning_rate`?"),
        ("num-train-epochs", "did you mean `training.epochs`?"),
        ("training.warmup_ratio", "write the steps: `training.warmup_steps=N`"),
        ("batch_size", "did you mean `training.batch_size` or `evaluation.batch_size`?"),
        ("frobnicate", "known here: name, seed, "),
    ],
)
def test_an_unknown_key_by_another_tools_name_or_abbreviated_is_understood(key: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config("debug", overrides=[f"{key}=1"])
    assert f"unknown key; found 1; {told}" in str(caught.value)


HIDDEN = {
    "escape": "\x1b",
    "line break": "\n",
    "C1": "\x9b",
    "bidi override": "\u202e",
    "bidi mark": "\u200f",
    "separator": "\u2028",
}


@pytest.mark.parametrize("character", HIDDEN.values(), ids=HIDDEN.keys())
@pytest.mark.parametrize(
    "key",
    ["output_dir", "machine.cache_dir", "model.name", "model.revision", "data.train.0.path", "data.train.0.split",
     "data.eval.0.source_column", "task.source_language", "evaluation.best_metric"],
)  # fmt: skip
def test_control_characters_are_refused_by_key_and_shown_escaped(key: str, character: str, good: Path) -> None:
    lines = faults(good, f"{key}={json.dumps(f'a{character}b')}")
    (line,) = (each for each in lines if "control character" in each)
    assert (
        f"{key}: has the control character U+{ord(character):04X}; found {json.dumps(f'a{character}b')}; remove it"
        in line
    )


def test_an_unknown_key_is_called_so_whatever_its_value_is(good: Path) -> None:
    for key in ("notes", "card.description", "data.train.0.notes"):
        lines = faults(good, f"{key}={json.dumps('two' + chr(10) + 'lines')}")
        assert [f"{key}: unknown key" in line for line in lines] == [True]
    assert "control character" in faults(good, 'machine.deepspeed={"a": "b\u202ec"}')[0]


def test_control_characters_in_names_of_keys_are_refused_and_those_of_a_prefix_are_text(good: Path) -> None:
    lines = faults(good, 'model.add_languages={"a\\u202eb": x}')
    assert 'model.add_languages: has the control character U+202E; found "a\\u202eb"; remove it' in lines[0]
    prefix = load_config(str(good), overrides=['task.source_prefix="a\\tb\\n"']).task.source_prefix
    assert prefix == "a\tb\n"


@pytest.mark.parametrize(
    ("override", "limit"),
    [
        ("training.max_steps=9223372036854775807", "1,000,000,000"),
        ("machine.collective_timeout_minutes=9223372036854775807", "527,040"),
        ("machine.watchdog.step_minutes=1e300", "527,040"),
        ("machine.reserve_seconds=1e18", "1,000,000"),
        ("machine.lease_seconds=1e18", "1,000,000"),
        ("machine.prefetch_steps=1000000", "10,000"),
        ("evaluation.num_beams=1000000", "1,000"),
        ("evaluation.max_new_tokens=9223372036854775807", "1,000,000"),
        ("data.train.0.repeat=9223372036854775807", "1,000,000"),
        ("training.warmup_steps=9223372036854775807", "1,000,000,000"),
        ("training.epochs=1e308", "1,000,000,000"),
        ("evaluation.every_epochs=1e308", "1,000,000"),
        ("model={scratch: {architecture: t5, vocabulary_size: 9223372036854775807}}", "10,000,000"),
    ],
)
def test_no_count_is_larger_than_anything_can_be(override: str, limit: str, good: Path) -> None:
    lines = faults(good, override)
    assert any(f"must be at most {limit}; found " in line for line in lines), lines


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "data.eval.0.target_column=[a, b]",
            'target_column: must be text or a whole number; found ["a", "b"]; one column has',
        ),
        (
            "data.eval.0.target_column={a: 1}",
            'target_column: must be text or a whole number; found {"a": 1}; Column of',
        ),
        ("data.eval.0.source_column=-1", "source_column: must be at least 0; found -1; Column of the sources"),
        ("data.eval.0.group_column=-1", "group_column: must be at least 0; found -1"),
        ("training.betas=[]", "training.betas: must have at least 2 items; found []"),
    ],
)
def test_what_a_key_of_several_types_has_is_named_by_the_key_alone(override: str, message: str, good: Path) -> None:
    (line,) = faults(good, override)
    assert message in line
