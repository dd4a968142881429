"""Kills a two-rank run repeatedly, at chosen stages or at random times, and compares its result with a straight run.

`python -m tests.system.torture` (or `make torture`) kills 120 times; test_kills.py hits every stage once.
"""

import argparse
import hashlib
import logging
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dstrain.attempt.rank_records import DRILL_VARIABLE, TRACKS, ranks_dir, read_rank_records
from dstrain.checkpoint.manifest import verify_checkpoint
from dstrain.checkpoint.store import checkpoint_dirs, newest_valid, parse_checkpoint_name
from dstrain.cluster.environment import ProcessInfo
from dstrain.cluster.exit_codes import EXIT_PREEMPTED
from dstrain.config.load import dump_config
from dstrain.config.schema import RunConfig
from dstrain.run_folder.claims import read_claims
from dstrain.run_folder.record import load_record
from tests.distributed.ranks import RANK_SECONDS, end_ranks
from tests.system.faults import inject_fault
from tests.system.runs import build_run

STAGES = tuple(phase for phases in TRACKS.values() for phase in phases if phase not in ("idle", "search"))
"""Every phase of a healthy run that a kill can hit."""

IN_ORDER = {
    "set-up": 1,
    "evaluation": 1,
    "step": 2,
    "wait for save": 1,
    "snapshot": 1,
    "begin": 1,
    "write part": 2,
    "part half written": 1,
    "part written": 2,
    "manifest": 1,
    "rename": 1,
    "renamed": 1,
    "export": 1,
    "prune": 1,
    "finish": 1,
}
"""Stage to the occurrence that is killed."""
ONLY_RANK_0 = ("manifest", "rename", "renamed", "prune")

MANY_KILLS = 120
CONNECT_SECONDS = 1.0
"""Until the ranks have connected, only a launcher can end a rank whose peer was killed; so kills are later."""
SHARE_OF_RUN = 0.6
"""Random kills happen within this share of a straight run's time, so that they hit a running process."""
SURVIVOR_CODES = {0, EXIT_PREEMPTED}
"""Exit codes allowed for a rank that was not killed itself: finished, or to be restarted because its peer is lost."""


@dataclass(frozen=True)
class Kill:
    """A kill of one attempt: at a stage (`phase:occurrence`, on one rank or all) or after some seconds."""

    drill: str | None = None
    rank: int | None = None
    after_seconds: float | None = None


@dataclass
class Tally:
    """What the kills hit: number of killed ranks by phase, and number of kills."""

    phases: Counter[str] = field(default_factory=Counter)
    kills: int = 0


def build_tortured(folder: Path, *, cache: Path, stage: int = 2) -> RunConfig:
    """A short run that passes every stage: four evaluations, saves in between, pruning, trimming."""
    return build_run(
        folder,
        machine__zero_stage=stage,
        machine__cache_dir=str(cache),
        training__max_steps=12,
        evaluation__every_steps=3,
        checkpoint__every_steps=2,
    )


def launch(
    config: RunConfig,
    *,
    world_size: int = 2,
    kill: Kill | None = None,
    faults: Sequence[str] = (),
    meanwhile: Callable[[list[int]], None] = lambda pids: None,
    allowed: Sequence[str] = (),
    seconds: float = RANK_SECONDS,
) -> list[int]:
    """Start the ranks once, through the entry point that launchers use; returns their exit codes.

    `faults` are injected into every rank (faults.py); `meanwhile` is called with the process ids.
    """
    path = Path(config.run_dir).parent / "start.yaml"
    path.write_text(dump_config(config))
    drill = f"kill:{kill.drill}" if kill and kill.drill else ""
    if kill and drill and kill.rank is not None:
        drill += f":rank={kill.rank}"

    def disturb(pids: list[int]) -> None:
        meanwhile(pids)
        if kill is not None and kill.after_seconds is not None:
            threading.Thread(target=_kill_later, args=(pids, kill), daemon=True).start()

    number = f"{time.time():.6f}"  # distinguishes the attempts, in order
    arguments = [argument for field in allowed for argument in ("--allow-changed", field)]
    return end_ranks(
        _start, str(path), drill, faults, number, arguments, world_size=world_size, meanwhile=disturb, seconds=seconds
    )


def _kill_later(pids: list[int], kill: Kill) -> None:
    assert kill.after_seconds is not None
    time.sleep(kill.after_seconds)
    for rank, pid in enumerate(pids):
        if kill.rank in (None, rank):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it has already ended


def _start(
    process: ProcessInfo, config: str, drill: str, faults: Sequence[str], number: str, arguments: Sequence[str]
) -> int:
    from dstrain.train import main

    for each in faults:
        inject_fault(each)
    environment = {"LOCAL_WORLD_SIZE": str(process.local_world_size), DRILL_VARIABLE: drill, "START": number}
    os.environ.update(process.as_environment() | environment)
    with Path(config).with_name("printed.txt").open("a") as printed:
        os.dup2(printed.fileno(), sys.stderr.fileno())
    logging.getLogger("dstrain").handlers.clear()
    return main(["--config", config, *arguments])


def torture(config: RunConfig, kills: Sequence[Kill], *, tally: Tally, world_size: int = 2) -> None:
    """Start the run and kill it once per `kills`; then let it finish, unless it finished before a kill."""
    newest = -1
    for kill in kills:
        codes = launch(config, world_size=world_size, kill=kill)
        count_hits(config, codes=codes, tally=tally)
        others = {code for code in codes if code != -signal.SIGKILL}
        assert others <= SURVIVOR_CODES, (kill, codes, printed(config))
        newest = assert_nothing_lost(config, at_least=newest)
        if codes == [0] * world_size:
            return
    assert launch(config, world_size=world_size) == [0] * world_size, printed(config)
    assert_nothing_lost(config, at_least=newest)


def count_hits(config: RunConfig, *, codes: Sequence[int], tally: Tally) -> None:
    """Count the stage of every rank that was killed, from its record on disk."""
    killed = {rank for rank, code in enumerate(codes) if code == -signal.SIGKILL}
    tally.kills += len(killed) > 0
    for record in read_rank_records(ranks_dir(Path(config.run_dir))):
        if record.rank in killed:
            saving = record.tracks["save"]
            tally.phases[record.tracks["main"] if saving == "idle" else saving] += 1
    if killed and not read_rank_records(ranks_dir(Path(config.run_dir))):
        tally.phases["before the first record"] += len(killed)


def assert_nothing_lost(config: RunConfig, *, at_least: int) -> int:
    """Check that every committed checkpoint is valid and that the newest is not older than `at_least`; returns its step."""
    root = Path(config.run_dir) / "checkpoints"
    for directory in checkpoint_dirs(root):
        verify_checkpoint(directory)
    found = newest_valid(root, claims=read_claims(Path(config.run_dir)), on_broken=lambda problem: None)
    step = found[1].step if found else -1
    assert step >= at_least, (step, at_least)
    return step


def fingerprint(config: RunConfig) -> dict[str, object]:
    """Weights, losses, scores and the best step of a run; equal for equal runs."""
    run_dir = Path(config.run_dir)
    record = load_record(run_dir)
    weights = {
        name: hashlib.sha256((run_dir / name / "model.safetensors").read_bytes()).hexdigest()
        for name in ("best", "final")
    }
    return {
        **weights,
        "losses": {row.step: row.loss for row in record.train_rows},
        "scores": {row.step: (row.train_loss, row.scores) for row in record.eval_rows},
        "best_step": record.best.step if record.best else None,
        "kept": sorted(
            {name.step for path in checkpoint_dirs(run_dir / "checkpoints") if (name := parse_checkpoint_name(path))}
        ),
        "status": record.status,
    }


def printed(config: RunConfig) -> str:
    """What the ranks have printed."""
    path = Path(config.run_dir).parent / "printed.txt"
    return path.read_text() if path.exists() else ""


def chosen_kills() -> list[Kill]:
    """One kill per stage, in an order in which the run reaches each of them; on one rank or on all."""
    return [
        Kill(drill=f"{stage}:{occurrence}", rank=0 if stage in ONLY_RANK_0 else (None, 0, 1)[number % 3])
        for number, (stage, occurrence) in enumerate(IN_ORDER.items())
    ]


def random_kills(random_source: random.Random, *, number: int, seconds: float) -> list[Kill]:
    """Kills at random stages and at random times within about `seconds`."""
    kills = []
    for _ in range(number):
        rank = random_source.choice([None, 0, 1])
        if random_source.random() < 0.5:
            kills.append(Kill(after_seconds=random_source.uniform(CONNECT_SECONDS, seconds), rank=rank))
        else:
            stage = random_source.choice([stage for stage in STAGES if stage not in ("set-up", "finish")])
            rank = 0 if stage in ONLY_RANK_0 else rank
            kills.append(Kill(drill=f"{stage}:1", rank=rank))
    return kills


def main(argv: Sequence[str] | None = None, *, say: Callable[[str], None] = print) -> int:
    """Torture run after run until enough kills have hit; prints the histogram."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=MANY_KILLS)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    source, tally, runs = random.Random(options.seed), Tally(), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        straight = build_tortured(folder / "straight", cache=folder / "cache")
        started = time.monotonic()
        assert launch(straight) == [0, 0], printed(straight)
        seconds = time.monotonic() - started
        wanted = fingerprint(straight)
        while tally.kills < options.kills:
            runs += 1
            config = build_tortured(folder / f"run-{runs}", cache=folder / "cache")
            kills = chosen_kills() if runs == 1 else random_kills(source, number=8, seconds=seconds * SHARE_OF_RUN)
            torture(config, kills, tally=tally)
            assert fingerprint(config) == wanted, f"run {runs}: {kills}\n{fingerprint(config)}\n{wanted}"
            say(f"run {runs}: {tally.kills} kills so far, ended bit-equal to the straight run")
    say(f"{tally.kills} kills in {runs} runs, every continuation bit-equal; killed ranks by the stage they were in:")
    for phase, count in tally.phases.most_common():
        say(f"  {phase:<24} {count:>4}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
