"""The trained model as Hugging Face folders: from the live engine, or from a checkpoint without any engine."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from dstrain.checkpoint.state import load_weights
from dstrain.checkpoint.store import find_checkpoint, parse_checkpoint_name
from dstrain.config.load import load_config
from dstrain.config.schema import RunConfig
from dstrain.data.tokens import TokenSet, load_token_set
from dstrain.errors import UserError
from dstrain.evaluation.generate import plan_cap
from dstrain.models.families import generation_arguments, max_positions
from dstrain.models.load import DTYPES, load_model
from dstrain.models.loss import Seq2SeqLoss
from dstrain.models.save import check_export, export_model
from dstrain.models.tokenizer import Seq2SeqTokenizer, load_tokenizer
from dstrain.run.assemble import Assembly
from dstrain.run.prepare import prepare_evaluation

NUM_CHECKED_ROWS = 8
"""Evaluation rows whose hypotheses an exported model must repeat."""

log = logging.getLogger(__name__)


def export_live(assembly: Assembly, *, name: str, step: int, check: bool = False) -> None:
    """Write the model as it is now to `<run>/<name>`; all ranks enter, rank 0 writes.

    Raises:
        ExportError: with `check`, the folder does not hold the model.
        OSError: it cannot be written.
    """
    folder, prepared = assembly.run_dir / name, assembly.prepared
    with assembly.engine.gathered() as model:
        if assembly.ranks.rank == 0:
            settings = generation_settings(
                model, config=assembly.config, tokenizer=prepared.tokenizer, tokens=prepared.eval
            )
            export_model(model, tokenizer=prepared.tokenizer, folder=folder, generation=settings, step=step)
            if check:
                rows = range(min(NUM_CHECKED_ROWS, prepared.eval.num_rows))
                sources = [prepared.eval.source(row).tolist() for row in rows]
                check_export(folder, model=model, sources=sources, pad_token_id=prepared.tokenizer.pad_token_id)
    assembly.ranks.barrier()  # a rank that went on could meet its next collective alone


def export_checkpoint(run_dir: Path, *, step: int | None, folder: Path) -> Path:
    """Write the weights of a run's checkpoint as a Hugging Face folder; gives the checkpoint's directory.

    `step` None takes the newest that is whole; one of weights only will do.

    Raises:
        UserError: the run has no such checkpoint, or the folder exists already.
    """
    if folder.exists() and folder.parent != run_dir:
        raise UserError(f"{folder} exists already: give another folder, or remove it")
    config = load_config(str(run_dir / "config.yaml"))
    directory = find_checkpoint(run_dir, step=step)
    tokenizer = load_run_tokenizer(run_dir)
    model = load_checkpoint_model(directory, config=config, tokenizer=tokenizer)
    tokens = load_token_set(prepare_evaluation(config, tokenizer=tokenizer))
    settings = generation_settings(model, config=config, tokenizer=tokenizer, tokens=tokens)
    name = parse_checkpoint_name(directory)
    assert name
    export_model(model, tokenizer=tokenizer, folder=folder, generation=settings, step=name.step)
    return directory


def load_run_tokenizer(run_dir: Path) -> Seq2SeqTokenizer:
    """The tokenizer that a run trains with; raises UserError where it is not there."""
    if not (run_dir / "tokenizer").is_dir():
        raise UserError(f"{run_dir / 'tokenizer'} is missing: start the run again, which restores it, or put it back")
    return load_tokenizer(str(run_dir / "tokenizer"))


def load_checkpoint_model(directory: Path, *, config: RunConfig, tokenizer: Seq2SeqTokenizer) -> PreTrainedModel:
    """The model of a run as a checkpoint holds it, in the run's precision."""
    model = load_model(config.model, tokenizer=tokenizer, seed=config.seed, report=log.info)
    load_weights(directory, module=Seq2SeqLoss(model))
    return model.to(dtype=DTYPES[config.precision])


def generation_settings(
    model: PreTrainedModel, *, config: RunConfig, tokenizer: Seq2SeqTokenizer, tokens: TokenSet
) -> Mapping[str, Any]:
    """The generation settings of the recipe's evaluations on `tokens`, so that an exported model generates what was scored."""
    settings = config.evaluation
    longest = int(tokens.target_lengths.max())
    cap = plan_cap(settings, longest_reference=longest, max_positions=max_positions(model.config))
    return {
        "num_beams": settings.num_beams,
        "max_new_tokens": cap.max_new_tokens,
        **({"length_penalty": settings.length_penalty} if settings.num_beams > 1 else {}),
        **generation_arguments(model, tokenizer=tokenizer, target_language=config.task.target_language),
    }
