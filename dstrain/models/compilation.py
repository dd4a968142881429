"""Compiled layers: what is compiled for training and how, and eager code for everything else.

Each layer of encoder and decoder is compiled separately, so that one graph serves all layers of a kind in all shapes. Knows
nothing of engines or devices, nor of when to compile.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel

from dstrain.errors import UserError

COMPILING_STEPS = 3
"""The first steps, in which layers may be compiled; a new kind of shape in a later step is rare."""
MAX_GRAPHS = 64
"""Limit on graphs per function (torch's default is 8). T5's layers need four, for the first and the other layers of both sides.
Batches of a single row, source token or target token have graphs of their own: at most 32 together."""


def compile_layers(model: PreTrainedModel) -> None:
    """Have the layers of encoder and decoder compiled when they are first called, in place. Parameter names stay.

    Compiled code draws the same random numbers as eager code, so that dropout is the same.
    """
    # otherwise, if the first micro-batch has as many rows as tokens, its graph serves only such batches
    torch.fx.experimental._config.use_duck_shape = False
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MAX_GRAPHS)
    for layer in layers_of(model):
        # otherwise dropout uses another random generator
        layer.compile(dynamic=True, options={"fallback_random": True})


def layers_of(model: PreTrainedModel) -> list[nn.Module]:
    """The layers of the encoder, then those of the decoder."""
    parts = (model.get_encoder(), model.get_decoder())
    return [layer for part in parts for layer in getattr(part, "layers", None) or part.block]


@contextmanager
def eager_layers() -> Iterator[None]:
    """Run compiled layers as eager code, for generation: its cache and shapes would need other graphs."""
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def explained_compilation() -> Iterator[None]:
    """Turn a failure of torch's compiler into a message with the way out.

    Raises:
        UserError: the compiler failed. Training does not silently continue at a lower speed than requested.
    """
    try:
        yield
    except torch._dynamo.exc.TorchDynamoException as error:
        raise UserError(
            f"machine.compile: layers cannot be compiled here ({first_line(error)}); set it to false"
        ) from error


def first_line(error: BaseException) -> str:
    """Type and first line of an error; a compiler's messages are pages long."""
    cause = getattr(error, "inner_exception", None) or error  # set if a compiler backend failed
    return f"{type(cause).__name__}: {str(cause).strip()}".splitlines()[0]
