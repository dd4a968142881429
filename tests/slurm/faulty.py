"""Replaces Python in slurm/train.sbatch: starts a rank as launch/train.py does, with injected faults."""

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.system.faults import inject_fault

HELD_SAVE = 2


def faulty_ranks(folder: Path, *faults: str) -> Mapping[str, str]:
    """The environment of a job with faults in its ranks; each is `name` or `name=argument`."""
    python = folder / "python"
    names = " ".join(f"'{fault}'" for fault in faults)
    python.write_text(
        f'#!/bin/bash\n[[ "$1" = -[mc] ]] && exec {sys.executable} "$@"\nshift\n'
        f'exec {sys.executable} -m tests.slurm.faulty {names} -- "$@"\n'
    )
    python.chmod(0o755)
    return {"DSTRAIN_PYTHON": str(python)}


def hold_commit(folder: str) -> None:
    """Rank 0 of the first attempt pauses in a save, after it has checked its lease and before it commits.

    A file system that blocks has the same effect, so the lease is not renewed either. The rank creates `inside` in `folder` when
    it pauses, and resumes once it finds `go-on` there.
    """
    if int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0:
        return
    from dstrain.attempt.lease import Lease
    from dstrain.attempt.rank_records import Phases

    enter, entered = Phases.enter, []

    def enter_and_hold(self: Phases, phase: str, **given: Any) -> None:
        enter(self, phase, **given)
        if phase == "manifest":
            entered.append(phase)
            if len(entered) == HELD_SAVE:
                (Path(folder) / "inside").touch()
                while not (Path(folder) / "go-on").exists():
                    time.sleep(0.05)
        elif phase == "renamed" and len(entered) == HELD_SAVE:
            (Path(folder) / "committed").touch()

    Phases.enter = enter_and_hold  # type: ignore[method-assign]
    Lease.renew = lambda self: None  # type: ignore[method-assign]


def main() -> int:
    """Inject the faults into this rank, and train."""
    separator = sys.argv.index("--")
    os.environ["START"] = f"{os.environ.get('SLURM_RESTART_COUNT', '0')}.{os.environ['DSTRAIN_LAUNCH']}"
    for fault in sys.argv[1:separator]:
        name, _, argument = fault.partition("=")
        if name == "hold commit":
            hold_commit(argument)
        else:
            inject_fault(fault)
    from dstrain import train

    return train.main(sys.argv[separator + 1 :])


if __name__ == "__main__":
    sys.exit(main())
