"""Finds the run folder that a user named, and says what one holds whose run has never begun to train. Writes nothing.

The recipe is stored when training begins. A start that ends before, as over its data or its model, leaves only how it ended.
"""

import os
from pathlib import Path

from dstrain.config.arguments import shell_command
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.outcome import read_last_word, summarize
from dstrain.run_folder.ownership import is_marked, name_some
from dstrain.run_folder.reading import RunFolderError, check_folder

SAID = {
    "failed": "failed",
    "refused": "was refused",
    "lost": "was lost",
    "killed": "was killed",
    "preempted": "was stopped",
}
"""Outcomes of a start to what became of it."""
TO_BE_MENDED = ("failed", "refused")
"""Outcomes that come again unless something is changed."""


def find_run(run_dir: Path) -> RunFolder:
    """The run folder that a user named.

    Raises:
        RunFolderError: it cannot be reached or holds no recipe; the message says how the last start ended, where there was one.
    """
    folder = find_starts(run_dir)
    check_begun(folder)
    return folder


def find_starts(run_dir: Path) -> RunFolder:
    """The same, and also a folder whose run has been started and has never begun to train."""
    check_folder(run_dir)
    folder = RunFolder(run_dir)
    if not holds_starts(folder):
        raise RunFolderError(f"{run_dir} is not a run folder: it holds no {folder.config.name}")
    return folder


def check_begun(folder: RunFolder) -> None:
    """Raise RunFolderError where a folder is that of a run which has never begun to train: it says how the last start ended."""
    if has_only_starts(folder):
        raise RunFolderError(_describe_starts(folder))


def holds_starts(folder: RunFolder) -> bool:
    """Whether a folder is that of a run, which need not have begun to train."""
    return os.path.lexists(folder.config) or has_only_starts(folder)


def has_only_starts(folder: RunFolder) -> bool:
    """Whether a folder holds starts of a run and nothing that a run writes once it trains."""
    return not any(map(os.path.lexists, (folder.config, folder.info, folder.metrics))) and is_marked(folder)


def _describe_starts(folder: RunFolder) -> str:
    ended, way_out = _last_start(folder)
    held = name_some(sorted(os.listdir(folder.path)))
    return f"{folder.path}: the run has never begun to train: it holds {held}, and no {folder.config.name}. {ended}: {way_out}"


def _last_start(folder: RunFolder) -> tuple[str, str]:
    """What became of the last start, and what to do."""
    end = read_last_word(folder.path)
    if end is None or end.outcome not in SAID:
        status = shell_command(["dstrain", "status", folder.path])
        return "Its last start has not said how it ended", f"see {status}"
    said = f"Its last start {SAID[end.outcome]}" + (f" ({summarize(end.message)})" if end.message else "")
    again = "give the command that started it again"
    return said, f"mend that, then {again}" if end.outcome in TO_BE_MENDED else again
