"""The plan of a drill: the shortened recipe and the scenarios to run with it. Pure; starts nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from dstrain.attempt.rank_records import Drill
from dstrain.config.schema import RunConfig
from dstrain.errors import UserError

MIN_STEPS = 6
"""Enough for three checkpoints, so that one is pruned."""
SAVE_EVERY = 2
KEEP_LAST = 2
MAX_EVAL_ROWS = 32
GIGABYTES_PER_100_MILLION = 5.2
"""With Adam, a checkpoint takes 12 bytes per parameter: two are kept and a third is being written. A model takes 4 bytes per
parameter: the weights of the best checkpoint, and three exports, of which one is being written."""


@dataclass(frozen=True, slots=True)
class RankLaunch:
    """One attempt at the run on `num_ranks` ranks. It runs to the end unless it is killed or gets SIGTERM."""

    num_ranks: int
    drill: Drill | None = None
    """Where the ranks are killed; None for no kill."""
    sigterm_after: int | None = None
    """All ranks get SIGTERM once this step is in metrics.jsonl."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A row of the table: successive launches in one run folder. The last one runs to the end."""

    name: str
    title: str
    launches: tuple[RankLaunch, ...]
    kept_step: int = 0
    """The last launch must resume from this step or a later one, because this step was saved before."""

    @property
    def folder(self) -> str:
        """Name of the run folder inside the drill folder."""
        return f"killed-{self.name}" if any(launch.drill for launch in self.launches) else self.name

    @property
    def changes_ranks(self) -> bool:
        return len({launch.num_ranks for launch in self.launches}) > 1


STRAIGHT, CONTROL = "straight", "control"
"""Names of the uninterrupted run that all others are compared with, and of its repetition, which measures the noise."""


def shorten(config: RunConfig, *, steps: int, folder: Path) -> RunConfig:
    """The same recipe (model, data, precision, machine) for a few steps in `folder`, with frequent saves and evaluations."""
    values = config.model_dump()
    training, evaluation = values["training"], values["evaluation"]
    values |= {"name": f"{config.name}-drill", "output_dir": str(folder)}
    training |= {
        "epochs": None,
        "max_steps": steps,
        "warmup_steps": min(training["warmup_steps"], steps // 4),
        "early_stopping": None,
    }
    evaluation |= {
        "every_steps": evaluate_every(steps),
        "every_epochs": None,
        "max_rows": min(evaluation["max_rows"] or MAX_EVAL_ROWS, MAX_EVAL_ROWS),
    }
    values["checkpoint"] |= {"every_steps": SAVE_EVERY, "every_minutes": 0, "keep_last": KEEP_LAST}
    values["logging"] |= {"every_steps": 1, "trackers": {}}
    return RunConfig.model_validate(values)


def evaluate_every(steps: int) -> int:
    """Steps between evaluations, so that a drill has three of them."""
    return ceil(steps / 3)


def plan_scenarios(*, num_ranks: int, steps: int, has_rehearsal: bool, only: Sequence[str] = ()) -> list[Scenario]:
    """The straight run, which is always included, and the scenarios compared with it. `only` names those to keep.

    Raises:
        UserError: `only` has an unknown name.
    """
    scenarios = [
        Scenario(STRAIGHT, "straight run", (RankLaunch(num_ranks),)),
        Scenario(CONTROL, "control: straight again", (RankLaunch(num_ranks),)),
        *_killed_scenarios(num_ranks, steps=steps, has_rehearsal=has_rehearsal),
        *_other_scenarios(num_ranks, steps=steps),
    ]
    names = [scenario.name for scenario in scenarios]
    unknown = [name for name in only if name not in names]
    if unknown:
        raise UserError(
            f"--scenarios: unknown on {num_ranks} rank{'s' if num_ranks > 1 else ''}: {', '.join(unknown)}; choose from "
            f"{', '.join(names)}"
        )
    return [scenario for scenario in scenarios if not only or scenario.name in (STRAIGHT, *only)]


def _killed_scenarios(num_ranks: int, *, steps: int, has_rehearsal: bool) -> list[Scenario]:
    saves, middle, last = _earliest_saves(steps), _middle(steps), num_ranks - 1
    second_evaluation = 2 * evaluate_every(steps)
    # inside the second save, with or without optimizer state: rank 0 writes one file more, the run's state
    half_written = 4 if last == 0 else 3
    killed = {
        "step": ("between steps", _between_steps(middle), _surely_saved(middle)),
        "evaluation": (
            "at an evaluation",
            Drill("evaluation", 2 + has_rehearsal, last),
            _surely_saved(second_evaluation - 1),
        ),
        "part": ("with a file half written", Drill("part half written", half_written, last), saves[0]),
        "manifest": ("before the manifest", Drill("manifest", 3, 0), saves[1]),
        "rename": ("before the rename", Drill("rename", 3, 0), saves[1]),
        "renamed": ("after the rename", Drill("renamed", 3, 0), saves[2]),
        "prune": ("while pruning", Drill("prune", 1, 0), saves[2]),
        "finish": ("at the very end", Drill("finish", 1), steps),
    }
    return [
        Scenario(name, f"killed {title}", (RankLaunch(num_ranks, drill), RankLaunch(num_ranks)), kept)
        for name, (title, drill, kept) in killed.items()
    ]


def _other_scenarios(num_ranks: int, *, steps: int) -> list[Scenario]:
    # just before an evaluation, which takes long enough for the signal to arrive before a fast run ends
    signalled = evaluate_every(steps) - 1
    launches = (RankLaunch(num_ranks, sigterm_after=signalled), RankLaunch(num_ranks))
    scenarios = [Scenario("sigterm", "stopped by SIGTERM", launches, signalled)]
    if num_ranks > 1:
        middle, fewer = _middle(steps), num_ranks // 2
        launches = (RankLaunch(num_ranks, _between_steps(middle)), RankLaunch(fewer))
        title = f"killed, resumed on {fewer} rank{'s' if fewer > 1 else ''}"
        scenarios.append(Scenario("fewer-ranks", title, launches, _surely_saved(middle)))
    return scenarios


def _middle(steps: int) -> int:
    """An odd step near the middle: not a save step, so work is lost."""
    return steps // 2 | 1


def _between_steps(step: int) -> Drill:
    return Drill("step", step + 1)  # the phase is entered once before the first step


def _earliest_saves(steps: int) -> list[int]:
    """Every step that may be saved, in order; save number n is at the n-th of these or later.

    Evaluations are among them, because a checkpoint is also saved after an evaluation that is the best so far.
    """
    every = evaluate_every(steps)
    return sorted({*range(SAVE_EVERY, steps + 1, SAVE_EVERY), *range(every, steps + 1, every), steps})


def _surely_saved(step: int) -> int:
    """Step of the newest checkpoint that is certainly complete after `step`; 0 for none.

    The save before `step` may still be running, so this is the one before that.
    """
    return max(0, step - step % SAVE_EVERY - SAVE_EVERY)


def drill_value(drill: Drill) -> str:
    """The value of DSTRAIN_DRILL that requests this drill."""
    rank = "" if drill.rank is None else f":rank={drill.rank}"
    return f"kill:{drill.phase}:{drill.occurrence}{rank}"


def announce(scenarios: Sequence[Scenario], *, config: RunConfig, steps: int, folder: Path, free_bytes: int) -> str:
    """A summary for the user: what will run and how much disk it needs."""
    num_ranks = scenarios[0].launches[0].num_ranks
    num_launches = sum(len(scenario.launches) for scenario in scenarios)
    return (
        f"drill of {config.name}: {steps} steps on {num_ranks} rank{'s' if num_ranks > 1 else ''}, {len(scenarios)} "
        f"scenarios, {num_launches} launches; each scenario must reach the result of the straight run.\n{folder} holds the "
        "checkpoints and models of one scenario at a time, and one model of the straight run: about "
        f"{GIGABYTES_PER_100_MILLION:g} GB per 100 million parameters, plus what failed scenarios leave; "
        f"{free_bytes / 1e9:,.1f} GB are free."
    )
