"""A model in the form of CTranslate2: which families have one, and how it is written. Does not search with it.

CTranslate2's own loaders read the weights. What they take from the config and transformers 5 does not keep there is in the
table, and the vocabulary is written by id: a token is where its embedding is.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from dstrain.config.positions import Positions
from dstrain.errors import UserError
from dstrain.models.families import configured_start_id, generation_arguments, hidden_scale, max_positions
from dstrain.models.foreign import told_in_one_line
from dstrain.models.tokenizer import Seq2SeqTokenizer


@dataclass(frozen=True, slots=True)
class Form:
    """How CTranslate2 reads a family."""

    loader: str
    """Its class in `ctranslate2.converters.transformers`."""
    layers: Mapping[str, bool] = field(default_factory=dict)
    """Where the layers are normalised, under the names by which the loader asks the config for it."""


def _bart(*, before: bool, embedding: bool) -> Form:
    """Layers in the order of BART's; `before` and `embedding` say where they are normalised."""
    return Form("BartLoader", {"normalize_before": before, "normalize_embedding": embedding})


FORMS: Mapping[str, Form] = {
    "m2m_100": Form("M2M100Loader"),
    "mbart": _bart(before=True, embedding=True),
    # not its own loader, which leaves out the last row as if it were the padding, and begins with zeros instead of the row of
    # the padding, which training changes where it is also a row of the head
    "marian": _bart(before=False, embedding=False),
    "t5": Form("T5Loader"),
    "mt5": Form("T5Loader"),
    "umt5": Form("UMT5Loader"),
    "bart": _bart(before=False, embedding=True),
    "plbart": _bart(before=False, embedding=True),
    "mvp": _bart(before=False, embedding=True),
    "pegasus": _bart(before=True, embedding=False),
    "blenderbot": _bart(before=True, embedding=False),
}
"""`model_type` of a Hugging Face config -> form."""

REASONS: Mapping[str, str] = {
    **dict.fromkeys(("longt5", "led", "pegasus_x", "bigbird_pegasus"), "it has no attention over parts of a source"),
    "t5gemma": "it does not cap the logits of attention",
}
"""Why CTranslate2 cannot compute a family."""


def check_installed() -> None:
    """Raise UserError where CTranslate2 is not installed."""
    if find_spec("ctranslate2") is None:
        raise UserError("CTranslate2 is not installed: pip install 'dstrain[ctranslate2]'")


def installed_version() -> str:
    """The version of CTranslate2."""
    return version("ctranslate2")


def check_convertible(config: PreTrainedConfig) -> None:
    """Raise UserError that names a model's family if CTranslate2 cannot compute it, and why."""
    kind = config.model_type
    if kind not in FORMS:
        reason = REASONS.get(kind, "it is not known to compute as the model does")
        raise UserError(
            f"models of the family `{kind}` cannot be converted for CTranslate2: {reason}; export without --to, and predict "
            "with the model itself"
        )
    if getattr(config, "use_prompt", False):
        raise UserError("MVP models with prompts cannot be converted for CTranslate2: it has no prompts in attention")
    heads = [getattr(config, f"{side}_attention_heads", None) for side in ("encoder", "decoder")]
    if heads[0] != heads[1]:
        raise UserError(
            f"this model cannot be converted for CTranslate2: its encoder has {heads[0]} attention heads, its decoder "
            f"{heads[1]}, and the converter takes one number"
        )


def limited_positions(config: PreTrainedConfig) -> Positions:
    """The positions that a converted model has: its own, and those of M2M100's table, which does not grow on demand there."""
    if config.model_type == "m2m_100":
        return Positions(config.max_position_embeddings, config.max_position_embeddings)
    return max_positions(config)


def list_tokens(tokenizer: Seq2SeqTokenizer, *, num_rows: int) -> list[str]:
    """The token of each row of the embeddings, in the order of the rows; rows without a token get a name of their own.

    Raises:
        UserError: two rows would have the same token.
    """
    inner = tokenizer.tokenizer
    names = {index: token for token, index in {**inner.get_vocab(), **inner.get_added_vocab()}.items()}
    tokens = [names.get(row, f"<row-{row}>") for row in range(num_rows)]
    check_distinct(tokens, where=f"tokenizer `{inner.name_or_path}`")
    return tokens


def check_distinct(tokens: Sequence[str], *, where: str) -> None:
    """Raise UserError where a token stands for two ids."""
    first: dict[str, int] = {}
    for index, token in enumerate(tokens):
        if first.setdefault(token, index) != index:
            raise UserError(
                f"{where}: `{token}` is the token of both {first[token]} and {index}, so that no id can be told"
            )


def convert(
    model: PreTrainedModel,
    *,
    tokenizer: Seq2SeqTokenizer,
    forbidden_ids: Sequence[int],
    folder: Path,
    quantization: str | None = None,
) -> None:
    """Write a model, on the CPU, as a new folder that CTranslate2 loads; weights stay in their type without `quantization`.

    The model cannot generate `forbidden_ids` there: they get a bias of minus infinity.

    Raises:
        UserError: the model has no such form.
        OSError: the folder cannot be written.
    """
    check_convertible(model.config)
    from ctranslate2.converters import transformers as loaders  # optional
    from ctranslate2.specs.model_spec import OPTIONAL

    form = FORMS[model.config.model_type]
    tokens = list_tokens(tokenizer, num_rows=len(model.get_input_embeddings().weight))
    with told_in_one_line("CTranslate2 cannot read this model"), torch.no_grad():
        with _told(model, form.layers):
            spec = getattr(loaders, form.loader)().get_model_spec(model)
        scale = hidden_scale(model)
        spec.decoder.scale_outputs = OPTIONAL if scale == 1.0 else scale
        if forbidden_ids:
            _forbid(spec.decoder.projection, forbidden_ids, num_rows=len(tokens))
        spec.register_source_vocabulary(tokens)
        spec.register_target_vocabulary(tokens)
        _name_tokens(spec.config, model=model, tokenizer=tokenizer, tokens=tokens)
        spec.validate()
        spec.optimize(quantization=quantization)
    folder.mkdir(parents=True)
    spec.save(str(folder))


@contextmanager
def _told(model: PreTrainedModel, values: Mapping[str, bool]) -> Iterator[None]:
    """Inside, the config of the model has these values too."""
    own, model.config = model.config, deepcopy(model.config)
    model.config.update(dict(values))
    try:
        yield
    finally:
        model.config = own


def _forbid(projection: Any, ids: Sequence[int], *, num_rows: int) -> None:
    bias = projection.bias.detach().clone().float() if projection.has_bias() else torch.zeros(num_rows)
    bias[list(ids)] = -torch.inf
    projection.bias = bias


def _name_tokens(config: Any, *, model: PreTrainedModel, tokenizer: Seq2SeqTokenizer, tokens: Sequence[str]) -> None:
    """Say which tokens begin and end, and stand for the unknown; a start that is a language is given with each search."""
    inner = tokenizer.tokenizer
    arguments = generation_arguments(model, tokenizer, target_language=tokenizer.default_language)
    start = arguments.get("decoder_start_token_id", configured_start_id(model.config))
    padding = tokens[tokenizer.pad_token_id]  # CTranslate2 would add a token for a role that no token has
    config.unk_token = padding if tokenizer.unk_token_id is None else tokens[tokenizer.unk_token_id]
    config.bos_token = padding if inner.bos_token_id is None else tokens[inner.bos_token_id]
    config.eos_token = tokens[inner.eos_token_id]
    languages = tokenizer.languages.values()
    config.decoder_start_token = None if start is None or start in languages else tokens[start]
    config.layer_norm_epsilon = getattr(model.config, "layer_norm_epsilon", None)
