"""The program beside a run that keeps one tracker equal to it: `python -m dstrain.tracking.follow RUN TRACKER`.

It reads the run folder and nothing else of the run, which therefore never waits for a tracker. It continues until its standard
input ends, because the run closes it or is killed; then it sends what is left and ends.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dstrain.cluster.console import describe, say
from dstrain.cluster.exit_codes import EXIT_FAILED
from dstrain.cluster.processes import end_with_descendants
from dstrain.config.machine import Tracker as TrackerSettings
from dstrain.run_folder.began import read_run_config
from dstrain.run_folder.layout import RunFolder
from dstrain.tracking.backends import make_tracker
from dstrain.tracking.beside import PROGRAM
from dstrain.tracking.sender import Sender, only_sender

EVERY_SECONDS = 10.0
"""Seconds between two looks at the run folder."""
MOST_SECONDS = 300.0
"""Seconds between two tries where a tracker fails again and again."""
REST = 50
"""A look that took a second is followed by a pause of so many: a long run must not keep a core busy."""
LAST_SECONDS = 20.0
"""Seconds for sending what is left when the run has ended."""
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals for the run, which a scheduler or a terminal may send to all of its processes."""


def main(argv: Sequence[str] | None = None) -> int:
    """Follow a run until standard input ends; returns 0 if the tracker has everything then."""
    run_dir, name, *failures = sys.argv[1:] if argv is None else argv
    num_failures = int(failures[0]) if failures else 0
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    if num_failures == 0:
        os.nice(10)  # after the ranks
    ended = threading.Event()
    threading.Thread(target=_await_end, args=(ended,), daemon=True).start()
    has_arrived = follow(RunFolder(Path(run_dir)), name=name, ended=ended, tell=_tell, num_failures=num_failures)
    if has_arrived is None:
        # in a new program: W&B, for one, cannot open a run again in the one in which that has failed
        end_with_descendants(os.getpid(), itself=False)
        os.execv(sys.executable, [sys.executable, *PROGRAM, run_dir, name, str(num_failures + 1)])
    return 0 if has_arrived else EXIT_FAILED


def follow(
    folder: RunFolder, *, name: str, ended: threading.Event, tell: Callable[[str], None], num_failures: int = 0
) -> bool | None:
    """Send a run to a tracker until `ended`, and whatever is there then; returns whether everything has arrived.

    Raises nothing. A failure is told if there was none before; after a pause it returns None: try again from the beginning.
    """
    try:
        with only_sender(folder, name=name):
            _follow(_build_sender(folder, name=name), name=name, ended=ended, tell=tell)
    except (Exception, SystemExit) as error:  # whatever a tracker's library raises
        if ended.is_set():
            return False
        if num_failures == 0:
            tell(f"{name}: {_describe(error)}; training continues, and this is tried again (said once)")
        ended.wait(min(EVERY_SECONDS * 2 ** min(num_failures, 10), MOST_SECONDS))
        return None
    return True


def _follow(sender: Sender, *, name: str, ended: threading.Event, tell: Callable[[str], None]) -> None:
    has_shown = False
    while True:
        is_last, began = ended.is_set(), time.monotonic()
        sender.update()
        if not has_shown and sender.address is not None:
            tell(f"{name}: {sender.address}")
            has_shown = True
        if is_last:
            break
        ended.wait(max(EVERY_SECONDS, REST * (time.monotonic() - began)))
    sender.close()


def _build_sender(folder: RunFolder, *, name: str) -> Sender:
    settings = read_run_config(folder).logging.trackers.get(name, TrackerSettings())
    return Sender(
        folder,
        name=name,
        make_tracker=lambda: make_tracker(name, folder=folder, settings=settings),
        run_name=settings.name,
    )


def _describe(error: BaseException) -> str:
    text = describe(error) if isinstance(error, Exception) else str(error)
    return f"{type(error).__name__}: {text}"


def _tell(text: str) -> None:
    say(text, err=True)


def _await_end(ended: threading.Event) -> None:
    sys.stdin.buffer.read()
    ended.set()
    time.sleep(LAST_SECONDS)
    _exit(EXIT_FAILED)


def _exit(code: int) -> None:
    """End at once, with what a library has started: its own ways to end wait for a server that may not answer."""
    end_with_descendants(os.getpid(), itself=False)
    os._exit(code)


if __name__ == "__main__":
    _exit(main())
