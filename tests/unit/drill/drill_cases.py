"""Scenarios, their exits and their rows, as the tests of the drill share them."""

from collections.abc import Sequence

from dstrain.attempt.rank_records import Drill
from dstrain.config.load import load_config
from dstrain.config.schema import RunConfig
from dstrain.drill.compare import (
    Difference,
    Exit,
    FinishedRun,
)
from dstrain.drill.scenarios import (
    RankLaunch,
    Scenario,
    plan_scenarios,
)
from dstrain.run_folder.record import RunInfo, build_record
from dstrain.run_folder.rows import EvalRow, EventRow, Row, TrainRow

STEPS = 12
CONFIG = load_config("debug")
KILLED = Scenario(
    "manifest", "killed before the manifest", (RankLaunch(2, Drill("manifest", 3, 0)), RankLaunch(2)), kept_step=4
)
STOPPED = Scenario("sigterm", "stopped by SIGTERM", (RankLaunch(2, sigterm_after=3), RankLaunch(2)), kept_step=3)
FEWER = Scenario(
    "fewer-ranks", "killed, resumed on 1 rank", (RankLaunch(2, Drill("step", 8)), RankLaunch(1)), kept_step=4
)
STRAIGHT = Scenario("straight", "straight run", (RankLaunch(2),))
CONTROL = Scenario("control", "control: straight again", (RankLaunch(2),))
EXITS = {
    "manifest": (Exit((-9, 85), stopped_in="manifest, step 6"), Exit((0, 0))),
    "sigterm": (Exit((85, 85), stopped_in="step 4"), Exit((0, 0))),
    "fewer-ranks": (Exit((-9, -9), stopped_in="step, step 7"), Exit((0,))),
    "straight": (Exit((0, 0)),),
    "control": (Exit((0, 0)),),
}
SAME = Difference(losses=0.0, scores=0.0, same_weights=True)


def plan(num_ranks: int = 2, *, steps: int = STEPS, only: Sequence[str] = ()) -> dict[str, Scenario]:
    scenarios = plan_scenarios(num_ranks=num_ranks, steps=steps, has_rehearsal=True, only=only)
    return {scenario.name: scenario for scenario in scenarios}


def rows_of(*, change: float = 0.0, resumed_at: int = 0, steps: int = STEPS) -> list[Row]:
    """Rows of a run that was killed and resumed at `resumed_at`; `change` is added to the losses after it."""
    rows: list[Row] = [EventRow("start", 0)]
    rows += [TrainRow(step, 0.1, 5.0 / step) for step in range(1, resumed_at + 1)]
    if resumed_at:
        rows.append(EventRow("resume", resumed_at))
    for step in range(resumed_at + 1, steps + 1):
        rows.append(TrainRow(step, 0.1, 5.0 / step + change))
    scores = {"loss": 4.0, "bleu": 1.5, "gen_len": 9.0}
    rows += [EvalRow(step=step, epoch=0.1, scores=scores, train_loss=4.5) for step in (4, 8, 12)]
    return [*rows, EventRow("finish", steps)]


def finished_run(rows: Sequence[Row], *, weights: str = "a", config: RunConfig = CONFIG) -> FinishedRun:
    return FinishedRun(build_record(config, info=RunInfo(), rows=rows), weights)
