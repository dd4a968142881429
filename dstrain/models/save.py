"""Writes a trained model as an ordinary Hugging Face folder, and checks it by loading it again."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

from dstrain.models.tokenizer import Seq2SeqTokenizer
from dstrain.run_folder.atomic import new_folder
from dstrain.run_folder.layout import EXPORTED_STEP


class ExportError(RuntimeError):
    """An exported folder does not hold the model that was trained."""


def export_model(
    model: nn.Module, *, tokenizer: Seq2SeqTokenizer, folder: Path, generation: Mapping[str, Any], step: int
) -> None:
    """Write model, tokenizer and generation settings as a Hugging Face folder; replaces an older folder when complete.

    `generation` holds fields of GenerationConfig, the forced first token among them. The weights must not be sharded
    (`Engine.gathered`); they are saved in the precision in which they were evaluated.
    """
    config = GenerationConfig.from_model_config(model.config)
    config.update(**{**generation, "max_length": None})
    with new_folder(folder, draft=folder.with_name(f"{folder.name}.tmp")) as draft:
        before, model.generation_config = model.generation_config, config
        try:
            model.save_pretrained(draft)  # type: ignore[operator]
        finally:
            model.generation_config = before
        tokenizer.tokenizer.save_pretrained(draft)
        (draft / EXPORTED_STEP).write_text(json.dumps({"step": step}) + "\n")


def _fresh_copy(model: nn.Module) -> Any:
    """A model of the same class, configuration, weights and precision, in memory of its own."""
    weight = next(model.parameters())
    copied: Any = type(model)(model.config).to(device=weight.device, dtype=weight.dtype).eval()
    copied.load_state_dict(model.state_dict())
    return copied


def check_export(folder: Path, *, model: nn.Module, sources: Sequence[Sequence[int]], pad_token_id: int) -> None:
    """Load an exported folder with the ordinary classes and compare weights and greedy hypotheses with the live model.

    Args:
        sources: token ids of a few source rows.

    Raises:
        ExportError: names the first tensor or hypothesis that differs.
    """
    device = next(model.parameters()).device
    loaded = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=next(model.parameters()).dtype).to(device).eval()
    AutoTokenizer.from_pretrained(folder)
    reloaded = loaded.state_dict()
    for name, tensor in model.state_dict().items():
        if name not in reloaded or not torch.equal(tensor, reloaded[name]):
            raise ExportError(f"{folder}: tensor {name} in the saved file differs from the trained one")
    del reloaded
    width = max(map(len, sources))
    ids = torch.tensor([[*row, *[pad_token_id] * (width - len(row))] for row in sources], device=device)
    mask = (ids != pad_token_id).long()
    settings = loaded.generation_config
    again = loaded.generate(input_ids=ids, attention_mask=mask)
    del loaded
    # a copy, because matrix products may differ in the last bit where the live weights are views into a larger buffer
    live = _fresh_copy(model).generate(input_ids=ids, attention_mask=mask, generation_config=settings)
    if live.shape != again.shape or not torch.equal(live, again):
        raise ExportError(f"{folder}: the reloaded model generates different hypotheses than the trained one")
