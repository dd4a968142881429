"""Everything a run needs before its first step: plan, model, engine, and the checkpoint it resumes from."""

import logging
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from transformers import PreTrainedModel

from dstrain.attempt.attempt import Attempt
from dstrain.checkpoint.disk_space import check_disk_space, plan_disk_space
from dstrain.checkpoint.resume import Resume, TrainingInputs, find_resume
from dstrain.checkpoint.saver import RunIdentity
from dstrain.checkpoint.state import load_optimizer, load_weights
from dstrain.checkpoint.store import checkpoint_dirs
from dstrain.cluster.process_group import Ranks
from dstrain.config.conflicts import NO_LANGUAGES, language_conflicts
from dstrain.config.load import recipe_hash
from dstrain.config.schema import RECIPE_KEYS, RunConfig
from dstrain.data.cuts import Cut
from dstrain.data.plan import Plan, Position
from dstrain.engine.build import build_engine, check_device_precision
from dstrain.engine.engine import Engine
from dstrain.engine.schedule import learning_rate_at
from dstrain.engine.shards import MOMENTS
from dstrain.errors import UserError
from dstrain.models.compilation import compile_layers
from dstrain.models.families import FIXED_POSITIONS, check_limits, check_precision, family_of, max_positions
from dstrain.models.load import enable_activation_checkpointing, load_config, load_model
from dstrain.models.loss import Seq2SeqLoss
from dstrain.run.hub import check_hub
from dstrain.run.info import list_versions
from dstrain.run.languages import find_untaught
from dstrain.run.prepare import Prepared
from dstrain.run_folder.claims import read_claims
from dstrain.run_folder.layout import RunFolder
from dstrain.training.state import Progress

SCHEDULE_KEYS = {"max_steps", "epochs", "schedule", "warmup_steps", "learning_rate"}
"""Keys of `training` that decide the learning rate of a step."""
MANY_EPOCHS = 20
"""Epochs from which on counting their steps may take long enough to be announced."""

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
    plan: Plan
    total_steps: int
    engine: Engine
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
    def first_progress(self) -> Progress:
        """Step and position at which training begins."""
        if self.resume is None:
            return Progress(0, Position(0, 0))
        state = self.resume.state
        position = Position(state.epoch, state.step_in_epoch)
        if position.step >= self.plan.num_steps(position.epoch):
            # the user has allowed other data or another batch size, and the epoch became shorter
            position = Position(position.epoch + 1, 0)
        return Progress(state.step, position)


def check_model(config: RunConfig, *, ranks: Ranks) -> None:
    """Check that the model can be trained as the recipe says, before any data are read; a collective call.

    Raises:
        UserError: the Hub has no such model or data, its family is not supported, it cannot tell target languages apart, the
            precision does not fit the device or the model, or a limit is over the model's positions.
    """
    check_device_precision(config)
    check_hub(config, ranks=ranks)
    scratch = config.model.scratch
    if scratch is not None:
        check_limits(config.task, positions=scratch.max_positions if scratch.architecture in FIXED_POSITIONS else None)
    if config.model.name is not None:
        model_config = load_config(config.model.name, revision=config.model.revision)
        check_precision(model_config, precision=config.precision, allow_fp16_t5=config.model.allow_fp16_t5)
        check_limits(config.task, positions=max_positions(model_config))
        if family_of(model_config) in NO_LANGUAGES:
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


def assemble(config: RunConfig, *, prepared: Prepared, attempt: Attempt, allow_changed: Iterable[str] = ()) -> Assembly:
    """Build the plan, the model and the engine, and load the newest checkpoint if there is one; a collective call.

    The fields in `allow_changed` may differ from those of the checkpoint.

    Raises:
        UserError: the checkpoint does not fit, the model cannot be loaded, or the disk has no room.
    """
    ranks = attempt.ranks
    recipe = config.model_dump(mode="json", include=set(RECIPE_KEYS))
    identity = RunIdentity(recipe_hash(config), recipe, list_versions(), attempt.number)
    resume = _agree_on_resume(
        config, attempt=attempt, identity=identity, prepared=prepared, allow_changed=allow_changed
    )
    attempt.set_base(resume.state.step if resume else 0)
    plan = _build_plan(config, prepared=prepared)
    _count_steps(plan, config=config, ranks=ranks, resume=resume)
    total_steps = plan.total_steps(epochs=config.training.epochs, max_steps=config.training.max_steps)
    warnings: list[str] = []
    model = load_model(config.model, tokenizer=prepared.tokenizer, seed=config.seed, report=warnings.append)
    _check_references(prepared, positions=max_positions(model.config))
    if ranks.rank == 0:
        _check_disk_space(config, model=model)
    if config.machine.activation_checkpointing:
        enable_activation_checkpointing(model)
    if config.machine.compile:
        compile_layers(model)
        log.info("layers are compiled during the first steps, which takes a minute or two")
    module = Seq2SeqLoss(model, label_smoothing=config.training.label_smoothing)
    if resume is not None:
        load_weights(resume.directory, module=module)
    engine = build_engine(config, module=module, ranks=ranks, total_steps=total_steps)
    if resume is not None:
        load_optimizer(resume.directory, engine=engine, state=resume.state)
        warnings += [f"resumed although this has changed: {change}" for change in resume.allowed]
        warnings += _changed_schedule_warnings(config, resume=resume, plan=plan, total_steps=total_steps)
    warnings += _data_warnings(config, prepared=prepared)
    warnings += _schedule_warnings(config, total_steps=total_steps)
    if ranks.device.type == "cuda" and config.precision == "fp32":
        log.info("precision is fp32: on this GPU bf16 would be several times as fast")
    warnings += _machine_warnings(config, engine=engine, plan=plan, world_size=ranks.world_size)
    return Assembly(config, attempt, prepared, identity, resume, plan, total_steps, engine, warnings)


def _agree_on_resume(
    config: RunConfig, *, attempt: Attempt, identity: RunIdentity, prepared: Prepared, allow_changed: Iterable[str]
) -> Resume | None:
    found = None
    if attempt.ranks.rank == 0:
        found = find_resume(
            RunFolder(Path(config.run_dir)).checkpoints,
            inputs=TrainingInputs(identity.recipe, prepared.fingerprints, _data_sources(config), asdict(_cut(config))),
            claims=read_claims(Path(config.run_dir)),
            allowed=allow_changed,
        )
    resume: Resume | None = attempt.ranks.broadcast(found)
    if resume is not None:
        ranks = "1 rank" if resume.world_size == 1 else f"{resume.world_size} ranks"
        log.info("resuming from %s (saved by %s)", resume.directory, ranks)
    return resume


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


def _build_plan(config: RunConfig, *, prepared: Prepared) -> Plan:
    return Plan(
        prepared.train.source_lengths,
        prepared.train.target_lengths,
        fingerprint=prepared.train.fingerprint,
        seed=config.seed,
        batch_size=config.training.batch_size,
        batch_unit=config.training.batch_unit,
        cut=_cut(config),
    )


def _count_steps(plan: Plan, *, config: RunConfig, ranks: Ranks, resume: Resume | None) -> None:
    """Count the steps of the epochs whose number must be known before training. Ranks share the work: it reads all lengths."""
    if config.training.batch_unit == "sequences":  # every epoch has as many steps
        return
    epochs = set(range(math.ceil(config.training.epochs or 0))) | {0, resume.state.epoch if resume else 0}
    if len(epochs) > MANY_EPOCHS:
        log.info(
            "counting the steps of %d epochs in target tokens, which reads the lengths of all rows each time",
            len(epochs),
        )
    plan.count_together(
        sorted(epochs),
        rank=ranks.rank,
        world_size=ranks.world_size,
        exchange=lambda mine: ranks.broadcast(ranks.gather(mine)),
    )


def _check_disk_space(config: RunConfig, *, model: PreTrainedModel) -> None:
    folder, keep_last = RunFolder(Path(config.run_dir)), config.checkpoint.keep_last
    try:
        folder.checkpoints.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder.checkpoints} cannot hold checkpoints ({error.strerror}): move it away") from error
    needed = plan_disk_space(
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
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


def _changed_schedule_warnings(config: RunConfig, *, resume: Resume, plan: Plan, total_steps: int) -> list[str]:
    """How the learning rate jumps where a run resumes with another schedule."""
    old = {change.field.removeprefix("training."): change.old for change in resume.allowed}
    if not old.keys() & SCHEDULE_KEYS:
        return []
    before = config.training.model_copy(update={key: old[key] for key in old.keys() & SCHEDULE_KEYS})
    step = resume.state.step + 1
    now = learning_rate_at(step, training=config.training, total_steps=total_steps)
    warning = f"the learning rate follows the changed schedule from step {step} on, which begins at {now:g}"
    if before.max_steps is None and (config.training.batch_unit != "sequences" or "batch_size" in old):
        return [warning]  # the steps of the old epochs would have to be counted again
    old_total = plan.total_steps(epochs=before.epochs, max_steps=before.max_steps)
    then = learning_rate_at(step, training=before, total_steps=old_total)
    return [] if then == now else [f"{warning}; by the schedule so far it would be {then:g}"]


def _machine_warnings(config: RunConfig, *, engine: Engine, plan: Plan, world_size: int) -> list[str]:
    warnings = []
    if engine.zero_stage != config.machine.zero_stage:
        warnings.append(
            f"machine.zero_stage 0 runs as stage 1 with {config.precision}, because DeepSpeed's stage 0 hides skipped steps"
        )
    num_micro_batches = len(plan.step(Position(0, 0)).micro_batches)
    if num_micro_batches < world_size:
        warnings.append(
            f"the first step is cut into {num_micro_batches} micro-batches for {world_size} ranks: some ranks are idle. "
            f"Set machine.min_micro_batches={world_size}, in a new run: a run cuts all of its steps in the same way"
        )
    return warnings
