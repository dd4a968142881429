"""What libraries raise about the files of a model that others made, in one line. Knows neither the files nor the libraries."""

from collections.abc import Iterator
from contextlib import contextmanager

from dstrain.errors import HardwareFailed, PeerLost, UserError

MAX_SHOWN = 300
"""Most characters of a library's message."""


@contextmanager
def told_in_one_line(what: str) -> Iterator[None]:
    """Whatever is raised inside becomes a UserError that begins with `what`: the files may hold anything, in any place.

    Raises:
        UserError: with the message of the library.
    """
    try:
        yield
    except (UserError, HardwareFailed, PeerLost):
        raise
    except Exception as error:
        message = one_line(error)
        if "trust_remote_code" in message:
            why = "it needs code that came with it, which dstrain never runs: take a model of a supported family"
            raise UserError(f"{what}: {why}") from error
        if type(error).__name__ == "UnpicklingError":  # torch advises to load it all the same
            why = (
                "its weights (pytorch_model.bin) are a pickle with more than tensors in it, which could run code, or a damaged "
                "one. Where you trust who made it, load it elsewhere and save it as model.safetensors"
            )
            raise UserError(f"{what}: {why}") from error
        kind = "" if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: "
        shown = message if len(message) <= MAX_SHOWN else message[: MAX_SHOWN - 1] + "…"
        raise UserError(f"{what}: {kind}{shown}") from error


def one_line(error: Exception) -> str:
    """A library's message without its line breaks."""
    return " ".join(str(error).split())
