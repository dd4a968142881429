"""The process table of this host (Linux: /proc). Knows nothing of ranks or leases."""

import os
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field

HIDDEN = -1
"""Start time of a process that exists but is hidden from this user."""


@dataclass(frozen=True, slots=True)
class Process:
    """An entry of the process table."""

    start: int
    """Clock ticks from boot to the start of the process; distinguishes it from a later process with the same id."""
    state: str
    """R, S, D, T, Z, …: proc_pid_stat(5)."""
    parent: int
    """Process id of the parent."""
    exit_status: int
    """The status for wait(2) once `state` is Z; 0 if this user may not see it."""


def read_process(pid: int) -> Process | None:
    """A process of this host; None if it does not exist (/proc/PID/stat, fields 3, 4, 22 and 52)."""
    try:
        # as bytes, because the process name may be cut inside a character
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat.rpartition(b")")[2].split()
    return Process(start=int(fields[19]), state=fields[0].decode(), parent=int(fields[1]), exit_status=int(fields[49]))


def end_with_descendants(pid: int, *, itself: bool = True) -> None:
    """Kill a process and all that it has started, whatever their sessions; with `itself` false only the latter."""
    parents = {
        int(path.name): process.parent
        for path in Path("/proc").glob("[0-9]*")
        if (process := read_process(int(path.name)))
    }
    wanted = [pid]
    for each in wanted:  # grows meanwhile
        wanted += [child for child, parent in parents.items() if parent == each]
    for each in wanted if itself else wanted[1:]:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(each, signal.SIGKILL)


def process_start(pid: int) -> int | None:
    """Start of a process in clock ticks since boot; None if it is gone, HIDDEN if this user may not see it."""
    process = read_process(pid)
    if process is None:
        return HIDDEN if _is_there(pid) else None
    # a zombie cannot write any more; in a container its parent may never collect it
    return None if process.state in ("Z", "X") else process.start


def _is_there(pid: int) -> bool:
    # /proc with hidepid hides processes of other users, but signal 0 shows whether they exist
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that holds something, identified so that other processes can check whether it still runs."""

    host: str
    pid: Annotated[int, Field(ge=1, lt=1 << 31)]
    process_start: int
    """Clock ticks from boot to its start, because process ids are reused."""
    pid_namespace: str
    """Pid namespace and boot id. Process ids are comparable only if it is equal. Empty without /proc."""
    since: str
    """ISO time, for messages."""

    def may_see(self, other: "Holder") -> bool:
        """Whether this process can look up the other one by its process id."""
        # the host as well, because clones of a virtual machine share their boot id
        is_here = (self.host, self.pid_namespace) == (other.host, other.pid_namespace)
        return is_here and self.pid_namespace != ""

    def is_same(self, other: "Holder") -> bool:
        """Whether both are one process, whatever it held and since when."""
        return replace(self, since="") == replace(other, since="")

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


def this_process() -> Holder:
    """The calling process, with the present time."""
    pid = os.getpid()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        pid_namespace = f"{os.readlink('/proc/self/ns/pid')} {boot}"
    except OSError:
        pid_namespace = ""  # not Linux: treated like a process on another host
    return Holder(
        host=socket.gethostname(),
        pid=pid,
        process_start=process_start(pid) or 0,
        pid_namespace=pid_namespace,
        since=datetime.now(UTC).isoformat(timespec="seconds"),
    )
