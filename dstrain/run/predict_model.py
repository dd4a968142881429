"""The model that predicts, and the settings of its search: those of its recipe, or those that its folder holds.

Says what it uses, and what was given in vain.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig, PreTrainedModel

from dstrain.config.device_defaults import BATCH_TOKENS
from dstrain.config.evaluation import Evaluation
from dstrain.config.recipe import Model, Task
from dstrain.data.vocabulary import WHOLE, Vocabulary
from dstrain.errors import UserError
from dstrain.evaluation.generate import plan_cap
from dstrain.evaluation.predict import Search
from dstrain.models.families import check_limits, max_positions
from dstrain.models.load import DTYPES, load_config, load_shape
from dstrain.models.tokenizer import Seq2SeqTokenizer, describe_unknown_language, load_tokenizer
from dstrain.run.export import load_exported_model, load_run_tokenizer
from dstrain.run.hub import check_model_name
from dstrain.run.predict_request import PredictRequest, check_beams
from dstrain.run.scoring import load_run_checkpoint
from dstrain.run.vocabulary import load_vocabulary
from dstrain.run_folder.began import read_run_config
from dstrain.run_folder.converted import find_converted
from dstrain.run_folder.reading import read_exported_step
from dstrain.serving.conversion import limited_positions
from dstrain.serving.translator import load_translator
from dstrain.tasks.pairs import matching
from dstrain.tasks.translation import Languages

SEED = 0
"""Of nothing: a stored model has all its weights."""
FIRST_POINTER = "<pt-0>"
SHOWN_LANGUAGES = 5
USED = ("num_beams", "length_penalty", "max_new_tokens", "max_length", "forced_bos_token_id")
"""Generation defaults of a model that are followed, so that it is wrong to say that they are dropped."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Predictor:
    """A search, and what becomes of rows before and after it."""

    search: Search
    task: Task
    """With the languages and the prefix of rows that name none."""

    def check_language(self, code: str, *, where: str) -> None:
        """Raises UserError that names `where` for a code that the tokenizer lacks."""
        known = self.search.tokenizer.languages
        if known and code not in known:
            owner = type(self.search.tokenizer.tokenizer).__name__
            raise UserError(f"{where}: {describe_unknown_language(code, known=known, owner=owner)}")


def load_predictor(request: PredictRequest, *, device: torch.device) -> Predictor:
    """The model on this device with its settings.

    Raises:
        UserError: model or tokenizer cannot be used, or a setting is missing or does not fit.
    """
    tokenizer, stored = _load_tokenizer(request), _stored_generation(request)
    evaluation = _settle_evaluation(request, stored=stored)
    if request.num_best is not None:
        check_beams(request.num_best, num_beams=evaluation.num_beams)
    task = _settle_task(request, tokenizer=tokenizer, stored=stored)
    converted = None if request.step is not None else find_converted(Path(request.model))
    engine = None if converted is None else load_translator(converted, device=device)
    vocabulary = _find_vocabulary(request, tokenizer=tokenizer) if engine is None else WHOLE
    if engine is None:
        model = _load_model(request, tokenizer=tokenizer, vocabulary=vocabulary).to(device)
        positions = max_positions(model.config)
    else:
        model = load_shape(request.model)
        positions = limited_positions(model.config)
    if request.recipe is None and positions.source is not None:
        task = task.model_copy(update={"max_source_tokens": min(task.max_source_tokens, positions.source)})
    check_limits(task.model_copy(update={"max_target_tokens": 1}), positions=positions)
    cap = plan_cap(evaluation, longest_reference=0, max_positions=positions.target)
    search = Search(
        model=model,
        tokenizer=tokenizer,
        vocabulary=vocabulary,
        evaluation=evaluation,
        max_new_tokens=cap.max_new_tokens,
        batch_tokens=request.settings.machine.evaluation_tokens or BATCH_TOKENS[device.type],
        num_best=request.num_best,
        device=device,
        engine=engine,
    )
    return Predictor(search, task)


def describe(predictor: Predictor, *, request: PredictRequest) -> str:
    """One line about the model and the settings."""
    search, task = predictor.search, predictor.task
    step = request.step if request.step is not None else read_exported_step(Path(request.model))
    languages = (
        f"{task.source_language or '…'} to {task.target_language or '…'}, " if search.tokenizer.languages else ""
    )
    prefix = f"prefix {task.source_prefix!r}, " if task.source_prefix else ""
    beams = "greedy search" if search.evaluation.num_beams == 1 else f"{search.evaluation.num_beams} beams"
    by = "" if search.engine is None else f" by {search.engine.name}"
    origin = f"settings of {request.recipe}" if request.recipe is not None else "settings of the model folder"
    return (
        f"{request.model}{'' if step is None else f', step {step}'}: {languages}{prefix}{beams}{by}, at most "
        f"{search.max_new_tokens} new tokens; {origin}"
    )


def find_untrained(request: PredictRequest, *, source: str | None, target: str | None) -> str | None:
    """A sentence where a model is asked for a pair of languages that it never saw; None where it did, or nothing says so."""
    if not request.trained or None in (source, target) or Languages(source, target) in request.trained:
        return None
    known = ", ".join(f"`{pair.source}` to `{pair.target}`" for pair in request.trained[:SHOWN_LANGUAGES])
    more = ", …" if len(request.trained) > SHOWN_LANGUAGES else ""
    return (
        f"the model was never trained from `{source}` to `{target}`, but {known}{more}: what it writes may be anything"
    )


def find_ignored(predictor: Predictor, *, request: PredictRequest) -> list[str]:
    """A sentence for each option that has no effect with this model."""
    search, layout = predictor.search, request.layout
    found = []
    if not search.tokenizer.languages and (layout.source_language_column, layout.target_language_column) != (
        None,
        None,
    ):
        found.append("columns of languages are ignored: the tokenizer of this model has no languages")
    if search.tokenizer.languages and (
        untrained := find_untrained(
            request, source=predictor.task.source_language, target=predictor.task.target_language
        )
    ):
        found.append(untrained)
    if search.evaluation.num_beams == 1 and "length_penalty" in request.given:
        found.append("--length-penalty is ignored: greedy search has no scores of hypotheses (--beams)")
    if request.keeps_pointers and not predictor.task.has_pointers:
        found.append("--pointers is ignored: predictions of this model hold no pointers")
    return found


def _load_tokenizer(request: PredictRequest) -> Seq2SeqTokenizer:
    if request.step is not None and request.run is not None:
        return load_run_tokenizer(request.run)
    check_model_name(request.model, revision=None, key="MODEL")
    return load_tokenizer(request.model)


def _stored_generation(request: PredictRequest) -> dict[str, Any]:
    """The generation settings that a model folder holds; of a checkpoint none."""
    if request.step is not None:
        return {}
    try:
        stored: dict[str, Any] = GenerationConfig.from_pretrained(request.model).to_diff_dict()
    except OSError:  # a folder need not have the file
        return {}
    return stored


def _settle_evaluation(request: PredictRequest, *, stored: dict[str, Any]) -> Evaluation:
    """The settings of the search: the options', else the recipe's, else the model's own."""
    values = request.settings.evaluation.model_dump()
    if request.recipe is None:
        for key in ("num_beams", "length_penalty"):
            values[key] = stored.get(key) or values[key]
    if values["max_new_tokens"] is None:
        longest = stored.get("max_length")  # counts the start token
        values["max_new_tokens"] = stored.get("max_new_tokens") or (longest - 1 if longest else None)
        values["max_new_tokens"] = values["max_new_tokens"] or request.settings.task.max_target_tokens
    return Evaluation.model_validate(values | dict(request.given))


def _settle_task(request: PredictRequest, *, tokenizer: Seq2SeqTokenizer, stored: dict[str, Any]) -> Task:
    """The task with the languages of rows that name none; raises UserError if a language is needed and not known."""
    task, codes = request.settings.task, tokenizer.languages
    if request.recipe is None and task.kind != "parsing" and FIRST_POINTER in tokenizer.tokenizer.get_vocab():
        raise UserError(
            f"{request.model}: its tokenizer has pointers such as {FIRST_POINTER}, so that sources must be cut as in training: "
            "name the recipe that it was trained with, --config RECIPE"
        )
    if not codes:
        return task
    found = {"source_language": task.source_language, "target_language": task.target_language}
    trained = matching(request.trained, source=task.source_language, target=task.target_language)
    if request.recipe is None and trained:
        found = {key: code or getattr(trained[0], key.removesuffix("_language")) for key, code in found.items()}
    elif request.recipe is None:
        code_of: dict[Any, str] = {token_id: code for code, token_id in codes.items()}
        first = stored.get("forced_bos_token_id") or stored.get("decoder_start_token_id")
        found["target_language"] = found["target_language"] or code_of.get(first)
        if read_exported_step(Path(request.model)) is not None:  # only then the default is that of training
            found["source_language"] = found["source_language"] or tokenizer.default_language
    for key, code in found.items():
        flag = f"--{key.replace('_', '-')}"
        if code is None and task.kind == "translation" and getattr(request.layout, f"{key}_column") is None:
            side = key.replace("_", " ")
            of_training = [getattr(pair, key.removesuffix("_language")) for pair in request.trained]
            shown = [each for each in dict.fromkeys(of_training) if each] or list(codes)[:3]
            examples = ", ".join(f"`{each}`" for each in shown[:SHOWN_LANGUAGES])
            raise UserError(f"{request.model} does not say its {side}: name it with {flag}, such as {examples}")
        if code is not None and code not in codes:
            owner = type(tokenizer.tokenizer).__name__
            raise UserError(f"{flag}: {describe_unknown_language(code, known=codes, owner=owner)}")
    return task.model_copy(update=found)


def _find_vocabulary(request: PredictRequest, *, tokenizer: Seq2SeqTokenizer) -> Vocabulary:
    """The ids for which the model has rows; any other may occur in a source, and is read too."""
    if request.run is None:
        return WHOLE
    # the folder may have been moved since
    config = read_run_config(request.run).model_copy(update={"output_dir": str(request.run.path)})
    vocabulary = load_vocabulary(config, tokenizer=tokenizer)
    return vocabulary.reading(np.arange(tokenizer.vocabulary_size, dtype=np.int32))


def _load_model(request: PredictRequest, *, tokenizer: Seq2SeqTokenizer, vocabulary: Vocabulary) -> PreTrainedModel:
    if request.step is not None and request.run is not None:
        return load_run_checkpoint(request.run, step=request.step, tokenizer=tokenizer, vocabulary=vocabulary)
    model = load_exported_model(
        Model(name=request.model), tokenizer=tokenizer, seed=SEED, vocabulary=vocabulary, report=_report, key="MODEL"
    )
    return model.to(dtype=_dtype(request))


def _dtype(request: PredictRequest) -> torch.dtype:
    if request.settings.precision is not None:
        return DTYPES[request.settings.precision]
    if read_exported_step(Path(request.model)) is None:
        return torch.float32
    stored: torch.dtype | None = load_config(request.model).dtype
    return stored or torch.float32


def _report(sentence: str) -> None:
    if not sentence.startswith(tuple(f"generation default {field}=" for field in USED)):
        log.warning("%s", sentence)
