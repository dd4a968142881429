"""Models scored without an engine, their rows dealt out over the ranks: any model, and what a run has left to do."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from transformers import PreTrainedModel

from dstrain.checkpoint.export import exported_step
from dstrain.checkpoint.manifest import CheckpointError
from dstrain.checkpoint.store import name_of
from dstrain.cluster.environment import Place
from dstrain.cluster.process_group import Ranks, choose_device, join_ranks
from dstrain.cluster.rendezvous import Meeting
from dstrain.config.load import load_config
from dstrain.config.schema import Model, RunConfig
from dstrain.data.tokens import TokenSet
from dstrain.due import Due, list_due
from dstrain.ends import settle
from dstrain.evaluation.evaluate import EvaluationResult, evaluate, write_evaluation
from dstrain.export import find_checkpoint, load_checkpoint_model, load_run_tokenizer
from dstrain.models.families import generation_arguments
from dstrain.models.load import DTYPES, load_model, quiet_transformers
from dstrain.models.loss import Seq2SeqLoss
from dstrain.models.tokenizer import Seq2SeqTokenizer, load_tokenizer
from dstrain.prepare import share_evaluation

NUM_TRIES = 3
"""A checkpoint may lose its optimizer state, and then its name, while it is read."""

log = logging.getLogger(__name__)


def join_scorers(place: Place, *, config: RunConfig, meeting: Meeting | None) -> Ranks:
    """The ranks that share the rows; a process alone needs no group."""
    quiet_transformers()
    if place.world_size == 1:
        return Ranks(place=place, device=choose_device(place), group=None)
    return join_ranks(place, timeout_minutes=config.machine.collective_timeout_minutes, meeting=meeting)


def score_model(
    source: str,
    *,
    step: int | None,
    config: RunConfig,
    output: Path,
    joins: Path | None,
    ranks: Ranks,
    say: Callable[[str], None] = print,
) -> None:
    """Score one model on the recipe's evaluation rows; all ranks call it, rank 0 writes and says what came out.

    Args:
        source: a model folder or hub name; with `step` the folder of a run, whose checkpoint is meant.
        joins: the run whose card is to tell of these scores, if it is finished; else it does so at its end.

    Raises:
        ValueError: the model, its tokenizer or the data cannot be used.
    """
    started = time.perf_counter()
    if step is not None:
        tokenizer = load_run_tokenizer(Path(source))
        model = _load_whole(Path(source), step=step, tokenizer=tokenizer)
    else:
        tokenizer = load_tokenizer(source)
        step = exported_step(Path(source))
        section = Model(name=source, layerdrop=config.model.layerdrop)
        model = load_model(section, tokenizer=tokenizer, seed=config.seed, report=log.warning)
        model = model.to(dtype=DTYPES[config.precision])
    tokens = share_evaluation(config, tokenizer=tokenizer, ranks=ranks, folder=output)
    result = _evaluate(model, tokens=tokens, tokenizer=tokenizer, config=config, ranks=ranks)
    if result is None:
        return
    seconds = time.perf_counter() - started
    write_evaluation(result, run_dir=output, step=step or 0, seconds=seconds)
    for name, value in result.scores.items():
        say(f"{name:<26} {value:.4f}")
    for name, signature in result.signatures.items():
        say(f"{name} signature: {signature}")
    for warning in result.warnings:
        log.warning("warning: %s", warning)
    say(f"scores and hypotheses of {result.num_rows:,} rows: {output}")
    if joins is not None:
        settle(joins, machine=config.machine)


def score_due(run_dir: Path, *, config: RunConfig, ranks: Ranks, say: Callable[[str], None] = print) -> None:
    """Score what a run left to another job, and what becomes due meanwhile, until nothing is; all ranks call it.

    Raises:
        ValueError: the run's tokenizer or its data cannot be used.
    """
    tokenizer = load_run_tokenizer(run_dir)
    tokens = share_evaluation(config, tokenizer=tokenizer, ranks=ranks, folder=run_dir)
    hopeless: set[Due] = set()
    while (due := _next_due(run_dir, hopeless=hopeless, ranks=ranks)) is not None:
        started = time.perf_counter()
        model = None
        try:
            model = _load_whole(run_dir, step=due.step, tokenizer=tokenizer)
        except ValueError as error:
            log.warning("the evaluation of step %d is left out: %s", due.step, error)
        # asked of all, since the checkpoint may change while some have read it: nobody evaluates alone
        (is_missing,) = ranks.max([int(model is None)])
        if model is None or is_missing:
            hopeless.add(due)
            continue
        result = _evaluate(model, tokens=tokens, tokenizer=tokenizer, config=config, ranks=ranks)
        if result is not None:
            seconds = time.perf_counter() - started
            write_evaluation(result, run_dir=run_dir, step=due.step, lease=due.lease, seconds=seconds)
            shown = "  ".join(f"{name} {value:.4f}" for name, value in result.scores.items())
            say(f"evaluation at step {due.step} ({seconds:.0f} s): {shown}")
    if ranks.rank == 0:
        settle(run_dir, machine=config.machine)


def _next_due(run_dir: Path, *, hopeless: set[Due], ranks: Ranks) -> Due | None:
    """The oldest due evaluation, the same on every rank."""
    found = [due for due in list_due(run_dir) if due not in hopeless] if ranks.rank == 0 else []
    chosen: Due | None = ranks.broadcast(found[0] if found else None)
    return chosen


def _load_whole(run_dir: Path, *, step: int, tokenizer: Seq2SeqTokenizer) -> PreTrainedModel:
    config = load_config(str(run_dir / "config.yaml"))  # the model is the run's, whatever the rows are
    for _ in range(NUM_TRIES - 1):
        directory = find_checkpoint(run_dir, step=step)
        try:
            return load_checkpoint_model(directory, config=config, tokenizer=tokenizer)
        except (CheckpointError, OSError) as error:
            name = name_of(directory)
            log.info("%s changed while it was read (%s): trying again", name, error)
    return load_checkpoint_model(find_checkpoint(run_dir, step=step), config=config, tokenizer=tokenizer)


def _evaluate(
    model: PreTrainedModel, *, tokens: TokenSet, tokenizer: Seq2SeqTokenizer, config: RunConfig, ranks: Ranks
) -> EvaluationResult | None:
    model = model.to(ranks.device)
    return evaluate(
        model,
        loss_module=Seq2SeqLoss(model),
        tokenizer=tokenizer,
        tokens=tokens,
        config=config,
        generation_arguments=lambda language: generation_arguments(
            model, tokenizer=tokenizer, target_language=language
        ),
        rank=ranks.rank,
        world_size=ranks.world_size,
        gather=ranks.gather,
        device=ranks.device,
    )
