"""A run folder that others have filled with links: no command changes what a link points to, or puts anything beside it.

The names are those of a finished run and of the layout, so that a new name is tried by itself.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dstrain.cli.app import app
from dstrain.cluster.environment import ProcessInfo
from dstrain.config.load import dump_config
from dstrain.run_folder.layout import RunFolder
from tests.distributed.ranks import end_ranks
from tests.system.runs import build_run, train, write_pairs

Snapshot = dict[str, tuple[int, int, bytes]]
READ_FIRST = ("config.yaml", "run.json", "metrics.jsonl", "quarantine.jsonl", "test_sets")
"""What a card cannot be made without; links under these names are refused before anything is written."""
MODELS = ("best", "final", "tokenizer")
REPORTS = ("card", "status", "compare", "verify", "evaluate", "evaluate --as", "export")
STARTS = ("start", "debug")
LONG_AGO = 1_500_000_000


def dstrain(*arguments: str) -> int:
    """The exit code of a command in a process of its own."""
    (code,) = end_ranks(_call, arguments, world_size=1)
    return code


def _call(place: ProcessInfo, arguments: Sequence[str]) -> int:
    try:
        app(list(arguments), prog_name="dstrain")
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with scores of its best model and of another test set, and its recipe beside it."""
    home = tmp_path_factory.mktemp("finished")
    config = build_run(home, output_dir=str(home / "run-debug"), training__max_steps=6, checkpoint__every_steps=2)
    assert train(config) == [0]
    run = str(home / "run-debug")
    assert dstrain("evaluate", run) == 0
    assert dstrain("evaluate", run, *other_set(home)) == 0
    (home / "recipe.yaml").write_text(dump_config(config))
    return home


def other_set(home: Path) -> list[str]:
    return ["--as", "other", f"data.eval=[{{path: {write_pairs(home)[0]}, max_rows: 5}}]"]


def names(run: Path) -> Iterator[Path]:
    """Every name that a run writes or reads, relative to its folder, with those under which it writes new versions."""
    folder = RunFolder(Path())
    tops = {*folder.files, *folder.folders, *(Path(path.name) for path in run.iterdir())}
    yield from sorted(
        tops | {path.relative_to(run) for path in run.rglob("*") if path.relative_to(run).parts[0] != "checkpoints"}
    )
    yield from (path.with_name(f"{path.name}{suffix}") for path in sorted(tops) for suffix in (".tmp", ".old"))


class Canaries:
    """Files and folders outside of the run folder, and a copy of the run in which links to them lie."""

    def __init__(self, finished: Path, *, at: Path) -> None:
        self.home, self.run = at, at / "run-debug"
        self.outside = at / "outside"
        self.outside.mkdir(parents=True)
        shutil.copytree(finished / "run-debug", self.run)
        shutil.copy(finished / "recipe.yaml", at)
        self.num = 0

    def put(self, name: Path, *, link: Callable[[Path, Path], None]) -> None:
        """Replace a name of the run by a link to a canary of its own, of the same kind."""
        path, canary = self.run / name, self.outside / str(self.num)
        self.num += 1
        is_folder = path.is_dir() if path.exists() else path.suffix == ""
        if is_folder:
            shutil.copytree(path, canary) if path.exists() else canary.mkdir()
            (canary / "mine.txt").write_text("mine")
            shutil.rmtree(path, ignore_errors=True)
            path.symlink_to(canary)
        else:
            canary.write_bytes(path.read_bytes() if path.exists() else b"mine\n")
            path.unlink(missing_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            link(path, canary)
        os.utime(canary, (LONG_AGO, LONG_AGO))  # a claim that is a link is stale at once

    def snapshot(self) -> Snapshot:
        """Every canary with its mode, the time of its last change and its content."""
        return {
            str(path.relative_to(self.outside)): (
                path.stat().st_mode,
                path.stat().st_mtime_ns,
                path.read_bytes() if path.is_file() else b"",
            )
            for path in (self.outside, *self.outside.rglob("*"))
        }

    def commands(self, finished: Path) -> dict[str, list[str]]:
        """Every command that writes or reads a run folder."""
        run, recipe = str(self.run), ["--config", str(self.home / "recipe.yaml")]
        short = ["training.max_steps=10", f"output_dir={self.run}"]
        debug = [f"output_dir={str(self.run).removesuffix('-debug')}"]
        return {
            "card": ["card", run],
            "status": ["status", run],
            "compare": ["compare", run, run],
            "verify": ["verify", run],
            "export": ["export", run, str(self.home / "exported")],
            "evaluate": ["evaluate", run],
            "evaluate --as": ["evaluate", run, *other_set(finished)],
            "start": ["train", *recipe, *short, "--allow-changed", "training.max_steps"],
            "debug": ["train", *recipe, *debug, "--debug"],
        }


def symbolic(path: Path, canary: Path) -> None:
    path.symlink_to(canary)


def hard(path: Path, canary: Path) -> None:
    path.hardlink_to(canary)


def test_the_layout_knows_every_name_of_a_finished_run(finished: Path) -> None:
    folder = RunFolder(finished / "run-debug")
    assert set(folder.path.iterdir()) <= {*folder.folders, *folder.files}


@pytest.mark.parametrize(("commands", "link"), [(REPORTS, symbolic), (STARTS, symbolic), (STARTS, hard)])
def test_no_command_touches_what_the_files_of_a_run_folder_are_links_to(
    commands: tuple[str, ...], link: Callable[[Path, Path], None], finished: Path, tmp_path: Path
) -> None:
    canaries = Canaries(finished, at=tmp_path)
    spared = {*READ_FIRST, *(() if "start" in commands else MODELS)}
    for name in names(finished / "run-debug"):
        path = finished / "run-debug" / name
        if name.parts[0] not in spared and not path.is_dir() and (path.exists() or name.suffix):
            canaries.put(name, link=link)
    canaries.put(
        sorted(path.relative_to(canaries.run) for path in RunFolder(canaries.run).checkpoints.iterdir())[0], link=link
    )
    RunFolder(canaries.run).debug_mark.touch()
    before = canaries.snapshot()
    assert canaries.num > 40
    for command in commands:
        code = dstrain(*canaries.commands(finished)[command])
        assert canaries.snapshot() == before, command
        assert code == 0, command


def test_no_command_touches_what_a_sub_folder_of_a_run_folder_is_a_link_to(finished: Path, tmp_path: Path) -> None:
    folders = [name for name in names(finished / "run-debug") if (finished / "run-debug" / name).is_dir()]
    assert len(folders) > 15
    for number, name in enumerate(sorted({*folders, *RunFolder(Path()).folders})):
        canaries = Canaries(finished, at=tmp_path / str(number))
        canaries.put(name, link=symbolic)
        RunFolder(canaries.run).debug_mark.touch()
        before = canaries.snapshot()
        for command, arguments in canaries.commands(finished).items():
            if command == "export":  # only reads, and takes long
                continue
            done = CliRunner().invoke(app, arguments)
            assert canaries.snapshot() == before, (name, command)
            if command not in ("status", "compare", "verify"):
                assert done.exit_code != 0, (name, command)
                assert f"{name} is a link" in done.stderr, (name, command)


@pytest.mark.parametrize("name", READ_FIRST[:-1])
def test_a_record_that_is_a_link_is_refused(name: str, finished: Path, tmp_path: Path) -> None:
    canaries = Canaries(finished, at=tmp_path)
    canaries.put(Path(name), link=symbolic)
    before = canaries.snapshot()
    for command in ("card", "compare"):
        done = CliRunner().invoke(app, canaries.commands(finished)[command])
        assert done.exit_code == 1, command
        assert "a link, or no ordinary file" in done.stderr, command
    CliRunner().invoke(app, ["status", str(canaries.run)])
    assert canaries.snapshot() == before
