"""Trains the rows of new tokens alone, where the embeddings and the head are frozen.

The rows are a parameter of their own, so that the frozen weight has no gradient and no optimizer state. What is computed is the
same as with the rows in their places.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dstrain.models.compact import replace_modules
from dstrain.models.families import input_embeddings, output_head


class NewRowsEmbedding(nn.Module):
    """In place of a frozen embedding: some of its rows are `rows` `[ids, hidden]` instead."""

    def __init__(self, whole: Any, *, ids: Sequence[int], rows: nn.Parameter) -> None:
        super().__init__()
        self.whole, self.rows, self.ids = whole, rows, tuple(ids)
        row_of = torch.full((whole.num_embeddings,), -1, dtype=torch.int64)
        row_of[list(ids)] = torch.arange(len(ids))
        self.row_of: Tensor
        self.register_buffer("row_of", row_of, persistent=False)
        self.scale = float(getattr(whole, "embed_scale", 1.0))

    @property
    def weight(self) -> nn.Parameter:
        """The frozen weight."""
        weight: nn.Parameter = self.whole.weight
        return weight

    def forward(self, ids: Tensor) -> Tensor:
        """`[..., hidden]`, as the embedding that this one replaces."""
        rows = self.row_of[ids]
        new = nn.functional.embedding(rows.clamp(min=0), self.rows) * self.scale
        return torch.where((rows < 0)[..., None], self.whole(ids), new)

    def rebuild(self, weight: nn.Parameter) -> nn.Embedding:
        """An ordinary embedding of the same class around `weight`."""
        scale = {"embed_scale": self.whole.embed_scale} if hasattr(self.whole, "embed_scale") else {}
        with torch.device("meta"):
            plain: nn.Embedding = type(self.whole)(*weight.shape, self.whole.padding_idx, **scale)
        plain.weight = weight
        return plain


class NewRowsHead(nn.Module):
    """In place of a frozen head without bias: some of its rows are `rows` `[ids, hidden]` instead."""

    def __init__(self, whole: Any, *, ids: Sequence[int], rows: nn.Parameter) -> None:
        super().__init__()
        self.whole, self.rows = whole, rows
        self.ids: Tensor
        self.register_buffer("ids", torch.tensor(ids), persistent=False)

    @property
    def weight(self) -> Tensor:
        """The weight `[vocabulary, hidden]` with the trained rows in their places."""
        return place_rows(self.whole.weight, ids=self.ids, rows=self.rows)

    def forward(self, hidden: Tensor) -> Tensor:
        """The logits `[..., vocabulary]`."""
        return nn.functional.linear(hidden, self.weight)

    def rebuild(self, weight: nn.Parameter) -> nn.Linear:
        """An ordinary head around `weight`."""
        with torch.device("meta"):
            plain = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        plain.weight = weight
        return plain


def place_rows(weight: Tensor, *, ids: Tensor, rows: Tensor) -> Tensor:
    """A copy of `weight` with `rows` at `ids`."""
    return weight.index_copy(0, ids, rows)


def train_new_rows(model: PreTrainedModel, *, ids: Sequence[int]) -> None:
    """Train the rows of these ids in embeddings and head, as far as these are frozen, in place; tied weights stay tied."""
    vocabulary: list[Any] = [*input_embeddings(model), output_head(model)]
    rows = {
        module.weight: nn.Parameter(module.weight.detach()[list(ids)].clone())
        for module in vocabulary
        if not module.weight.requires_grad
    }
    replacements: dict[nn.Module, nn.Module] = {}
    for module in model.modules():
        if isinstance(module, nn.Embedding | nn.Linear) and module.weight in rows:
            kind = NewRowsEmbedding if isinstance(module, nn.Embedding) else NewRowsHead
            replacements[module] = kind(module, ids=ids, rows=rows[module.weight])
    replace_modules(model, replacements)


def plain_of_new_rows(model: nn.Module) -> Mapping[nn.Module, nn.Module]:
    """For each module with new rows an ordinary one with all rows; those that share a frozen weight share the new one too."""
    weights: dict[nn.Parameter, nn.Parameter] = {}
    plain: dict[nn.Module, nn.Module] = {}
    for module in model.modules():
        if isinstance(module, NewRowsEmbedding | NewRowsHead):
            frozen = module.whole.weight
            if frozen not in weights:
                ids = torch.as_tensor(module.ids, device=frozen.device)
                weights[frozen] = nn.Parameter(place_rows(frozen.detach(), ids=ids, rows=module.rows.detach()))
            plain[module] = module.rebuild(weights[frozen])
    return plain


def frozen_new_rows(model: nn.Module) -> Mapping[nn.Parameter, Sequence[int]]:
    """The frozen weights of which some rows are not used, and which rows these are."""
    return {module.weight: module.ids for module in model.modules() if isinstance(module, NewRowsEmbedding)} | {
        module.whole.weight: module.ids.tolist() for module in model.modules() if isinstance(module, NewRowsHead)
    }


def count_new_rows(model: nn.Module) -> int:
    """How many tokens have rows that are trained in the place of frozen ones."""
    return max((len(ids) for ids in frozen_new_rows(model).values()), default=0)
