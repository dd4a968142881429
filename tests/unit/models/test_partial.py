"""What a recipe trains of a model, the tokens that are new, and the hash of the rest."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dstrain.config.recipe import Adapter, Model
from dstrain.errors import UserError
from dstrain.models.new_rows import NewRowsEmbedding
from dstrain.models.partial import count_adapter, count_trained, find_new_ids, fingerprint_frozen, train_part
from dstrain.models.tokenizer import load_tokenizer
from tests.unit.models.tiny_models import Tiny


def section(*names: str) -> Model:
    return Model(name="x", freeze=names)


def test_without_a_wish_everything_is_trained(tiny: Tiny) -> None:
    before = count_trained(tiny.model)
    train_part(tiny.model, section=Model(name="x"), new_ids=[5], seed=0)
    assert count_trained(tiny.model) == before


@pytest.mark.parametrize("tiny", ["m2m100", "mt5"], indirect=True)
def test_nothing_to_train_is_refused_but_new_tokens_are_enough(tiny: Tiny) -> None:
    with pytest.raises(UserError, match=r"model\.freeze: every parameter"):
        train_part(tiny.model, section=section("*"), new_ids=[], seed=0)
    train_part(tiny.model, section=section("*"), new_ids=[5, 6], seed=0)
    assert count_trained(tiny.model) == 2 * 16


@pytest.mark.parametrize("tiny", ["m2m100", "marian", "mt5"], indirect=True)
def test_the_fingerprint_is_of_the_frozen_weights_alone(tiny: Tiny) -> None:
    train_part(tiny.model, section=section("encoder", "embeddings"), new_ids=[7], seed=0)
    before = fingerprint_frozen(tiny.model)
    embedding = tiny.model.get_input_embeddings()
    assert isinstance(embedding, NewRowsEmbedding)
    with torch.no_grad():
        for parameter in tiny.model.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)
        embedding.weight[7] += 1.0  # not used: its place is taken
    assert fingerprint_frozen(tiny.model) == before
    with torch.no_grad():
        embedding.weight[8, 0] += 1e-6
    assert fingerprint_frozen(tiny.model) != before


def test_new_tokens_are_those_that_the_named_model_lacks(
    tokenizer_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    base = str(tokenizer_folder("m2m100"))
    tokenizer = load_tokenizer(base, added_tokens=["[IN:NEW", "<pt-3>", "<pt-99>"])
    tokenizer.save(tmp_path)
    known = load_tokenizer(base).tokenizer.get_vocab()
    vocabulary = tokenizer.tokenizer.get_vocab()
    expected = tuple(sorted(vocabulary[token] for token in ("[IN:NEW", "<pt-99>")))
    assert "<pt-3>" in known
    wanted = Model(name=base, freeze=("embeddings",))
    assert find_new_ids(wanted, tokenizer=load_tokenizer(str(tmp_path))) == expected
    assert find_new_ids(Model(name=base), tokenizer=tokenizer) == ()


@pytest.mark.parametrize("tiny", ["m2m100"], indirect=True)
def test_an_adapter_folder_has_what_is_trained_and_the_embeddings_if_they_have_new_rows(tiny: Tiny) -> None:
    num_embedded = tiny.model.get_input_embeddings().weight.numel()
    train_part(tiny.model, section=Model(name="x", adapter=Adapter(rank=2)), new_ids=[], seed=0)
    num_small = count_trained(tiny.model)
    assert count_adapter(tiny.model) == num_small
    train_part(tiny.model, section=Model(name="x", freeze=("encoder",)), new_ids=[5], seed=0)
    assert count_adapter(tiny.model) > num_embedded
