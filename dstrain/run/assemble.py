"""Everything a run needs before its first step: plan, model, engine, and the checkpoint it resumes from."""

import logging
import math
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from dstrain.attempt.attempt import Attempt
from dstrain.checkpoint.changes import SAID, Part
from dstrain.checkpoint.disk_space import check_disk_space, plan_disk_space
from dstrain.checkpoint.resume import Found, Resume, TrainingInputs, check_inputs
from dstrain.checkpoint.saver import RunIdentity
from dstrain.checkpoint.state import load_optimizer, load_weights
from dstrain.checkpoint.store import checkpoint_dirs
from dstrain.cluster.process_group import Ranks
from dstrain.cluster.progress import phase
from dstrain.config.conflicts import language_conflicts
from dstrain.config.load import recipe_hash
from dstrain.config.recipe import Training
from dstrain.config.schema import RECIPE_KEYS, RunConfig
from dstrain.data.cuts import Cut
from dstrain.data.plan import FIRST, Plan
from dstrain.engine.build import build_engine, check_device_precision
from dstrain.engine.engine import Engine
from dstrain.engine.schedule import learning_rate_at
from dstrain.engine.shards import MOMENTS
from dstrain.errors import UserError
from dstrain.forecast.idle import idle_warning
from dstrain.models.adapters import check_peft
from dstrain.models.compilation import compile_layers
from dstrain.models.families import check_limits, check_precision, has_languages, max_positions
from dstrain.models.kernels import draw_masks_by_bits
from dstrain.models.load import enable_activation_checkpointing, load_config, load_model
from dstrain.models.loss import Seq2SeqLoss
from dstrain.models.partial import count_adapter, count_trained
from dstrain.models.self_test import check_experiment
from dstrain.run.compact import compact_if_exact
from dstrain.run.hub import check_hub
from dstrain.run.info import list_versions
from dstrain.run.languages import find_untaught
from dstrain.run.part import leave_part
from dstrain.run.place import Place, TrainingRows, find_place
from dstrain.run.prepare import Prepared
from dstrain.run_folder.layout import RunFolder
from dstrain.training.state import Progress

SCHEDULE_KEYS = {"max_steps", "epochs", "schedule", "warmup_steps", "learning_rate"}
"""Keys of `training` that decide the learning rate of a step."""
EPOCHS_AT_ONCE = 20
"""Epochs whose steps the ranks count before they tell each other."""
MOST_COUNTED_ROWS = 10**10
"""Rows of all epochs whose steps are counted before the first: four hours of one core, which the ranks share."""
SPOKEN_SECONDS = 60.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Assembly:
    """Everything a run needs before its first step."""

    config: RunConfig
    """The configuration; null keys of `machine` have been resolved."""
    attempt: Attempt
    prepared: Prepared
    identity: RunIdentity
    resume: Resume | None
    place: Place
    total_steps: int
    engine: Engine
    num_exported: int
    """Parameters of the models that the run exports: more than it trains where it trains a part."""
    base: str | None
    """Hash of the weights that are not trained, if the recipe freezes a part of the model."""
    changes: list[str]
    """What has changed since the checkpoint because the user allowed it, and how the run resumes."""
    warnings: list[str]

    @property
    def ranks(self) -> Ranks:
        return self.attempt.ranks

    @property
    def folder(self) -> RunFolder:
        return RunFolder(Path(self.config.run_dir))

    @property
    def model(self) -> PreTrainedModel:
        return self.engine.module.model

    @property
    def plan(self) -> Plan:
        return self.place.plan

    @property
    def first_progress(self) -> Progress:
        """Step and position at which training begins."""
        return Progress(_steps_done(self.resume), self.place.position)


def check_model(config: RunConfig, *, ranks: Ranks) -> None:
    """Check that the model can be trained as the recipe says, before any data are read; a collective call.

    Raises:
        UserError: peft is missing, the Hub has no such model or data, its architecture is not supported or fails the self-test,
            it cannot tell target languages apart, the precision does not fit the device or the model, or a limit is over the
            model's positions.
    """
    check_device_precision(config)
    check_peft(config.model.adapter)
    check_hub(config, ranks=ranks)
    if config.model.name is not None:
        model_config = load_config(config.model.name, revision=config.model.revision)
        check_precision(model_config, precision=config.precision, allow_fp16_t5=config.model.allow_fp16_t5)
        check_limits(config.task, positions=max_positions(model_config))
        check_experiment(model_config, device=ranks.device)
        if not has_languages(model_config):
            for (key, *_), message in language_conflicts(config.task, data=config.data):
                raise UserError(f"{key}: {message}")


def _check_references(prepared: Prepared, *, positions: int | None) -> None:
    # references are never cut, and the loss of one that is longer than the position table cannot be computed
    longest, where = (prepared.eval.report[key] for key in ("longest_target", "longest_target_where"))
    if positions is not None and longest > positions:
        raise UserError(
            f"{where}: the reference has {longest:,} tokens, and the model {positions:,} positions: shorten it, or set "
            "data.rules.too_long=skip"
        )


def assemble(
    config: RunConfig,
    *,
    prepared: Prepared,
    attempt: Attempt,
    found: Found | None = None,
    allow_changed: Iterable[str] = (),
) -> Assembly:
    """Build the plan, the model and the engine, and load the checkpoint that rank 0 has found; a collective call.

    The fields in `allow_changed` may differ from those of the checkpoint.

    Raises:
        UserError: the checkpoint does not fit, the model cannot be loaded, or the disk has no room.
    """
    ranks = attempt.ranks
    recipe = config.model_dump(mode="json", include=set(RECIPE_KEYS))
    identity = RunIdentity(recipe_hash(config), recipe, list_versions(config), attempt.number)
    inputs = TrainingInputs(identity.recipe, prepared.fingerprints, _data_sources(config), asdict(_cut(config)))
    resume = _agree_on_resume(found, inputs=inputs, ranks=ranks, allow_changed=allow_changed)
    attempt.set_base(_steps_done(resume))
    tokens = prepared.train
    rows = TrainingRows(
        tokens.source_lengths, tokens.target_lengths, prepared.train_fingerprint, _cut(config), prepared.mixture
    )
    place = find_place(config, rows=rows, resume=resume)
    plan = place.plan
    _count_steps(place, config=config, attempt=attempt)
    total_steps = _count_total(config.training, place=place, resume=resume)
    changes, warnings = list[str](), list[str]()
    with phase(f"loading the model {config.model.name}" if config.model.name else "making a model of random weights"):
        model = load_model(config.model, tokenizer=prepared.tokenizer, seed=config.seed, report=warnings.append)
    num_exported = _count_parameters(model)
    base = leave_part(model, config=config, tokenizer=prepared.tokenizer, vocabulary=prepared.vocabulary)
    compact_if_exact(model, config=config, tokenizer=prepared.tokenizer, train=tokens, resume=resume, ranks=ranks)
    _check_references(prepared, positions=max_positions(model.config).target)
    if ranks.rank == 0:
        _check_disk_space(config, model=model, num_exported=num_exported)
    _choose_computation(model, config=config, ranks=ranks)
    module = Seq2SeqLoss(model, label_smoothing=config.training.label_smoothing)
    engine = _build_engine(config, module=module, resume=resume, base=base, ranks=ranks, total_steps=total_steps)
    if resume is not None:
        changes = describe_changes(resume, place=place)
        changes += _changed_schedule_warnings(config, resume=resume, place=place, total_steps=total_steps)
    warnings += _data_warnings(config, prepared=prepared)
    warnings += _schedule_warnings(config, total_steps=total_steps)
    if ranks.device.type == "cuda" and config.precision == "fp32":
        log.info("precision is fp32: on this GPU bf16 would be several times as fast")
    warnings += _machine_warnings(config, engine=engine, plan=plan, world_size=ranks.world_size)
    return Assembly(
        config, attempt, prepared, identity, resume, place, total_steps, engine, num_exported, base, changes, warnings
    )


def _build_engine(
    config: RunConfig, *, module: Seq2SeqLoss, resume: Resume | None, base: str | None, ranks: Ranks, total_steps: int
) -> Engine:
    """The engine, with weights and optimizer state of the checkpoint that the run resumes from."""
    if resume is not None:
        with phase(f"loading the weights of {resume.directory}"):
            load_weights(resume.directory, module=module, base=base)
    with phase("setting up DeepSpeed"):
        engine = build_engine(config, module=module, ranks=ranks, total_steps=total_steps)
    if resume is not None:
        starts_anew = Part.OPTIMIZER in resume.parts
        with phase(f"loading the optimizer state of {resume.directory}"):
            load_optimizer(resume.directory, engine=engine, state=resume.state, starts_anew=starts_anew)
    return engine


def _choose_computation(model: PreTrainedModel, *, config: RunConfig, ranks: Ranks) -> None:
    """How the layers are computed: nothing of it changes what is learned."""
    if ranks.device.type == "cpu":
        draw_masks_by_bits()
    if config.machine.activation_checkpointing:
        enable_activation_checkpointing(model)
    if config.machine.compile:
        compile_layers(model)
        log.info("layers are compiled during the first steps, which takes a minute or two")


def _agree_on_resume(
    found: Found | None, *, inputs: TrainingInputs, ranks: Ranks, allow_changed: Iterable[str]
) -> Resume | None:
    checked = None
    if ranks.rank == 0:
        if found is not None:
            checked = check_inputs(found, inputs=inputs, allowed=allow_changed)
        else:
            for field in allow_changed:
                log.warning("--allow-changed %s is ignored: there is no checkpoint to resume from", field)
    resume: Resume | None = ranks.broadcast(checked, Resume | None)
    if resume is not None:
        saved_by = "1 rank" if resume.world_size == 1 else f"{resume.world_size} ranks"
        log.info("resuming from %s (saved by %s)", resume.directory, saved_by)
    return resume


def describe_changes(resume: Resume, *, place: Place) -> list[str]:
    """What the user allowed to change, and how the run resumes, in sentences; hooks add what they reset."""
    changed = [f"allowed change: {change}" for change in resume.allowed]
    return [*changed, *place.said, *(sentence for part, sentence in SAID.items() if part in resume.parts)]


def _steps_done(resume: Resume | None) -> int:
    return resume.state.step if resume else 0


def _data_sources(config: RunConfig) -> dict[str, str]:
    """Where each source comes from, by its key in the recipe, for messages about changed data."""
    return {
        f"data.{split}.{number}": source.path or source.hub or f"demo {source.demo}"
        for split, sources in (("train", config.data.train), ("eval", config.data.eval))
        for number, source in enumerate(sources)
    }


def _cut(config: RunConfig) -> Cut:
    machine = config.machine
    tokens, overhead = machine.micro_batch_tokens, machine.micro_batch_overhead
    assert tokens is not None, "resolve_machine comes first"
    assert overhead is not None
    return Cut(tokens, machine.micro_batch_size, machine.min_micro_batches, overhead)


def _count_steps(place: Place, *, config: RunConfig, attempt: Attempt) -> None:
    """Count the steps of the epochs whose number must be known before training. Ranks share the work: it reads all lengths.

    Raises UserError if that would take hours.
    """
    if config.training.batch_unit == "sequences":  # every epoch has as many steps
        return
    plan, epoch = place.plan, place.position.epoch
    last = math.ceil(config.training.epochs or 0)
    if (last - epoch) * plan.num_rows > MOST_COUNTED_ROWS:
        steps = -(-int(plan.target_lengths.sum(dtype=np.int64)) // plan.batch_size)
        raise UserError(
            f"training.epochs is {config.training.epochs:g}: the steps of so many epochs of {plan.num_rows:,} rows in target "
            f"tokens would take hours to count: give training.max_steps instead (an epoch has about {steps:,} steps)"
        )
    ranks = attempt.ranks
    epochs = sorted(set(range(epoch, last)) | {plan.whole_epoch, epoch})
    spoken = time.monotonic()
    for start in range(0, len(epochs), EPOCHS_AT_ONCE):
        if time.monotonic() - spoken > SPOKEN_SECONDS:
            spoken = time.monotonic()
            log.info("counted the steps of %s of %s epochs in target tokens", f"{start:,}", f"{len(epochs):,}")
        plan.count_together(
            epochs[start : start + EPOCHS_AT_ONCE],
            rank=ranks.rank,
            world_size=ranks.world_size,
            exchange=lambda mine: ranks.broadcast(ranks.gather(mine, list[list[int]]), list[list[list[int]]]),
            beat=attempt.phases.mark_progress,
        )


def _count_total(training: Training, *, place: Place, resume: Resume | None) -> int:
    """Optimizer steps of the whole run: those done, and those left from its place on."""
    return place.plan.total_steps(
        epochs=training.epochs, max_steps=training.max_steps, done=_steps_done(resume), start=place.position
    )


def _count_parameters(model: PreTrainedModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _check_disk_space(config: RunConfig, *, model: PreTrainedModel, num_exported: int) -> None:
    folder, keep_last = RunFolder(Path(config.run_dir)), config.checkpoint.keep_last
    try:
        folder.checkpoints.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder.checkpoints} cannot hold checkpoints ({error.strerror}): move it away") from error
    num_beside = 0 if config.model.adapter is None else count_adapter(model)
    needed = plan_disk_space(
        num_trained=count_trained(model),
        num_exported=num_exported + num_beside,
        num_moments=len(MOMENTS[config.training.optimizer]),
        keep_last=keep_last,
        model_bytes=4 if config.precision == "fp32" else 2,
        num_saved=len(checkpoint_dirs(folder.checkpoints)),
    )
    check_disk_space(folder.path, num_bytes=needed, keep_last=keep_last)


def _data_warnings(config: RunConfig, *, prepared: Prepared) -> list[str]:
    warnings = find_untaught(config)
    if config.task.kind == "parsing" and not config.task.has_pointers and config.task.segmentation == "published":
        warnings.append("task.segmentation is ignored with task.form `plain`, which keeps the utterance as it is")
    if prepared.train.fingerprint == prepared.eval.fingerprint:
        warnings.append("the evaluation rows are the training rows: scores measure memorisation, not generalisation")
    num_rows, batch_size = prepared.train.num_rows, config.training.batch_size
    if config.training.batch_unit == "sequences" and num_rows < batch_size:
        warnings.append(
            f"training.batch_size is {batch_size}, but there are only {num_rows} training rows, so a step never has more"
        )
    return warnings


def _schedule_warnings(config: RunConfig, *, total_steps: int) -> list[str]:
    warmup_steps, rate = config.training.warmup_steps, config.training.learning_rate
    if warmup_steps < total_steps:
        return []
    return [
        f"training.warmup_steps is {warmup_steps}, but the run has only {total_steps} steps: the learning rate never reaches "
        f"{rate:g}. Train for longer, or lower training.warmup_steps"
    ]


def _changed_schedule_warnings(config: RunConfig, *, resume: Resume, place: Place, total_steps: int) -> list[str]:
    """How the learning rate jumps where a run resumes with another schedule."""
    old = {change.field.removeprefix("training."): change.old for change in resume.allowed}
    keys = old.keys() & SCHEDULE_KEYS
    # the number of steps follows from the rows and the size of a step, too
    is_longer = config.training.epochs is not None and not {Part.PLACE, Part.ROWS}.isdisjoint(resume.parts)
    if not keys and not is_longer:
        return []
    before = config.training.model_copy(update={key: old[key] for key in keys})
    step = resume.state.step + 1
    now = learning_rate_at(step, training=config.training, total_steps=total_steps)
    warning = f"the learning rate follows the changed schedule from step {step} on, which begins at {now:g}"
    if before.max_steps is None and (is_longer or config.training.batch_unit != "sequences" or "batch_size" in old):
        return [warning]  # the steps of the old epochs would have to be counted again
    then = learning_rate_at(step, training=before, total_steps=_count_total(before, place=place, resume=resume))
    return [] if then == now else [f"{warning}; by the schedule so far it would be {then:g}"]


def _machine_warnings(config: RunConfig, *, engine: Engine, plan: Plan, world_size: int) -> list[str]:
    warnings = []
    if engine.zero_stage != config.machine.zero_stage:
        warnings.append(
            f"machine.zero_stage 0 runs as stage 1 with {config.precision}, because DeepSpeed's stage 0 hides skipped steps"
        )
    micro_batches = plan.step(FIRST).micro_batches
    idle = idle_warning(len(micro_batches), num_rows=sum(map(len, micro_batches)), world_size=world_size)
    return warnings if idle is None else [*warnings, idle]
