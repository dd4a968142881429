"""Runs the scenarios of a drill in a folder of its own; leaves a table, logs and the run folders. Prints nothing itself.

The processes are started by launch.py, and their results are judged by compare.py.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from dstrain.cluster.processes import Holder, process_start, this_process
from dstrain.config.load import dump_config, recipe_hash
from dstrain.config.schema import RunConfig
from dstrain.drill.compare import (
    LEGEND,
    Difference,
    Exit,
    FinishedRun,
    Result,
    as_json,
    compare,
    failed,
    find_fault,
    markdown_report,
    text_table,
)
from dstrain.drill.launch import interrupted_like_ctrl_c, launch_ranks
from dstrain.drill.scenarios import CONTROL, STRAIGHT, RankLaunch, Scenario, announce, shorten
from dstrain.errors import UserError
from dstrain.run_folder.layout import FINAL, MODELS, NAMES, RunFolder
from dstrain.run_folder.reading import RunFolderError, read_bytes
from dstrain.run_folder.record import load_record

MARKER = ".dstrain-drill"
LARGE = (NAMES.checkpoints.name, *MODELS)
"""Sub-folders of a run that hold weights."""
TAIL_LINES = 15
"""Lines of a log that are shown when a scenario fails."""

_HOLDER = TypeAdapter(Holder)

LaunchRanks = Callable[..., Exit]
"""`launch_ranks` of launch.py with everything fixed that is the same for all launches."""


@dataclass
class DrillRun:
    """A drill in progress: its settings and the results so far."""

    config: RunConfig
    folder: Path
    steps: int
    launch_ranks: LaunchRanks
    straight: FinishedRun | None = None
    noise: Difference | None = None
    """How much the control run differs from the straight run; None before it has run."""
    results: list[Result] = field(default_factory=list)

    def run_scenario(self, scenario: Scenario) -> Result:
        """Run one scenario and record its result. After a pass its weights are deleted, except those of the straight run."""
        run_dir = self.folder / scenario.folder
        exits = self._launch_all(scenario, run_dir=run_dir)
        run = _read(run_dir) if len(exits) == len(scenario.launches) else None
        difference = compare(run, straight=self.straight) if run and self.straight else None
        fault = find_fault(scenario, exits=exits, run=run, difference=difference, noise=self.noise)
        if scenario.name == STRAIGHT:
            self.straight = run
        elif scenario.name == CONTROL:
            self.noise = difference
        result = Result(scenario, tuple(exits), run.resumed_from if run else None, difference, fault)
        self.results.append(result)
        if fault is None:
            remove_weights(run_dir, keep=FINAL if scenario.name == STRAIGHT else None)
        return result

    def log_of(self, scenario: Scenario) -> Path:
        """The file with everything that the ranks of a scenario print."""
        return self.folder / f"{scenario.folder}.log"

    def _launch_all(self, scenario: Scenario, *, run_dir: Path) -> list[Exit]:
        config = self.folder / f"{scenario.folder}.yaml"
        config.write_text(dump_config(shorten(self.config, steps=self.steps, folder=run_dir)))
        exits: list[Exit] = []
        for launch in scenario.launches:
            end = self.launch_ranks(launch, config=config, run_dir=run_dir, log=self.log_of(scenario))
            exits.append(end)
            if end.timed_out:
                break
        return exits


def run_drill(
    config: RunConfig,
    *,
    scenarios: Sequence[Scenario],
    steps: int,
    folder: Path,
    launch_minutes: float,
    environment: Mapping[str, str],
    say: Callable[[str], None],
) -> bool:
    """Run the scenarios; returns whether all of them passed. The table is passed to `say` and written to `folder`.

    Args:
        launch_minutes: time limit of one launch.

    Raises:
        UserError: `folder` is in use, or contains anything but an earlier drill.
        KeyboardInterrupt: raised again after all ranks were killed.
    """
    prepare_folder(folder)
    free_bytes = shutil.disk_usage(folder).free
    say(announce(scenarios, config=config, steps=steps, folder=folder, free_bytes=free_bytes))

    def start(launch: RankLaunch, *, config: Path, run_dir: Path, log: Path) -> Exit:
        return launch_ranks(
            launch, config=config, run_dir=run_dir, log=log, minutes=launch_minutes, environment=environment
        )

    drill = DrillRun(config, folder, steps, start)
    with interrupted_like_ctrl_c():
        for number, scenario in enumerate(scenarios, start=1):
            result = drill.run_scenario(scenario)
            say(f"[{number}/{len(scenarios)}] {scenario.title}: {result.fault or 'ok'}")
            if scenario.name == STRAIGHT and result.fault:
                break
    return _report(drill, say=say)


def prepare_folder(folder: Path) -> None:
    """Make an empty folder for a drill, which may replace that of an earlier drill.

    Raises:
        UserError: a running drill uses it, or it contains anything else.
    """
    if folder.is_symlink():
        raise UserError(f"{folder} is a link, and a drill empties its folder; choose another folder with --output")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise UserError(f"{folder} contains files that are not from a drill; choose another folder with --output")
    if folder.is_dir():
        if (holder := _other_drill(folder / MARKER)) is not None:
            raise UserError(f"{folder} is in use by a running drill ({holder}); choose another folder with --output")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARKER).write_bytes(_HOLDER.dump_json(this_process()))


def _other_drill(marker: Path) -> Holder | None:
    """The process that runs a drill in the folder of `marker`, if it is another one and visible from here; else None."""
    try:
        holder: Holder = _HOLDER.validate_json(read_bytes(marker))
    except (OSError, ValidationError):
        return None
    own = this_process()
    is_other = own.may_see(holder) and holder.pid != own.pid
    return holder if is_other and process_start(holder.pid) == holder.process_start else None


def hash_weights(folder: Path) -> str:
    """SHA-256 over the weights of an exported model; empty if there are none."""
    digest = hashlib.sha256()
    paths = sorted(folder.glob("*.safetensors"))
    for path in paths:
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest() if paths else ""


def remove_weights(run_dir: Path, *, keep: str | None = None) -> None:
    """Delete the folders of a run that hold weights, except `keep`. Scores, metrics and the card stay."""
    for name in LARGE:
        if name != keep:
            shutil.rmtree(run_dir / name, ignore_errors=True)


def _read(run_dir: Path) -> FinishedRun | None:
    try:
        return FinishedRun(load_record(run_dir), hash_weights(RunFolder(run_dir).model(FINAL)))
    except RunFolderError:
        return None


def _report(drill: DrillRun, *, say: Callable[[str], None]) -> bool:
    results, folder = drill.results, drill.folder
    bad = failed(results)
    if not bad:
        remove_weights(folder / STRAIGHT)
    values = {
        "name": drill.config.name,
        "recipe_hash": recipe_hash(drill.config),
        "steps": drill.steps,
        "ok": not bad,
        "stories": [as_json(result) for result in results],
    }
    (folder / "drill.json").write_text(json.dumps(values, indent=1) + "\n")
    title = f"Drill of {drill.config.name}, {drill.steps} steps"
    (folder / "drill.md").write_text(markdown_report(results, title=title))
    say(f"\n{text_table(results)}\n{LEGEND}\n{folder / 'drill.md'}, {folder / 'drill.json'}")
    for result in bad:
        log = drill.log_of(result.scenario)
        say(f"\nNOT OK: {result.scenario.title}: {result.fault}\n{log} ends with:\n{_tail(log)}")
    return not bad


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    return "\n".join(f"  {line}" for line in lines[-TAIL_LINES:])
