"""Run folders that grow and resume, and a tracker that keeps what it is sent, as MLflow does: twice if it is sent twice."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dstrain.config.load import dump_config
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.record import Status, write_run_info
from dstrain.run_folder.rows import append_row
from dstrain.tracking.tracker import Place, Point, TrackedRun, Tracker
from tests.unit.reporting.reporting_cases import translation_config

START = "2026-11-23T10:00:00Z"
START_SECONDS = 1795428000.0


def make_run(path: Path, *rows: dict[str, Any], **config: Any) -> RunFolder:
    """A run folder with these rows in metrics.jsonl, after the event of its start."""
    folder = RunFolder(path)
    path.mkdir(parents=True)
    folder.config.write_text(dump_config(translation_config(**config)), encoding="utf-8")
    write_run_info(path, {"world_size": 1})
    add_rows(folder, event("start", 0), *rows)
    return folder


def add_rows(folder: RunFolder, *rows: dict[str, Any]) -> None:
    for row in rows:
        append_row(folder.metrics, row)


def event(name: str, step: int, *, lease: int = 1) -> dict[str, Any]:
    return {"kind": "event", "event": name, "step": step, "time": START, "message": None, "lease": lease}


def train(step: int, *, lease: int = 1, **values: Any) -> dict[str, Any]:
    row = {"kind": "train", "step": step, "epoch": step / 100, "loss": 10 / step, "elapsed_seconds": 2.0 * step}
    return row | {"lease": lease} | values


def evaluation(step: int, *, lease: int = 1, **values: Any) -> dict[str, Any]:
    row = {
        "kind": "eval",
        "step": step,
        "epoch": step / 100,
        "scores": {"bleu": step / 10, "loss": 1.5},
        "lease": lease,
    }
    return row | values


def killed_and_resumed(path: Path) -> RunFolder:
    """A run that was killed after step 120, of which the checkpoint of step 100 was resumed, up to step 150."""
    first = [train(step) for step in range(1, 121)]
    second = [train(step, lease=2) for step in range(101, 151)]
    return make_run(path, *first, evaluation(110), event("resume", 100, lease=2), *second, evaluation(150, lease=2))


class Server:
    """Where runs are shown, by their ids. `faults` are raised by the next calls of `send`: before it, or after with `late`."""

    def __init__(self) -> None:
        self.runs: dict[str, list[Point]] = {}
        self.configs: dict[str, dict[str, Any]] = {}
        self.statuses: list[Status] = []
        self.faults: list[Exception] = []
        self.late = False
        self.num_there: int | None = None

    @property
    def points(self) -> list[Point]:
        """Those of the only run."""
        (points,) = self.runs.values()
        return points

    @property
    def steps(self) -> list[int]:
        """Of the training rows of the only run, as they came."""
        return [point.step for point in self.points if point.part == "train"]


def memory(server: Server, *, destination: str = "memory", is_sure: bool = True) -> type[Tracker]:
    """A class of trackers that send to a server in memory."""

    class Memory(Tracker):
        is_sure_when_sent = is_sure

        def __init__(self, place: Place) -> None:
            self._id = ""

        @property
        def destination(self) -> str:
            return destination

        def open(self, run: TrackedRun) -> int | None:
            self._id = run.id
            server.runs.setdefault(run.id, [])
            server.configs[run.id] = dict(run.config) | {"shown as": run.name}
            return server.num_there

        def send(self, points: Sequence[Point]) -> None:
            fault = server.faults.pop(0) if server.faults else None
            if fault is not None and not server.late:
                raise fault
            there = {point.number for point in server.runs[self._id]}
            server.runs[self._id] += [point for point in points if not (point.is_unsure and point.number in there)]
            if fault is not None:
                raise fault

        def close(self, status: Status) -> None:
            server.statuses.append(status)

    return Memory


OWN_TRACKER = '''
import json, os, pathlib, subprocess, time, urllib.request
from dstrain.tracking.tracker import Tracker

class Own(Tracker):
    """Asks its server for leave, if it has one, and writes a line for each point."""

    def __init__(self, place):
        self.place = place

    @property
    def destination(self):
        return self.place.uri or "file"

    def open(self, run):
        if self.place.uri:
            urllib.request.urlopen(self.place.uri)
        self.place.folder.mkdir(parents=True, exist_ok=True)
        self.file = open(self.place.folder / f"{run.id}.jsonl", "a")

    def send(self, points):
        for point in points:
            print(json.dumps([point.part, point.step, point.number, point.values]), file=self.file)
        self.file.flush()

    def close(self, status):
        print(json.dumps(["closed", status]), file=self.file, flush=True)

class Hangs(Own):
    def open(self, run):
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        (self.place.folder.parent / "hangs").write_text(f"{os.getpid()} {child.pid}\\n")
        while True:
            time.sleep(600)

class Shy(Own):
    """Fails once, and always in a process in which it has failed, as W&B does."""

    def open(self, run):
        if "OWN_FAILED" in globals():
            raise ConnectionError("never again")
        failed = self.place.folder.parent / "failed"
        number = int(failed.read_text()) if failed.exists() else 0
        if number < 1:
            globals()["OWN_FAILED"] = True
            failed.write_text(str(number + 1))
            raise ConnectionError("not yet")
        super().open(run)

class Broken:
    pass
'''


def install_package(folder: Path) -> Path:
    """A package with trackers of its own, as pip would have unpacked it; returns the folder for the path of Python."""
    site = folder / "site"
    details = site / "own_trackers-1.0.dist-info"
    details.mkdir(parents=True)
    (site / "own_trackers.py").write_text(OWN_TRACKER)
    (details / "METADATA").write_text("Metadata-Version: 2.1\nName: own-trackers\nVersion: 1.0\n")
    names = {
        "own": "own_trackers:Own",
        "hangs": "own_trackers:Hangs",
        "shy": "own_trackers:Shy",
        "broken": "own_trackers:Broken",
    }
    names |= {"absent": "own_trackers_that_are_absent:Own"}
    lines = [f"{name} = {value}" for name, value in names.items()]
    (details / "entry_points.txt").write_text("\n".join(["[dstrain.trackers]", *lines, ""]))
    return site


def python_path(site: Path) -> str:
    """PYTHONPATH with a folder before what it had."""
    return os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
