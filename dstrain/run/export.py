"""The trained model as Hugging Face folders: from the live engine, or from a checkpoint without any engine."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from dstrain.checkpoint.average import average_weights
from dstrain.checkpoint.state import load_state
from dstrain.checkpoint.store import parse_checkpoint_name
from dstrain.config.recipe import Model
from dstrain.config.schema import RunConfig
from dstrain.data.tokens import TokenSet, load_token_set
from dstrain.data.vocabulary import WHOLE, Vocabulary
from dstrain.errors import UserError
from dstrain.evaluation.generate import plan_cap, search_settings
from dstrain.models.adapters import save_adapter
from dstrain.models.families import generation_arguments, max_positions
from dstrain.models.load import DTYPES, KEY, load_config, load_model, quiet_transformers
from dstrain.models.loss import Seq2SeqLoss
from dstrain.models.partial import find_new_ids, make_plain
from dstrain.models.restrict import copy_rows_back, keep_rows, read_more
from dstrain.models.save import Directions, ExportError, export_again, export_model
from dstrain.models.self_test import check_experiment
from dstrain.models.tokenizer import Seq2SeqTokenizer, load_tokenizer
from dstrain.run.assemble import Assembly
from dstrain.run.directions import find_directions, run_languages
from dstrain.run.part import leave_part
from dstrain.run.prepare import prepare_evaluation
from dstrain.run.task_settings import write_task_settings
from dstrain.run.vocabulary import forbidden_ids, load_vocabulary
from dstrain.run_folder.began import read_run_config
from dstrain.run_folder.layout import ADAPTER, BEST, RunFolder
from dstrain.run_folder.reading import check_tokenizer, read_exported_step
from dstrain.run_folder.record import CountedPairs, counted_pairs

NUM_CHECKED_ROWS = 8

log = logging.getLogger(__name__)


def export_live(assembly: Assembly, *, name: str, step: int, check: bool = False) -> None:
    """Write the current model to the folder `name` of the run; a collective call, rank 0 writes.

    Raises:
        ExportError: with `check`, the folder does not hold the model.
        OSError: it cannot be written.
    """
    with assembly.engine.gathered() as model:
        if assembly.ranks.rank == 0:
            whole = whole_model(
                model,
                config=assembly.config,
                tokenizer=assembly.prepared.tokenizer,
                vocabulary=assembly.prepared.vocabulary,
            )
            if not (check and _write_again(whole, assembly=assembly, name=name, step=step)):
                export_model(
                    whole,
                    tokenizer=assembly.prepared.tokenizer,
                    folder=assembly.folder.model(name),
                    generation=_live_settings(whole, assembly=assembly),
                    step=step,
                    sources=checked_sources(assembly.prepared.eval) if check else (),
                    directions=_live_directions(assembly),
                    save_more=_saver(model, whole=whole, config=assembly.config, tokenizer=assembly.prepared.tokenizer),
                )
    assembly.ranks.barrier()  # otherwise the others wait in their next collective while rank 0 writes, and may time out


def _live_settings(whole: PreTrainedModel, *, assembly: Assembly) -> Mapping[str, Any]:
    prepared = assembly.prepared
    return generation_settings(
        whole,
        config=assembly.config,
        tokenizer=prepared.tokenizer,
        tokens=prepared.eval,
        vocabulary=prepared.vocabulary,
        counted=prepared.train.report["pairs"],
    )


def _live_directions(assembly: Assembly) -> Directions:
    prepared = assembly.prepared
    return find_directions(
        assembly.config, counted=prepared.train.report["pairs"], tokens=prepared.eval, tokenizer=prepared.tokenizer
    )


def _write_again(whole: PreTrainedModel, *, assembly: Assembly, name: str, step: int) -> bool:
    """Write the model from the best one if that is of this step; returns whether it was, and was checked."""
    best, prepared = assembly.folder.model(BEST), assembly.prepared
    if read_exported_step(best) != step:
        return False
    try:
        export_again(
            whole,
            like=best,
            folder=assembly.folder.model(name),
            generation=_live_settings(whole, assembly=assembly),
            sources=checked_sources(prepared.eval),
            tokenizer=prepared.tokenizer,
            directions=_live_directions(assembly),
        )
    except (ExportError, OSError) as error:  # such as that of an earlier attempt with another recipe
        log.info("%s is not used again for %s (%s)", best, name, error)
        return False
    return True


def checked_sources(tokens: TokenSet) -> list[list[int]]:
    """Evaluation sources for which an exported model must generate the same hypotheses."""
    return [tokens.source(row).tolist() for row in range(min(NUM_CHECKED_ROWS, tokens.num_rows))]


def export_checkpoint(folder: RunFolder, *, directory: Path, to: Path, check: bool = False) -> None:
    """Write the weights of one of a run's checkpoints as a Hugging Face folder; one with weights only is enough.

    Raises:
        ExportError: with `check`, the folder does not hold the model.
        UserError: the folder `to` exists already, or the model cannot be loaded.
    """
    if to.exists() and to.parent != folder.path:
        raise UserError(f"{to} exists already: give another folder, or remove it")
    quiet_transformers()
    config = read_run_config(folder)
    tokenizer = load_run_tokenizer(folder)
    vocabulary = load_vocabulary(config, tokenizer=tokenizer)
    trained = load_checkpoint_model(directory, config=config, tokenizer=tokenizer, vocabulary=vocabulary)
    model = whole_model(trained, config=config, tokenizer=tokenizer, vocabulary=vocabulary)
    tokens = load_token_set(prepare_evaluation(config, tokenizer=tokenizer))
    counted = counted_pairs(folder)
    settings = generation_settings(
        model, config=config, tokenizer=tokenizer, tokens=tokens, vocabulary=vocabulary, counted=counted
    )
    name = parse_checkpoint_name(directory)
    assert name
    sources = checked_sources(tokens) if check else ()
    export_model(
        model,
        tokenizer=tokenizer,
        folder=to,
        generation=settings,
        step=name.step,
        sources=sources,
        directions=find_directions(config, counted=counted, tokens=tokens, tokenizer=tokenizer),
        save_more=_saver(trained, whole=model, config=config, tokenizer=tokenizer),
    )


def _saver(
    model: PreTrainedModel, *, whole: PreTrainedModel, config: RunConfig, tokenizer: Seq2SeqTokenizer
) -> Callable[[Path], None]:
    """What writes the settings of the task into the folder of the `whole` model, and its adapter where it is merged of one."""

    def save(folder: Path) -> None:
        write_task_settings(folder, config=config)
        if config.model.adapter is not None:
            has_rows = bool(find_new_ids(config.model, tokenizer=tokenizer))
            save_adapter(folder / ADAPTER, model=model, whole=whole, section=config.model, has_rows=has_rows)

    return save


def load_run_tokenizer(folder: RunFolder) -> Seq2SeqTokenizer:
    """The tokenizer that a run trains with; raises UserError if it is missing."""
    check_tokenizer(folder)
    return load_tokenizer(str(folder.tokenizer))


def load_checkpoint_model(
    *directories: Path, config: RunConfig, tokenizer: Seq2SeqTokenizer, vocabulary: Vocabulary
) -> PreTrainedModel:
    """A run's model with the weights of a checkpoint, in the run's precision, with rows for the ids in `vocabulary`.

    Of several checkpoints it has the mean of their weights.

    Raises:
        UserError: a checkpoint was trained with other ids.
    """
    for directory in directories:
        if vocabulary.kept is not None and load_state(directory).data.get("vocabulary") != vocabulary.fingerprint:
            raise UserError(
                f"{RunFolder(Path(config.run_dir)).vocabulary}: not the token ids that {directory} was trained with: restore it, "
                "or start the run again, which writes it"
            )
    model = load_model(config.model, tokenizer=tokenizer, seed=config.seed, report=log.info)
    read_only = _rows_to_read(model, vocabulary)
    base = leave_part(model, config=config, tokenizer=tokenizer, vocabulary=vocabulary)
    average_weights(directories, module=Seq2SeqLoss(model), base=base)
    model = model.to(dtype=DTYPES[config.precision])
    make_plain(model)
    if vocabulary.read_only:
        read_more(model, read_only)
    return model


def load_exported_model(
    section: Model,
    *,
    tokenizer: Seq2SeqTokenizer,
    seed: int,
    vocabulary: Vocabulary,
    report: Callable[[str], None] = log.warning,
    key: str = KEY,
) -> PreTrainedModel:
    """The model of a folder or hub name in fp32, with rows for the ids in `vocabulary` alone, as its run evaluated it.

    `report` is called with a sentence for each difference from the stored model; `key` names the model in errors.
    """
    assert section.name is not None
    check_experiment(load_config(section.name, revision=section.revision, key=key), device=torch.device("cpu"))
    model = load_model(
        section, tokenizer=tokenizer, seed=seed, report=report, keeps_suppression=vocabulary.is_whole, key=key
    )
    read_only = _rows_to_read(model, vocabulary)
    if vocabulary.kept is not None:
        keep_rows(model, vocabulary.kept)
    if vocabulary.read_only:
        read_more(model, read_only)
    return model


def _rows_to_read(model: PreTrainedModel, vocabulary: Vocabulary) -> Tensor:
    """The rows `[ids, hidden]` that the model should be able to read beside those that were trained."""
    rows: Tensor = model.get_input_embeddings().weight.detach()[list(vocabulary.read_only)]
    return rows


def whole_model(
    model: PreTrainedModel, *, config: RunConfig, tokenizer: Seq2SeqTokenizer, vocabulary: Vocabulary
) -> PreTrainedModel:
    """A run's model with a row for every id; those that were not trained are as the run found them."""
    if vocabulary.kept is None:
        return model
    whole = load_model(config.model, tokenizer=tokenizer, seed=config.seed).to(dtype=model.dtype)
    copy_rows_back(model, ids=vocabulary.kept, whole=whole)
    return whole


def generation_settings(
    model: PreTrainedModel,
    *,
    config: RunConfig,
    tokenizer: Seq2SeqTokenizer,
    tokens: TokenSet,
    vocabulary: Vocabulary = WHOLE,
    counted: CountedPairs = (),
) -> Mapping[str, Any]:
    """The generation settings of the evaluations on `tokens`, so that an exported model generates what was scored.

    The target language is that of the default of the `counted` pairs of training rows.
    """
    settings = config.evaluation
    longest = int(tokens.target_lengths.max())
    cap = plan_cap(settings, longest_reference=longest, max_positions=max_positions(model.config).target)
    return {
        "num_beams": settings.num_beams,
        "max_new_tokens": cap.max_new_tokens,
        **({"length_penalty": settings.length_penalty} if settings.num_beams > 1 else {}),
        **generation_arguments(
            model, tokenizer=tokenizer, target_language=run_languages(config, counted=counted)[0].target
        ),
        **_suppression(vocabulary, num_rows=len(model.get_input_embeddings().weight)),
    }


def _suppression(vocabulary: Vocabulary, *, num_rows: int) -> Mapping[str, Any]:
    """Settings with which a whole model writes only what the run has trained, at the probabilities that it was scored with."""
    if vocabulary.is_whole:
        return {}
    forbidden = forbidden_ids(vocabulary, num_rows=num_rows)
    return {"suppress_tokens": forbidden} | search_settings(vocabulary)
