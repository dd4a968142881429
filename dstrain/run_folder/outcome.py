"""How the newest attempt of a run ended, in outcome.json, and how every attempt ended, in `lease/`. No torch.

torchrun hides exit codes, so outcome.json says the same.

    python -m dstrain.run_folder.outcome --code 1 --since 1780000000 -- --config …

exits with the code of the run that was started with these arguments of launch/train.py, or with `--code` if the run has
written no outcome since that time, in seconds since 1970. Called by launch/torchrun.sh.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from dstrain.config.arguments import parse_arguments, split_arguments
from dstrain.config.load import load_config
from dstrain.errors import UserError
from dstrain.run_folder.atomic import write_file
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.reading import read_bytes


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """The outcome of an attempt. `running` without a living process means that it was killed: start it again."""

    outcome: Literal["running", "finished", "preempted", "lost", "failed", "killed"]
    """`killed` is never in outcome.json: the next attempt finds it out."""
    exit_code: int | None
    """0 finished, 85 start me again (preempted: saved; lost: a rank hung or died), anything else failed."""
    message: str = ""
    step: int | None = None
    """Optimizer steps done, if the writer knew it."""
    attempt: int = 0
    """Number of the lease."""
    time: str = ""


_OUTCOME = TypeAdapter(RunOutcome)
MORE_TELLING = ("killed", "lost", "failed", "preempted", "finished")
"""Of what several ranks say about the end of an attempt the last in this order is kept, and of equal words the first."""


def write_outcome(run_dir: Path, outcome: RunOutcome) -> None:
    """Replace the outcome of a run; on a full disk the older one stays. A folder that was removed is not made again."""
    if not run_dir.is_dir():
        return
    _write(RunFolder(run_dir).outcome, outcome)
    write_end(run_dir, outcome)


def write_end(run_dir: Path, outcome: RunOutcome) -> None:
    """Keep how an attempt ended, unless it runs, has no number, or more is known already."""
    if outcome.outcome == "running" or not outcome.attempt or not run_dir.is_dir():
        return
    path = RunFolder(run_dir).end(outcome.attempt)
    before = _read_end(path)
    if before is None or MORE_TELLING.index(before.outcome) < MORE_TELLING.index(outcome.outcome):
        _write(path, outcome)


def read_ends(run_dir: Path) -> dict[int, RunOutcome]:
    """How attempts ended, by their number; damaged files are left out."""
    ends = [end for path in RunFolder(run_dir).ends() if (end := _read_end(path))]
    return {end.attempt: end for end in ends}


def _read_end(path: Path) -> RunOutcome | None:
    end = _read(path)
    return end if end is not None and end.outcome != "running" else None


def _write(path: Path, outcome: RunOutcome) -> None:
    values = asdict(outcome) | {"time": outcome.time or datetime.now(UTC).isoformat(timespec="seconds")}
    with suppress(OSError):
        write_file(path, json.dumps(values, indent=1) + "\n")


def write_bad_end(run_dir: Path, outcome: RunOutcome) -> None:
    """Write that a rank failed or lost its peers, unless the file belongs to another attempt.

    That is the case if it names a later attempt, if it says `running` and this rank has no number yet (attempt 0), or if the
    run is finished: an attempt that continues a finished run first sets the outcome to `running`. A lost peer is not news
    either where another rank of this attempt has said more.
    """
    write_end(run_dir, outcome)
    before = read_outcome(run_dir)
    if before is None:
        write_outcome(run_dir, outcome)
    elif before.outcome != "finished":
        if outcome.attempt == 0 and before.outcome != "running":
            # not of that attempt: this start ended before it became one
            _write(RunFolder(run_dir).outcome, replace(outcome, attempt=before.attempt))
        elif outcome.attempt >= max(before.attempt, 1) and not _says_more(before, than=outcome):
            write_outcome(run_dir, outcome)


def _says_more(before: RunOutcome, *, than: RunOutcome) -> bool:
    return before.attempt == than.attempt and than.outcome == "lost" and before.outcome in ("lost", "failed")


def read_outcome(run_dir: Path) -> RunOutcome | None:
    """How the newest attempt ended; None if there was none or the file is damaged."""
    return _read(RunFolder(run_dir).outcome)


def _read(path: Path) -> RunOutcome | None:
    try:
        outcome: RunOutcome = _OUTCOME.validate_json(read_bytes(path))
    except (OSError, ValidationError):
        return None
    return outcome


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of a run that a launcher has started, from its outcome."""
    own, training = split_arguments(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="python -m dstrain.run_folder.outcome")
    parser.add_argument("--code", type=int, required=True)
    parser.add_argument("--since", type=float, required=True)
    given, options = parser.parse_args(own), parse_arguments(training)
    try:
        outcome = read_outcome(Path(load_config(options.config, overrides=options.overrides).run_dir))
    except UserError:
        return int(given.code)
    if outcome is None or outcome.exit_code is None or not outcome.time:
        return int(given.code)
    is_new = datetime.fromisoformat(outcome.time).timestamp() >= given.since
    return outcome.exit_code if is_new else int(given.code)


if __name__ == "__main__":
    sys.exit(main())
