"""An input embedding that trains only the rows which training reads: `machine.compact_embedding`.

The other rows have no gradient, so an optimizer without weight decay never changes them: leaving them out of gradients,
optimizer state and checkpoints changes nothing of what is learned.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dstrain.models.families import input_embeddings, is_head_tied


class CompactEmbedding(nn.Module):
    """In place of an embedding while its model trains: reads ids `[...]`, of which it must have the rows."""

    def __init__(self, replaced: nn.Embedding, *, ids: Sequence[int]) -> None:
        super().__init__()
        kept = torch.tensor(ids, dtype=torch.int64)
        row_of = torch.full((replaced.num_embeddings,), -1, dtype=torch.int64)
        row_of[kept] = torch.arange(len(ids))
        whole = replaced.weight.detach()
        self.weight = nn.Parameter(whole[kept].clone())
        self.ids = tuple(ids)
        """Ascending token ids, one for each row of `weight`."""
        self.num_embeddings, self.embedding_dim = replaced.num_embeddings, replaced.embedding_dim
        padding = replaced.padding_idx
        self._padding_id, self._padding_row = padding, None if padding is None else int(row_of[padding])
        self.row_of: Tensor
        self.whole: Tensor
        self.register_buffer("row_of", row_of, persistent=False)
        self.register_buffer("whole", whole, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """`[..., hidden]`, as the embedding that this one replaces; ids without a row raise an error."""
        return nn.functional.embedding(self.row_of[ids], self.weight, self._padding_row)

    def expand(self) -> nn.Embedding:
        """The ordinary embedding with all rows, those trained as they are now."""
        self.whole = self.whole.to(self.weight)  # under ZeRO-3 buffers keep their type
        self.whole[list(self.ids)] = self.weight.detach()
        return nn.Embedding(
            self.num_embeddings,
            self.embedding_dim,
            padding_idx=self._padding_id,
            _weight=self.whole,
            device=self.whole.device,
        )


def why_not_compact(model: PreTrainedModel) -> str | None:
    """Why the model's input embedding must be trained whole; None if it need not be."""
    if not model.get_input_embeddings().weight.requires_grad:
        return "the input embedding is frozen (model.freeze), so that it has neither gradients nor optimizer state"
    if is_head_tied(model):
        return "the head of this model shares its weights with the input embedding, so that every row is trained"
    weight = model.get_input_embeddings().weight
    if not all(type(module) is nn.Embedding and module.weight is weight for module in input_embeddings(model)):
        return "encoder and decoder of this model do not share one plain embedding"
    return None


def compact_embedding(model: PreTrainedModel, *, ids: Sequence[int]) -> None:
    """Train the rows of these ascending ids alone, in place; call `whole_embedding` for anything but training steps."""
    embedding = model.get_input_embeddings()
    compact = CompactEmbedding(embedding, ids=ids)
    replace_modules(model, dict.fromkeys(input_embeddings(model), compact))


@contextmanager
def whole_embedding(model: PreTrainedModel) -> Iterator[None]:
    """Inside, a model with a compact embedding has the ordinary one again, which reads every id."""
    found = compact_embeddings(model)
    if not found:
        yield
        return
    (compact,) = found.values()
    whole = compact.expand()
    replace_modules(model, {compact: whole})
    try:
        yield
    finally:
        replace_modules(model, {whole: compact})


def compact_embeddings(model: nn.Module) -> Mapping[str, CompactEmbedding]:
    """The compact embedding by the name of its weight, as in `named_parameters`; empty without one."""
    return {f"{name}.weight": module for name, module in model.named_modules() if isinstance(module, CompactEmbedding)}


def replace_modules(model: nn.Module, replacements: Mapping[Any, nn.Module]) -> None:
    """Put each module in every place of another, in place."""
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child in replacements:
                setattr(parent, name, replacements[child])
