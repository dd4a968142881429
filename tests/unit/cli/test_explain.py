"""`dstrain explain`: keys, scores, states and exit codes, and where a recipe sets a key."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from transformers import Seq2SeqTrainingArguments
from typer.testing import CliRunner

from dstrain.cli.app import app
from dstrain.cluster.exit_codes import MEANINGS as EXIT_CODES
from dstrain.status.judge import MEANINGS as STATES


def explain(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["explain", *arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


def test_a_key_is_explained() -> None:
    lines = explain("training.batch_size").splitlines()
    assert lines[0] == "training.batch_size"
    assert any(line.split() == ["default", "required"] for line in lines)
    assert any(line.startswith("  meaning  ") for line in lines)


def test_a_section_lists_its_keys() -> None:
    told = explain("training.early_stopping")
    assert "  patience     required  " in told


def test_a_value_is_shown_with_its_place(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("extends: base.yaml\nseed: 3\n")
    (tmp_path / "base.yaml").write_text("name: a\ntraining: {batch_size: 8}\n")
    assert f"  value    8  ({tmp_path / 'base.yaml'}:2)" in explain("training.batch_size", "--config", str(recipe))
    assert "  value    9  (override `seed=9`)" in explain("seed", "--config", str(recipe), "seed=9")
    assert "not set: the default holds" in explain("precision", "--config", str(recipe))


def test_a_recipe_behind_the_key_is_answered_with_its_option() -> None:
    assert "all together: " in explain("seed", "debug", code=2)
    assert "explain seed --config debug" in explain("seed", "debug", code=2)


def test_an_option_or_several_words_are_the_name_and_a_recipe_in_its_place_is_said_to_be_one() -> None:
    assert "all together: " in explain("--fp16", code=2)
    assert "explain fp16\n" in explain("--fp16", code=2)
    assert explain("fp16").startswith("precision\n")
    assert explain("training", "batch_size") == explain("training.batch_size")
    assert "`--debug` of launch/train.py" in explain("debug")
    assert "it is a recipe, which dstrain check demo_translation looks at" in explain("demo_translation", code=1)
    assert "an override goes with --config RECIPE" in explain("seed", "seed=7", code=2)


def test_the_last_part_of_several_keys_explains_each_and_a_score_of_that_name() -> None:
    told = explain("loss")
    assert "evaluation.loss\n" in told
    assert "loss (a score)\n" in told
    assert "nats per target token" in told


ARGUMENTS = {field.name for field in fields(Seq2SeqTrainingArguments)} - {"debug"}  # which is a recipe's name too


@pytest.mark.parametrize("argument", sorted(ARGUMENTS))
def test_every_argument_of_a_trainer_is_explained(argument: str) -> None:
    assert explain(argument).strip()


@pytest.mark.parametrize("state", STATES)
def test_a_state_is_explained(state: str) -> None:
    assert STATES[state] in explain(state)  # type: ignore[index]


@pytest.mark.parametrize("code", EXIT_CODES)
def test_an_exit_code_is_explained(code: int) -> None:
    assert EXIT_CODES[code] in explain(str(code))


@pytest.mark.parametrize("words", [["states"], ["state"]])
def test_all_states_are_listed(words: list[str]) -> None:
    told = explain(*words)
    assert all(f"  {state}  " in told and meaning in told for state, meaning in STATES.items())


@pytest.mark.parametrize("words", [["exit codes"], ["exit", "codes"], ["exit_code"]])
def test_all_exit_codes_are_listed(words: list[str]) -> None:
    told = explain(*words)
    assert all(f"  {code}  " in told and meaning in told for code, meaning in EXIT_CODES.items())


def test_a_near_miss_is_suggested_and_ends_with_1() -> None:
    assert "did you mean training.max_steps" in explain("training.max_step", code=1)
    assert "the sections are model, task, data, training, " in explain("qqqqqq", code=1)
    assert "neither a file nor a shipped recipe" in explain("seed", "--config", "nowhere", code=1)


def test_it_needs_no_torch() -> None:
    code = (
        "import sys\nfrom dstrain.cli.app import app\n"
        "try: app(sys.argv[1:])\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'deepspeed', 'transformers', 'numpy') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, "explain", "seed", "--config", "debug"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1] == "[]"
