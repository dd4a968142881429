"""The average of a run's checkpoints: chosen, scored and exported, by a command or at the end of the run."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from transformers import PreTrainedModel

from dstrain.checkpoint.average import average_weights, find_inputs, list_steps
from dstrain.checkpoint.store import parse_checkpoint_name
from dstrain.cluster.process_group import Ranks
from dstrain.config.schema import RunConfig
from dstrain.data.tokens import TokenSet, load_token_set
from dstrain.data.vocabulary import Vocabulary
from dstrain.errors import UserError
from dstrain.evaluation.evaluate import evaluate
from dstrain.evaluation.result import EvaluationResult
from dstrain.models.load import quiet_transformers
from dstrain.models.loss import Seq2SeqLoss
from dstrain.models.save import export_model
from dstrain.models.tokenizer import Seq2SeqTokenizer
from dstrain.run.assemble import Assembly
from dstrain.run.audit import mark_held
from dstrain.run.directions import find_directions
from dstrain.run.export import (
    checked_sources,
    generation_settings,
    load_checkpoint_model,
    load_run_tokenizer,
    whole_model,
)
from dstrain.run.prepare import prepare_evaluation
from dstrain.run.task_settings import write_task_settings
from dstrain.run.vocabulary import load_vocabulary
from dstrain.run_folder.average import write_averaged_steps
from dstrain.run_folder.began import read_run_config
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.record import CountedPairs, counted_pairs, load_record
from dstrain.run_folder.rows import best_evaluation
from dstrain.run_folder.scores import Scores, write_scores

log = logging.getLogger(__name__)


def choose_last(folder: RunFolder, *, number: int) -> list[int]:
    """The steps of a run's newest checkpoints.

    Raises:
        UserError: there are fewer.
    """
    return _first(list_steps(folder.path), number=number, folder=folder, what="checkpoints")


def choose_best(folder: RunFolder, *, number: int) -> list[int]:
    """The steps of the best evaluations that have a checkpoint.

    Raises:
        UserError: there are fewer.
    """
    record, there = load_record(folder.path), list_steps(folder.path)
    left, ranked = [row for row in record.competing if row.step in there], list[int]()
    while (best := best_evaluation(left, metrics=record.config.ranking)) is not None:
        ranked.append(best.step)
        left.remove(best)
    return _first(ranked, number=number, folder=folder, what="evaluations with a checkpoint")


def _first(steps: Sequence[int], *, number: int, folder: RunFolder, what: str) -> list[int]:
    if len(steps) < number:
        shown = ", ".join(map(str, steps)) or "none"
        raise UserError(
            f"{folder.checkpoints}: {number} {what} are wanted, and there are {len(steps)} (steps: {shown}): take fewer, and "
            "let runs keep more with checkpoint.keep_weights_every_steps"
        )
    return list(steps[:number])


def average_run(folder: RunFolder, *, steps: Sequence[int], output: Path, ranks: Ranks) -> Scores:
    """Score and export the mean of a run's checkpoints; one process calls it.

    Raises:
        UserError: as `find_inputs`; or the model, the tokenizer or the data cannot be used.
    """
    quiet_transformers()
    directories = find_inputs(folder.path, steps=steps)
    config, tokenizer = read_run_config(folder), load_run_tokenizer(folder)
    tokens = load_token_set(prepare_evaluation(config, tokenizer=tokenizer))
    mark_held(tokens, run=folder)
    vocabulary = load_vocabulary(config, tokenizer=tokenizer)
    model = load_checkpoint_model(*directories, config=config, tokenizer=tokenizer, vocabulary=vocabulary)
    result = evaluate(
        model.to(ranks.device), tokens=tokens, tokenizer=tokenizer, config=config, ranks=ranks, vocabulary=vocabulary
    )
    assert result is not None, "only one rank"
    counted = counted_pairs(folder)
    save = partial(_save, config=config, tokenizer=tokenizer, tokens=tokens, vocabulary=vocabulary, counted=counted)
    save(result, model=model, directories=directories, output=output)
    return result.scores


def average_at_end(assembly: Assembly, *, should_stop: Callable[[], bool]) -> None:
    """Score and export the mean of the last checkpoints, as the recipe wants; all ranks call it, after the last save.

    The engine must not be trained on. A mistake is a warning: the run has ended well, and the command does the same.
    """
    wanted, ranks, prepared = assembly.config.evaluation.average_last, assembly.ranks, assembly.prepared
    if wanted is None:
        return
    found = ranks.broadcast(_find_last(assembly, number=wanted) if ranks.rank == 0 else None, list[Path])
    if not found:
        return
    assembly.attempt.phases.enter("evaluation")
    config, vocabulary, tokenizer = assembly.config, prepared.vocabulary, prepared.tokenizer

    def fill(module: Seq2SeqLoss) -> None:
        average_weights(found, module=module, base=assembly.base)

    with assembly.engine.gathered(fill=fill) as model:
        result = evaluate(
            model,
            tokens=prepared.eval,
            tokenizer=tokenizer,
            config=config,
            ranks=ranks,
            vocabulary=vocabulary,
            should_stop=should_stop,
        )
        if result is not None:
            counted = prepared.train.report["pairs"]
            save = partial(_save, config=config, tokenizer=tokenizer, vocabulary=vocabulary, counted=counted)
            try:
                save(result, model=model, directories=found, output=assembly.folder.average.path, tokens=prepared.eval)
            except OSError as error:  # a full disk must not change how the run ends
                log.warning("the average could not be written (%s)", error)
            else:
                shown = "  ".join(f"{name} {value:.4f}" for name, value in result.scores.scores.items())
                log.info("average of %d checkpoints: %s", len(found), shown)
    ranks.barrier()


def _find_last(assembly: Assembly, *, number: int) -> list[Path]:
    folder = assembly.folder
    steps = list_steps(folder.path)[:number]
    if len(steps) < number:
        log.warning(
            "evaluation.average_last is %d, and there are %d checkpoints: these are averaged; "
            "checkpoint.keep_weights_every_steps keeps more",
            number,
            len(steps),
        )
    try:
        return find_inputs(folder.path, steps=steps)
    except UserError as error:
        log.warning("no average: %s", error)
        return []


def _save(
    result: EvaluationResult,
    *,
    model: PreTrainedModel,
    directories: Sequence[Path],
    output: Path,
    config: RunConfig,
    tokenizer: Seq2SeqTokenizer,
    tokens: TokenSet,
    vocabulary: Vocabulary,
    counted: CountedPairs,
) -> None:
    """Write the model folder, with the steps and the scores."""
    names = [name for path in directories if (name := parse_checkpoint_name(path))]
    steps = [name.step for name in names]
    whole = whole_model(model, config=config, tokenizer=tokenizer, vocabulary=vocabulary)
    settings = generation_settings(
        whole, config=config, tokenizer=tokenizer, tokens=tokens, vocabulary=vocabulary, counted=counted
    )

    def save_more(draft: Path) -> None:
        write_averaged_steps(draft, steps=steps)
        write_task_settings(draft, config=config)

    export_model(
        whole,
        tokenizer=tokenizer,
        folder=output,
        generation=settings,
        step=steps[-1],
        sources=checked_sources(tokens),
        directions=find_directions(config, counted=counted, tokens=tokens, tokenizer=tokenizer),
        save_more=save_more,
    )
    write_scores(result.scores, result.texts, folder=RunFolder(output), step=steps[-1])
