"""The errors that every room shares. A message for the user is a UserError; anything else is a fault of the program."""

from typing import ClassVar


class UserError(ValueError):
    """Something that the user can correct: the message names the field or file:line, the value found and the way out.

    It is printed without a traceback. Every other exception keeps its traceback, because its message was not written for
    the user.
    """

    is_said_by_rank_0: ClassVar[bool] = False
    """Every rank raises it with the same message, so that rank 0 alone prints it."""


class PeerLost(RuntimeError):
    """The connection to another rank broke: the cause lies with that rank, not with the one that raises this."""
