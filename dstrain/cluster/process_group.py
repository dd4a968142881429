"""The process group, and the exchanges between ranks outside the training step.

These run over gloo on the CPU, beside the device's own backend, so that they need no device synchronisation.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from dstrain.cluster.environment import ProcessInfo
from dstrain.cluster.rendezvous import Rendezvous
from dstrain.errors import PeerLost, UserError

_GLOO_ERROR = re.compile(r"\[(?:enforce fail at )?\S*/gloo/\S+\.(?:cc|h):\d+\] ")
"""How gloo's errors begin: torch raises them as plain RuntimeError, unlike those of NCCL."""


@contextmanager
def named_peer_loss() -> Iterator[None]:
    """Convert errors of the process group about a lost connection into PeerLost."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if _is_network_error(error):
            raise PeerLost(str(error)) from error
        raise


def _is_network_error(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, dist.DistBackendError | dist.DistNetworkError | dist.DistStoreError):
            return True
        if type(error) is RuntimeError and _GLOO_ERROR.match(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


@dataclass(frozen=True)
class Ranks:
    """The ranks of a run as seen from this process: its rank, its device, and collective calls."""

    process: ProcessInfo
    device: torch.device
    group: dist.ProcessGroup | None
    """The gloo group; None for the default group, which is gloo on CPU."""
    timeout: timedelta = timedelta(minutes=30)
    """How long a rank waits for the others."""

    @property
    def rank(self) -> int:
        return self.process.rank

    @property
    def world_size(self) -> int:
        return self.process.world_size

    def beside(self) -> "Ranks":
        """The same ranks with a gloo group of their own, for use by another thread; a collective call."""
        if self.world_size == 1:
            return self
        return replace(self, group=dist.new_group(backend="gloo", timeout=self.timeout))

    def leave(self) -> None:
        """Destroy the process group once all ranks are done; a collective call.

        Without it, some ranks that exited while others still ran were aborted by the group's threads (exit code 134).
        """
        if self.world_size > 1:
            self.barrier()
            dist.destroy_process_group()

    def gather(self, value: Any) -> list[Any] | None:
        """Every rank's value in rank order on rank 0; None elsewhere."""
        if self.world_size == 1:
            return [value]
        received: list[Any] | None = [None] * self.world_size if self.rank == 0 else None
        dist.gather_object(value, received, dst=0, group=self.group)
        return received

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.group)
        return box[0]

    def max(self, values: Sequence[int]) -> list[int]:
        """The element-wise maximum over all ranks."""
        return [int(value) for value in self._reduce(torch.tensor(values, dtype=torch.int64), dist.ReduceOp.MAX)]

    def sum(self, values: Sequence[float]) -> list[float]:
        """The element-wise sum over all ranks, in float64."""
        return [float(value) for value in self._reduce(torch.tensor(values, dtype=torch.float64), dist.ReduceOp.SUM)]

    def barrier(self) -> None:
        """Wait for every rank."""
        if self.world_size > 1:
            dist.barrier(group=self.group)

    def _reduce(self, values: torch.Tensor, operation: Any) -> torch.Tensor:
        if self.world_size > 1:
            dist.all_reduce(values, op=operation, group=self.group)
        return values


def join_ranks(process: ProcessInfo, *, timeout_minutes: int, rendezvous: Rendezvous | None = None) -> Ranks:
    """Start the process group and choose this rank's device.

    Uses the port of `rendezvous` if the ranks agreed on one, else the launcher's.

    Raises:
        UserError: more ranks on this node than GPUs, or the port is in use.
    """
    os.environ.update(process.as_environment())
    # DeepSpeed's own groups use this timeout; its default of 10 minutes is too short for long evaluations
    os.environ.setdefault("DEEPSPEED_TIMEOUT", str(timeout_minutes))
    device = choose_device(process)
    if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        # ranks that each use every core slow each other down
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // process.local_world_size))
    backend = "nccl" if device.type == "cuda" else "gloo"
    timeout = timedelta(minutes=timeout_minutes)
    try:
        store = _open_store(process, rendezvous=rendezvous, timeout=timeout) if rendezvous else None
        dist.init_process_group(backend, store=store, timeout=timeout, rank=process.rank, world_size=process.world_size)
    except dist.DistNetworkError as error:
        if "EADDRINUSE" not in str(error):
            raise
        raise UserError(
            f"port {process.master_port} of this machine is in use, probably by another run; choose another port "
            "(deepspeed and torchrun: --master_port 29501; else set MASTER_PORT)"
        ) from error
    group = dist.new_group(backend="gloo", timeout=timeout) if backend == "nccl" else None
    return Ranks(process=process, device=device, group=group, timeout=timeout)


def _open_store(process: ProcessInfo, *, rendezvous: Rendezvous, timeout: timedelta) -> Any:
    """The store of the process group on the port that rank 0 has held since the start; returns once all ranks have connected."""
    store_class: Any = vars(dist)["TCPStore"]  # exported at run time only
    store = store_class(
        process.master_address,
        rendezvous.port,
        process.world_size,
        is_master=process.rank == 0,
        timeout=timeout,
        master_listen_fd=rendezvous.listener.detach() if rendezvous.listener else None,
    )
    rendezvous.close()
    return store


def choose_device(process: ProcessInfo) -> torch.device:
    """The GPU of this rank's local rank, or the CPU without GPUs. Slurm may show each task only its own GPU.

    Raises:
        UserError: more ranks on this node than GPUs.
    """
    count = torch.cuda.device_count()
    if count == 0:
        return torch.device("cpu")
    own_gpu_only = count == 1 and process.launcher == "srun"
    if process.local_rank >= count and not own_gpu_only:
        raise UserError(
            f"LOCAL_RANK {process.local_rank} has no GPU: this node shows {count}; start at most {count} ranks per node"
        )
    device = torch.device("cuda", 0 if own_gpu_only else process.local_rank)
    torch.cuda.set_device(device)
    return device
