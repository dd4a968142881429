"""The program beside a run that keeps one tracker equal to it: `python -m dstrain.tracking.follow RUN TRACKER`.

It reads the run folder and nothing else of the run, which therefore never waits for a tracker. It goes on until its standard
input ends, because the run closes it or is killed; then it sends what is left and ends.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from dstrain.cluster.console import describe, say
from dstrain.cluster.exit_codes import EXIT_FAILED
from dstrain.cluster.processes import end_with_descendants
from dstrain.config.machine import Tracker as TrackerSettings
from dstrain.run_folder.began import read_run_config
from dstrain.run_folder.layout import RunFolder
from dstrain.tracking.backends import make_tracker
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
    run_dir, name = sys.argv[1:] if argv is None else argv
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    os.nice(10)  # after the ranks
    ended = threading.Event()
    threading.Thread(target=_await_end, args=(ended,), daemon=True).start()
    folder = RunFolder(Path(run_dir))
    return 0 if follow(folder, name=name, ended=ended, tell=_tell) else EXIT_FAILED


def follow(
    folder: RunFolder,
    *,
    name: str,
    ended: threading.Event,
    tell: Callable[[str], None],
    every_seconds: float = EVERY_SECONDS,
) -> bool:
    """Send a run to a tracker until `ended`, and whatever is there then; returns whether everything has arrived.

    Raises nothing: a failure is said once, and tried again later.
    """
    sender: Sender | None = None
    has_lock = has_failed = has_shown = False
    pause = every_seconds
    with ExitStack() as stack:
        while True:
            is_last, began = ended.is_set(), time.monotonic()
            try:
                if not has_lock:
                    stack.enter_context(only_sender(folder, name=name))
                    has_lock = True
                if sender is None:
                    sender = _build_sender(folder, name=name)
                sender.update()
                if is_last:
                    sender.close()
                    return True
            except (Exception, SystemExit) as error:  # whatever a tracker's library raises
                if is_last:
                    return False
                if not has_failed:
                    tell(f"{name}: {_describe(error)}; training goes on, and this is tried again (said once)")
                has_failed = True
                pause = min(2 * pause, MOST_SECONDS)
            else:
                if not has_shown and sender.address is not None:
                    tell(f"{name}: {sender.address}")
                    has_shown = True
                pause = max(every_seconds, REST * (time.monotonic() - began))
            ended.wait(pause)


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
