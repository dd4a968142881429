"""What a drill does: the recipe made short, and the life stories that it goes through. Pure; starts nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from dstrain.attempt.rank_records import Drill
from dstrain.config.schema import RunConfig
from dstrain.errors import UserError

MIN_STEPS = 6
"""Three checkpoints, so that one is pruned."""
SAVE_EVERY = 2
KEEP_LAST = 2
MAX_EVAL_ROWS = 32
GIGABYTES_PER_100_MILLION = 5.2
"""Three checkpoints of 12 bytes a parameter with Adam (two kept, one being written), the best one's weights, and three
models, one of them being written; 4 bytes a weight."""


@dataclass(frozen=True, slots=True)
class Life:
    """One start of the run, on `num_ranks` ranks: to its end, or until it is killed or told to stop."""

    num_ranks: int
    drill: Drill | None = None
    """Where it is killed."""
    sigterm_after: int | None = None
    """All ranks get SIGTERM once this step is in metrics.jsonl."""


@dataclass(frozen=True, slots=True)
class Story:
    """A row of the table: lives of one run folder, the last one to the end of the run."""

    name: str
    title: str
    lives: tuple[Life, ...]
    kept_step: int = 0
    """The last life must go on from this step or a later one: by then it was saved."""

    @property
    def folder(self) -> str:
        """Name of the run folder inside the drill folder."""
        return f"killed-{self.name}" if any(life.drill for life in self.lives) else self.name

    @property
    def changes_ranks(self) -> bool:
        return len({life.num_ranks for life in self.lives}) > 1


STRAIGHT, CONTROL = "straight", "control"


def shorten(config: RunConfig, *, steps: int, folder: Path) -> RunConfig:
    """The recipe as it is (model, data, precision, machine) for a few steps in `folder`, with everything happening soon."""
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
    values["checkpoint"] |= {"every_steps": SAVE_EVERY, "keep_last": KEEP_LAST}
    values["logging"] |= {"every_steps": 1}
    return RunConfig.model_validate(values)


def evaluate_every(steps: int) -> int:
    """Steps between the evaluations of a drill: three of them."""
    return ceil(steps / 3)


def plan_stories(*, num_ranks: int, steps: int, has_rehearsal: bool, only: Sequence[str] = ()) -> list[Story]:
    """The straight run, which is always told, and the stories compared with it; `only` names those wanted.

    Raises:
        UserError: a name that there is no story of.
    """
    stories = [
        Story(STRAIGHT, "straight run", (Life(num_ranks),)),
        Story(CONTROL, "control: straight again", (Life(num_ranks),)),
        *_killed_stories(num_ranks, steps=steps, has_rehearsal=has_rehearsal),
        *_other_stories(num_ranks, steps=steps),
    ]
    names = [story.name for story in stories]
    unknown = [name for name in only if name not in names]
    if unknown:
        raise UserError(f"no story is called {', '.join(unknown)} on {num_ranks} ranks: there are {', '.join(names)}")
    return [story for story in stories if not only or story.name in (STRAIGHT, *only)]


def _killed_stories(num_ranks: int, *, steps: int, has_rehearsal: bool) -> list[Story]:
    saves, middle, last = _earliest_saves(steps), _middle(steps), num_ranks - 1
    second_evaluation = 2 * evaluate_every(steps)
    # of the second save, with or without optimizer state to write: rank 0 writes a file more, with the run's state
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
        Story(name, f"killed {title}", (Life(num_ranks, drill), Life(num_ranks)), kept)
        for name, (title, drill, kept) in killed.items()
    ]


def _other_stories(num_ranks: int, *, steps: int) -> list[Story]:
    # just before an evaluation, whose time lets the signal arrive before a fast run is over
    told = evaluate_every(steps) - 1
    lives = (Life(num_ranks, sigterm_after=told), Life(num_ranks))
    stories = [Story("sigterm", "stopped by SIGTERM", lives, told)]
    if num_ranks > 1:
        middle, fewer = _middle(steps), num_ranks // 2
        lives = (Life(num_ranks, _between_steps(middle)), Life(fewer))
        title = f"killed, continued on {fewer} rank{'s' if fewer > 1 else ''}"
        stories.append(Story("fewer-ranks", title, lives, _surely_saved(middle)))
    return stories


def _middle(steps: int) -> int:
    """An odd step, so that the newest checkpoint is older."""
    return steps // 2 | 1


def _between_steps(step: int) -> Drill:
    return Drill("step", step + 1)  # the phase is entered once before the first step


def _earliest_saves(steps: int) -> list[int]:
    """A step for each save, which it has at least: an evaluation that is the best so far is saved as well."""
    every = evaluate_every(steps)
    return sorted({*range(SAVE_EVERY, steps + 1, SAVE_EVERY), *range(every, steps + 1, every), steps})


def _surely_saved(step: int) -> int:
    """The newest checkpoint that is complete after `step`, if the save after it may still be under way; 0 for none."""
    return max(0, step - step % SAVE_EVERY - SAVE_EVERY)


def drill_value(drill: Drill) -> str:
    """What DSTRAIN_DRILL must be for a drill."""
    rank = "" if drill.rank is None else f":rank={drill.rank}"
    return f"kill:{drill.phase}:{drill.occurrence}{rank}"


def announce(stories: Sequence[Story], *, config: RunConfig, steps: int, folder: Path, free_bytes: int) -> str:
    """What will be done and what it needs, in a few sentences."""
    num_ranks, starts = stories[0].lives[0].num_ranks, sum(len(story.lives) for story in stories)
    return (
        f"drill of {config.name}: {steps} steps on {num_ranks} rank{'s' if num_ranks > 1 else ''}, {len(stories)} "
        f"stories, {starts} starts; each story must end as the straight run does.\nAt most one story's checkpoints and "
        f"models lie in {folder} at a time, about {GIGABYTES_PER_100_MILLION:g} GB for every 100 million parameters of "
        f"the model and a model of the straight run besides; what is not ok stays. {free_bytes / 1e9:,.1f} GB are free."
    )
