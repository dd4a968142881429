"""Whether a folder is dstrain's to write to: no start takes over or empties another, and nothing leaves it by a link.

A run folder may have been filled by others, as one that somebody sends as an archive. What these checks find is not guarded
against somebody who changes the folder meanwhile.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from dstrain.config.schema import RunConfig
from dstrain.errors import UserError
from dstrain.run_folder.atomic import create_file, remove
from dstrain.run_folder.claims import claim_numbers
from dstrain.run_folder.layout import NAMES, RunFolder
from dstrain.run_folder.outcome import read_outcome
from dstrain.run_folder.start_mark import read_start_mark

FIRST = frozenset({NAMES.claims.name, NAMES.rendezvous.name, NAMES.debug_mark.name})
"""What a start makes first: with nothing else in it, a folder is one that another rank is just beginning."""
HARMLESS = re.compile(r".*\.(log|out|err)|\.nfs.*|lost\+found")
"""Names that dstrain never writes and that stand in a folder before its first start: logs, and what file systems make."""

MAX_SHOWN = 3
"""Most names in a message."""


def make_run_folder(config: RunConfig, *, empties: bool = False) -> RunFolder:
    """The run's folder, made if it does not exist. With `empties`, as `--debug` does, it is marked as one to be emptied.

    Raises:
        UserError: it cannot be made; it holds something and is not a run folder, or none that may be emptied; a sub-folder is a
            link.
    """
    folder = RunFolder(Path(config.run_dir))
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        _check_ownership(folder, empties=empties)
        refuse_linked_folders(folder)
        if empties:
            with suppress(FileExistsError):
                create_file(folder.debug_mark)
    except OSError as error:
        reason = "it is a link to nothing" if os.path.islink(folder.path) else error.strerror
        raise UserError(
            f"output_dir: the run folder {folder.path} cannot be made ({reason}); override output_dir=…"
        ) from error
    return folder


def refuse_linked_folders(folder: RunFolder) -> None:
    """Refuse a run folder of which a sub-folder is a link, so that what is written there would lie elsewhere.

    The run folder itself may be a link, and so may a checkpoint in it: that is neither written to nor read.

    Raises:
        UserError: names the link.
    """
    for path in _linked_folders(folder):
        raise UserError(
            f"{path} is a link, and dstrain writes nothing outside of a run folder: put the folder itself in its place, or "
            "move the whole run folder and override output_dir=…"
        )


def empty_run_folder(folder: RunFolder, *, keep: Sequence[Path]) -> None:
    """Remove everything that dstrain writes, except `keep`; files of other names stay, and links are not followed."""
    names = "|".join(re.escape(path.name) for path in (*folder.folders, *folder.files))
    ours = re.compile(rf"(?:{names})(?:\.old|\.tmp(?:-[0-9a-f-]+)?)?")
    for path in folder.path.iterdir():
        if path not in keep and ours.fullmatch(path.name):
            remove(path)


def _check_ownership(folder: RunFolder, *, empties: bool) -> None:
    if empties and folder.path.is_symlink():
        raise UserError(
            f"output_dir: {folder.path} is a link, and --debug and --overfit empty their folder: remove the link, or override "
            "output_dir=…"
        )
    found = sorted(name for name in os.listdir(folder.path) if not HARMLESS.fullmatch(name))
    if not found or (_is_marked_for_debugging(folder) if empties else set(found) <= FIRST or is_marked(folder)):
        return
    shown = name_some(found)
    if empties:
        raise UserError(
            f"output_dir: {folder.path} holds {shown} and was not made by --debug or --overfit, which empty their folder (its "
            "name ends as they do): remove or rename it, or override output_dir=…"
        )
    raise UserError(
        f"output_dir: {folder.path} holds {shown} and is not a run folder: a run would replace files in it. Override "
        f"output_dir=… with a new or empty folder. A run folder has {NAMES.claims}/, which a copy of one needs too"
    )


def name_some(names: Sequence[str]) -> str:
    """The names of files, as a message has room for them: the first few, and how many more there are."""
    more = len(names) - MAX_SHOWN
    return ", ".join(names[:MAX_SHOWN]) + (f" and {more} more" if more > 0 else "")


def is_marked(folder: RunFolder) -> bool:
    """Whether there is what only dstrain makes: of a start, of its batch script, of a failure before the lease, or a save."""
    marks = (
        folder.rendezvous.glob("*.json"),
        folder.failures.glob("rank-*.txt"),
        folder.checkpoints.glob("step-*.lease-*/manifest.json"),
    )
    has_record = folder.slurm_history.is_file() or read_outcome(folder.path) is not None
    has_start = bool(claim_numbers(folder.path)) or read_start_mark(folder.path) is not None
    return has_start or has_record or any(map(any, marks))


def _is_marked_for_debugging(folder: RunFolder) -> bool:
    return folder.debug_mark.is_file() and not folder.debug_mark.is_symlink()


def _linked_folders(folder: RunFolder) -> Iterator[Path]:
    for top in folder.folders:
        if top.is_symlink():
            yield top
        elif top != folder.checkpoints:
            for parent, names, _ in os.walk(top):
                yield from (path for name in names if (path := Path(parent, name)).is_symlink())
