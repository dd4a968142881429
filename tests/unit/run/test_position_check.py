"""A limit over the positions of a model folder is found before anything is loaded."""

import json
from pathlib import Path

import pytest

from dstrain.config.load import load_config
from dstrain.config.schema import RunConfig
from dstrain.errors import UserError
from dstrain.run.position_check import check_positions


def build(folder: Path, config: object) -> RunConfig:
    folder.mkdir()
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return load_config("debug", overrides=[f"model={{name: '{folder}'}}", "task.max_source_tokens=1024"])


def test_a_limit_over_the_positions_is_refused_with_the_file(tmp_path: Path) -> None:
    config = build(tmp_path / "model", {"model_type": "marian", "max_position_embeddings": 512})
    with pytest.raises(
        UserError, match=r"task.max_source_tokens: is 1024, but the model has 512 positions: lower it.*json"
    ):
        check_positions(config)


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "marian", "max_position_embeddings": 1024},
        {"model_type": "m2m_100", "max_position_embeddings": 100},
        {"model_type": "marian", "max_position_embeddings": "many"},
        {"model_type": "led", "max_encoder_position_embeddings": 9, "attention_window": 0},
        [],
        "no JSON",
    ],
)
def test_what_is_not_limited_or_not_known_is_left_to_the_run(config: object, tmp_path: Path) -> None:
    check_positions(build(tmp_path / "model", config))


def test_a_model_that_is_not_here_is_left_to_the_run() -> None:
    check_positions(load_config("debug"))
    check_positions(load_config("debug", overrides=["model={name: owner/name}"]))
