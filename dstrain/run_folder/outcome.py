"""How the newest attempt of a run ended, in outcome.json: torchrun hides exit codes, so the file says the same. No torch.

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
    """The outcome of the newest attempt. `running` without a living process means that it was killed: start it again."""

    outcome: Literal["running", "finished", "preempted", "lost", "failed"]
    exit_code: int | None
    """0 finished, 85 start me again (preempted: saved; lost: a rank hung or died), anything else failed."""
    message: str = ""
    step: int | None = None
    """Optimizer steps done, if the writer knew it."""
    attempt: int = 0
    """Number of the lease."""
    time: str = ""


_OUTCOME = TypeAdapter(RunOutcome)


def write_outcome(run_dir: Path, outcome: RunOutcome) -> None:
    """Replace the outcome of a run; on a full disk the older one stays. A folder that was removed is not made again."""
    if not run_dir.is_dir():
        return
    values = asdict(outcome) | {"time": datetime.now(UTC).isoformat(timespec="seconds")}
    with suppress(OSError):
        write_file(RunFolder(run_dir).outcome, json.dumps(values, indent=1) + "\n")


def write_bad_end(run_dir: Path, outcome: RunOutcome) -> None:
    """Write that a rank failed or lost its peers, unless the file belongs to another attempt.

    That is the case if it names a later attempt, if it says `running` and this rank has no number yet (attempt 0), or if the
    run is finished: an attempt that continues a finished run first sets the outcome to `running`.
    """
    before = read_outcome(run_dir)
    if before is None:
        write_outcome(run_dir, outcome)
    elif before.outcome != "finished":
        if outcome.attempt == 0 and before.outcome != "running":
            write_outcome(run_dir, replace(outcome, attempt=before.attempt))
        elif outcome.attempt >= max(before.attempt, 1):
            write_outcome(run_dir, outcome)


def read_outcome(run_dir: Path) -> RunOutcome | None:
    """How the newest attempt ended; None if there was none or the file is damaged."""
    try:
        outcome: RunOutcome = _OUTCOME.validate_json(read_bytes(RunFolder(run_dir).outcome))
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
