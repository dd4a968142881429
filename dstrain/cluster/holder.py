"""A process that holds something, named so that no other can be taken for it."""

import os
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field

from dstrain.cluster.processes import process_start


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
