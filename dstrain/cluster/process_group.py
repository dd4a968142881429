"""The process group, and the exchanges between ranks outside the training step.

These run over gloo on the CPU, beside the device's own backend, so that they need no device synchronisation.
"""

import logging
import os
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from dstrain.cluster.devices import Seat, Wanted, check_seats, choose_device, take_seat
from dstrain.cluster.environment import ProcessInfo
from dstrain.cluster.meeting import meet
from dstrain.cluster.messages import decode, encode
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

    def gather(self, value: Any, form: Any) -> list[Any] | None:
        """Every rank's value in rank order on rank 0; None elsewhere. `form` is the type of a value, see messages.py."""
        if self.world_size == 1:
            return [value]
        message = encode(value, form)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world_size)]
        dist.all_gather(sizes, torch.tensor([len(message)]), group=self.group)
        longest = int(max(sizes))
        received = [torch.empty(longest, dtype=torch.uint8) for _ in sizes] if self.rank == 0 else None
        dist.gather(_to_tensor(message.ljust(longest)), received, dst=0, group=self.group)
        if received is None:
            return None
        return [decode(_to_bytes(each), form, sender=rank) for rank, each in enumerate(received)]

    def broadcast(self, value: Any, form: Any) -> Any:
        """Rank 0's value, on every rank. `form` is its type, see messages.py; the other ranks' `value` is ignored."""
        if self.world_size == 1:
            return value
        message = encode(value, form) if self.rank == 0 else b""
        size = torch.tensor([len(message)])
        dist.broadcast(size, src=0, group=self.group)
        sent = _to_tensor(message.ljust(int(size)))
        dist.broadcast(sent, src=0, group=self.group)
        return decode(_to_bytes(sent), form, sender=0)

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


def _to_tensor(message: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(message), dtype=torch.uint8)


def _to_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.numpy().tobytes()


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
    if process.is_one_host:
        _stay_on_loopback()
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    timeout = timedelta(minutes=timeout_minutes)
    try:
        store = meet(
            process, seat=take_seat(process, device=chosen), judge=_judge, rendezvous=rendezvous, timeout=timeout
        )
    finally:
        if rendezvous is not None:
            rendezvous.close()
    dist.init_process_group(backend, store=store, timeout=timeout, rank=process.rank, world_size=process.world_size)
    group = dist.new_group(backend="gloo", timeout=timeout) if backend == "nccl" else None
    return Ranks(process=process, device=chosen, group=group, timeout=timeout)


def _stay_on_loopback() -> None:
    """Have gloo and NCCL listen where no other host can connect, unless the user has chosen an interface."""
    for _, interface in socket.if_nameindex():
        if re.fullmatch(r"lo\d*", interface):  # lo0 on macOS
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)


def _judge(seats: Sequence[Seat]) -> str | None:
    try:
        for warning in check_seats(seats):
            log.warning("%s", warning)
    except UserError as error:
        return str(error)
    return None
