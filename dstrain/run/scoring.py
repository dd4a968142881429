"""Models scored without an engine, their rows dealt out over the ranks: any model, and what a run has left to do."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from transformers import PreTrainedModel

from dstrain.attempt.attempt import RENEWALS, take_lease
from dstrain.attempt.lease import Lease, LeaseHeld, LeaseLost
from dstrain.checkpoint.manifest import CheckpointError
from dstrain.checkpoint.pending import PendingEvaluation, list_pending
from dstrain.checkpoint.store import find_checkpoint, parse_checkpoint_name
from dstrain.cluster.environment import ProcessInfo
from dstrain.cluster.process_group import Ranks, choose_device, join_ranks
from dstrain.cluster.rendezvous import Rendezvous
from dstrain.config.load import load_config
from dstrain.config.recipe import Model
from dstrain.config.schema import RunConfig
from dstrain.data.tokens import TokenSet
from dstrain.errors import UserError
from dstrain.evaluation.evaluate import EvaluationResult, evaluate, write_evaluation
from dstrain.models.families import generation_arguments
from dstrain.models.load import DTYPES, load_model, quiet_transformers
from dstrain.models.loss import Seq2SeqLoss
from dstrain.models.save import exported_step
from dstrain.models.tokenizer import Seq2SeqTokenizer, load_tokenizer
from dstrain.run.export import load_checkpoint_model, load_run_tokenizer
from dstrain.run.finish import refresh_finished_run
from dstrain.run.prepare import share_evaluation
from dstrain.run_folder.claims import read_claims
from dstrain.run_folder.scores import ScoredData, find_other_data, score_file

NUM_TRIES = 3
"""A checkpoint may lose its optimizer state, and then its name, while it is read."""

log = logging.getLogger(__name__)


def join_scorers(process: ProcessInfo, *, config: RunConfig, rendezvous: Rendezvous | None) -> Ranks:
    """The ranks that share the rows; a process alone needs no group."""
    quiet_transformers()
    if process.world_size == 1:
        return Ranks(process=process, device=choose_device(process), group=None)
    return join_ranks(process, timeout_minutes=config.machine.collective_timeout_minutes, rendezvous=rendezvous)


@contextmanager
def sole_scorer(folder: Path, *, ranks: Ranks, stale_seconds: float) -> Iterator[Lease | None]:
    """Be the one job that makes the scores of a folder; gives the lease on rank 0. All ranks enter.

    Two that make the same scores would do all work twice, and write over each other.

    Raises:
        UserError: another process makes them, or the folder cannot be written.
    """
    scores = folder / "scores"
    try:
        lease, _ = take_lease(scores, ranks=ranks, stale_seconds=stale_seconds)
    except LeaseHeld as error:
        holder = read_claims(scores)[-1].holder
        raise UserError(
            f"{scores}: {holder or 'another process'} makes these scores; wait for it, or end it"
        ) from error
    ended = threading.Event()
    renewal = threading.Thread(
        target=_renew, args=(lease,), kwargs={"seconds": stale_seconds / RENEWALS, "ended": ended}
    )
    if lease is not None:
        renewal.start()
    try:
        yield lease
    finally:
        ended.set()
        if lease is not None:
            renewal.join()
            lease.release()


def _renew(lease: Lease, *, seconds: float, ended: threading.Event) -> None:
    while not ended.wait(seconds):
        with suppress(OSError, LeaseLost):  # asked again before anything is written
            lease.renew()


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
        UserError: the model, its tokenizer or the data cannot be used, another process scores into `output`, or the test
            set of that name has other rows.
        LeaseLost: another process has taken over, because this one had stood still.
    """
    started = time.perf_counter()
    with sole_scorer(output, ranks=ranks, stale_seconds=config.machine.lease_seconds) as lease:
        tokenizer = load_run_tokenizer(Path(source)) if step is not None else _load_tokenizer(source, config=config)
        tokens = share_evaluation(config, tokenizer=tokenizer, ranks=ranks, folder=output)
        data = ScoredData(tuple(rows.place for rows in config.data.eval), tokens.fingerprint)
        if joins is not None and (other := find_other_data(output, data=data)) is not None:
            raise UserError(
                f"--as {output.name}: the scores of that name in {output} are of other rows ({', '.join(other.places)}): give "
                "these rows another name, or remove the folder"
            )
        if step is not None:
            model = _load_whole(Path(source), step=step, tokenizer=tokenizer)
        else:
            model, step = _load_folder(source, config=config, tokenizer=tokenizer)
        result = _evaluate(model, tokens=tokens, tokenizer=tokenizer, config=config, ranks=ranks)
        if result is None or lease is None:
            return
        lease.check()
        if score_file(output, step=step).exists():
            log.warning("%s: its scores of step %d are replaced", output, step)
        seconds = time.perf_counter() - started
        write_evaluation(result, run_dir=output, step=step, seconds=seconds, data=asdict(data))
    for name, value in result.scores.items():
        say(f"{name:<26} {value:.4f}")
    for name, signature in result.signatures.items():
        say(f"{name} signature: {signature}")
    for warning in result.warnings:
        log.warning("warning: %s", warning)
    say(f"scores and hypotheses of {result.num_rows:,} rows: {output}")
    if joins is not None and not refresh_finished_run(joins, machine=config.machine):
        say(f"they stand on the card of {joins} once the run has ended; now with: dstrain card {joins}")


def score_pending(run_dir: Path, *, config: RunConfig, ranks: Ranks, say: Callable[[str], None] = print) -> None:
    """Score what a run left to another job, and what becomes due meanwhile, until nothing is; all ranks call it.

    Raises:
        UserError: the run's tokenizer or its data cannot be used, or another process makes these scores.
        LeaseLost: another process has taken over, because this one had stood still.
    """
    with sole_scorer(run_dir, ranks=ranks, stale_seconds=config.machine.lease_seconds) as lease:
        tried: set[PendingEvaluation] = set()
        while (due := _next_pending(run_dir, tried=tried, ranks=ranks)) is not None:
            if not tried:
                tokenizer = load_run_tokenizer(run_dir)
                tokens = share_evaluation(config, tokenizer=tokenizer, ranks=ranks, folder=run_dir)
            tried.add(due)
            started = time.perf_counter()
            model = _load_pending(run_dir, step=due.step, tokenizer=tokenizer, ranks=ranks)
            if model is None:
                continue
            result = _evaluate(model, tokens=tokens, tokenizer=tokenizer, config=config, ranks=ranks)
            if result is None or lease is None:
                continue
            lease.check()
            seconds = time.perf_counter() - started
            write_evaluation(result, run_dir=run_dir, step=due.step, lease=due.lease, seconds=seconds)
            shown = "  ".join(f"{name} {value:.4f}" for name, value in result.scores.items())
            say(f"evaluation at step {due.step} ({seconds:.0f} s): {shown}")
    if ranks.rank == 0:
        if not tried:
            say(f"{run_dir}: no evaluation is due")
        refresh_finished_run(run_dir, machine=config.machine)


def _next_pending(run_dir: Path, *, tried: set[PendingEvaluation], ranks: Ranks) -> PendingEvaluation | None:
    """The oldest due evaluation, the same on every rank."""
    found = [due for due in list_pending(run_dir) if due not in tried] if ranks.rank == 0 else []
    chosen: PendingEvaluation | None = ranks.broadcast(found[0] if found else None)
    return chosen


def _load_pending(run_dir: Path, *, step: int, tokenizer: Seq2SeqTokenizer, ranks: Ranks) -> PreTrainedModel | None:
    """The model of a checkpoint; None on all ranks if one of them cannot load it, so that nobody evaluates alone."""
    model = None
    try:
        model = _load_whole(run_dir, step=step, tokenizer=tokenizer)
    except UserError as error:
        log.warning("the evaluation of step %d is left out: %s", step, error)
    # asked of all, since the checkpoint may change while some have read it
    (is_missing,) = ranks.max([int(model is None)])
    return None if is_missing else model


def _load_tokenizer(source: str, *, config: RunConfig) -> Seq2SeqTokenizer:
    return load_tokenizer(source, revision=_as_section(source, config=config).revision)


def _load_folder(source: str, *, config: RunConfig, tokenizer: Seq2SeqTokenizer) -> tuple[PreTrainedModel, int]:
    """A model and its step, 0 where it does not say."""
    section = _as_section(source, config=config)
    model = load_model(section, tokenizer=tokenizer, seed=config.seed, report=log.warning)
    return model.to(dtype=DTYPES[config.precision]), exported_step(Path(source)) or 0


def _as_section(source: str, *, config: RunConfig) -> Model:
    revision = config.model.revision if source == config.model.name else None
    return Model(name=source, revision=revision, layerdrop=config.model.layerdrop)


def _load_whole(run_dir: Path, *, step: int, tokenizer: Seq2SeqTokenizer) -> PreTrainedModel:
    config = load_config(str(run_dir / "config.yaml"))  # the model is the run's, whatever the rows are
    for _ in range(NUM_TRIES - 1):
        directory = find_checkpoint(run_dir, step=step)
        try:
            return load_checkpoint_model(directory, config=config, tokenizer=tokenizer)
        except (CheckpointError, OSError) as error:
            name = parse_checkpoint_name(directory)
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
