"""Goes through the stories of a drill in its own folder, and leaves a table, logs and whatever was not ok. Starts no
process itself and prints nothing."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from dstrain.checkpoint.verify import CHECKPOINTS
from dstrain.cluster.processes import Holder, process_start, this_process
from dstrain.config.load import dump_config, recipe_hash
from dstrain.config.schema import RunConfig
from dstrain.drill.compare import (
    LEGEND,
    Difference,
    Ended,
    Result,
    Told,
    as_json,
    compare,
    failed,
    find_fault,
    markdown_report,
    text_table,
)
from dstrain.drill.launch import ended_like_ctrl_c, live
from dstrain.drill.scenarios import CONTROL, STRAIGHT, Life, Story, announce, shorten
from dstrain.errors import UserError
from dstrain.run_folder.reading import RunFolderError
from dstrain.run_folder.record import load_record

MARKER = ".dstrain-drill"
LARGE = (CHECKPOINTS, "best", "final")
"""Sub-folders of a run that hold weights."""
TAIL_LINES = 15

_HOLDER = TypeAdapter(Holder)

Live = Callable[..., Ended]


@dataclass
class Performance:
    """What a drill knows so far."""

    config: RunConfig
    folder: Path
    steps: int
    live: Live
    """`live` of lives.py, with what is the same for all lives."""
    straight: Told | None = None
    noise: Difference | None = None
    results: list[Result] = field(default_factory=list)

    def tell(self, story: Story) -> Result:
        """Live a story to its end and add its row; the weights of one that is ok are removed, but the straight run's."""
        run_dir = self.folder / story.folder
        ended = self._live_through(story, run_dir=run_dir)
        told = _read(run_dir) if len(ended) == len(story.lives) else None
        difference = compare(told, straight=self.straight) if told and self.straight else None
        fault = find_fault(story, ended=ended, told=told, difference=difference, noise=self.noise)
        if story.name == STRAIGHT:
            self.straight = told
        elif story.name == CONTROL:
            self.noise = difference
        result = Result(story, tuple(ended), told.went_on_from if told else None, difference, fault)
        self.results.append(result)
        if fault is None:
            remove_weights(run_dir, keep="final" if story.name == STRAIGHT else None)
        return result

    def log_of(self, story: Story) -> Path:
        """What the ranks of a story print."""
        return self.folder / f"{story.folder}.log"

    def _live_through(self, story: Story, *, run_dir: Path) -> list[Ended]:
        config = self.folder / f"{story.folder}.yaml"
        config.write_text(dump_config(shorten(self.config, steps=self.steps, folder=run_dir)))
        ended: list[Ended] = []
        for life in story.lives:
            end = self.live(life, config=config, run_dir=run_dir, log=self.log_of(story))
            ended.append(end)
            if end.timed_out:
                break
        return ended


def perform(
    config: RunConfig,
    *,
    stories: Sequence[Story],
    steps: int,
    folder: Path,
    life_minutes: float,
    environment: Mapping[str, str],
    say: Callable[[str], None],
) -> bool:
    """Whether every story ended as the straight run did; the table is said, and written to `folder`.

    Raises:
        UserError: `folder` holds something that is no earlier drill.
        KeyboardInterrupt: after all ranks were killed.
    """
    prepare_folder(folder)
    free_bytes = shutil.disk_usage(folder).free
    say(announce(stories, config=config, steps=steps, folder=folder, free_bytes=free_bytes))

    def start(life: Life, *, config: Path, run_dir: Path, log: Path) -> Ended:
        return live(life, config=config, run_dir=run_dir, log=log, minutes=life_minutes, environment=environment)

    performance = Performance(config, folder, steps, start)
    with ended_like_ctrl_c():
        for number, story in enumerate(stories, start=1):
            result = performance.tell(story)
            say(f"[{number}/{len(stories)}] {story.title}: {result.fault or 'ok'}")
            if story.name == STRAIGHT and result.fault:
                break
    return _report(performance, say=say)


def prepare_folder(folder: Path) -> None:
    """An empty folder for a drill; that of an earlier one is removed.

    Raises:
        UserError: it holds anything else.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise UserError(f"{folder} holds something that is no earlier drill: give another folder with --output")
    if folder.is_dir():
        if (holder := _other_drill(folder / MARKER)) is not None:
            raise UserError(f"{folder} belongs to a drill that is under way ({holder}): give another with --output")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARKER).write_bytes(_HOLDER.dump_json(this_process()))


def _other_drill(marker: Path) -> Holder | None:
    """Another process that lives and performs a drill in the folder of `marker`, as far as this host can see."""
    try:
        holder: Holder = _HOLDER.validate_json(marker.read_bytes())
    except (OSError, ValidationError):
        return None
    own = this_process()
    is_other = own.may_see(holder) and holder.pid != own.pid
    return holder if is_other and process_start(holder.pid) == holder.process_start else None


def hash_weights(folder: Path) -> str:
    """SHA-256 over the weights of an exported model, empty if there are none."""
    digest = hashlib.sha256()
    paths = sorted(folder.glob("*.safetensors"))
    for path in paths:
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest() if paths else ""


def remove_weights(run_dir: Path, *, keep: str | None = None) -> None:
    """Remove what is large in a run folder; scores, metrics and the card stay."""
    for name in LARGE:
        if name != keep:
            shutil.rmtree(run_dir / name, ignore_errors=True)


def _read(run_dir: Path) -> Told | None:
    try:
        return Told(load_record(run_dir), hash_weights(run_dir / "final"))
    except RunFolderError:
        return None


def _report(performance: Performance, *, say: Callable[[str], None]) -> bool:
    results, folder = performance.results, performance.folder
    bad = failed(results)
    if not bad:
        remove_weights(folder / STRAIGHT)
    values = {
        "name": performance.config.name,
        "recipe_hash": recipe_hash(performance.config),
        "steps": performance.steps,
        "ok": not bad,
        "stories": [as_json(result) for result in results],
    }
    (folder / "drill.json").write_text(json.dumps(values, indent=1) + "\n")
    title = f"Drill of {performance.config.name}, {performance.steps} steps"
    (folder / "drill.md").write_text(markdown_report(results, title=title))
    say(f"\n{text_table(results)}\n{LEGEND}\n{folder / 'drill.md'}, {folder / 'drill.json'}")
    for result in bad:
        log = performance.log_of(result.story)
        say(f"\nNOT OK: {result.story.title}: {result.fault}\n{log} ends with:\n{_tail(log)}")
    return not bad


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    return "\n".join(f"  {line}" for line in lines[-TAIL_LINES:])
