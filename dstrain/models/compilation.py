"""Compiled layers: which modules are compiled for training, how, and eager code where they are not wanted.

Each layer of encoder and decoder is compiled by itself, so that one graph serves all that are alike, in all shapes. Knows
nothing of engines, devices or when to compile.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel

from dstrain.errors import UserError

COMPILING_STEPS = 3
"""Steps at the beginning that may wait for compilers; a shape that comes first later is rare."""
MAX_GRAPHS = 64
"""Graphs of one function, torch's own limit being 8. T5's layers need four (first and other layers of both sides), and a single
row, source token or target token is compiled apart: 32 at most."""


def compile_layers(model: PreTrainedModel) -> None:
    """Compile the layers of encoder and decoder, in place, when they are first called. Names of parameters stay.

    Compiled code draws the random numbers that eager code does, so that dropout is the same.
    """
    # else a first micro-batch with as many rows as tokens gives code for such alone, and is compiled once more
    torch.fx.experimental._config.use_duck_shape = False
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MAX_GRAPHS)
    for layer in layers_of(model):
        # else torch draws dropout by a generator of its own
        layer.compile(dynamic=True, options={"fallback_random": True})


def layers_of(model: PreTrainedModel) -> list[nn.Module]:
    """The layers of the encoder, then those of the decoder."""
    if model.config.model_type in ("t5", "mt5"):
        return [*model.encoder.block, *model.decoder.block]
    return [*model.model.encoder.layers, *model.model.decoder.layers]


@contextmanager
def eager_layers() -> Iterator[None]:
    """Run compiled layers as they were written: generation goes through them with a cache, in shapes of its own."""
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def explained_compilation() -> Iterator[None]:
    """Say what can be done where layers cannot be compiled.

    Raises:
        UserError: torch's compiler failed. Training does not silently go on at another speed than was asked for.
    """
    try:
        yield
    except torch._dynamo.exc.TorchDynamoException as error:
        raise UserError(
            f"machine.compile: layers cannot be compiled here ({first_line(error)}); set it to false"
        ) from error


def first_line(error: BaseException) -> str:
    """What went wrong in a line; a compiler's messages run to pages."""
    cause = getattr(error, "inner_exception", None) or error  # of a backend's failure
    return f"{type(cause).__name__}: {str(cause).strip()}".splitlines()[0]
