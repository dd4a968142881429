"""How fast a run trains, evaluates and starts: by a short run of the recipe, by earlier runs, or by a published peak. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from dstrain.forecast.architecture import Architecture
from dstrain.forecast.durations import (
    SET_UP_SECONDS,
    Range,
    estimate_evaluation,
    estimate_step,
    evaluation_operations,
    exactly,
    step_operations,
)
from dstrain.forecast.request import Machines
from dstrain.forecast.workload import Batch, Workload

WARM_UP_STEPS = 2
"""First steps of a measurement that do not count."""
MEASURED = Range(0.87, 1.0, 1.2)
"""How far a run may be from what its first steps foretell, in both directions."""
EARLIER = Range(0.75, 1.0, 1.4)
"""The same of what other runs foretell."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of one step, one evaluation, and of all that a start and an end take besides."""

    step: Range
    evaluation: Range
    around: Range
    origin: str


@dataclass(frozen=True, slots=True)
class Trial:
    """What a short run of the recipe took."""

    step_seconds: tuple[float, ...]
    """Of each step."""
    step_positions: tuple[int, ...]
    """Positions of each step, padding included, both sides together."""
    evaluation_seconds: float
    evaluation_rows: int
    mean_length: float | None
    """Tokens of a hypothesis on average: those of an untrained model are longer, or shorter, than the references."""
    around_seconds: float
    """From the start of the processes to their end, without steps and evaluation."""
    num_ranks: int


def pace_of_trial(trial: Trial, *, architecture: Architecture | None, workload: Workload, num_beams: int) -> Pace:
    """The pace of the whole run, from its first steps: seconds grow with positions, those of an evaluation with operations."""
    seconds, positions = trial.step_seconds[WARM_UP_STEPS:], trial.step_positions[WARM_UP_STEPS:]
    # the median of the rates, because a step may be slow for once
    rate = median(took / count for took, count in zip(seconds, positions, strict=True))
    mean = sum(_positions(step) for step in workload.steps) / len(workload.steps)
    evaluation = trial.evaluation_seconds * workload.searches.num_rows / max(1, trial.evaluation_rows)
    if architecture is not None and trial.mean_length is not None:
        # the run will write hypotheses as long as the references
        done = evaluation_operations(architecture, workload, num_beams=num_beams, length=trial.mean_length)
        evaluation *= evaluation_operations(architecture, workload, num_beams=num_beams) / done
    return Pace(
        step=MEASURED.times(rate * mean),
        evaluation=MEASURED.times(evaluation),
        around=MEASURED.times(trial.around_seconds),
        origin=f"{len(seconds)} steps measured on this machine with {trial.num_ranks} rank(s)",
    )


@dataclass(frozen=True, slots=True)
class Rates:
    """What an earlier run reached, by rank."""

    run: str
    step_rate: float
    """Operations a second in training."""
    evaluation_rate: float | None
    """Operations a second in evaluations; None if it had none."""


def pace_of_rates(
    rates: Sequence[Rates], *, architecture: Architecture, workload: Workload, world_size: int, num_beams: int
) -> Pace:
    """The pace of a run that reaches what earlier runs have reached."""
    operations = step_operations(architecture, workload.steps)
    # a rank without a micro-batch does not make a step shorter
    step = exactly(operations / min(world_size, workload.micro_batches)).over(
        _spread([each.step_rate for each in rates])
    )
    searched = [each.evaluation_rate for each in rates if each.evaluation_rate is not None]
    evaluation = exactly(0.0)
    if searched:
        operations = evaluation_operations(architecture, workload, num_beams=num_beams)
        evaluation = exactly(operations / world_size).over(_spread(searched))
    names = ", ".join(each.run for each in rates[:3]) + (", …" if len(rates) > 3 else "")
    return Pace(step, evaluation, SET_UP_SECONDS, f"earlier runs on such hardware: {names}")


def pace_of_peak(
    architecture: Architecture,
    workload: Workload,
    *,
    machines: Machines,
    precision: str,
    stage: int,
    num_trained: int,
    recomputes: bool,
    num_beams: int,
) -> Pace:
    """The pace by published peaks and counted kernels: an estimate, with a wide range."""
    where = "a CPU's usual rate" if machines.gpu is None else f"the peak of {machines.gpu.name}"
    return Pace(
        step=estimate_step(
            architecture,
            workload,
            machines=machines,
            precision=precision,
            stage=stage,
            num_trained=num_trained,
            recomputes=recomputes,
        ),
        evaluation=estimate_evaluation(
            architecture, workload, machines=machines, precision=precision, num_beams=num_beams
        ),
        around=SET_UP_SECONDS,
        origin=f"an estimate from {where}; `--measure 12` on such a machine, or `--like RUN`, makes it narrower",
    )


def _spread(rates: Sequence[float]) -> Range:
    return Range(min(rates) * EARLIER.low, median(rates), max(rates) * EARLIER.high)


def _positions(step: Sequence[Batch]) -> int:
    return sum(batch.num_rows * (batch.source + batch.target) for batch in step)
