"""What a recipe trains is counted as the real model shows it: freezing, adapters, rows of the vocabulary."""

from typing import Any

import pytest
from torch import nn

from dstrain.forecast.architecture import read_architecture
from dstrain.forecast.trained import Rows, find_trained
from dstrain.forecast.weights import list_weights
from dstrain.models.compact import compact_embedding
from dstrain.models.partial import count_trained, train_part
from dstrain.models.restrict import keep_rows
from tests.distributed.memory import architecture_of, build_config, build_model, trained_of
from tests.unit.models.stock_families import BUILDERS


def with_model(family: str, **section: Any) -> Any:
    config = build_config(family)
    # an adapter of random weights is refused in a recipe, and yet counts alike
    return config.model_copy(update={"model": config.model.model_copy(update=section)})


@pytest.mark.parametrize(
    "freeze",
    [
        ("encoder",),
        ("decoder",),
        ("embeddings",),
        ("encoder", "embeddings"),
        ("*.0.*",),
        ("*norm*",),
    ],
)
@pytest.mark.parametrize("family", ["m2m100", "mbart", "marian", "t5", "mt5"])
def test_frozen_parts_and_patterns_count_as_in_the_model(family: str, freeze: tuple[str, ...]) -> None:
    config = with_model(family, freeze=freeze)
    model = build_model(config)
    train_part(model, section=config.model, new_ids=(), seed=0)
    trained = trained_of(config)
    assert trained.num_trained == count_trained(model)
    assert trained.num_all == sum(each.numel() for each in model.parameters())


@pytest.mark.parametrize("targets", ["attention", "all"])
@pytest.mark.parametrize("family", ["m2m100", "mt5"])
@pytest.mark.parametrize("num_new", [0, 5])
def test_an_adapter_counts_as_in_the_model(family: str, targets: str, num_new: int) -> None:
    pytest.importorskip("peft")
    from dstrain.config.recipe import Adapter

    config = with_model(family, adapter=Adapter(rank=3, targets=targets))
    model = build_model(config)
    train_part(model, section=config.model, new_ids=tuple(range(20, 20 + num_new)), seed=0)
    architecture = architecture_of(config)
    trained = find_trained(
        list_weights(architecture),
        model=config.model,
        kind=architecture.kind,
        rows=Rows(num_new=num_new),
        num_buffers=0,
        compacts=False,
    )
    assert trained.num_trained == count_trained(model)
    assert trained.num_exported == sum(weight.numel for weight in list_weights(architecture))


def test_a_compact_embedding_leaves_the_rows_that_training_reads() -> None:
    model = BUILDERS["byt5"](480)
    head = model.get_output_embeddings()
    head.weight = nn.Parameter(
        head.weight.detach().clone()
    )  # as the published ones have it; transformers ties new ones
    architecture = read_architecture(model.config.to_dict(), has_own_head=True)
    assert architecture is not None
    config, weights = build_config("t5"), list_weights(architecture)

    def counted(num_read: int, compacts: bool | None) -> int:
        return find_trained(
            weights, model=config.model, kind="t5", rows=Rows(num_read=num_read), num_buffers=0, compacts=compacts
        ).num_trained

    whole = count_trained(model)
    compact_embedding(model, ids=range(100))
    assert counted(100, None) == counted(100, True) == count_trained(model) < whole
    # more than half of the rows are read
    assert counted(300, None) == whole > counted(300, True)
    assert counted(100, False) == whole


def test_a_tied_embedding_stays_whole() -> None:
    config = build_config("m2m100")
    architecture = architecture_of(config)
    trained = find_trained(
        list_weights(architecture),
        model=config.model,
        kind="m2m_100",
        rows=Rows(num_read=5),
        num_buffers=0,
        compacts=None,
    )
    assert trained.num_trained == trained.num_all


@pytest.mark.parametrize("family", ["m2m100", "mt5"])
def test_seen_rows_are_the_rows_of_a_smaller_vocabulary(family: str) -> None:
    from dataclasses import replace

    config = build_config(family)
    model = build_model(config)
    keep_rows(model, range(700))
    smaller = replace(architecture_of(config), vocabulary=700)
    assert sum(weight.numel for weight in list_weights(smaller)) == count_trained(model)
