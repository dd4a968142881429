"""Tiny exported models of every family with random weights under which hypotheses differ, and rows for them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from transformers import GenerationConfig, PreTrainedModel

from dstrain.config.evaluation import Evaluation
from dstrain.config.recipe import Model
from dstrain.data.vocabulary import WHOLE
from dstrain.evaluation.decode import read_rules
from dstrain.evaluation.predict import Search, Source
from dstrain.models.save import export_model
from dstrain.models.scratch import build_scratch_model, write_tokenizer
from dstrain.models.tokenizer import Seq2SeqTokenizer, load_tokenizer
from dstrain.run.export import load_exported_model
from dstrain.serving.conversion import convert
from tests.unit.models.stock_families import STOCK_FAMILIES, build_stock_model, build_stock_tokenizer
from tests.unit.models.tiny_models import FAMILIES, LANGUAGES, TASK_TOKENS, TEXTS, tiny_scratch

CPU = torch.device("cpu")
CAP = 12
CONVERTIBLE = (*FAMILIES, "marian-published", "bart", "pegasus", "umt5", "byt5", "plbart", "mvp", "blenderbot")


class Exported(NamedTuple):
    """A model folder, loaded again."""

    folder: Path
    model: PreTrainedModel
    tokenizer: Seq2SeqTokenizer
    languages: tuple[str | None, str | None]

    def search(self, *, num_beams: int = 1, num_best: int | None = None, length_penalty: float = 1.0) -> Search:
        """The search with the model itself."""
        return Search(
            model=self.model,
            tokenizer=self.tokenizer,
            vocabulary=WHOLE,
            evaluation=Evaluation(num_beams=num_beams, length_penalty=length_penalty),
            max_new_tokens=CAP,
            batch_tokens=256,
            num_best=num_best,
            device=CPU,
        )

    def generation(self) -> GenerationConfig:
        """The settings of greedy search."""
        return self.search().generation(self.languages[1])

    def convert(self, folder: Path, *, quantization: str | None = None) -> None:
        """Convert it as `dstrain export` does, without its record."""
        forbidden = read_rules(self.generation()).forbidden_ids
        convert(self.model, tokenizer=self.tokenizer, forbidden_ids=forbidden, folder=folder, quantization=quantization)


def write_exported(family: str, folder: Path, *, forbidden: Sequence[int] = ()) -> Exported:
    """A model of the family as dstrain exports it; `forbidden` are ids that a run has not trained."""
    languages = LANGUAGES.get(family, (None, None))
    tokenizer = _tokenizer(family, folder / "tokenizer")
    model = _model(family, tokenizer)
    _make_uneven(model)
    settings = {"suppress_tokens": list(forbidden), "renormalize_logits": True} if forbidden else {}
    export_model(model, tokenizer=tokenizer, folder=folder / "model", generation=settings, step=7)
    section, made = Model(name=str(folder / "model")), load_tokenizer(str(folder / "model"))
    loaded = load_exported_model(section, tokenizer=made, seed=0, vocabulary=WHOLE, report=lambda sentence: None)
    return Exported(folder / "model", loaded, made, languages)


def _tokenizer(family: str, folder: Path) -> Seq2SeqTokenizer:
    if family in STOCK_FAMILIES:
        folder.mkdir(parents=True)
        made = build_stock_tokenizer(family, texts=TEXTS, folder=folder)
        if family != "plbart":  # which takes none
            made.add_tokens(TASK_TOKENS)
        made.save_pretrained(folder)
        return load_tokenizer(str(folder))
    write_tokenizer(
        family.removesuffix("-published"),
        vocabulary_size=500,
        texts=TEXTS,
        languages=LANGUAGES.get(family, ()),
        task_tokens=() if family == "marian-published" else TASK_TOKENS,
        folder=folder,
    )
    if family == "marian-published":  # whose last token is the padding
        file = folder / "vocab.json"
        tokens = sorted(json.loads(file.read_text()).items(), key=lambda item: item[1])
        names = [*(token for token, _ in tokens if token != "<pad>"), "<pad>"]
        file.write_text(json.dumps({token: index for index, token in enumerate(names)}))
        settings = folder / "tokenizer_config.json"
        made = json.loads(settings.read_text())
        made.pop("added_tokens_decoder", None)
        settings.write_text(json.dumps(made))
        (folder / "tokenizer.json").unlink(missing_ok=True)
    return load_tokenizer(str(folder))


def _model(family: str, tokenizer: Seq2SeqTokenizer) -> PreTrainedModel:
    if family in STOCK_FAMILIES:
        return build_stock_model(family, num_rows=tokenizer.vocabulary_size + 3)
    model = build_scratch_model(tiny_scratch(family.removesuffix("-published")), tokenizer=tokenizer, seed=0)
    if family == "mbart50":
        model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = 2
    return model


def _make_uneven(model: PreTrainedModel) -> None:
    """Draw weights under which hypotheses differ, and end early, late or not at all; biases and scales are no default ones."""
    head = model.get_output_embeddings().weight
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(2)
        for parameter in model.parameters():
            if parameter.ndim > 1 and parameter.requires_grad:
                parameter.normal_(std=0.2 if len(parameter) == len(head) else 1.0)
            elif parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.normal_(std=0.2)
            model.final_logits_bias[:, model.config.eos_token_id] = 1.5
        else:
            head[model.config.eos_token_id] *= 1.5


def draw_sources(exported: Exported, *, number: int = 40) -> list[Source]:
    """Ids from all over the vocabulary, in rows of uneven length."""
    rng, size = np.random.default_rng(3), exported.tokenizer.vocabulary_size
    ids = [rng.integers(4, size, rng.integers(1, 15)).tolist() for _ in range(number)]
    return [Source([*row, exported.tokenizer.tokenizer.eos_token_id], exported.languages[1]) for row in ids]
