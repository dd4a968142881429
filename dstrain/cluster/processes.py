"""The process table of this host, as Linux shows it in /proc. Knows nothing of ranks or leases."""

import os
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field

HIDDEN = -1
"""Start time of a process that is there but may not be looked at."""


@dataclass(frozen=True, slots=True)
class Process:
    """A line of the process table."""

    start: int
    """Clock ticks between boot and the start of the process; tells a process from a later one of the same id."""
    state: str
    """R, S, D, T, Z, …: proc_pid_stat(5)."""
    parent: int
    """Its process id."""
    exit_status: int
    """As of wait(2), once `state` is Z; 0 where it may not be seen."""


def read_process(pid: int) -> Process | None:
    """A process of this host, None when there is none (Linux: /proc/PID/stat, fields 3, 4, 22 and 52)."""
    try:
        # bytes: a process name may be cut in the middle of a letter
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat.rpartition(b")")[2].split()
    return Process(start=int(fields[19]), state=fields[0].decode(), parent=int(fields[1]), exit_status=int(fields[49]))


def process_start(pid: int) -> int | None:
    """Start of a process in clock ticks since boot; None when it is gone, or HIDDEN."""
    process = read_process(pid)
    if process is None:
        return HIDDEN if _is_there(pid) else None
    # killed but not yet waited for by its parent, which in a container may be never: it writes no more
    return None if process.state in ("Z", "X") else process.start


def _is_there(pid: int) -> bool:
    # /proc mounted with hidepid shows no processes of other users, but a signal tells them from none
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds something, as it is written down for others to judge."""

    host: str
    pid: Annotated[int, Field(ge=1, lt=1 << 31)]
    process_start: int
    """Clock ticks since boot: a process id is used again, with another start."""
    pid_namespace: str
    """Pid namespace and boot; process ids are comparable only where it is equal. Empty where there is no /proc."""
    since: str
    """ISO time, for people."""

    def may_see(self, other: "Holder") -> bool:
        """Whether the other's process id means the same process to this one."""
        # the host too: clones of a virtual machine share their boot id
        alike = (self.host, self.pid_namespace) == (other.host, other.pid_namespace)
        return alike and self.pid_namespace != ""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, there since {self.since}"


def this_process() -> Holder:
    """The process that asks, from this moment on."""
    pid = os.getpid()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        pid_namespace = f"{os.readlink('/proc/self/ns/pid')} {boot}"
    except OSError:
        pid_namespace = ""  # no Linux: its claim is judged like another host's
    return Holder(
        host=socket.gethostname(),
        pid=pid,
        process_start=process_start(pid) or 0,
        pid_namespace=pid_namespace,
        since=datetime.now(UTC).isoformat(timespec="seconds"),
    )
