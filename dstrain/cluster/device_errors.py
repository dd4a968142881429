"""What an error of a device or of the network means, from its class and its text.

torch raises most of them as RuntimeError, so that only the text tells them apart. The texts are those of torch, NCCL, gloo,
cuBLAS and the CUDA runtime; tests/unit/cluster/test_device_errors.py holds real ones.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from dstrain.errors import HardwareFailed, OutOfMemory, PeerLost, UserError

SAVING_MEMORY = "set machine.activation_checkpointing, machine.offload_optimizer or a higher machine.zero_stage"
"""For messages: what makes a step need less memory, besides smaller micro-batches."""

_GLOO = re.compile(r"\[(?:enforce fail at )?\S*/gloo/\S+\.(?:cc|h):\d+\] ")
"""How gloo's errors begin: torch raises them as plain RuntimeError, unlike those of NCCL."""

_MEMORY = re.compile(
    r"\bout of memory\b|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|cudaErrorMemoryAllocation"
    r"|DefaultCPUAllocator: (?:can't allocate memory|not enough memory)",
    re.IGNORECASE,
)
_HARDWARE = re.compile(
    r"uncorrectable (?:ECC|NVLink) error|fallen off the bus|GPU is lost|hardware stack error|or a hardware error"
    r"|\bXid\b.*\b(?:48|63|64|74|79|94|95|119)\b",
    re.IGNORECASE,
)
"""Failures of the device itself, which another start on another device may survive."""
_MISUSE = re.compile(
    r"unhandled cuda error|invalid usage|invalid argument|ncclInvalidUsage|ncclInvalidArgument|Duplicate GPU"
    r"|only supported with GPUs|invalid device ordinal",
    re.IGNORECASE,
)
"""Errors that the same start would have again, although NCCL reports them."""
_REMOTE = re.compile(
    r"ncclRemoteError|remote process (?:has )?(?:exited|been terminated)|Connection (?:closed|reset) by", re.IGNORECASE
)
_SYSTEM = re.compile(r"ncclSystemError|ncclInternalError|unhandled system error|internal error", re.IGNORECASE)
"""NCCL's words for a lost connection and for a network that was never set up: which of both, only the time tells."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the device or of the host; CUDA, cuBLAS and NCCL each have a name of their own for it."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and _MEMORY.search(str(error)) is not None
    )


def classify(error: BaseException, *, has_trained: bool) -> type[Exception] | None:
    """PeerLost or HardwareFailed if the error means that; None for any other.

    `has_trained` says whether the ranks have completed a step together, so that their network was in order.
    """
    text = str(error)
    if isinstance(error, RuntimeError) and _HARDWARE.search(text):
        return HardwareFailed
    if is_out_of_memory(error):
        return None
    if isinstance(error, dist.DistNetworkError | dist.DistStoreError) or (
        type(error) is RuntimeError and _GLOO.match(text)
    ):
        return PeerLost
    if isinstance(error, dist.DistBackendError) and not _MISUSE.search(text):
        return None if _SYSTEM.search(text) and not _REMOTE.search(text) and not has_trained else PeerLost
    return None


@contextmanager
def explained_memory(describe: Callable[[], str]) -> Iterator[None]:
    """Convert an error about memory that ran out into OutOfMemory with the message that `describe` returns."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise OutOfMemory(f"out of memory {describe()}") from error
        raise


@contextmanager
def named_device_errors(has_trained: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Convert errors that mean a lost peer, failing hardware or a lack of memory into errors with these names.

    The meaning is looked for in the whole chain of errors.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        link: BaseException | None = error
        while link is not None:
            if (kind := classify(link, has_trained=has_trained())) is not None:
                raise kind(str(error)) from error
            if is_out_of_memory(link):
                reason = (str(link).splitlines() or ["out of memory"])[0]
                keys = f"lower machine.micro_batch_tokens or machine.evaluation_tokens, or {SAVING_MEMORY}"
                raise OutOfMemory(f"{reason}: {keys}") from error
            link = link.__cause__ or link.__context__
        raise
