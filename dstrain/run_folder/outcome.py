"""How a run last ended, as a file of its folder: torchrun hides exit codes, so the file says the same. Knows no torch."""

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

OUTCOME_FILE = "outcome.json"


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What became of the last start. `running` with no process left means killed: start it again."""

    outcome: Literal["running", "finished", "preempted", "lost", "failed"]
    exit_code: int | None
    """0 finished, 85 start me again (preempted: saved; lost: a rank hung or died), anything else failed."""
    message: str = ""
    step: int | None = None
    """Optimizer steps done, where the writer knew."""
    attempt: int = 0
    """Number of the lease."""
    time: str = ""


_OUTCOME = TypeAdapter(RunOutcome)


def write_outcome(run_dir: Path, outcome: RunOutcome) -> None:
    """Replace the run folder's outcome file, whole or not at all; a full disk leaves the older one."""
    values = asdict(outcome) | {"time": datetime.now(UTC).isoformat(timespec="seconds")}
    temporary = run_dir / f"{OUTCOME_FILE}.tmp-{os.getpid()}"
    try:
        temporary.write_text(json.dumps(values, indent=1) + "\n")
        temporary.replace(run_dir / OUTCOME_FILE)
    except OSError:
        with suppress(OSError):
            temporary.unlink()


def write_bad_end(run_dir: Path, outcome: RunOutcome) -> None:
    """Write that a rank failed or lost its peers, unless the file belongs to somebody else.

    It does to a later start; to a start that runs, or may run, where this rank never belonged to one (attempt 0); and to a
    finished run, which a start that goes on from there calls `running` first.
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
    """How the run last ended; None if it never started or the file is broken."""
    try:
        outcome: RunOutcome = _OUTCOME.validate_json((run_dir / OUTCOME_FILE).read_bytes())
    except (OSError, ValidationError):
        return None
    return outcome
