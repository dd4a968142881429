"""Stands in for Python in slurm/train.sbatch: starts a rank as launch/train.py does, but harmed from inside."""

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.system.harm import apply_harm

HELD_SAVE = 2


def harmed(folder: Path, *harms: str) -> Mapping[str, str]:
    """The environment of a job whose ranks are harmed; each is `name` or `name=argument`."""
    python = folder / "python"
    names = " ".join(f"'{harm}'" for harm in harms)
    python.write_text(
        f'#!/bin/bash\n[[ "$1" = -[mc] ]] && exec {sys.executable} "$@"\nshift\n'
        f'exec {sys.executable} -m tests.slurm.harmed {names} -- "$@"\n'
    )
    python.chmod(0o755)
    return {"DSTRAIN_PYTHON": str(python)}


def hold_commit(folder: str) -> None:
    """Rank 0 of the first start stands still in a save, between asking whether it may commit and committing.

    So do hosts that a file system keeps waiting, and so its lease is not renewed. It says in `folder` where it is, and goes on
    once it finds `go-on` there.
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
    """Harm this rank, and train."""
    place = sys.argv.index("--")
    os.environ["START"] = os.environ.get("SLURM_RESTART_COUNT", "0")
    for harm in sys.argv[1:place]:
        name, _, argument = harm.partition("=")
        if name == "hold commit":
            hold_commit(argument)
        else:
            apply_harm(harm)
    from dstrain import train

    return train.main(sys.argv[place + 1 :])


if __name__ == "__main__":
    sys.exit(main())
