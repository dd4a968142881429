"""Real texts of torch, NCCL, gloo and CUDA, and what each means: a lost peer, a broken device, or neither."""

import re
from typing import Any

import pytest
import torch
import torch.distributed as dist

from dstrain.cluster.device_errors import classify, explained_memory, is_out_of_memory, named_device_errors
from dstrain.errors import HardwareFailed, OutOfMemory, PeerLost, UserError

NCCL = "NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:94, "
REMOTE = (
    "remote process exited or there was a network error, NCCL version 2.27.5\nncclRemoteError: A call failed possibly due to a "
    "network error or a remote process exiting prematurely."
)
SYSTEM = (
    "unhandled system error (run with NCCL_DEBUG=INFO for details), NCCL version 2.27.5\nncclSystemError: System call (e.g. "
    "socket, malloc) or external library call failed or device error."
)
USAGE = (
    "invalid usage (run with NCCL_DEBUG=WARN for details), NCCL version 2.27.5\nncclInvalidUsage: This usually reflects invalid "
    "usage of NCCL library.\nLast error:\nDuplicate GPU detected : rank 1 and rank 0 both on CUDA device 1b000"
)
CUDA = "\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be wrong."
GLOO_CLOSED = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:59038."
GLOO_LATE = "[../third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 1800000ms for recv"
GLOO_ENFORCED = "[enforce fail at /pytorch/third_party/gloo/gloo/transport/tcp/device.cc:208] ifa != nullptr. Unable to"

HARDWARE: list[Exception] = [
    RuntimeError("CUDA error: uncorrectable ECC error encountered" + CUDA),
    RuntimeError("CUDA error: Invalid access of peer GPU memory over nvlink or a hardware error" + CUDA),
    RuntimeError("CUDA error: hardware stack error" + CUDA),
    RuntimeError("Unable to determine the device handle for GPU 0000:1B:00.0: GPU is lost."),
    RuntimeError("NVRM: Xid (PCI:0000:1b:00): 79, pid=1234, GPU has fallen off the bus."),
    dist.DistBackendError(NCCL + "unhandled cuda error\nCuda failure 214 'uncorrectable ECC error encountered'"),
]
MEANINGS: list[tuple[Exception, Any, Any]] = [
    # the error, what it means before the first step, and after it
    (RuntimeError(GLOO_CLOSED), PeerLost, PeerLost),
    (RuntimeError(GLOO_LATE), PeerLost, PeerLost),
    (RuntimeError(GLOO_ENFORCED), PeerLost, PeerLost),
    (dist.DistNetworkError("The client socket has timed out after 60000ms"), PeerLost, PeerLost),
    (dist.DistStoreError("wait timeout after 300000ms"), PeerLost, PeerLost),
    (dist.DistBackendError("NCCL communicator was aborted on rank 1."), PeerLost, PeerLost),
    (dist.DistBackendError(NCCL + REMOTE), PeerLost, PeerLost),
    (dist.DistBackendError(NCCL + SYSTEM), None, PeerLost),
    (dist.DistBackendError(NCCL + USAGE), None, None),
    (dist.DistBackendError(NCCL + "unhandled cuda error\nCuda failure 98 'invalid device function'"), None, None),
    (dist.DistBackendError(NCCL + "invalid argument, NCCL version 2.27.5\nncclInvalidArgument"), None, None),
    (ValueError("ProcessGroupNCCL is only supported with GPUs, no GPUs found!"), None, None),
    (RuntimeError("CUDA error: invalid device ordinal" + CUDA), None, None),
    (RuntimeError("CUDA error: an illegal memory access was encountered" + CUDA), None, None),
    (RuntimeError("CUDA error: device-side assert triggered" + CUDA), None, None),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), None, None),
    (RuntimeError("/data/gloo/rows.tsv:3: Connection closed by peer"), None, None),
    (OSError("[/x/gloo/y.cc:1] NCCL"), None, None),
    (ValueError("not enough values to unpack"), None, None),
    *((error, HardwareFailed, HardwareFailed) for error in HARDWARE),
]


@pytest.mark.parametrize(("error", "before", "after"), MEANINGS, ids=lambda value: str(value)[-40:])
def test_an_error_means_what_its_class_and_text_say(error: Exception, before: Any, after: Any) -> None:
    assert (classify(error, has_trained=False), classify(error, has_trained=True)) == (before, after)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory" + CUDA),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
        ),
        RuntimeError("HIP out of memory. Tried to allocate 20.00 MiB"),
        dist.DistBackendError(NCCL + "unhandled cuda error\nCuda failure 2 'out of memory'"),
        MemoryError(),
    ],
    ids=lambda error: str(error)[:40],
)
def test_memory_that_ran_out_is_known_by_each_of_its_names(error: Exception) -> None:
    assert is_out_of_memory(error)
    assert classify(error, has_trained=True) is None


@pytest.mark.parametrize("error", [error for error, _, _ in MEANINGS if not isinstance(error, torch.OutOfMemoryError)])
def test_other_errors_are_no_lack_of_memory(error: Exception) -> None:
    assert not is_out_of_memory(error)


def test_the_meaning_is_found_anywhere_in_the_chain() -> None:
    error = RuntimeError(GLOO_CLOSED)
    with pytest.raises(PeerLost, match=re.escape(GLOO_CLOSED)), named_device_errors():
        raise error
    with pytest.raises(PeerLost, match="later"), named_device_errors():
        raise KeyError("later") from error


def test_a_lack_of_memory_is_explained_by_what_did_not_fit_or_else_by_the_keys() -> None:
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    with (
        pytest.raises(OutOfMemory, match=r"^out of memory in step 3: 5 rows did not fit$"),
        named_device_errors(),
        explained_memory(lambda: "in step 3: 5 rows did not fit"),
    ):
        raise error
    with (
        pytest.raises(OutOfMemory, match=r"^CUDA out of memory.*: lower machine\.micro_batch_tokens"),
        named_device_errors(),
    ):
        raise error
    with pytest.raises(OutOfMemory, match=r"^out of memory: lower"), named_device_errors():
        raise MemoryError
    with pytest.raises(KeyError), explained_memory(lambda: "never"):
        raise KeyError


def test_another_error_stays_what_it_is() -> None:
    error = OSError("disk")
    with pytest.raises(OSError, match="disk") as caught, named_device_errors():
        raise error
    assert caught.value is error


def test_a_message_for_the_user_stays_one_though_the_network_caused_it() -> None:
    with pytest.raises(UserError, match="port 1"), named_device_errors():
        raise UserError("port 1 is in use") from dist.DistNetworkError("EADDRINUSE")
