"""A model with fewer rows in its embeddings and its head, and back: `model.vocabulary: seen`.

The small model is an ordinary one of its family. Its token ids are the numbers of its rows, in its configs too.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dstrain.models.families import all_configs, input_embeddings, output_head

ID_FIELDS = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "decoder_start_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
)


def keep_rows(model: PreTrainedModel, ids: Sequence[int]) -> None:
    """Leave the model with the rows of these ids alone, in this order, in place.

    Everything else is as it was: which weights are tied, what is scaled, which row is padding.
    """
    row_of = {token_id: row for row, token_id in enumerate(ids)}
    kept = torch.tensor(ids, device=model.device)
    weights = _vocabulary_weights(model)
    with torch.no_grad():
        for weight in weights:
            weight.data = weight.data[kept].clone()
        bias = getattr(model, "final_logits_bias", None)
        if bias is not None:
            model.final_logits_bias = bias[:, kept].clone()
    for module in model.modules():
        if isinstance(module, nn.Embedding) and any(module.weight is weight for weight in weights):
            module.num_embeddings = len(ids)
            if module.padding_idx is not None:
                module.padding_idx = row_of[module.padding_idx]
        elif isinstance(module, nn.Linear) and any(module.weight is weight for weight in weights):
            module.out_features = len(ids)
    for config in all_configs(model.config):
        config.vocab_size = len(ids)
        if hasattr(config, "decoder_vocab_size"):
            config.decoder_vocab_size = len(ids)
    for config in (*all_configs(model.config), model.generation_config):
        for field in ID_FIELDS:
            if getattr(config, field, None) is not None:
                setattr(config, field, _renumbered(getattr(config, field), row_of.get))
    if model.generation_config.bad_words_ids:
        words = [_renumbered(word, row_of.get) for word in model.generation_config.bad_words_ids]
        model.generation_config.bad_words_ids = [word for word in words if word and None not in word] or None


def copy_rows_back(small: PreTrainedModel, *, ids: Sequence[int], whole: PreTrainedModel) -> None:
    """Write the weights of a model that `keep_rows` has left with these ids into a whole one, in place, bit for bit.

    The other rows of the whole model stay as they are.
    """
    kept = torch.tensor(ids, device=whole.device)
    trained = small.state_dict()
    for name, tensor in whole.state_dict().items():
        new = trained[name].to(device=tensor.device, dtype=tensor.dtype)
        if tensor.shape == new.shape:
            tensor.copy_(new)
        else:  # the bias of the logits is [1, vocabulary]
            tensor.index_copy_(int(tensor.shape[0] == 1), kept, new)


def read_more(model: PreTrainedModel, rows: Tensor) -> None:
    """Append rows `[more, hidden]` to the input embeddings, in place; the head keeps the rows that it has.

    So tokens can be read that cannot be written.
    """
    head: Any = output_head(model)
    before = model.get_input_embeddings().weight
    longer = nn.Parameter(torch.cat([before.detach(), rows.to(before.dtype)]))
    head.weight = nn.Parameter(head.weight.detach().clone())  # it may be tied to the embeddings
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module.weight is before:
            module.weight, module.num_embeddings = longer, len(longer)


def _vocabulary_weights(model: PreTrainedModel) -> list[nn.Parameter]:
    """The weights with a row for each token, each once: tied ones are the same parameter."""
    found: list[nn.Parameter] = []
    for module in (*input_embeddings(model), output_head(model)):
        if not any(module.weight is weight for weight in found):
            found.append(module.weight)
    return found


def _renumbered(value: int | list[int], row_of: Callable[[int], int | None]) -> Any:
    return [row_of(each) for each in value] if isinstance(value, list) else row_of(value)
