"""The names of linear layers are those of real models."""

import pytest
from torch import nn

from dstrain.models.layer_names import TARGETS
from tests.unit.models.stock_families import BUILDERS


@pytest.mark.parametrize("family", sorted(BUILDERS))
def test_every_name_of_attention_is_a_layer_of_the_family(family: str) -> None:
    model = BUILDERS[family](96)
    names = TARGETS.get(model.config.model_type)
    if names is None:
        return
    linear = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert set(names["attention"]) <= linear
    assert linear & set(names["feed-forward"])
