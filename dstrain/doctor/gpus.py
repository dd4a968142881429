"""The driver of NVIDIA's GPUs, and who else uses them, as nvidia-smi tells it."""

from collections.abc import Iterator
from dataclasses import dataclass

from dstrain.doctor.finding import Finding, note, ok, problem
from dstrain.doctor.libraries import DRIVER
from dstrain.doctor.programs import Done, Run

GPUS = (
    "nvidia-smi",
    "--query-gpu=index,uuid,name,driver_version,memory.total,memory.used",
    "--format=csv,noheader,nounits",
)
PROCESSES = ("nvidia-smi", "--query-compute-apps=gpu_uuid,pid,used_memory", "--format=csv,noheader,nounits")
IDLE_SHARE = 0.05
"""Share of the memory that the driver itself may use."""


@dataclass(frozen=True, slots=True)
class GpuUse:
    """A GPU of this machine, whether or not it is shown to torch."""

    index: int
    name: str
    driver: str
    total_mib: float
    used_mib: float
    pids: tuple[int, ...]
    """Of the processes that compute on it; those of other containers are not told."""


def ask_gpus(run: Run) -> tuple[list[GpuUse], Done | None]:
    """The GPUs, and how nvidia-smi ended; None if there is no nvidia-smi."""
    listed = run(GPUS)
    if listed is None or listed.code != 0:
        return [], listed
    processes = run(PROCESSES)
    return read_gpus(listed.out, processes=processes.out if processes else ""), listed


def read_gpus(text: str, *, processes: str) -> list[GpuUse]:
    """The GPUs in the tables of nvidia-smi; lines of another form are left out."""
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]
    used = [[cell.strip() for cell in line.split(",")] for line in processes.splitlines()]
    found = []
    for row in rows:
        if len(row) == 6 and row[0].isdecimal():
            index, uuid, name, driver, *memory = row
            pids = tuple(int(each[1]) for each in used if each[0] == uuid and len(each) > 1 and each[1].isdecimal())
            total, taken = (float(each) if each.replace(".", "").isdecimal() else 0.0 for each in memory)
            found.append(GpuUse(int(index), name, driver, total, taken, pids))
    return found


def judge_use(gpus: list[GpuUse], *, done: Done | None) -> Iterator[Finding]:
    """The driver, and GPUs that others use."""
    if done is None:
        return
    if done.code is None:
        yield problem(
            "driver", "nvidia-smi does not answer", way_out="start the machine again, or ask its administrator"
        )
    elif done.code != 0:
        yield note("driver", f"nvidia-smi failed: {done.out.strip() or done.last_error}", way_out=DRIVER)
    elif gpus:
        yield ok("driver", gpus[0].driver)
    for gpu in gpus:
        if gpu.pids or gpu.used_mib > IDLE_SHARE * gpu.total_mib:
            by = f", by process {', '.join(map(str, gpu.pids))}" if gpu.pids else ""
            yield note(
                "driver",
                f"GPU {gpu.index} ({gpu.name}) has {gpu.used_mib / 1024:.1f} of {gpu.total_mib / 1024:.1f} GiB in use{by}",
                way_out="wait, or take others: CUDA_VISIBLE_DEVICES, or `deepspeed --include localhost:NUMBERS`",
            )
