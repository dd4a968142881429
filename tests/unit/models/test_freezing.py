"""Which parameters a name or pattern freezes, in every family, and what is refused."""

import pytest
from transformers import PreTrainedModel

from dstrain.errors import UserError
from dstrain.models.families import input_embeddings, is_head_tied, output_head
from dstrain.models.freezing import freeze
from tests.unit.models.tiny_models import Tiny


def frozen_names(model: PreTrainedModel, *names: str) -> set[str]:
    before = {name for name, each in model.named_parameters() if not each.requires_grad}
    freeze(model, names)
    return {name for name, each in model.named_parameters() if not each.requires_grad} - before


def test_the_encoder_is_frozen_without_the_embeddings_that_the_decoder_shares(tiny: Tiny) -> None:
    found = frozen_names(tiny.model, "encoder")
    assert found
    assert all("encoder." in name and "encoder_attn" not in name for name in found)
    assert all(module.weight.requires_grad for module in input_embeddings(tiny.model))
    left = {name for name, each in tiny.model.named_parameters() if each.requires_grad}
    assert not [name for name in left if name.startswith(("encoder.", "model.encoder."))]


def test_the_embeddings_are_frozen_and_a_head_that_is_tied_to_them(tiny: Tiny) -> None:
    frozen_names(tiny.model, "embeddings")
    assert not any(module.weight.requires_grad for module in input_embeddings(tiny.model))
    assert output_head(tiny.model).weight.requires_grad is not is_head_tied(tiny.model)


def test_encoder_decoder_and_embeddings_are_disjoint_and_leave_at_most_the_head(tiny: Tiny) -> None:
    parts = [frozen_names(tiny.model, name) for name in ("encoder", "decoder", "embeddings")]
    assert all(parts)
    left = {name for name, each in tiny.model.named_parameters() if each.requires_grad}
    assert left <= {"lm_head.weight"}


def test_a_pattern_is_matched_with_the_names_of_parameters(tiny: Tiny) -> None:
    names = [name for name, each in tiny.model.named_parameters() if each.requires_grad]
    wanted = {name for name in names if name.endswith("norm.weight")}
    assert frozen_names(tiny.model, "*norm.weight") == wanted != set()


@pytest.mark.parametrize("tiny", ["m2m100", "t5"], indirect=True)
def test_a_pattern_that_matches_nothing_is_refused_with_names_that_are_near(tiny: Tiny) -> None:
    with pytest.raises(UserError, match=r"model\.freeze: `encoders` matches no parameter .* `encoder`"):
        freeze(tiny.model, ["embeddings", "encoders"])
