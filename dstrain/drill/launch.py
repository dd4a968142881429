"""Starts the ranks of a run as processes, signals or kills them, and returns their exit codes. Judges nothing.

Every rank leads a process group of its own, so that its child processes are killed with it.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO

from dstrain.attempt.rank_records import DRILL_VARIABLE, ranks_dir, read_rank_records
from dstrain.cluster.environment import ProcessInfo, free_port
from dstrain.drill.compare import Exit
from dstrain.drill.scenarios import RankLaunch, drill_value
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.reading import RunFolderError
from dstrain.run_folder.rows import EventRow, TrainRow, read_rows

PROGRAM = (sys.executable, "-m", "dstrain.train")
OTHER_LAUNCHERS = ("TORCHELASTIC_RUN_ID", "CROSS_RANK", "LOCAL_SIZE", DRILL_VARIABLE)
"""Variables that another launcher or drill may have set around this one; the ranks must not inherit them."""
POLL_SECONDS = 0.02

Rank = subprocess.Popen[bytes]


def launch_ranks(
    launch: RankLaunch,
    *,
    config: Path,
    run_dir: Path,
    log: Path,
    minutes: float,
    environment: Mapping[str, str],
    program: Sequence[str] = PROGRAM,
    monotonic: Callable[[], float] = time.monotonic,
) -> Exit:
    """Start the ranks of a run and wait until all of them have ended. Their output is appended to `log`.

    They are killed after `minutes`, and when this process is interrupted.
    """
    deadline = monotonic() + minutes * 60
    command = [*program, "--config", str(config)]
    ranks: list[Rank] = []
    timed_out = False
    try:
        with log.open("ab") as output:
            output.write(f"--- ranks: {launch.num_ranks}; {_describe(launch)}\n".encode())
            output.flush()
            _start(ranks, command, launch=launch, environment=environment, output=output)
        needs_signal = launch.sigterm_after is not None
        while any(rank.poll() is None for rank in ranks) and not timed_out:
            if needs_signal and _has_trained(run_dir, step=launch.sigterm_after or 0):
                _signal(ranks, signal.SIGTERM)
                needs_signal = False
            timed_out = monotonic() > deadline
            time.sleep(POLL_SECONDS)
    finally:
        _kill(ranks)
    codes = tuple(rank.wait() for rank in ranks)
    return Exit(codes, stopped_in=_stopped_in(launch, run_dir=run_dir, codes=codes), timed_out=timed_out)


def rank_environment(
    environment: Mapping[str, str], *, rank: int, num_ranks: int, port: int, launch: RankLaunch
) -> dict[str, str]:
    """The environment that a launcher would give to this rank."""
    process = ProcessInfo(
        rank=rank,
        local_rank=rank,
        world_size=num_ranks,
        master_address="127.0.0.1",
        master_port=port,
        launcher="environment",
    )
    kept = {key: value for key, value in environment.items() if key not in OTHER_LAUNCHERS}
    drill = {DRILL_VARIABLE: drill_value(launch.drill)} if launch.drill else {}
    return kept | process.as_environment() | {"LOCAL_WORLD_SIZE": str(num_ranks)} | drill


def count_gpus(environment: Mapping[str, str], *, devices: Path = Path("/dev")) -> int:
    """Number of GPUs that a rank will see, from device files and variables: querying the driver would need torch."""
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return len(list(devices.glob("nvidia[0-9]*")))
    names = [name.strip() for name in chosen.split(",") if name.strip()]
    # CUDA ignores the rest of the list from the first device that does not exist
    return names.index("-1") if "-1" in names else len(names)


@contextmanager
def interrupted_like_ctrl_c() -> Iterator[None]:
    """SIGTERM and SIGHUP (a closed terminal) raise KeyboardInterrupt as Ctrl-C does.

    Otherwise the ranks, which are in process groups of their own, would outlive this process.
    """
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _describe(launch: RankLaunch) -> str:
    if launch.drill:
        return f"{DRILL_VARIABLE}={drill_value(launch.drill)}"
    return "to the end" if launch.sigterm_after is None else f"SIGTERM after step {launch.sigterm_after}"


def _start(
    ranks: list[Rank], command: list[str], *, launch: RankLaunch, environment: Mapping[str, str], output: IO[bytes]
) -> None:
    """Start one process per rank and append it to `ranks` at once, so that the caller can kill them if a later start fails."""
    port = free_port()
    for number in range(launch.num_ranks):
        own = rank_environment(environment, rank=number, num_ranks=launch.num_ranks, port=port, launch=launch)
        ranks.append(
            subprocess.Popen(
                command,
                env=own,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        )


def _signal(ranks: Sequence[Rank], number: int) -> None:
    for rank in ranks:
        rank.send_signal(number)


def _kill(ranks: Sequence[Rank]) -> None:
    for rank in ranks:
        if rank.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(rank.pid, signal.SIGKILL)
    for rank in ranks:
        rank.wait()


def _has_trained(run_dir: Path, *, step: int) -> bool:
    return any(isinstance(row, TrainRow) and row.step >= step for row in _rows(run_dir))


def _stopped_in(launch: RankLaunch, *, run_dir: Path, codes: Sequence[int]) -> str | None:
    """Where the run was killed, by the record of a killed rank, or stopped, by the stop event; None if neither says so."""
    if launch.drill:
        for record in read_rank_records(ranks_dir(run_dir)):
            killed = record.rank < len(codes) and codes[record.rank] == -signal.SIGKILL
            if killed and launch.drill.phase in record.tracks.values():
                return f"{launch.drill.phase}, step {record.step or 0}"
    stops = [row.step for row in _rows(run_dir) if isinstance(row, EventRow) and row.event == "stop"]
    return f"step {stops[-1]}" if launch.sigterm_after is not None and stops else None


def _rows(run_dir: Path) -> list[TrainRow | EventRow]:
    with suppress(FileNotFoundError, RunFolderError):
        return [row for row in read_rows(RunFolder(run_dir).metrics) if isinstance(row, TrainRow | EventRow)]
    return []
