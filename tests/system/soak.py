"""Kills a run of a real recipe at random moments, for half an hour, and measures what each kill costs.

`python -m tests.system.soak` (or `make soak`). Every step is logged, so that the steps that a start repeats can be compared with
those of the start before it. test_kills.py does the same with a tiny run, and compares its end with an undisturbed run's.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from dstrain.attempt.rank_records import ranks_dir, read_rank_records
from dstrain.config.load import load_config
from dstrain.config.schema import RunConfig
from tests.system.torture import SURVIVOR_CODES, assert_nothing_lost, launch, printed

CONFIG = "configs/demo_translation.yaml"
OVERRIDES = ("training.max_steps=1000000", "evaluation.every_steps=500", "logging.every_steps=1")
"""A run that does not end, evaluated as rarely as the larger recipes are, so that most saves come by time."""
POLL_SECONDS = 0.01
START_SECONDS = 1200.0
"""Longest time of a start beyond the life that it is given."""


@dataclass(frozen=True)
class Moment:
    """When ranks are killed: `seconds` after a start has done `steps` steps; one rank, or all if it is None."""

    steps: int
    seconds: float
    rank: int | None = None


@dataclass(frozen=True)
class Cost:
    """What a kill cost: the steps since the newest checkpoint, and the time since the step that it holds was done."""

    steps: int
    seconds: float


@dataclass
class Life:
    """Watches a start by its rank records until the moment of its kill."""

    config: RunConfig
    moment: Moment
    seen: list[tuple[float, int]] = field(default_factory=list)
    """Seconds and steps done, as rank 0 recorded them; the first is where this start began to train."""
    killed: float | None = None

    def begin(self, pids: Sequence[int]) -> None:
        """Watch the ranks of these process ids, in a thread."""
        threading.Thread(target=self._watch, args=(pids,), daemon=True).start()

    def cost(self, *, saved_step: int) -> Cost:
        """What the kill cost if the newest checkpoint is of `saved_step`."""
        assert self.killed is not None
        since = next((seconds for seconds, step in self.seen if step >= saved_step), self.killed)
        return Cost(max(0, self.seen[-1][1] - saved_step), max(0.0, self.killed - since))

    def _watch(self, pids: Sequence[int]) -> None:
        kill_at: float | None = None
        while kill_at is None or time.monotonic() < kill_at:
            self._look(pids)
            if kill_at is None and self.seen and self.seen[-1][1] >= self.seen[0][1] + self.moment.steps:
                kill_at = time.monotonic() + self.moment.seconds
            time.sleep(POLL_SECONDS)
        for rank, pid in enumerate(pids):
            if self.moment.rank in (None, rank):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.killed = time.monotonic()

    def _look(self, pids: Sequence[int]) -> None:
        for record in read_rank_records(ranks_dir(Path(self.config.run_dir)), ranks=[0]):
            if record.pid == pids[0] and record.step is not None and (not self.seen or record.step > self.seen[-1][1]):
                self.seen.append((time.monotonic(), record.step))


def soak(
    config: RunConfig, moments: Iterable[Moment], *, say: Callable[[Cost], None] = lambda cost: None
) -> list[Cost]:
    """Start the run again and again and kill it at each of `moments`; what each kill cost."""
    costs: list[Cost] = []
    newest = -1
    for moment in moments:
        life = Life(config, moment)
        codes = launch(config, meanwhile=life.begin, seconds=moment.seconds + START_SECONDS)
        assert -signal.SIGKILL in codes, f"it ended before it was killed: {codes}\n{printed(config)}"
        assert {code for code in codes if code != -signal.SIGKILL} <= SURVIVOR_CODES, (moment, codes, printed(config))
        newest = assert_nothing_lost(config, at_least=newest)
        costs.append(life.cost(saved_step=max(0, newest)))
        say(costs[-1])
    return costs


def compare_replays(metrics: Path) -> tuple[int, list[int]]:
    """How many steps of metrics.jsonl were done more than once, and those whose loss or gradient norm was not the same."""
    values: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for line in metrics.read_bytes().splitlines():
        with suppress(ValueError):  # a line torn by a kill
            row = json.loads(line)
            if row["kind"] == "train":
                values[row["step"]].append((row["loss"], row["grad_norm"]))
    repeated = {step: found for step, found in values.items() if len(found) > 1}
    return len(repeated), sorted(step for step, found in repeated.items() if len(set(found)) > 1)


def random_moments(source: random.Random, *, longest_seconds: float, until: float) -> Iterable[Moment]:
    """Moments up to `longest_seconds` after the first step of a start, while the clock is before `until`."""
    while time.monotonic() < until:
        yield Moment(1, source.uniform(0.0, longest_seconds), source.choice([None, 0, 1]))


def describe(config: RunConfig, *, costs: Sequence[Cost], minutes: float) -> dict[str, Any]:
    """The result as JSON values."""
    num_replayed, differing = compare_replays(Path(config.run_dir) / "metrics.jsonl")
    return {
        "recipe": config.name,
        "minutes": round(minutes, 1),
        "save_every_minutes": config.checkpoint.every_minutes,
        "kills": len(costs),
        "lost_seconds": [round(cost.seconds, 1) for cost in costs],
        "median_lost_seconds": round(median(cost.seconds for cost in costs), 1),
        "largest_lost_seconds": round(max(cost.seconds for cost in costs), 1),
        "median_lost_steps": median(cost.steps for cost in costs),
        "largest_lost_steps": max(cost.steps for cost in costs),
        "replayed_steps": num_replayed,
        "differing_steps": differing,
    }


def main(argv: Sequence[str] | None = None, *, say: Callable[[str], None] = print) -> int:
    """Kill for the given time; print JSON and one line. The exit code is 1 if a repeated step was not bit-equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default=CONFIG)
    parser.add_argument("--minutes", type=float, default=30.0, help="no start begins after this time")
    parser.add_argument(
        "--longest", type=float, default=6.0, help="most minutes that a start trains before it is killed"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("overrides", nargs="*", help="dotted keys of the recipe")
    options = parser.parse_args(argv)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        own = (f"output_dir={name}/run", "logging.tensorboard=false", "machine.device=cpu")
        config = load_config(options.config, overrides=[*OVERRIDES, *options.overrides, *own])
        moments = random_moments(
            random.Random(options.seed), longest_seconds=60 * options.longest, until=started + 60 * options.minutes
        )
        costs = soak(config, moments, say=lambda cost: say(f"lost {cost.steps} steps, {cost.seconds:.1f} s"))
        result = describe(config, costs=costs, minutes=(time.monotonic() - started) / 60)
    say(json.dumps(result))
    equal = "bit-equal" if not result["differing_steps"] else f"NOT EQUAL at {result['differing_steps']}"
    say(
        f"{result['kills']} kills in {result['minutes']:g} min: lost {result['median_lost_seconds']:g} s each (median), "
        f"{result['largest_lost_seconds']:g} s at most; {result['replayed_steps']} steps repeated, {equal}"
    )
    return 1 if result["differing_steps"] else 0


if __name__ == "__main__":
    sys.exit(main())
