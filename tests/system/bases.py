"""Model folders to train on from, with many more tokens than the rows of the runs have."""

from pathlib import Path

import torch

from dstrain.config.recipe import Scratch
from dstrain.models.scratch import build_scratch_model, write_tokenizer
from dstrain.models.tokenizer import load_tokenizer
from tests.system.runs import first_rows


def write_base(folder: Path, *, architecture: str) -> None:
    """A tiny m2m100, or an mt5 whose head is its own, as in the published models."""
    pairs = [*first_rows("parsing", split="train", number=2000), *first_rows("translation", split="train", number=500)]
    texts = [text for row in pairs for text in (row.source, row.target)]
    languages = ("ko", "en") if architecture == "m2m100" else ()
    write_tokenizer(architecture, vocabulary_size=1200, texts=texts, languages=languages, task_tokens=(), folder=folder)
    sizes = {"hidden_size": 32, "feed_forward_size": 64, "num_layers": 1, "num_heads": 4}
    scratch = Scratch.model_validate({"architecture": architecture, **sizes})
    model = build_scratch_model(scratch, tokenizer=load_tokenizer(str(folder)), seed=1, dropout=0.1)
    if architecture == "mt5":
        head = model.get_output_embeddings()
        head.weight = torch.nn.Parameter(torch.randn_like(head.weight))
        model.config.tie_word_embeddings = False
    model.save_pretrained(folder)
