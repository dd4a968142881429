"""Which parameters a recipe freezes, by part or by pattern: `model.freeze`. Knows no steps and no checkpoints."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import nn
from transformers import PreTrainedModel

from dstrain.errors import UserError
from dstrain.models.families import input_embeddings

PARTS = ("encoder", "decoder", "embeddings")
"""Names for parts of a model, whatever its parameters are called."""


def freeze(model: PreTrainedModel, names: Sequence[str]) -> None:
    """Leave the parameters of these parts and patterns as they are, in place; a pattern is matched with the names of parameters.

    A parameter with several names, such as a tied one, has the first.

    Raises:
        UserError: a pattern matches nothing.
    """
    parameters, parts = dict(model.named_parameters()), _parts(model)
    for name in names:
        found = parts.get(name) or [each for key, each in parameters.items() if fnmatchcase(key, name)]
        if not found:
            near = get_close_matches(name, [*PARTS, *parameters], n=3, cutoff=0.4) or [*PARTS, *list(parameters)[:1]]
            raise UserError(
                f"model.freeze: `{name}` matches no parameter of this model; near it are {', '.join(f'`{key}`' for key in near)}"
            )
        for parameter in found:
            parameter.requires_grad_(False)


def _parts(model: PreTrainedModel) -> Mapping[str, list[nn.Parameter]]:
    embeddings: list[nn.Parameter] = list({module.weight: None for module in input_embeddings(model)})
    shared = set(embeddings)
    halves = {"encoder": model.get_encoder(), "decoder": model.get_decoder()}
    return {name: [each for each in half.parameters() if each not in shared] for name, half in halves.items()} | {
        "embeddings": embeddings
    }
