"""Processors, memory, shared memory and open files of this machine, and what a control group leaves of them."""

import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dstrain.doctor.finding import Finding, note, ok

GB = 1e9
LOW_MEMORY = 2 * GB
"""torch, DeepSpeed and transformers alone take over 1 GB in each rank."""
LOW_SHM = 1 * GB
"""Containers have 64 MB unless they ask for more."""
LOW_FILES = 4096
"""The usual limit is 1024; a rank opens the files of its data, the connections to its peers, and those of every library."""


@dataclass(frozen=True, slots=True)
class Host:
    """What this machine has, and how much of it this process may use. Sizes in bytes; None for what is not known."""

    num_cpus: int
    num_usable: int
    """CPUs that this process may run on."""
    cpu_quota: float | None
    """CPUs' worth of time that the control group allows."""
    memory: int | None
    available: int | None
    memory_limit: int | None
    """Of the control group."""
    shm: int | None
    shm_free: int | None
    open_files: int
    """The soft limit; a program may raise it to the hard one."""
    most_open_files: int


def look_at_host(
    *, proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup"), shm: Path = Path("/dev/shm")
) -> Host:
    """This machine."""
    memory = read_memory(_read(proc / "meminfo"))
    group = _read(proc / "self" / "cgroup")
    shm_size = shm_free = None
    with suppress(OSError):
        status = os.statvfs(shm)
        shm_size, shm_free = status.f_frsize * status.f_blocks, status.f_frsize * status.f_bavail
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Host(
        num_cpus=os.cpu_count() or 1,
        num_usable=len(os.sched_getaffinity(0)),
        cpu_quota=read_cpu_quota(group, groups=groups),
        memory=memory.get("MemTotal"),
        available=memory.get("MemAvailable"),
        memory_limit=read_memory_limit(group, groups=groups),
        shm=shm_size,
        shm_free=shm_free,
        open_files=soft,
        most_open_files=hard,
    )


def read_memory(text: str) -> dict[str, int]:
    """The sizes in /proc/meminfo, in bytes."""
    rows = (line.replace(":", " ").split() for line in text.splitlines())
    return {row[0]: int(row[1]) << 10 for row in rows if len(row) == 3 and row[1].isdecimal()}


def read_memory_limit(group: str, *, groups: Path) -> int | None:
    """The least memory that the control groups around this process allow; None if they allow all."""
    texts = [*_each(group, groups=groups, controller="memory", file="memory.max", old="memory.limit_in_bytes")]
    limits = [int(text) for text in texts if text.strip().isdecimal()]
    return min((limit for limit in limits if limit < 1 << 60), default=None)  # v1 writes a huge number for no limit


def read_cpu_quota(group: str, *, groups: Path) -> float | None:
    """The least processor time that the control groups around this process allow, in CPUs; None if they allow all."""
    quotas = []
    for text in _each(group, groups=groups, controller="cpu", file="cpu.max", old="cpu.cfs_quota_us"):
        quota, *period = text.split() or ["max"]
        if quota.isdecimal():
            quotas.append(int(quota) / int(period[0] if period else 100_000))  # the period of v1 is hardly ever another
    return min(quotas, default=None)


def judge_host(host: Host) -> Iterator[Finding]:
    """What a run would lack."""
    quota = f", of which the control group allows {host.cpu_quota:g}" if host.cpu_quota is not None else ""
    yield ok("cpus", f"{host.num_usable} of {host.num_cpus}{quota}")
    if host.memory is not None and host.available is not None:
        limit = f", of which the control group allows {host.memory_limit / GB:.1f} GB" if host.memory_limit else ""
        text = f"{host.available / GB:.1f} of {host.memory / GB:.1f} GB are available{limit}"
        if min(host.available, host.memory_limit or host.available) < LOW_MEMORY:
            yield note(
                "memory", text, way_out="each rank takes over 1 GB before any data: end other programs, or ask for more"
            )
        else:
            yield ok("memory", text)
    if host.shm is not None and host.shm_free is not None:
        text = f"{host.shm_free / GB:.2f} of {host.shm / GB:.2f} GB are free"
        if host.shm_free < LOW_SHM:
            way_out = (
                "NCCL needs it between GPUs of one machine: docker run --shm-size=8g, or an emptyDir of medium Memory"
            )
            yield note("/dev/shm", text, way_out=way_out)
        else:
            yield ok("/dev/shm", text)
    if 0 <= host.open_files < LOW_FILES:
        text = f"at most {host.open_files}, the hard limit is {host.most_open_files}"
        yield note("open files", text, way_out=f"ulimit -n {LOW_FILES} or more before the start")
    else:
        yield ok("open files", "no limit" if host.open_files < 0 else f"at most {host.open_files}")


def _each(group: str, *, groups: Path, controller: str, file: str, old: str) -> Iterator[str]:
    """What a file of the control groups holds, from that of this process up to the root; `old` is its name in version 1."""
    for line in group.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount, name = (groups / controller, old) if controllers else (groups, file)
        inner = Path(path.lstrip("/"))
        for folder in (inner, *inner.parents):
            yield _read(mount / folder / name)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
