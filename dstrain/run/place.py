"""Where a run begins in the data. A place that was counted in other steps is converted into the rows that its epoch has left."""

from collections.abc import Sequence
from dataclasses import dataclass

from dstrain.checkpoint.changes import Part
from dstrain.checkpoint.manifest import CheckpointError
from dstrain.checkpoint.resume import Resume
from dstrain.checkpoint.state import EpochPart, read_epoch_part
from dstrain.config.schema import RunConfig
from dstrain.data.arrays import Lengths
from dstrain.data.cuts import Cut
from dstrain.data.mixture import Mixture
from dstrain.data.plan import FIRST, Plan, Position, Rest


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """What a plan is made from, besides the recipe."""

    source_lengths: Lengths
    target_lengths: Lengths
    fingerprint: str
    cut: Cut
    mixture: Mixture | None = None


@dataclass(frozen=True)
class Place:
    """Where a run begins: the plan of its steps, and the first of them."""

    plan: Plan
    position: Position = FIRST
    epoch_parts: tuple[EpochPart, ...] = ()
    """What of the epoch was trained otherwise before; part of the state of the run while it is in that epoch."""
    said: tuple[str, ...] = ()
    """What was converted or reset, in sentences."""


def find_place(config: RunConfig, *, rows: TrainingRows, resume: Resume | None) -> Place:
    """The place after the last step of the checkpoint, or the beginning of a new run.

    Raises:
        CheckpointError: the checkpoint is of a place that its epoch does not have.
    """
    if resume is None:
        return Place(_build_plan(config, rows=rows))
    state, said = resume.state, list[str]()
    position, parts = Position(state.epoch, state.step_in_epoch), state.epoch_parts
    if Part.ROWS in resume.parts:
        position, parts = Position(state.epoch, 0), ()
        said.append(f"the training rows are others: epoch {state.epoch + 1} begins again, with its first row")
    elif Part.PLACE in resume.parts and state.step_in_epoch:
        position, parts = Position(state.epoch, 0), (*parts, _trained(config, resume=resume))
    plan = _build_plan(config, rows=rows, rest=_find_rest(config, rows=rows, epoch=state.epoch, parts=parts))
    if plan.rest is not None and not len(plan.rest.rows):
        raise CheckpointError(f"{resume.directory}: its place lies behind the end of epoch {state.epoch + 1}")
    if Part.PLACE in resume.parts and plan.rest is not None:
        left = len(plan.rest.rows)
        said.append(
            f"the place in the data is kept in rows: {plan.num_rows - left:,} of {plan.num_rows:,} rows of epoch "
            f"{state.epoch + 1} are trained; the {left:,} left come next, in the order of that epoch, each once"
        )
    return Place(plan, position, parts, tuple(said))


def _trained(config: RunConfig, *, resume: Resume) -> EpochPart:
    """The steps of the present epoch up to the checkpoint, as the recipe was then."""
    training = config.training
    values = {
        "seed": resume.before("seed", now=config.seed),
        "batch_size": resume.before("training.batch_size", now=training.batch_size),
        "batch_unit": resume.before("training.batch_unit", now=training.batch_unit),
        "num_steps": resume.state.step_in_epoch,
    }
    return read_epoch_part(values, directory=resume.directory)


def _find_rest(config: RunConfig, *, rows: TrainingRows, epoch: int, parts: Sequence[EpochPart]) -> Rest | None:
    """The rows that an epoch has left after these parts of it; None if it was begun by the present plan."""
    rest = None
    for part in parts:
        values = {"batch_size": part.batch_size, "batch_unit": part.batch_unit}
        update = {"seed": part.seed, "training": config.training.model_copy(update=values)}
        plan = _build_plan(config.model_copy(update=update), rows=rows, rest=rest)
        rest = Rest(epoch, plan.rows_from(Position(epoch, part.num_steps)))
    return rest


def _build_plan(config: RunConfig, *, rows: TrainingRows, rest: Rest | None = None) -> Plan:
    return Plan(
        rows.source_lengths,
        rows.target_lengths,
        fingerprint=rows.fingerprint,
        seed=config.seed,
        batch_size=config.training.batch_size,
        batch_unit=config.training.batch_unit,
        cut=rows.cut,
        mixture=rows.mixture,
        rest=rest,
    )
