"""The signals that end a run early, with its work saved. Imports no torch."""

import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SAVING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
"""Sent by schedulers and launchers; SIGHUP by a terminal that is closed."""

Handler = Callable[[int, FrameType | None], None]


@contextmanager
def ending_in_order() -> Iterator[None]:
    """In this block SIGTERM ends the program as Ctrl+C does, so that what is half written is removed."""

    def leave(number: int, _: FrameType | None) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def catch_saving_signals(handler: Handler) -> None:
    """Call `handler` on each of these signals; SIGHUP stays ignored where it is, as under nohup."""

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _leave_terminal()
        handler(number, frame)

    for number in SAVING:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handle)


def _leave_terminal() -> None:
    """Send what is printed from here on nowhere: writing to a closed terminal is an error, which would end the run."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        if stat.S_ISCHR(os.fstat(descriptor).st_mode):
            os.dup2(nowhere, descriptor)
    os.close(nowhere)
