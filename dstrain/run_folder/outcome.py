"""How the newest attempt of a run ended, in outcome.json: torchrun hides exit codes, so the file says the same. No torch."""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from dstrain.run_folder.atomic import write_file
from dstrain.run_folder.layout import RunFolder


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
        outcome: RunOutcome = _OUTCOME.validate_json(RunFolder(run_dir).outcome.read_bytes())
    except (OSError, ValidationError):
        return None
    return outcome
