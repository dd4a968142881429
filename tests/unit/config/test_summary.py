"""A configuration in a few lines."""

import pytest

from dstrain.config.load import load_config, recipe_hash
from dstrain.config.summary import summary


def lines_of(recipe: str, *overrides: str) -> dict[str, str]:
    """Topic to text."""
    lines = summary(load_config(recipe, overrides=overrides)).splitlines()
    return {line[2:14].strip(): line[14:].strip() for line in lines}


def test_a_summary_is_one_aligned_line_per_topic() -> None:
    config = load_config("demo_translation")
    found = lines_of("demo_translation")
    assert found["name"] == config.name
    assert found["model"] == "scratch: m2m100"
    assert found["length"] == f"{config.training.max_steps} steps"
    assert found["best by"] == "bleu"
    assert found["run folder"] == config.run_dir
    assert found["recipe"] == recipe_hash(config)[:16]


def test_a_length_in_epochs_and_a_model_by_name_are_written_as_given() -> None:
    found = lines_of("debug", "training.max_steps=null", "training.epochs=1.5", "model={name: x, scratch: null}")
    assert (found["length"], found["model"]) == ("1.5 epochs", "x")


@pytest.mark.parametrize(
    ("overrides", "machine"),
    [
        (("machine.micro_batch_tokens=100",), "ZeRO 2, micro-batches of at most 100 tokens"),
        (("machine.micro_batch_tokens=null",), "ZeRO 2, micro-batches of as many tokens as fit into the GPU's memory"),
        (("machine.micro_batch_size=3",), "ZeRO 2, micro-batches of 3 sequences"),
        (
            ("machine.micro_batch_size=3", "machine.compile=true"),
            "ZeRO 2, micro-batches of 3 sequences, compiled layers",
        ),
        (
            ("machine.micro_batch_size=3", "machine.compile=null"),
            "ZeRO 2, micro-batches of 3 sequences, layers compiled if that is faster",
        ),
    ],
)
def test_the_machine_line_says_what_bounds_a_micro_batch(overrides: tuple[str, ...], machine: str) -> None:
    assert lines_of("debug", "machine.zero_stage=2", *overrides)["machine"] == machine


def test_trackers_are_named_with_the_server_that_the_recipe_names() -> None:
    assert "trackers" not in lines_of("debug")
    overrides = ("logging.trackers.wandb={}", "logging.trackers.mlflow.uri=http://host:5000")
    assert lines_of("debug", *overrides)["trackers"] == "wandb; mlflow: http://host:5000"
