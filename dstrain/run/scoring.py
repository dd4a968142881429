"""Scores models without an engine, on any number of ranks: any model, or a run's pending evaluations."""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from transformers import PreTrainedModel

from dstrain.attempt.attempt import RENEWALS, take_lease
from dstrain.attempt.lease import Lease, LeaseHeld, LeaseLost
from dstrain.checkpoint.manifest import CheckpointError
from dstrain.checkpoint.pending import PendingEvaluation, list_pending
from dstrain.checkpoint.store import find_checkpoint
from dstrain.cluster.console import say
from dstrain.cluster.devices import choose_device
from dstrain.cluster.environment import ProcessInfo
from dstrain.cluster.process_group import Ranks, join_ranks
from dstrain.cluster.rendezvous import Rendezvous
from dstrain.config.arguments import shell_command
from dstrain.config.machine import Machine
from dstrain.config.recipe import Model
from dstrain.config.schema import RunConfig
from dstrain.data.source_counts import describe_sources, warn_of_columns
from dstrain.data.tokens import TokenSet
from dstrain.data.vocabulary import WHOLE, Vocabulary
from dstrain.errors import UserError
from dstrain.evaluation.evaluate import evaluate
from dstrain.evaluation.result import EvaluationResult
from dstrain.evaluation.samples import describe_samples
from dstrain.models.load import DTYPES, quiet_transformers
from dstrain.models.tokenizer import Seq2SeqTokenizer, load_tokenizer
from dstrain.run.evaluation_request import EvaluationRequest
from dstrain.run.export import load_checkpoint_model, load_exported_model, load_run_tokenizer
from dstrain.run.external_scores import external_scores
from dstrain.run.finish import refresh_finished_run
from dstrain.run.hub import check_model_name
from dstrain.run.languages import find_untaught
from dstrain.run.prepare import list_bad_rows, share_evaluation
from dstrain.run.vocabulary import load_vocabulary
from dstrain.run_folder.began import read_run_config
from dstrain.run_folder.claims import read_claims
from dstrain.run_folder.external import with_external
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.reading import read_exported_step
from dstrain.run_folder.record import DataReport, read_run_info
from dstrain.run_folder.scores import ScoredData, Scores, describe_scores, find_other_data, write_scores

NUM_TRIES = 3
"""Tries to load a checkpoint: while it is read, a run may remove its optimizer state and rename it."""

log = logging.getLogger(__name__)


def join_scorers(process: ProcessInfo, *, machine: Machine, rendezvous: Rendezvous | None) -> Ranks:
    """The ranks that share the work of a model; a single process needs no process group."""
    quiet_transformers()
    if process.world_size == 1:
        return Ranks(process=process, device=choose_device(process, wanted=machine.device), group=None)
    return join_ranks(
        process, timeout_minutes=machine.collective_timeout_minutes, rendezvous=rendezvous, device=machine.device
    )


@contextmanager
def sole_scorer(folder: RunFolder, *, ranks: Ranks, stale_seconds: float) -> Iterator[Lease | None]:
    """Hold the lease of a folder's scores, so that no other job computes them; yields it on rank 0. All ranks enter.

    Two jobs with the same scores would do all work twice and overwrite each other's files.

    Raises:
        UserError: another process holds it, or the folder cannot be written.
    """
    try:
        lease, _ = take_lease(folder.scores, ranks=ranks, stale_seconds=stale_seconds)
    except LeaseHeld as error:
        holder = read_claims(folder.scores)[-1].holder
        raise UserError(
            f"{folder.scores}: {holder or 'another process'} is computing these scores already; wait for it, or end it"
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
        with suppress(OSError, LeaseLost):  # the lease is checked again before anything is written
            lease.renew()


@dataclass(frozen=True, slots=True)
class Target:
    """Where the scores of one model go, and which model it is."""

    folder: RunFolder
    step: int
    lease: int = 0
    """The lease number of the checkpoint if its evaluation was pending, else 0."""


def score_model(request: EvaluationRequest, *, ranks: Ranks, say: Callable[[str], None] = say) -> None:
    """Score one model on the recipe's evaluation rows; all ranks call it, rank 0 writes and prints the scores.

    Raises:
        UserError: the model, its tokenizer or the data cannot be used; the test set of that name has other rows; another
            process scores into the same folder, or has taken over because this one made no progress.
    """
    config, folder = request.config, RunFolder(request.output)
    started = time.perf_counter()
    with (
        _no_folder_of_a_mistake(folder, ranks=ranks),
        sole_scorer(folder, ranks=ranks, stale_seconds=config.machine.lease_seconds) as lease,
    ):
        tokenizer = _load_tokenizer(request)
        tokens = share_evaluation(config, tokenizer=tokenizer, ranks=ranks, folder=folder.path, run=request.run)
        data = _describe_rows(tokens, request=request)
        if request.card_of is not None and (other := find_other_data(folder, data=data)) is not None:
            raise UserError(
                f"--as {folder.path.name}: the scores of that name in {folder.path} are of other rows "
                f"({', '.join(other.places)}): give these rows another name, or remove the folder"
            )
        if ranks.rank == 0:
            list_bad_rows(tokens.folder, path=folder.bad_rows("eval"))
            say(_count_rows(data, tokens=tokens, listed=folder.bad_rows("eval")))
            for line in describe_sources("eval", tokens.report, sources=config.data.eval):
                say(line)
            untaught = [] if request.card_of is None else find_untaught(config)
            for warning in (*warn_of_columns("eval", tokens.report, sources=config.data.eval), *untaught):
                log.warning("warning: %s", warning)
        vocabulary = _find_vocabulary(request, tokenizer=tokenizer, tokens=tokens)
        model, step = _load_requested(request, tokenizer=tokenizer, vocabulary=vocabulary)
        result = evaluate(
            model.to(ranks.device),
            tokens=tokens,
            tokenizer=tokenizer,
            config=config,
            ranks=ranks,
            vocabulary=vocabulary,
        )
        if result is not None and request.card_of is not None:
            result = replace(result, scores=_warn_of_training_rows(result.scores, tokens=tokens, run=request.card_of))
        if ranks.rank == 0 and folder.score_file(step).exists():
            log.warning("%s: the scores of step %d are replaced", folder.path, step)
        scores = _save(result, target=Target(folder, step), lease=lease, started=started, data=data)
    if scores is None or result is None:  # not on rank 0
        return
    scores = _score_by_programs(scores, config=config, folder=folder, step=step)
    for line in _describe_each(scores):
        say(line)
    for line in describe_samples(result.texts, number=config.logging.samples):
        log.info("%s", line)
    for warning in scores.warnings:
        log.warning("warning: %s", warning)
    num_rows = f"{scores.num_rows:,} of {data.rows_read:,} rows"
    say(f"scores and hypotheses of {num_rows}, with the weights of step {step}: {folder.path}")
    run = request.card_of
    if run is not None and not refresh_finished_run(run, machine=config.machine):
        command = shell_command(["dstrain", "card", run.path])
        say(f"the card of {run.path} will show them when the run has ended; to update it now: {command}")


def _describe_each(scores: Scores) -> Iterator[str]:
    """Each score with its interval, then each signature."""
    for name, value in scores.scores.items():
        interval = f" ± {scores.intervals[name]:.4f}" if name in scores.intervals else ""
        yield f"{name:<26} {value:.4f}{interval}"
    for name, signature in scores.signatures.items():
        yield f"{name} signature: {signature}"


def _score_by_programs(scores: Scores, *, config: RunConfig, folder: RunFolder, step: int) -> Scores:
    """The scores together with those of the programs of the recipe, which are waited for."""
    external = external_scores(config, folder=folder)
    if external is None:
        return scores
    external.add(step, is_last=True)
    external.finish()
    return with_external(scores, folder=folder, step=step)


@contextmanager
def _no_folder_of_a_mistake(folder: RunFolder, *, ranks: Ranks) -> Iterator[None]:
    """Remove a folder that was made for scores which a mistake of the user has prevented."""
    is_new = not folder.path.exists()
    try:
        yield
    except UserError:
        if is_new and ranks.rank == 0 and not folder.score_files():
            shutil.rmtree(folder.path, ignore_errors=True)
        raise


def _warn_of_training_rows(scores: Scores, *, tokens: TokenSet, run: RunFolder) -> Scores:
    """The scores, with a warning if their rows are those on which the run was trained, as training itself warns."""
    trained = read_run_info(run.path).data.get("train", DataReport())
    sources = set(tokens.report["sources"])
    same_content = bool(sources) and sources <= set(trained.sources)
    if tokens.fingerprint != trained.fingerprint and not same_content:
        return scores
    warning = "these rows are training rows of the run: scores measure memorisation, not generalisation"
    return replace(scores, warnings=(*scores.warnings, warning))


def _describe_rows(tokens: TokenSet, *, request: EvaluationRequest) -> ScoredData:
    report = tokens.report
    return ScoredData(
        places=tuple(rows.place for rows in request.config.data.eval),
        fingerprint=tokens.fingerprint,
        rows_read=report["rows_read"],
        skipped=report["skipped"],
        truncated=report["truncated"],
        changes=None if request.changes is None else dict(request.changes),
    )


def _count_rows(data: ScoredData, *, tokens: TokenSet, listed: Path) -> str:
    """How many rows were read, used, skipped and cut, and the file that lists those which were not used as they are."""
    skipped = [f"{number:,} skipped ({reason.replace('_', ' ')})" for reason, number in data.skipped.items()]
    cut = [f"{data.truncated:,} with a source cut at task.max_source_tokens"] if data.truncated else []
    text = f"evaluation data: {data.rows_read:,} rows read, {tokens.num_rows:,} used"
    return "; ".join([text, *skipped, *cut]) + (f": {listed}" if skipped or cut else "")


def score_pending(folder: RunFolder, *, config: RunConfig, ranks: Ranks, say: Callable[[str], None] = say) -> None:
    """Score the evaluations that a run left to another job until none is pending; all ranks call it.

    Raises:
        UserError: the run's tokenizer or its data cannot be used; another process computes these scores, or has
            taken over because this one made no progress.
    """
    with sole_scorer(folder, ranks=ranks, stale_seconds=config.machine.lease_seconds) as lease:
        tried: set[PendingEvaluation] = set()
        external = external_scores(config, folder=folder) if lease is not None else None
        while (pending := _next_pending(folder, tried=tried, ranks=ranks)) is not None:
            if not tried:
                tokenizer = load_run_tokenizer(folder)
                tokens = share_evaluation(config, tokenizer=tokenizer, ranks=ranks, folder=folder.path, run=folder)
                vocabulary = load_vocabulary(config, tokenizer=tokenizer)
            tried.add(pending)
            started = time.perf_counter()
            load = partial(load_run_checkpoint, folder, step=pending.step, tokenizer=tokenizer, vocabulary=vocabulary)
            model = _load_pending(load, step=pending.step, ranks=ranks)
            if model is None:
                continue
            result = evaluate(
                model.to(ranks.device),
                tokens=tokens,
                tokenizer=tokenizer,
                config=config,
                ranks=ranks,
                vocabulary=vocabulary,
            )
            scores = _save(result, target=Target(folder, pending.step, pending.lease), lease=lease, started=started)
            if scores is not None and result is not None:
                say(f"evaluation at step {pending.step} ({scores.seconds:.0f} s): {describe_scores(scores)}")
                for line in describe_samples(result.texts, number=config.logging.samples):
                    log.info("%s", line)
                if external is not None:
                    external.add(pending.step)
                    external.finish()
    if ranks.rank == 0:
        if not tried:
            say(f"{folder.path}: no evaluation is pending")
        refresh_finished_run(folder, machine=config.machine)


def _save(
    result: EvaluationResult | None,
    *,
    target: Target,
    lease: Lease | None,
    started: float,
    data: ScoredData | None = None,
) -> Scores | None:
    """Write a result on rank 0, where `result` and `lease` are not None; returns its scores, None on the other ranks."""
    if result is None or lease is None:
        return None
    lease.check()
    scores = replace(result.scores, seconds=time.perf_counter() - started)
    write_scores(scores, result.texts, folder=target.folder, step=target.step, lease=target.lease, data=data)
    return scores


def _next_pending(folder: RunFolder, *, tried: set[PendingEvaluation], ranks: Ranks) -> PendingEvaluation | None:
    """The oldest pending evaluation, the same on every rank."""
    found = [each for each in list_pending(folder.path) if each not in tried] if ranks.rank == 0 else []
    chosen: PendingEvaluation | None = ranks.broadcast(found[0] if found else None, PendingEvaluation | None)
    return chosen


def _load_pending(load: Callable[[], PreTrainedModel], *, step: int, ranks: Ranks) -> PreTrainedModel | None:
    """The model of a checkpoint; None on all ranks if one of them cannot load it, so that no rank evaluates alone."""
    model = None
    try:
        model = load()
    except UserError as error:
        log.warning("the evaluation of step %d is skipped: %s", step, error)
    # over all ranks, since the checkpoint may change after some have read it
    (is_missing,) = ranks.max([int(model is None)])
    return None if is_missing else model


def _load_tokenizer(request: EvaluationRequest) -> Seq2SeqTokenizer:
    if request.step is not None:
        return load_run_tokenizer(RunFolder(Path(request.model)))
    revision = _as_section(request).revision
    check_model_name(request.model, revision=revision, key="MODEL")
    return load_tokenizer(request.model, revision=revision)


def _find_vocabulary(request: EvaluationRequest, *, tokenizer: Seq2SeqTokenizer, tokens: TokenSet) -> Vocabulary:
    """The ids for which the model has rows: those of its run, and the sources' own to be read; all without a run."""
    if request.run is None:
        return WHOLE
    vocabulary = load_vocabulary(read_run_config(request.run), tokenizer=tokenizer)
    return vocabulary.reading(tokens.occurring("source"))


def _load_requested(
    request: EvaluationRequest, *, tokenizer: Seq2SeqTokenizer, vocabulary: Vocabulary
) -> tuple[PreTrainedModel, int]:
    """The model and its step, 0 if its folder does not say."""
    if request.step is not None:
        run, step = RunFolder(Path(request.model)), request.step
        return load_run_checkpoint(run, step=step, tokenizer=tokenizer, vocabulary=vocabulary), step
    config = request.config
    model = load_exported_model(_as_section(request), tokenizer=tokenizer, seed=config.seed, vocabulary=vocabulary)
    return model.to(dtype=DTYPES[config.precision]), read_exported_step(Path(request.model)) or 0


def _as_section(request: EvaluationRequest) -> Model:
    model = request.config.model
    revision = model.revision if request.model == model.name else None
    return Model(name=request.model, revision=revision, layerdrop=model.layerdrop)


def load_run_checkpoint(
    folder: RunFolder, *, step: int, tokenizer: Seq2SeqTokenizer, vocabulary: Vocabulary
) -> PreTrainedModel:
    """The model of a run's checkpoint of this step, which the run may change meanwhile; errors as `load_checkpoint_model`."""
    config = read_run_config(folder)  # the run's own: the request may have other rows
    load = partial(load_checkpoint_model, config=config, tokenizer=tokenizer, vocabulary=vocabulary)
    for _ in range(NUM_TRIES - 1):
        directory = find_checkpoint(folder.path, step=step)
        try:
            return load(directory)
        except (CheckpointError, OSError) as error:
            log.info("%s changed while it was read (%s): trying again", directory.name, error)
    return load(find_checkpoint(folder.path, step=step))
