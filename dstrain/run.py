"""The one place that builds everything: ranks, data, model, engine, hooks; then trains, and leaves a model and a card."""

import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from dstrain.checkpoint.export import check_export, export_model
from dstrain.checkpoint.resume import Resume, find_resume
from dstrain.checkpoint.state import RunIdentity, RunState, load_optimizer, load_weights, save_checkpoint
from dstrain.checkpoint.store import prune
from dstrain.cluster.environment import EXIT_PREEMPTED, Place
from dstrain.cluster.process_group import Ranks, join_ranks
from dstrain.config.load import dump_config, recipe_hash
from dstrain.config.schema import RECIPE_KEYS, RunConfig
from dstrain.data.loader import Loader
from dstrain.data.plan import Cut, Plan, Position
from dstrain.describe import describe_run, list_versions
from dstrain.engine.engine import Engine, build_engine, check_device_precision
from dstrain.evaluation.evaluate import EvaluationResult, evaluate
from dstrain.evaluation.generate import plan_cap
from dstrain.models.families import check_precision, decoder_start_id, generation_arguments, max_positions
from dstrain.models.load import enable_activation_checkpointing, load_config, load_model
from dstrain.models.loss import Seq2SeqLoss
from dstrain.prepare import Prepared, prepare
from dstrain.reporting.card import write_card
from dstrain.reporting.records import EventRow, append_row, read_rows, write_run_info
from dstrain.training.hooks.checkpoint import CheckpointHook
from dstrain.training.hooks.evaluate import EvaluateHook
from dstrain.training.hooks.log import LogHook
from dstrain.training.hooks.preempt import PreemptHook
from dstrain.training.loop import train
from dstrain.training.state import Control, Hook, Progress

NUM_CHECKED_ROWS = 8
"""Evaluation rows whose hypotheses an exported model must repeat."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Built:
    """What a run consists of before its first step."""

    config: RunConfig
    ranks: Ranks
    prepared: Prepared
    identity: RunIdentity
    resume: Resume | None
    plan: Plan
    total_steps: int
    engine: Engine
    warnings: list[str]

    @property
    def run_dir(self) -> Path:
        return Path(self.config.run_dir)

    @property
    def checkpoints(self) -> Path:
        return self.run_dir / "checkpoints"


def run(config: RunConfig, *, place: Place, command: str, debug: bool = False) -> int:
    """Train a recipe from its beginning or from its newest checkpoint; gives the exit code.

    Raises:
        ValueError: something the user can mend; the message says what and how.
    """
    _quiet_libraries()
    if debug:
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.autograd.set_detect_anomaly(True)
    ranks = join_ranks(place, timeout_minutes=config.machine.collective_timeout_minutes)
    preempt = PreemptHook(ranks=ranks)
    if debug:
        shutil.rmtree(config.run_dir, ignore_errors=True)  # a debug run begins anew, and is alone in its folder
    built = _build(config, ranks=ranks)
    if ranks.broadcast(ranks.rank == 0 and _is_finished(built)):
        log.info(
            "%s is finished: its card, models and scores lie there; another output_dir starts a new run", built.run_dir
        )
        return 0
    record = _recorder(built)
    if ranks.rank == 0:
        (built.run_dir / "config.yaml").write_text(dump_config(config))
        write_run_info(built.run_dir, _describe(built, command=command))
        record(_event("resume" if built.resume else "start", _first_progress(built).step))
        for warning in built.warnings:
            log.warning("%s", warning)
    control = Control(record=record)
    hooks = _build_hooks(built, preempt=preempt)
    progress = train(
        built.engine,
        loader=_build_loader(built),
        progress=_first_progress(built),
        total_steps=built.total_steps,
        epoch_at=built.plan.epoch_at,
        hooks=hooks,
        control=control,
    )
    return _finish(built, progress=progress, control=control)


def _build(config: RunConfig, *, ranks: Ranks) -> Built:
    check_device_precision(config)
    if config.model.name is not None:
        model_config = load_config(config.model.name, revision=config.model.revision)
        check_precision(model_config, precision=config.precision, allow_fp16_t5=config.model.allow_fp16_t5)
    prepared = prepare(config, ranks=ranks)
    warnings: list[str] = []
    identity = RunIdentity(
        recipe_hash(config), config.model_dump(mode="json", include=set(RECIPE_KEYS)), list_versions()
    )
    resume = _agree_on_resume(config, ranks=ranks, identity=identity, prepared=prepared)
    plan = _build_plan(config, prepared=prepared, resume=resume, warn=warnings.append)
    total_steps = plan.total_steps(epochs=config.training.epochs, max_steps=config.training.max_steps)
    model = load_model(config.model, tokenizer=prepared.tokenizer, seed=config.seed, report=warnings.append)
    if config.machine.activation_checkpointing:
        enable_activation_checkpointing(model)
    module = Seq2SeqLoss(model, label_smoothing=config.training.label_smoothing)
    if resume is not None:
        load_weights(resume.directory, module=module)
    engine = build_engine(config, module=module.to(ranks.device), ranks=ranks, total_steps=total_steps)
    if resume is not None:
        load_optimizer(resume.directory, engine=engine, state=resume.state)
    warnings += _data_warnings(config, prepared=prepared)
    warnings += _machine_warnings(config, engine=engine, plan=plan, world_size=ranks.world_size)
    return Built(config, ranks, prepared, identity, resume, plan, total_steps, engine, warnings)


def _agree_on_resume(config: RunConfig, *, ranks: Ranks, identity: RunIdentity, prepared: Prepared) -> Resume | None:
    found = None
    if ranks.rank == 0:
        root = Path(config.run_dir) / "checkpoints"
        found = find_resume(root, identity=identity, data=prepared.fingerprints)
    resume: Resume | None = ranks.broadcast(found)
    if resume is not None:
        log.info("going on from %s (saved by %d ranks)", resume.directory, resume.world_size)
    return resume


def _build_plan(config: RunConfig, *, prepared: Prepared, resume: Resume | None, warn: Callable[[str], None]) -> Plan:
    machine = config.machine
    cut = Cut(machine.micro_batch_tokens, machine.micro_batch_size, machine.min_micro_batches)
    if resume is not None:
        saved = Cut(**resume.state.cut)
        if saved != cut:
            warn(f"the run goes on with the cut it began with, {saved}; this start asks for {cut}, which is ignored")
        cut = saved
    return Plan(
        prepared.train.source_lengths,
        prepared.train.target_lengths,
        fingerprint=prepared.train.fingerprint,
        seed=config.seed,
        batch_size=config.training.batch_size,
        batch_unit=config.training.batch_unit,
        cut=cut,
    )


def _data_warnings(config: RunConfig, *, prepared: Prepared) -> list[str]:
    warnings = []
    if prepared.train.fingerprint == prepared.eval.fingerprint:
        warnings.append(
            "the evaluation rows are the training rows: scores show what was learned by heart, and no skill"
        )
    num_rows, batch_size = prepared.train.num_rows, config.training.batch_size
    if config.training.batch_unit == "sequences" and num_rows < batch_size:
        warnings.append(
            f"training.batch_size is {batch_size}, but a step holds the {num_rows} rows of the data at most"
        )
    return warnings


def _machine_warnings(config: RunConfig, *, engine: Engine, plan: Plan, world_size: int) -> list[str]:
    warnings = []
    if engine.zero_stage != config.machine.zero_stage:
        warnings.append(
            f"machine.zero_stage 0 with {config.precision} runs as 1: DeepSpeed's stage 0 hides skipped steps in 16 bits"
        )
    num_micro_batches = len(plan.step(Position(0, 0)).micro_batches)
    if num_micro_batches < world_size:
        warnings.append(
            f"the first step is cut into {num_micro_batches} micro-batches for {world_size} ranks: some have nothing to do. "
            f"Set machine.min_micro_batches={world_size} (in a new run: the cut of a step is kept for a whole run)"
        )
    return warnings


def _build_loader(built: Built) -> Loader:
    return Loader(
        built.prepared.train,
        built.plan,
        rank=built.ranks.rank,
        world_size=built.ranks.world_size,
        pad_id=built.prepared.tokenizer.pad_token_id,
        decoder_start_id=decoder_start_id(_model(built)),
        prefetch_steps=built.config.machine.prefetch_steps,
    )


def _build_hooks(built: Built, *, preempt: PreemptHook) -> list[Hook]:
    """In the order in which they are called after every step.

    Whoever may stop the run comes first; the checkpoint comes last, because it claims everything up to its step, the log's
    row included.
    """
    config, ranks = built.config, built.ranks
    hooks: list[Hook] = [
        preempt,
        EvaluateHook(
            config=config,
            ranks=ranks,
            evaluate=lambda max_batches: _evaluate(built, max_batches=max_batches),
            export_best=lambda: _export(built, name="best"),
        ),
        LogHook(config=config, ranks=ranks, total_steps=built.total_steps, console=Console(stderr=True)),
    ]
    checkpoint = CheckpointHook(
        settings=config.checkpoint,
        save=lambda progress: _save(built, progress=progress, hooks=hooks),
        prune=lambda: _prune(built, hooks=hooks),
    )
    if built.resume is not None:
        for hook in hooks:
            hook.load_state(built.resume.state.hooks[hook.name])
    hooks.append(checkpoint)
    return hooks


def _save(built: Built, *, progress: Progress, hooks: list[Hook]) -> None:
    state = RunState(
        step=progress.step,
        epoch=progress.position.epoch,
        step_in_epoch=progress.position.step,
        cut=asdict(built.plan.cut),
        data=built.prepared.fingerprints,
        hooks={hook.name: hook.state() for hook in hooks},
    )
    directory = save_checkpoint(
        built.checkpoints, engine=built.engine, state=state, identity=built.identity, ranks=built.ranks
    )
    log.info("saved %s", directory)


def _prune(built: Built, *, hooks: list[Hook]) -> None:
    if built.ranks.rank != 0:
        return
    bests = [hook.best for hook in hooks if isinstance(hook, EvaluateHook) and hook.best]
    keep = frozenset(int(best["step"]) for best in bests)
    prune(built.checkpoints, keep_last=built.config.checkpoint.keep_last, keep_steps=keep)


def _evaluate(built: Built, *, max_batches: int | None) -> EvaluationResult | None:
    with built.engine.gathered() as model:
        assert isinstance(model, PreTrainedModel)
        return evaluate(
            model,
            # not the engine's own: under ZeRO-3 its forward is a collective call, and ranks have unequal numbers of batches
            loss_module=Seq2SeqLoss(model),
            tokenizer=built.prepared.tokenizer,
            tokens=built.prepared.eval,
            config=built.config,
            generation_arguments=lambda language: generation_arguments(
                model, tokenizer=built.prepared.tokenizer, target_language=language
            ),
            rank=built.ranks.rank,
            world_size=built.ranks.world_size,
            gather=built.ranks.gather,
            device=built.ranks.device,
            max_batches=max_batches,
        )


def _export(built: Built, *, name: str, check: bool = False) -> None:
    """Write the model as it is now to `<run>/<name>`; all ranks enter, rank 0 writes."""
    folder = built.run_dir / name
    with built.engine.gathered() as model:
        if built.ranks.rank == 0:
            assert isinstance(model, PreTrainedModel)
            tokenizer, settings = built.prepared.tokenizer, built.config.evaluation
            language = built.config.task.target_language
            generation = {
                "num_beams": settings.num_beams,
                "max_new_tokens": _cap(built, model=model),
                **({"length_penalty": settings.length_penalty} if settings.num_beams > 1 else {}),
                **generation_arguments(model, tokenizer=tokenizer, target_language=language),
            }
            export_model(model, tokenizer=tokenizer, folder=folder, generation=generation)
            if check:
                tokens = built.prepared.eval
                sources = [tokens.source(row).tolist() for row in range(min(NUM_CHECKED_ROWS, tokens.num_rows))]
                check_export(folder, model=model, sources=sources, pad_token_id=tokenizer.pad_token_id)
    built.ranks.barrier()  # a rank that went on could meet its next collective alone


def _describe(built: Built, *, command: str) -> dict[str, Any]:
    return describe_run(
        built.config,
        ranks=built.ranks,
        data={"train": built.prepared.train.report, "eval": built.prepared.eval.report},
        model=_model(built),
        plan=built.plan,
        total_steps=built.total_steps,
        warnings=built.warnings,
        command=command,
    )


def _finish(built: Built, *, progress: Progress, control: Control) -> int:
    if not control.preempted:
        _export(built, name="final", check=True)
    if built.ranks.rank == 0:
        event = "stop" if control.preempted else "finish"
        control.record(_event(event, progress.step, message=control.stop_reason))
        card = write_card(built.run_dir)
        log.info("card: %s  plots: %s  model: %s", card, built.run_dir / "plots", built.run_dir / "best")
    built.ranks.barrier()
    return EXIT_PREEMPTED if control.preempted else 0


def _first_progress(built: Built) -> Progress:
    if built.resume is None:
        return Progress(0, Position(0, 0))
    state = built.resume.state
    return Progress(state.step, Position(state.epoch, state.step_in_epoch))


def _recorder(built: Built) -> Callable[[dict[str, Any]], None]:
    path = built.run_dir / "metrics.jsonl"

    def record(row: dict[str, Any]) -> None:
        if built.ranks.rank == 0:
            append_row(path, row)

    return record


def _event(event: str, step: int, *, message: str | None = None) -> dict[str, Any]:
    time = datetime.now(UTC).isoformat(timespec="seconds")
    return {"kind": "event", "event": event, "step": step, "time": time, "message": message}


def _cap(built: Built, *, model: PreTrainedModel) -> int:
    """The longest hypothesis in evaluations, so that an exported model generates what was scored."""
    longest = int(built.prepared.eval.target_lengths.max())
    positions = max_positions(model.config)
    return plan_cap(built.config.evaluation, longest_reference=longest, max_positions=positions).max_new_tokens


def _is_finished(built: Built) -> bool:
    metrics = built.run_dir / "metrics.jsonl"
    if built.resume is None or not metrics.exists():
        return False
    events = [row for row in read_rows(metrics) if isinstance(row, EventRow)]
    return bool(events) and events[-1].event == "finish"


def _model(built: Built) -> PreTrainedModel:
    model = built.engine.module.model
    assert isinstance(model, PreTrainedModel)
    return model


def _quiet_libraries() -> None:
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
