"""Where the ranks of a Slurm step meet: a port that rank 0 holds open and publishes through the run folder. Knows no torch.

A port computed from the job id may belong to somebody else on a shared node, and one that was only tried may be gone by the
time it is used. Rank 0 listens on a port before anything slow is imported and never lets go of it until the ranks have met.
"""

import json
import os
import random
import re
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dstrain.cluster.environment import ProcessInfo
from dstrain.errors import UserError

DIRECTORY = "rendezvous"
PORTS = range(20000, 32000)
"""Above the well-known ports, and below the ephemeral ones that outgoing connections of others take (NVIDIA/enroot#243)."""
MAX_TRIES = 200
MEETING_SECONDS = 300.0
"""How long ranks wait for the word of rank 0: nodes may start their tasks minutes apart, as where a container is unpacked."""
POLL_SECONDS = 0.2
MARKS = ("SLURM_JOB_START_TIME", "SLURM_STEP_LAUNCHER_PORT")
"""Alike for all tasks of a step, and another time not: a site counts its jobs anew one day, and a word may have been left."""


@dataclass(frozen=True)
class Rendezvous:
    """An agreed port. On rank 0 it is held by `listener`, and published at `path`."""

    port: int
    listener: socket.socket | None = None
    path: Path | None = None

    def close(self) -> None:
        """Take the word back once all ranks have met, so that nobody ever reads it late."""
        if self.path is not None:
            with suppress(OSError):  # a few bytes that nobody asks for: the name holds job, step and restart
                self.path.unlink()


def needs_rendezvous(process: ProcessInfo) -> bool:
    """Whether the launcher has left it to the ranks to agree on a port."""
    return process.master_port == 0


def open_rendezvous(
    process: ProcessInfo,
    *,
    environment: Mapping[str, str],
    run_dir: Path,
    timeout_seconds: float = MEETING_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> Rendezvous:
    """Rank 0 takes a port and publishes it in the run folder; the others wait for its word.

    Raises:
        UserError: no port is free, or the word of rank 0 does not come, as where the run folder is not shared.
    """
    key = name_meeting(environment)
    path = run_dir / DIRECTORY / f"{key}.json"
    mark = "-".join(environment.get(name, "") for name in MARKS)
    if process.rank == 0:
        listener = open_port(list_ports(key))
        port = int(listener.getsockname()[1])
        _publish(path, port=port, mark=mark)
        return Rendezvous(port, listener=listener, path=path)
    waited = 0.0  # by the pauses, so that a suspended task has not waited
    while (found := _read_port(path, mark=mark)) is None:
        if waited >= timeout_seconds:
            raise UserError(
                f"{path}: rank {process.rank} waited {timeout_seconds:.0f} s for rank 0 on {process.master_address} to publish "
                "its port there; give an output_dir on a file system that all nodes share, or set MASTER_PORT to a port "
                "that is free on that node"
            )
        sleep(POLL_SECONDS)
        waited += POLL_SECONDS
    return Rendezvous(found)


def name_meeting(environment: Mapping[str, str]) -> str:
    """A name that no other start shares, until a site counts its jobs anew: cluster, job, step and restart."""
    cluster = re.sub(r"[^A-Za-z0-9_-]", "_", environment.get("SLURM_CLUSTER_NAME", ""))
    parts = [environment.get(key, "0") for key in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")]
    for part in parts:
        if not part.isdecimal():
            raise UserError(f"environment: SLURM_* numbers must be whole, found {part!r}; start with srun")
    return "-".join([cluster or "slurm", *parts])


def list_ports(key: str) -> list[int]:
    """The ports to try, in an order of this rendezvous's own, so that starts on one node seldom try the same."""
    return random.Random(key).sample(PORTS, MAX_TRIES)


def open_port(ports: Iterable[int]) -> socket.socket:
    """A socket that listens on the first of these ports that nobody holds, on all of this host's addresses.

    Raises:
        UserError: all are in use.
    """
    tried = 0
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    for port in ports:
        tried += 1
        with suppress(OSError):
            return socket.create_server(("", port), family=family, dualstack_ipv6=both, backlog=4096)
    raise UserError(
        f"{socket.gethostname()}: none of {tried} ports between {PORTS.start} and {PORTS.stop} is free; set MASTER_PORT to "
        "one that is"
    )


def _publish(path: Path, *, port: int, mark: str) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({"port": port, "host": socket.gethostname(), "mark": mark}) + "\n")
        temporary.replace(path)
    except OSError as error:
        raise UserError(
            f"{path}: the port of rank 0 cannot be published ({error.strerror}); make the run folder writable, or give "
            "another output_dir"
        ) from error


def _read_port(path: Path, *, mark: str) -> int | None:
    try:
        # by the list, since NFS remembers for a minute that a name was absent, but asks anew when a directory is opened
        if path.name not in os.listdir(path.parent):
            return None
        word = json.loads(path.read_text())
        port = word["port"] if word["mark"] == mark else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return port if isinstance(port, int) else None
