"""Writes the files of a run, as they are at a fixed time, and reads its status from another host."""

import json
import os
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dstrain.attempt.rank_records import RankRecord
from dstrain.cluster.processes import Holder
from dstrain.config.load import dump_config, load_config
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.record import write_run_info
from dstrain.run_folder.rows import EvalRow, EventRow, TrainRow, append_row
from dstrain.status.inspect import RunStatus, inspect_status

NOW = 1_800_000_000.0
LEASE_SECONDS = 60.0
OBSERVER = Holder("login", 1, 1, "pid:[1] boot", since="")
NODE = Holder("node1", 500, 77, "pid:[9] other", since="2027-01-15T07:00:00+00:00")
HERE = replace(NODE, host="login", pid_namespace="pid:[1] boot")


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def write_claim(
    run: Path,
    number: int = 1,
    *,
    holder: Holder = NODE,
    base_step: int | None = 0,
    released: bool = False,
    renewed: float = NOW - 10,
    job: str = "",
    restart: int = 0,
    launch: int = 0,
) -> None:
    path = run / "lease" / f"{number:08d}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    values = {"number": number, "holder": asdict(holder), "base_step": base_step, "beat": 4, "released": released}
    values |= {"job": job, "restart": restart, "launch": launch}
    path.write_text(json.dumps(values))
    os.utime(path, (renewed, renewed))


def write_start_mark(run: Path, holder: Holder) -> None:
    path = RunFolder(run).start_mark
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(holder)))


def rank_record(rank: int = 0, **changes: Any) -> RankRecord:
    """A rank of NODE in phase `step`, whose last progress and heartbeat were 10 seconds ago."""
    record = RankRecord(
        rank=rank,
        host=NODE.host,
        pid_namespace=NODE.pid_namespace,
        pid=NODE.pid + rank,
        process_start=NODE.process_start,
        attempt=1,
        tracks={"main": "step", "save": "idle"},
        step=120,
        beats=7,
        changed=NOW - 10,
        heartbeat=NOW - 10,
        ended=None,
    )
    return replace(record, **changes)


def write_rank(run: Path, rank: int = 0, **changes: Any) -> None:
    path = run / "ranks" / f"rank-{rank:05d}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(rank_record(rank, **changes))))


def write_outcome(run: Path, outcome: str, *, attempt: int = 1, time: float = NOW - 300, **values: Any) -> None:
    content = {"outcome": outcome, "exit_code": None, "message": "", "attempt": attempt, "time": iso(time)} | values
    (run / "outcome.json").write_text(json.dumps(content))


def write_row(run: Path, row: TrainRow | EvalRow | EventRow) -> None:
    kind = {TrainRow: "train", EvalRow: "eval", EventRow: "event"}[type(row)]
    append_row(run / "metrics.jsonl", {"kind": kind, **asdict(row)})


def add_checkpoint(run: Path, name: str, *, saved: float) -> None:
    manifest = run / "checkpoints" / name / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    os.utime(manifest, (saved, saved))


def write_run(folder: Path) -> Path:
    """Write a run of two ranks on another node, 120 of 1000 steps done, with scores and a checkpoint; returns its folder."""
    config = load_config("debug", overrides=["machine.lease_seconds=60", "name=mine"])
    (folder / "config.yaml").write_text(dump_config(config))
    write_run_info(folder, {"total_steps": 1000, "world_size": 2})
    write_row(folder, EventRow("start", 0, iso(NOW - 3600), lease=1))
    for step in (50, 100):
        write_row(folder, TrainRow(step, step / 100, 3.0 - step / 100, elapsed_seconds=step * 2.0, lease=1))
    write_row(folder, EvalRow(step=100, epoch=1.0, scores={"loss": 2.5, "bleu": 12.5}, seconds=30.0, lease=1))
    write_claim(folder)
    write_outcome(folder, "running")
    write_rank(folder, 0)
    write_rank(folder, 1, step=119, changed=NOW - 20)
    add_checkpoint(folder, "step-00000100.lease-1", saved=NOW - 120)
    return folder


def look(run: Path, *, processes: dict[int, int] | None = None, **options: Any) -> RunStatus:
    """The status as seen from OBSERVER's host, whose process table is `processes` (process id to start time)."""
    return inspect_status(run, now=NOW, observer=OBSERVER, find_start=(processes or {}).get, **options)
