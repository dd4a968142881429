"""Detects that the launcher of this rank has died. `deepspeed` and torchrun leave their ranks behind when signalled."""

import os
import threading
from collections.abc import Callable

from dstrain.cluster.processes import read_process

CHECK_SECONDS = 1.0
LAUNCHERS = ("deepspeed", "torchrun")


def parent_of(pid: int) -> int:
    """Process id of a process's parent; 0 if the process is gone."""
    process = read_process(pid)
    return process.parent if process else 0


def ancestors(pid: int, *, depth: int) -> list[int]:
    """Process ids of up to `depth` ancestors, nearest first; ends at init."""
    chain: list[int] = []
    while len(chain) < depth and pid > 1:
        pid = parent_of(pid)
        if pid > 1:
            chain.append(pid)
    return chain


def find_launcher(launcher: str) -> tuple[int, ...]:
    """Process ids of the launcher if this rank would outlive it, nearest first. Call it early, while they still run.

    Empty for launchers that end their ranks, and for `python`, because the shell that started it in the background may end.
    The deepspeed command starts an inner launcher, which starts the ranks: both count.
    """
    if launcher not in LAUNCHERS:
        return ()
    return tuple(ancestors(os.getpid(), depth=2 if launcher == "deepspeed" else 1))


def watch_launcher(launched_by: tuple[int, ...], *, on_death: Callable[[], None]) -> None:
    """Call `on_death` once, on a background thread, when one of these ancestors has died."""
    if not launched_by:
        return
    pause = threading.Event()

    def watch() -> None:
        while tuple(ancestors(os.getpid(), depth=len(launched_by))) == launched_by:
            pause.wait(CHECK_SECONDS)
        on_death()

    threading.Thread(target=watch, name="launcher-watch", daemon=True).start()
