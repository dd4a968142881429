"""Writes a trained model as an ordinary Hugging Face folder, and checks it by loading it again.

The folder is written so that transformers 4 (4.57) and 5 read the same model from it; `make test-exports` proves it.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

from dstrain.config.local_paths import find_local_paths
from dstrain.errors import UserError
from dstrain.models.families import (
    KEPT_GENERATION_FIELDS,
    generation_arguments,
    hidden_scale,
    is_head_tied,
    output_head,
)
from dstrain.models.languages import can_be_default, default_language, register_languages
from dstrain.models.tokenizer import Seq2SeqTokenizer
from dstrain.run_folder.atomic import new_folder
from dstrain.run_folder.layout import EXPORTED_STEP, NAMES

WEIGHTS_SUFFIX = ".safetensors"


@dataclass(frozen=True, slots=True)
class Directions:
    """The pairs of languages, source and target, that a folder says it was trained in, and a row of each to check it with."""

    pairs: Sequence[tuple[str | None, str | None]] = ()
    """The first is what the folder translates by default."""
    rows: Sequence[tuple[str, str | None, str | None]] = ()
    """A text as the tokenizer reads it, and its languages."""


class ExportError(UserError):
    """An exported folder does not hold the model that was trained."""


def _nothing(folder: Path) -> None:
    pass


def export_model(
    model: nn.Module,
    *,
    tokenizer: Seq2SeqTokenizer,
    folder: Path,
    generation: Mapping[str, Any],
    step: int,
    sources: Sequence[Sequence[int]] = (),
    directions: Directions = Directions(),
    save_more: Callable[[Path], None] = _nothing,
) -> None:
    """Write model, tokenizer and generation settings as a Hugging Face folder; replaces an older folder when complete.

    `generation` holds fields of GenerationConfig, the forced first token among them. The weights must not be sharded
    (`Engine.gathered`); they are saved in the precision in which they were evaluated. With `sources`, token ids of a few rows,
    the new folder is loaded and compared with the model before it takes its place. `directions` are the pairs of languages;
    without them the tokenizer keeps those that it has. `save_more` writes more into the folder.

    Raises:
        ExportError: as `check_export`.
        OSError: the folder cannot be written.
    """
    config = _generation_config(model, generation=generation)
    with new_folder(folder, draft=folder.with_name(f"{folder.name}.tmp")) as draft:
        before, model.generation_config = model.generation_config, config
        try:
            _save_weights(model, folder=draft)
            save_more(draft)
        except SafetensorError as error:  # what safetensors makes of a full disk
            raise OSError(str(error)) from error
        finally:
            model.generation_config = before
        if directions.pairs:
            source_language, target_language = directions.pairs[0]
            tokenizer.save(draft, source_language=source_language, target_language=target_language)
        else:
            tokenizer.tokenizer.save_pretrained(draft)
        _edit_json(draft / "tokenizer_config.json", _name_special_tokens)
        for name in ("tokenizer_config.json", "config.json"):
            _edit_json(draft / name, _leave_out_paths)
        origin = {"step": step} | ({"pairs": directions.pairs} if directions.pairs else {})
        (draft / EXPORTED_STEP).write_text(json.dumps(origin, ensure_ascii=False) + "\n", encoding="utf-8")
        for file in draft.rglob("*"):  # safetensors writes files that only their owner may read
            if file.is_file():
                file.chmod((draft / EXPORTED_STEP).stat().st_mode)
        if sources:
            check_export(draft, model=model, sources=sources, tokenizer=tokenizer, directions=directions)


def export_again(
    model: nn.Module,
    *,
    like: Path,
    folder: Path,
    generation: Mapping[str, Any],
    sources: Sequence[Sequence[int]],
    tokenizer: Seq2SeqTokenizer,
    directions: Directions = Directions(),
) -> None:
    """Write a second folder of a model that the folder `like` holds already, with these generation settings.

    Its weights share the disk where links can be made.

    Raises:
        ExportError: as `check_export`; `like` does not hold this model.
        OSError: the folder cannot be written.
    """
    with new_folder(folder, draft=folder.with_name(f"{folder.name}.tmp")) as draft:
        # without the card, which is that of the other folder
        own = shutil.ignore_patterns(NAMES.card.name, NAMES.plots.name)
        shutil.copytree(like, draft, copy_function=_link_weights, dirs_exist_ok=True, ignore=own)
        _generation_config(model, generation=generation).save_pretrained(draft)
        check_export(draft, model=model, sources=sources, tokenizer=tokenizer, directions=directions)


def _generation_config(model: Any, *, generation: Mapping[str, Any]) -> GenerationConfig:
    own = GenerationConfig.from_model_config(model.config).to_diff_dict()
    # otherwise a class's defaults, such as BART's forced last token, would make other hypotheses than those that were scored
    config = GenerationConfig(**{key: own[key] for key in own if key in KEPT_GENERATION_FIELDS})
    config.update(**{**generation, "max_length": None})
    return config


def _link_weights(source: str, target: str) -> None:
    """A link for a file of weights, which no one edits, and a copy of any other, or where the file system has no links."""
    if source.endswith(WEIGHTS_SUFFIX):
        try:
            os.link(source, target, follow_symlinks=False)
        except OSError:
            pass
        else:
            return
    shutil.copy2(source, target)


def _save_weights(model: Any, *, folder: Path) -> None:
    """Write weights and configs; the head as its own where transformers 4 would otherwise compute other logits.

    transformers 4 takes `tie_word_embeddings` at its word: it overwrites a head that is not tied, and scales the hidden states
    of T5 and mT5 exactly where it is. transformers 5 looks at the tensors, but with `false` it does not tie the embeddings of
    encoder and decoder either. So with `false` every tensor is written, equal ones too.
    """
    is_t5 = model.config.model_type in ("t5", "mt5", "umt5")
    if is_head_tied(model) and not (is_t5 and hidden_scale(model) == 1.0):
        model.save_pretrained(folder)
        return
    own: dict[int, torch.Tensor] = {}
    weights = {}
    for name, tensor in model.state_dict().items():
        # a copy of what is in the file already, since transformers leaves out tensors that share memory
        weights[name] = tensor.clone() if tensor.data_ptr() in own else own.setdefault(tensor.data_ptr(), tensor)
    model.save_pretrained(folder, state_dict=weights)
    if model.config.model_type == "umt5":  # no version of transformers 4 would scale its hidden states then
        return
    _edit_json(folder / "config.json", lambda config: {**config, "tie_word_embeddings": False})


def _name_special_tokens(config: dict[str, Any]) -> dict[str, Any]:
    """Additional special tokens under the name that transformers 4 knows and 5 still reads."""
    key = "extra_special_tokens"
    return {"additional_special_tokens" if name == key else name: value for name, value in config.items()}


def _leave_out_paths(config: dict[str, Any]) -> dict[str, Any]:
    """Without paths of a machine: transformers keeps those of a publisher in keys that it does not know."""
    return {
        name: value
        for name, value in config.items()
        if not (isinstance(value, str) and find_local_paths(value) == [value])
    }


def _edit_json(file: Path, edit: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    content = edit(json.loads(file.read_text(encoding="utf-8")))
    file.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _fresh_copy(model: Any) -> Any:
    """A model of the same class, configuration, weights and precision, in memory of its own."""
    weight = next(model.parameters())
    copied: Any = type(model)(model.config).to(device=weight.device, dtype=weight.dtype).eval()
    if not is_head_tied(model):  # which the config of T5 and mT5 does not say
        head: Any = output_head(copied)
        head.weight = nn.Parameter(torch.empty_like(head.weight))
    copied.load_state_dict(model.state_dict())
    return copied


def check_export(
    folder: Path,
    *,
    model: nn.Module,
    sources: Sequence[Sequence[int]],
    tokenizer: Seq2SeqTokenizer,
    directions: Directions = Directions(),
) -> None:
    """Load an exported folder with the ordinary classes and compare weights and greedy hypotheses with the live model.

    A row of each pair of languages is also read and translated as a user of the folder does, with the languages set by hand;
    and what the folder does without being told is the first pair.

    Args:
        sources: token ids of a few source rows.

    Raises:
        ExportError: names the first tensor, language or hypothesis that differs.
    """
    device = next(model.parameters()).device
    loaded = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=next(model.parameters()).dtype).to(device).eval()
    read = AutoTokenizer.from_pretrained(folder)
    reloaded = loaded.state_dict()
    for name, tensor in model.state_dict().items():
        if name not in reloaded or not torch.equal(tensor, reloaded[name]):
            raise ExportError(f"tensor {name} in the exported file differs from the trained one")
    del reloaded
    settings = loaded.generation_config
    if directions.pairs and tokenizer.languages:
        check_default(read, generation=settings.to_dict(), model=loaded, tokenizer=tokenizer, pair=directions.pairs[0])
    cases = [([list(row) for row in sources], dict[str, Any](), dict[str, Any]())]
    cases += [
        ([ids], as_user, as_trained) for ids, as_user, as_trained in _read_rows(directions, read, loaded, tokenizer)
    ]
    again = [_generate(loaded, rows, pad=tokenizer.pad_token_id, **as_user) for rows, as_user, _ in cases]
    del loaded
    # a copy, because matrix products may differ in the last bit where the live weights are views into a larger buffer
    copied = _fresh_copy(model)
    copied.generation_config = settings  # otherwise unset fields are taken from its class's defaults
    for (rows, _, as_trained), found in zip(cases, again, strict=True):
        live = _generate(copied, rows, pad=tokenizer.pad_token_id, **as_trained)
        if live.shape != found.shape or not torch.equal(live, found):
            raise ExportError("the exported model, loaded again, generates other hypotheses than the trained one")


def _generate(model: Any, rows: Sequence[Sequence[int]], *, pad: int, **given: Any) -> torch.Tensor:
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], device=model.device)
    found: torch.Tensor = model.generate(input_ids=ids, attention_mask=(ids != pad).long(), **given)
    return found


def check_default(
    read: Any,
    *,
    generation: Mapping[str, Any],
    model: Any,
    tokenizer: Seq2SeqTokenizer,
    pair: tuple[str | None, str | None],
) -> None:
    """Raises ExportError if a loaded folder translates another pair of languages than this one by default."""
    source, target = pair
    found = default_language(read)
    if source is not None and can_be_default(read, source) and found != source:
        raise ExportError(f"the exported tokenizer reads sources as `{found}`, and the training rows are in `{source}`")
    if target is None:
        return
    for key, wanted in generation_arguments(model, tokenizer, target_language=target).items():
        if generation.get(key) != wanted:
            raise ExportError(
                f"the exported folder has {key} {generation.get(key)}, and `{target}`, of the training rows, needs {wanted}"
            )


def _read_rows(
    directions: Directions, read: Any, model: Any, tokenizer: Seq2SeqTokenizer
) -> Iterator[tuple[list[int], dict[str, Any], dict[str, Any]]]:
    """For each row its ids, and the arguments of `generate` as a user writes them and as the run evaluates."""
    register_languages(read)
    for text, source, target in directions.rows:
        wanted = generation_arguments(model, tokenizer, target_language=target)
        if tokenizer.languages:
            read.src_lang = source or tokenizer.default_language
        ids = read(text)["input_ids"]
        (expected,), _ = tokenizer.encode([text], [""], source_language=source, target_language=target)
        if ids != expected:
            raise ExportError(
                f"the exported tokenizer reads a text of `{source}` otherwise than the trained one: {text!r}"
            )
        key = "decoder_start_token_id" if tokenizer.ends_with_language else "forced_bos_token_id"
        given = {}
        if tokenizer.languages:
            token = tokenizer.tokenizer.convert_ids_to_tokens(
                tokenizer.language_id(target or tokenizer.default_language)
            )
            given = {key: read.convert_tokens_to_ids(token)}
        yield ids, given, wanted
