"""Errors that all packages share. A message for the user is a UserError; any other exception is a fault of the program."""

from typing import ClassVar


class UserError(ValueError):
    """Something that the user can correct: the message names the field or file:line, the value found and the way out.

    It is printed without a traceback. Every other exception keeps its traceback, because its message was not written for
    the user.
    """

    is_said_by_rank_0: ClassVar[bool] = False
    """Whether every rank raises it with the same message, so that only rank 0 prints it."""


class OutOfMemory(UserError):
    """Memory ran out. The message says for what, and which keys to change."""


class PeerLost(RuntimeError):
    """The connection to another rank broke. The cause is on that rank, not on the one that raises this."""


class HardwareFailed(RuntimeError):
    """A device failed. The program is not the cause: another start, on another device, may succeed."""
