"""Trains part of a model, as `model.freeze` and `model.adapter` say, and gives the ordinary model back."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel

from dstrain.config.recipe import Model
from dstrain.errors import UserError
from dstrain.models.adapters import add_adapter, plain_of_adapters
from dstrain.models.compact import replace_modules, whole_embedding
from dstrain.models.freezing import freeze
from dstrain.models.new_rows import frozen_new_rows, plain_of_new_rows, train_new_rows
from dstrain.models.tokenizer import Seq2SeqTokenizer, load_tokenizer


def train_part(model: PreTrainedModel, *, section: Model, new_ids: Sequence[int], seed: int) -> None:
    """Freeze what the recipe does not train, and put an adapter in, in place; without a wish nothing changes.

    The rows of the tokens `new_ids` are trained in any case.

    Raises:
        UserError: nothing is left to train, or a name is of no parameter.
    """
    if not section.trains_part:
        return
    freeze(model, section.freeze or ())
    if section.adapter is not None:
        add_adapter(model, section.adapter, seed=seed)
    if new_ids:
        train_new_rows(model, ids=new_ids)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError("model.freeze: every parameter of the model is frozen: leave a part out of the list")


def find_new_ids(section: Model, *, tokenizer: Seq2SeqTokenizer) -> tuple[int, ...]:
    """Ascending ids of the tokens and languages that the run's tokenizer has and that of `model.name` lacks; none for scratch."""
    if section.name is None or not section.trains_part:
        return ()
    before = load_tokenizer(section.name, revision=section.revision)
    known = {*before.tokenizer.get_vocab().values(), *before.languages.values()}
    return tuple(sorted({*tokenizer.tokenizer.get_vocab().values(), *tokenizer.languages.values()} - known))


@contextmanager
def plain_model(model: PreTrainedModel) -> Iterator[None]:
    """Inside, the model is an ordinary one of its class, with all rows; afterwards it is as before, bit for bit."""
    with whole_embedding(model):
        replaced = _plain_modules(model)
        replace_modules(model, replaced)
        try:
            yield
        finally:
            replace_modules(model, {plain: module for module, plain in replaced.items()})


def make_plain(model: PreTrainedModel) -> None:
    """Make a model that has been trained in part an ordinary one of its class, in place."""
    replace_modules(model, _plain_modules(model))


def _plain_modules(model: PreTrainedModel) -> Mapping[nn.Module, nn.Module]:
    return {**plain_of_new_rows(model), **plain_of_adapters(model)}


def fingerprint_frozen(model: nn.Module) -> str:
    """sha256 of the names and values of all parameters that are not trained, in fp32 on the CPU.

    The frozen rows in whose place new ones are trained do not count: they are drawn again, which may differ between machines.
    """
    digest, new_ids = hashlib.sha256(), frozen_new_rows(model)
    for name, parameter in sorted(model.named_parameters()):
        if not parameter.requires_grad:
            values = parameter.detach()
            if parameter in new_ids:
                values = values.index_fill(0, torch.as_tensor(new_ids[parameter]), 0.0)
            digest.update(f"{name} {tuple(values.shape)}\n".encode())
            digest.update(memoryview(values.contiguous().numpy().reshape(-1)))  # type: ignore[arg-type]
    return digest.hexdigest()


def count_adapter(model: nn.Module) -> int:
    """The parameters in an adapter's folder: those that are trained, and the embeddings if new tokens are."""
    return count_trained(model) + sum(weight.numel() for weight in frozen_new_rows(model))


def count_trained(model: nn.Module) -> int:
    """The parameters that are trained, over all ranks."""
    # under ZeRO-3 numel() counts only this rank's part
    return sum(getattr(each, "ds_numel", each.numel()) for each in model.parameters() if each.requires_grad)
