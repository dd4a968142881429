"""The port that rank 0 opens, and how the ranks of srun or mpirun agree on one, in the run folder. Imports no torch.

A port computed from the job id may be taken on a shared node, and a port that was only tested may be taken before it is used.
So rank 0 listens on a port before anything slow is imported, and keeps it open until all ranks have connected.
"""

import hashlib
import ipaddress
import json
import os
import random
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dstrain.cluster.environment import LOOPBACK, ProcessInfo
from dstrain.cluster.processes import process_start
from dstrain.errors import UserError

PORTS = range(20000, 32000)
"""Above the well-known ports and below the ephemeral ones, which outgoing connections use (NVIDIA/enroot#243)."""
MAX_TRIES = 200
WAIT_SECONDS = 300.0
"""How long ranks wait for the port: nodes may start their tasks minutes apart, for example while unpacking a container."""
POLL_SECONDS = 0.2
MAX_PUBLISHED_BYTES = 4096
LAUNCH_NAMES = ("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "PMI_JOBID")
MARKS = ("SLURM_JOB_START_TIME", "SLURM_STEP_LAUNCHER_PORT")
"""Equal for all tasks of one step, different for any other: job ids wrap around, and a stale file may be left."""


@dataclass(frozen=True)
class Rendezvous:
    """An agreed port. On rank 0, `listener` keeps it open and `path` is the published file."""

    port: int
    listener: socket.socket | None = None
    path: Path | None = None

    def close(self) -> None:
        """Remove the published file once all ranks have connected, so that no later step reads it."""
        if self.path is not None:
            with suppress(OSError):  # harmless if it stays: its name has job, step and restart
                self.path.unlink()


def needs_rendezvous(process: ProcessInfo) -> bool:
    """Whether the ranks have to agree on a port themselves."""
    return process.master_port == 0


def open_rendezvous(
    process: ProcessInfo,
    *,
    environment: Mapping[str, str],
    folder: Path,
    timeout_seconds: float = WAIT_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> Rendezvous:
    """Open a port on rank 0 and publish it in a shared `folder`; wait for it on the other ranks.

    Raises:
        UserError: no port is free, or rank 0 publishes none in time, for example because the run folder is not shared.
    """
    key = name_rendezvous(environment) if process.launcher == "srun" else name_launch(environment)
    path = folder / f"{key}.json"
    mark = "-".join(environment.get(name, "") for name in MARKS)
    if process.rank == 0:
        listener = open_port(list_ports(key), host=choose_host(process))
        port = int(listener.getsockname()[1])
        _publish(path, port=port, mark=mark)
        return Rendezvous(port, listener=listener, path=path)
    waited = 0.0  # the sum of the pauses, so that time in which this task was suspended does not count
    while (found := _read_port(path, mark=mark)) is None:
        if waited >= timeout_seconds:
            raise UserError(
                f"{path}: rank {process.rank} waited {timeout_seconds:.0f} s for rank 0 on {process.master_address} to publish "
                "its port there; choose an output_dir on a file system that all nodes share, or set MASTER_PORT to a port "
                "that is free on that node"
            )
        sleep(POLL_SECONDS)
        waited += POLL_SECONDS
    return Rendezvous(found)


def name_rendezvous(environment: Mapping[str, str]) -> str:
    """A name from cluster, job, step and restart, unique until job ids wrap around."""
    cluster = re.sub(r"[^A-Za-z0-9_-]", "_", environment.get("SLURM_CLUSTER_NAME", ""))
    numbers = {key: environment.get(key, "0") for key in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")}
    for key, value in numbers.items():
        if not value.isdecimal():
            raise UserError(f"environment: {key} must be a whole number, found {value!r}; start with srun")
    return "-".join([cluster or "slurm", *numbers.values()])


def name_launch(environment: Mapping[str, str]) -> str:
    """A name that only the ranks of one mpirun share: of the MPI's own making, else of the process that started them."""
    for key in LAUNCH_NAMES:
        if value := environment.get(key):
            return f"mpirun-{hashlib.sha256(value.encode()).hexdigest()[:16]}"
    return f"mpirun-{os.getppid()}-{process_start(os.getppid())}"


def list_ports(key: str) -> list[int]:
    """The ports to try, in an order that depends on `key`, so that steps on one node seldom try the same ones."""
    return random.Random(key).sample(PORTS, MAX_TRIES)


def choose_host(process: ProcessInfo) -> str:
    """The address that rank 0 listens on; empty is every address of this host.

    Loopback if all ranks are here. Else the address that its peers are given, unless this host does not have it, as where a
    service stands before it, or calls itself by a loopback address.
    """
    if process.is_one_host:
        return LOOPBACK
    with suppress(OSError, ValueError):  # no such name, or none at all
        for *_, place in socket.getaddrinfo(process.master_address, None, type=socket.SOCK_STREAM):
            address = ipaddress.ip_address(place[0])
            if not address.is_loopback and not address.is_link_local and _has_address(str(address)):
                return str(address)
    return ""


def _has_address(address: str) -> bool:
    try:
        socket.create_server((address, 0), family=_family(address)).close()
    except OSError:
        return False
    return True


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def open_port(ports: Iterable[int], *, host: str) -> socket.socket:
    """A socket that listens on the first free one of these ports, at one address of this host or, if that is empty, at all.

    Raises:
        UserError: all are in use.
    """
    tried = 0
    for port in ports:
        tried += 1
        with suppress(OSError):
            return listen(port, host=host)
    raise UserError(
        f"{socket.gethostname()}: none of {tried} ports between {PORTS.start} and {PORTS.stop} is free; set MASTER_PORT to "
        "a free one"
    )


def listen(port: int, *, host: str) -> socket.socket:
    """A socket that listens on this port, at one address of this host or, if that is empty, at all; OSError if it is in use."""
    both = not host and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else _family(host)
    return socket.create_server((host, port), family=family, dualstack_ipv6=both, backlog=4096)


def _publish(path: Path, *, port: int, mark: str) -> None:
    temporary = path.with_suffix(f".{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("x") as file:  # exclusive: it follows no link
            file.write(json.dumps({"port": port, "host": socket.gethostname(), "mark": mark}) + "\n")
        temporary.replace(path)
    except OSError as error:
        raise UserError(
            f"{path}: the port of rank 0 cannot be published ({error.strerror}); make the run folder writable, or "
            "choose another output_dir"
        ) from error


def _read_port(path: Path, *, mark: str) -> int | None:
    try:
        # by listing, since NFS caches for a minute that a name was absent, but reads a directory again when it is opened
        if path.name not in os.listdir(path.parent):
            return None
        published = json.loads(_read_ordinary(path))
        port = published["port"] if published["mark"] == mark else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return port if isinstance(port, int) else None


def _read_ordinary(path: Path) -> bytes:
    # neither a link nor a pipe, which an older file of the run folder may be
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        return os.read(descriptor, MAX_PUBLISHED_BYTES)
    finally:
        os.close(descriptor)
