"""The parameters that are listed are those of real models: names, shapes, and which are trained."""

import pytest
from torch import nn

from dstrain.forecast.architecture import Architecture, read_architecture, scratch_architecture
from dstrain.forecast.weights import count_buffers, list_weights
from tests.distributed.memory import build_config, build_model
from tests.unit.models.stock_families import BUILDERS
from tests.unit.models.tiny_models import FAMILIES

SCRATCH_FAMILIES = [family for family in FAMILIES if family != "mbart50"]
ROWS = 480


def assert_same(model: nn.Module, architecture: Architecture) -> None:
    listed = {weight.name: (weight.shape, weight.is_trained) for weight in list_weights(architecture)}
    real = {name: (tuple(each.shape), each.requires_grad) for name, each in model.named_parameters()}
    assert listed == real
    assert count_buffers(architecture) == sum(buffer.numel() for buffer in model.buffers())


@pytest.mark.parametrize("family", SCRATCH_FAMILIES)
def test_a_scratch_model_has_the_parameters_that_are_listed(family: str) -> None:
    config = build_config(family, model__dropout=None)
    model = build_model(config)
    assert config.model.scratch is not None
    architecture = scratch_architecture(config.model.scratch, vocabulary=3000)
    assert_same(model, architecture)


@pytest.mark.parametrize("family", SCRATCH_FAMILIES)
def test_its_config_says_the_same_as_the_recipe(family: str) -> None:
    config = build_config(family, model__dropout=None)
    model = build_model(config)
    assert config.model.scratch is not None
    read = read_architecture(model.config.to_dict())
    # mBART's and Marian's configs keep what a recipe does not decide
    assert read == scratch_architecture(config.model.scratch, vocabulary=3000)


@pytest.mark.parametrize("family", ["bart", "pegasus", "umt5", "byt5", "plbart", "blenderbot"])
def test_a_model_of_a_folder_has_the_parameters_that_are_listed(family: str) -> None:
    model = BUILDERS[family](ROWS)
    head = model.get_output_embeddings()
    is_own = head.weight is not model.get_input_embeddings().weight
    architecture = read_architecture(model.config.to_dict(), has_own_head=is_own)
    assert architecture is not None
    assert_same(model, architecture)


def test_other_families_are_not_known() -> None:
    assert read_architecture(BUILDERS["t5gemma"](ROWS).config.to_dict()) is None
    assert read_architecture({"model_type": "t5"}) is None
