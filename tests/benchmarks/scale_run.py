"""A run folder as hundreds of ranks would leave it, written by the code that writes it in a run; and the cost of reading one.

Simulated: the ranks are objects in one process, and tensors are tiny. Real: the lease, the rendezvous, the ranks' records, the
rows, the checkpoints with their manifests and their pruning, and everything that reads them.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic_core import to_json

from dstrain.attempt.hangs import Scene, load_hang
from dstrain.attempt.lease import Lease, acquire
from dstrain.attempt.rank_records import Phases, RankRecord, ranks_dir, read_rank_records
from dstrain.attempt.watchdog import find_lost
from dstrain.checkpoint.manifest import FileEntry, Manifest
from dstrain.checkpoint.parts import write_blocks, write_tensors
from dstrain.checkpoint.saver import ValidCheckpoints
from dstrain.checkpoint.state import STATE_FILE, RunState
from dstrain.checkpoint.store import CheckpointName, begin_save, carry_out, commit_save, plan_pruning
from dstrain.cluster.environment import ProcessInfo
from dstrain.cluster.processes import read_process, this_process
from dstrain.cluster.rendezvous import Rendezvous, open_rendezvous
from dstrain.config.load import dump_config, load_config
from dstrain.run_folder.claims import is_stop_requested, read_claims
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.outcome import RunOutcome, write_outcome
from dstrain.run_folder.record import load_record, write_run_info
from dstrain.run_folder.rows import TrainRow, append_row
from dstrain.status.inspect import inspect_status
from tests.benchmarks.timing import timed

CONFIG = "demo_translation"
KEEP_LAST = 2
SAVES = 3
LOG_EVERY = 5
RANKS_PER_HOST = 8
JOB = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_RESTART_COUNT": "0"}


@dataclass(frozen=True, slots=True)
class Folder:
    """The size of a run folder and the time to write it."""

    num_ranks: int
    num_steps: int
    num_files: int
    num_bytes: int
    checkpoint_files: int
    """Files of the newest checkpoint."""
    num_checkpoints: int
    seconds: Mapping[str, float]
    """Total seconds by the name of the action."""


class Stopwatch:
    """Sums seconds by the name of the action."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, action: Callable[[], Any]) -> Any:
        """Run an action, add its time, and return its result."""
        started = time.perf_counter()
        result = action()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
        return result


def write_run(run_dir: Path, *, num_ranks: int, num_steps: int) -> Folder:
    """Write a run of `num_steps` steps with SAVES checkpoints, whatever the number of steps."""
    watch = Stopwatch()
    lease = watch("lease", lambda: acquire(run_dir, holder=this_process(), stale_seconds=60.0))
    watch("rendezvous", lambda: meet(run_dir, num_ranks=num_ranks))
    phases = watch("records", lambda: open_records(run_dir, num_ranks=num_ranks, attempt=lease.number))
    lease.set_base(0)
    write_outcome(run_dir, RunOutcome("running", None, attempt=lease.number))
    RunFolder(run_dir).config.write_text(dump_config(load_config(CONFIG)))
    write_run_info(run_dir, {"world_size": num_ranks, "total_steps": 2 * num_steps})
    append_row(RunFolder(run_dir).metrics, {"kind": "event", "event": "start", "step": 0, "lease": lease.number})
    is_valid = ValidCheckpoints()
    for step in range(1, num_steps + 1):
        watch("steps", lambda step=step: enter_step(phases, step=step))  # type: ignore[misc]
        if step % LOG_EVERY == 0:
            watch("rows", lambda step=step: append_row(RunFolder(run_dir).metrics, build_row(step)))  # type: ignore[misc]
        if step % max(1, num_steps // SAVES) == 0:
            lease.renew()
            save = (run_dir, lease, step, num_ranks, is_valid)
            watch("saves", lambda save=save: save_checkpoint(*save))  # type: ignore[misc]
    for each in phases:
        each.close()
    return measure_folder(run_dir, num_ranks=num_ranks, num_steps=num_steps, seconds=watch.seconds)


def meet(run_dir: Path, *, num_ranks: int) -> None:
    """Every rank reads the port of rank 0, which removes its file afterwards."""

    def arrange(rank: int) -> Rendezvous:
        place = ProcessInfo(rank, rank % RANKS_PER_HOST, num_ranks, "localhost", 0, "srun", RANKS_PER_HOST)
        return open_rendezvous(place, environment=JOB, folder=RunFolder(run_dir).rendezvous)

    first = arrange(0)
    assert first.listener is not None
    with ThreadPoolExecutor(RANKS_PER_HOST) as pool:
        ports = {rendezvous.port for rendezvous in pool.map(arrange, range(1, num_ranks))}
    assert ports <= {first.port}, ports
    first.listener.close()
    first.close()


def open_records(run_dir: Path, *, num_ranks: int, attempt: int) -> list[Phases]:
    """Create the record of every rank, and the file that its watchdog opens for its stacks."""
    phases = [Phases(ranks_dir(run_dir), rank=rank, attempt=attempt) for rank in range(num_ranks)]
    for each in phases:
        scene = Scene(run_dir=run_dir, own=each.record(), local_ranks=[], grace_seconds=0.0)
        scene.stacks_path(scene.own.rank).touch()
    return phases


def enter_step(phases: Sequence[Phases], *, step: int) -> None:
    """Record a step in the records of all ranks."""
    for each in phases:
        each.enter("step", step=step)


def build_row(step: int) -> dict[str, Any]:
    """A training row as large as a real one."""
    row = TrainRow(
        step=step,
        epoch=step / 1e6,
        loss=1 / 3,
        learning_rate=1e-4 / 3,
        grad_norm=2 / 3,
        loss_scale=1.0,
        skip_rate=0.0,
        source_tokens=1_048_576,
        target_tokens=1_048_576,
        padded_source_tokens=1_200_000,
        padded_target_tokens=1_200_000,
        target_tokens_per_second=1e7 / 3,
        data_seconds=1 / 7,
        peak_memory_mb=7e4 / 3,
        elapsed_seconds=step / 3,
        lease=1,
    )
    return {"kind": "train"} | asdict(row)


def save_checkpoint(run_dir: Path, lease: Lease, step: int, num_ranks: int, is_valid: ValidCheckpoints) -> None:
    """Write one checkpoint by the protocol of the saver, with a weight and a moment per rank; then prune the older ones."""
    root, tensors = run_dir / "checkpoints", {"master/weight@0": torch.full((8,), float(step))}

    def on_stage(phase: str) -> None:
        pass

    def write(rank: int) -> list[FileEntry]:
        kinds = ("weights", "optimizer")
        paths = [parts / f"{kind}-{rank:05d}.safetensors" for kind in kinds]
        return [write_tensors(tensors, path=path, on_stage=on_stage) for path in paths]

    parts = begin_save(root, name=CheckpointName(step, lease.number))
    with ThreadPoolExecutor(RANKS_PER_HOST) as pool:
        entries = [entry for written in pool.map(write, range(num_ranks)) for entry in written]
    state = to_json(asdict(RunState(step=step, epoch=0, step_in_epoch=step, cut={}, data={})), indent=1)
    entries.append(write_blocks([], [state], num_bytes=len(state), path=parts / STATE_FILE, on_stage=on_stage))
    manifest = Manifest(
        step=step,
        lease=lease.number,
        world_size=num_ranks,
        recipe_hash="",
        recipe={},
        versions={},
        files=tuple(entries),
    )
    lease.check()
    commit_save(parts, manifest=manifest, on_stage=on_stage)
    pruning = plan_pruning(
        root,
        claims=read_claims(run_dir),
        keep_last=KEEP_LAST,
        keep_steps=[],
        keep_weights_every=None,
        is_valid=is_valid,
    )
    carry_out(pruning, on_stage=on_stage)


def measure_folder(run_dir: Path, *, num_ranks: int, num_steps: int, seconds: Mapping[str, float]) -> Folder:
    """Count files and bytes below a run folder."""
    files = [path for path in run_dir.rglob("*") if path.is_file()]
    checkpoints = sorted((run_dir / "checkpoints").iterdir())
    return Folder(
        num_ranks=num_ranks,
        num_steps=num_steps,
        num_files=len(files),
        num_bytes=sum(path.stat().st_size for path in files),
        checkpoint_files=len(list(checkpoints[-1].iterdir())),
        num_checkpoints=len(checkpoints),
        seconds=seconds,
    )


def crossed(folders: Mapping[tuple[int, int], Folder], quantity: str) -> int:
    """The part of a quantity that grows with ranks × steps: 0 if it is c0 + c1 · ranks + c2 · steps; from two values of each."""
    (few, less), (many, more) = min(folders), max(folders)

    def at(num_ranks: int, num_steps: int) -> int:
        return int(getattr(folders[num_ranks, num_steps], quantity))

    return at(many, more) - at(many, less) - at(few, more) + at(few, less)


def measure_readers(run_dir: Path, *, num_rows: int) -> dict[str, float]:
    """CPU seconds of every reader of a run folder, with the rows that were written and with `num_rows` more."""
    local = range(RANKS_PER_HOST)

    def status() -> Any:
        return inspect_status(run_dir, now=time.time(), observer=this_process())

    def poll(ranks: Sequence[int], own: RankRecord) -> None:
        scene = Scene(run_dir=run_dir, own=own, local_ranks=ranks, grace_seconds=5.0)
        assert load_hang(scene) is None
        assert not find_lost(read_rank_records(ranks_dir(run_dir), ranks=ranks), own=own, find_process=read_process)

    measure = partial(timed, clock=time.process_time)
    records = read_rank_records(ranks_dir(run_dir))
    found = {
        "all records": measure(lambda: read_rank_records(ranks_dir(run_dir))),
        "poll of the watchdog": measure(lambda: poll(local, records[0])),
        "poll of the watchdog, all ranks on one host": measure(lambda: poll(range(len(records)), records[0])),
        "word to stop": measure(lambda: is_stop_requested(run_dir, number=1)),
        "status": measure(status),
        "record": measure(lambda: load_record(run_dir)),
    }
    with RunFolder(run_dir).metrics.open("a") as file:
        file.writelines(json.dumps(build_row(step)) + "\n" for step in range(10_000, 10_000 + num_rows))
    found[f"status, {num_rows:,} rows"] = measure(status, times=1)
    found[f"record, {num_rows:,} rows"] = measure(lambda: load_record(run_dir), times=1)
    found["one more row"] = measure(lambda: append_row(RunFolder(run_dir).metrics, build_row(10**6)))
    return found
