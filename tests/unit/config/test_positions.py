"""Positions by a model's configuration, and limits beyond them."""

from typing import Any

import pytest

from dstrain.config.positions import Positions, limits_beyond, read_positions, scratch_positions
from dstrain.config.recipe import Scratch, Task


@pytest.mark.parametrize(
    ("kind", "values", "positions"),
    [
        ("marian", {"max_position_embeddings": 512}, (512, 512)),
        ("m2m_100", {"max_position_embeddings": 1024}, (None, None)),  # its sinusoids grow
        ("t5", {}, (None, None)),
        ("bart", {}, (None, None)),  # the file does not say
        (
            "led",
            {
                "max_encoder_position_embeddings": 1000,
                "max_decoder_position_embeddings": 99,
                "attention_window": [64, 128],
            },
            (896, 99),
        ),
    ],
)
def test_positions_are_those_of_the_configuration(
    kind: str, values: dict[str, Any], positions: tuple[int | None, int | None]
) -> None:
    assert read_positions(kind, values.get) == positions


@pytest.mark.parametrize(("architecture", "most"), [("marian", 128), ("mbart", 128), ("m2m100", None), ("t5", None)])
def test_a_new_model_has_the_positions_of_its_recipe(architecture: Any, most: int | None) -> None:
    assert scratch_positions(Scratch(architecture=architecture, max_positions=128)) == (most, most)


def test_every_limit_beyond_is_named() -> None:
    task = Task(kind="text", max_source_tokens=600, max_target_tokens=500)
    assert [key for key, _ in limits_beyond(task, positions=Positions(512, 512))] == ["task.max_source_tokens"]
    assert len(list(limits_beyond(task, positions=Positions(9, 9)))) == 2
    assert list(limits_beyond(task, positions=Positions())) == []
