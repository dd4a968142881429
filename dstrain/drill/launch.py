"""Starts the ranks of a run as processes, kills or signals them as told, and waits for their ends. Knows no verdicts.

Every rank leads a process group of its own, so that whatever it has started ends with it.
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
from dstrain.drill.compare import Ended
from dstrain.drill.scenarios import Life, drill_value
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.reading import RunFolderError
from dstrain.run_folder.rows import EventRow, TrainRow, read_rows

PROGRAM = (sys.executable, "-m", "dstrain.train")
OTHER_LAUNCHERS = ("TORCHELASTIC_RUN_ID", "CROSS_RANK", "LOCAL_SIZE", DRILL_VARIABLE)
"""Left by whatever started the drill; the ranks would take themselves for its."""
POLL_SECONDS = 0.02

Rank = subprocess.Popen[bytes]


def live(
    life: Life,
    *,
    config: Path,
    run_dir: Path,
    log: Path,
    minutes: float,
    environment: Mapping[str, str],
    program: Sequence[str] = PROGRAM,
    monotonic: Callable[[], float] = time.monotonic,
) -> Ended:
    """Start the run's ranks and wait for their ends; what they print is added to `log`.

    They are killed if that takes longer than `minutes`, and if this process is interrupted.
    """
    deadline = monotonic() + minutes * 60
    command = [*program, "--config", str(config)]
    ranks: list[Rank] = []
    timed_out = False
    try:
        with log.open("ab") as output:
            output.write(f"--- ranks: {life.num_ranks}; {_intent(life)}\n".encode())
            output.flush()
            _start(ranks, command, life=life, environment=environment, output=output)
        is_told = life.sigterm_after is None
        while any(rank.poll() is None for rank in ranks) and not timed_out:
            if not is_told and _has_trained(run_dir, step=life.sigterm_after or 0):
                is_told = _signal(ranks, signal.SIGTERM)
            timed_out = monotonic() > deadline
            time.sleep(POLL_SECONDS)
    finally:
        _kill(ranks)
    codes = tuple(rank.wait() for rank in ranks)
    return Ended(codes, stopped_in=_stopped_in(life, run_dir=run_dir, codes=codes), timed_out=timed_out)


def rank_environment(
    environment: Mapping[str, str], *, rank: int, num_ranks: int, port: int, life: Life
) -> dict[str, str]:
    """The environment of one rank, as a launcher would set it."""
    process = ProcessInfo(
        rank=rank,
        local_rank=rank,
        world_size=num_ranks,
        master_address="127.0.0.1",
        master_port=port,
        launcher="environment",
    )
    kept = {key: value for key, value in environment.items() if key not in OTHER_LAUNCHERS}
    drill = {DRILL_VARIABLE: drill_value(life.drill)} if life.drill else {}
    return kept | process.as_environment() | {"LOCAL_WORLD_SIZE": str(num_ranks)} | drill


def count_gpus(environment: Mapping[str, str], *, devices: Path = Path("/dev")) -> int:
    """GPUs that a rank will see, as far as files and variables tell; asking the driver would need torch."""
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return len(list(devices.glob("nvidia[0-9]*")))
    names = [name.strip() for name in chosen.split(",") if name.strip()]
    # CUDA ends the list at the first one that does not exist
    return names.index("-1") if "-1" in names else len(names)


@contextmanager
def ended_like_ctrl_c() -> Iterator[None]:
    """A SIGTERM or a closed terminal interrupts this process as Ctrl-C does: ranks in groups of their own outlive it else."""
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _intent(life: Life) -> str:
    if life.drill:
        return f"{DRILL_VARIABLE}={drill_value(life.drill)}"
    return "to the end" if life.sigterm_after is None else f"SIGTERM after step {life.sigterm_after}"


def _start(
    ranks: list[Rank], command: list[str], *, life: Life, environment: Mapping[str, str], output: IO[bytes]
) -> None:
    """Add a process a rank to `ranks`, which has those that run if the start of another one fails."""
    port = free_port()
    for number in range(life.num_ranks):
        own = rank_environment(environment, rank=number, num_ranks=life.num_ranks, port=port, life=life)
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


def _signal(ranks: Sequence[Rank], number: int) -> bool:
    for rank in ranks:
        rank.send_signal(number)
    return True


def _kill(ranks: Sequence[Rank]) -> None:
    for rank in ranks:
        if rank.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(rank.pid, signal.SIGKILL)
    for rank in ranks:
        rank.wait()


def _has_trained(run_dir: Path, *, step: int) -> bool:
    return any(isinstance(row, TrainRow) and row.step >= step for row in _rows(run_dir))


def _stopped_in(life: Life, *, run_dir: Path, codes: Sequence[int]) -> str | None:
    """Where the run's own files say that it was killed (the rank's record) or stopped (the event)."""
    if life.drill:
        for record in read_rank_records(ranks_dir(run_dir)):
            killed = record.rank < len(codes) and codes[record.rank] == -signal.SIGKILL
            if killed and life.drill.phase in record.tracks.values():
                return f"{life.drill.phase}, step {record.step or 0}"
    stops = [row.step for row in _rows(run_dir) if isinstance(row, EventRow) and row.event == "stop"]
    return f"step {stops[-1]}" if life.sigterm_after is not None and stops else None


def _rows(run_dir: Path) -> list[TrainRow | EventRow]:
    with suppress(FileNotFoundError, RunFolderError):
        return [row for row in read_rows(RunFolder(run_dir).metrics) if isinstance(row, TrainRow | EventRow)]
    return []
