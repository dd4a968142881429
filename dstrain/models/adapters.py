"""LoRA: low-rank updates of a model's linear layers, put in by peft; the only module that imports it.

The layers are put into the model as it is, which keeps its class and its names. peft's own wrapper would hide them.
"""

import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from dstrain.config.recipe import Adapter, Model
from dstrain.errors import UserError
from dstrain.models.families import input_embeddings, output_head
from dstrain.models.layer_names import TARGETS

NAME = "default"
"""peft's name of the only adapter in a model; it is left out of its files."""
PREFIX = "base_model.model."
"""Of the names in peft's files."""


class MergedLinear(nn.Linear):
    """An ordinary linear layer with the update in its weight, which keeps the small matrices for `save_adapter`."""

    small: tuple[Tensor, Tensor]
    """`[rank, in]` and `[out, rank]`."""


def check_peft(section: Adapter | None) -> None:
    """Raise UserError if an adapter is wanted and peft is not installed."""
    if section is not None and find_spec("peft") is None:
        raise UserError("model.adapter needs peft, which is not installed: pip install 'peft>=0.21,<0.22'")


def add_adapter(model: PreTrainedModel, section: Adapter, *, seed: int) -> None:
    """Freeze the model and put small trained matrices beside those of the targets, in place; at first they change nothing.

    Raises:
        UserError: a target is no linear layer of this model, or peft is not installed.
    """
    check_peft(section)
    from peft import inject_adapter_in_model  # optional, and slow to import

    names = find_targets(model, section)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(_peft_config(section, targets=names), model, adapter_name=NAME)
    model.requires_grad_(False)
    for layer in _adapted_layers(model).values():
        for matrices in (layer.lora_A, layer.lora_B):
            matrices.requires_grad_(True)


def find_targets(model: PreTrainedModel, section: Adapter) -> list[str]:
    """The last parts of the names of the linear layers that the recipe means."""
    head = output_head(model)
    linear = {
        name.rpartition(".")[2]: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }
    if isinstance(section.targets, str):
        known = TARGETS.get(model.config.model_type)
        if known is None and section.targets == "all":
            return sorted(linear)
        if known is None:
            raise UserError(
                f"model.adapter.targets: which layers of `{model.config.model_type}` are its attention is not known: name them, "
                f"or take `all`; it has {', '.join(f'`{name}`' for name in sorted(linear))}"
            )
        wanted: Sequence[str] = [*known["attention"], *(known["feed-forward"] if section.targets == "all" else ())]
        return [name for name in wanted if name in linear]
    for name in section.targets:
        if name not in linear:
            near = ", ".join(f"`{key}`" for key in get_close_matches(name, linear, n=1) or sorted(linear))
            raise UserError(f"model.adapter.targets: `{name}` is no linear layer of this model; it has {near}")
    return list(section.targets)


def plain_of_adapters(model: nn.Module) -> Mapping[nn.Module, nn.Module]:
    """For each layer with an adapter an ordinary one with the update in its weight, summed in fp32."""
    return {layer: _merge(layer) for layer in _adapted_layers(model).values()}


def save_adapter(
    folder: Path, *, model: PreTrainedModel, whole: PreTrainedModel, section: Model, has_rows: bool
) -> None:
    """Write the adapter of a plain model in peft's format, for `PeftModel.from_pretrained`.

    With new tokens (`has_rows`) the embeddings of the `whole` model are in it, as peft itself saves embeddings that have grown.
    """
    assert section.adapter is not None
    merged = {name: module for name, module in model.named_modules() if isinstance(module, MergedLinear)}
    tensors = {
        f"{PREFIX}{name}.{part}.weight": matrix
        for name, module in merged.items()
        for part, matrix in zip(("lora_A", "lora_B"), module.small, strict=True)
    }
    if has_rows:
        vocabulary = [*(module.weight for module in input_embeddings(whole)), output_head(whole).weight]
        tensors |= {
            f"{PREFIX}{name}": weight
            for name, weight in whole.named_parameters()
            if any(weight is each for each in vocabulary)
        }
    folder.mkdir()
    contiguous = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    targets = sorted({name.rpartition(".")[2] for name in merged})
    config = _peft_config(section.adapter, targets=targets)
    config.inference_mode = True
    if not os.path.isdir(section.name or ""):  # the path of a folder would lead nowhere elsewhere
        config.base_model_name_or_path, config.revision = section.name, section.revision
    config.save_pretrained(str(folder))


def _peft_config(section: Adapter, *, targets: Sequence[str]) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        task_type="SEQ_2_SEQ_LM",
        r=section.rank,
        lora_alpha=section.alpha,
        lora_dropout=section.dropout,
        target_modules=list(targets),
    )


def _adapted_layers(model: nn.Module) -> Mapping[str, Any]:
    """peft's layers, by name."""
    return {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}


@torch.no_grad()
def _merge(layer: Any) -> MergedLinear:
    base, (first, second) = layer.base_layer, (layer.lora_A[NAME].weight, layer.lora_B[NAME].weight)
    with torch.device("meta"):
        merged = MergedLinear(base.in_features, base.out_features, bias=False)
    update = layer.scaling[NAME] * (second.float() @ first.float())
    # it is trained, as the search for bad rows must know
    merged.weight = nn.Parameter((base.weight.float() + update).to(base.weight.dtype))
    merged.bias = base.bias
    merged.small = first.detach(), second.detach()
    return merged
