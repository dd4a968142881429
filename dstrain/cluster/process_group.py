"""The process group, and the exchanges between ranks outside the training step.

These run over gloo on the CPU, beside the device's own backend, so that they need no device synchronisation.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from dstrain.cluster.devices import Seat, Wanted, check_seats, choose_device, take_seat
from dstrain.cluster.environment import ProcessInfo
from dstrain.cluster.meeting import meet
from dstrain.cluster.rendezvous import Rendezvous
from dstrain.errors import UserError

log = logging.getLogger(__name__)


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


def join_ranks(
    process: ProcessInfo, *, timeout_minutes: int, rendezvous: Rendezvous | None = None, device: Wanted = None
) -> Ranks:
    """Start the process group and choose this rank's device, a GPU unless `device` is `cpu`; a collective call.

    Uses the port of `rendezvous` if the ranks agreed on one, else the launcher's.

    Raises:
        UserError: the ranks cannot compute on these devices together, or the port is in use.
    """
    chosen = choose_device(process, wanted=device)
    os.environ.update(process.as_environment())
    if chosen.type == "cuda":
        # DeepSpeed takes LOCAL_RANK as the number of the device; `process` keeps the true one
        os.environ["LOCAL_RANK"] = str(chosen.index)
    elif "OMP_NUM_THREADS" not in os.environ:
        # ranks that each use every core slow each other down
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // process.local_world_size))
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    timeout = timedelta(minutes=timeout_minutes)
    try:
        store = meet(
            process, seat=take_seat(process, device=chosen), judge=_judge, rendezvous=rendezvous, timeout=timeout
        )
    except dist.DistNetworkError as error:
        if "EADDRINUSE" not in str(error):
            raise
        raise UserError(
            f"port {process.master_port} of this machine is in use, probably by another run; choose another port "
            "(deepspeed and torchrun: --master_port 29501; else set MASTER_PORT)"
        ) from error
    finally:
        if rendezvous is not None:
            rendezvous.close()
    dist.init_process_group(backend, store=store, timeout=timeout, rank=process.rank, world_size=process.world_size)
    group = dist.new_group(backend="gloo", timeout=timeout) if backend == "nccl" else None
    return Ranks(process=process, device=chosen, group=group, timeout=timeout)


def _judge(seats: Sequence[Seat]) -> str | None:
    try:
        for warning in check_seats(seats):
            log.warning("%s", warning)
    except UserError as error:
        return str(error)
    return None
