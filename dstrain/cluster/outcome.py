"""How a run last ended, as a file of its folder: torchrun hides exit codes, so the file says the same. Knows no torch."""

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
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


def read_outcome(run_dir: Path) -> RunOutcome | None:
    """How the run last ended; None if it never started or the file is broken."""
    try:
        outcome: RunOutcome = _OUTCOME.validate_json((run_dir / OUTCOME_FILE).read_bytes())
    except (OSError, ValidationError):
        return None
    return outcome
