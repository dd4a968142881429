"""What a tracker has been sent of a run, in a file of the run folder that belongs to the tracker. No torch."""

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from dstrain.run_folder.atomic import write_file
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.reading import RunFolderError, read_bytes

PointKey = tuple[str, int]
"""Which point of a run: its part, such as `train` or `eval`, and its step."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What one destination has of a run."""

    train_step: int = 0
    """It has the training rows up to this step."""
    steps: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """The steps that it has of every other part, ascending."""
    unsure: tuple[tuple[str, int, int], ...] = ()
    """Part, step and number of points that were sent, and of which it is not known whether they arrived."""
    next_number: int = 0
    """Points are numbered from 0, in the order in which they were sent first."""


@dataclass(frozen=True, slots=True)
class Tracked:
    """What all destinations of a tracker have of a run, and the run's identity there."""

    run_id: str
    """Letters and digits. A run folder has the same one over all its attempts; a copy of it gets another."""
    path: str
    """The run folder when the identity was made, and its inode: what tells a copy from the folder itself."""
    inode: int
    sent: Mapping[str, Sent] = field(default_factory=dict)
    """By destination."""


_FILE = TypeAdapter(Tracked)


def read_tracked(folder: RunFolder, *, name: str) -> Tracked:
    """What the tracker of this name has been sent; with a new identity where it has been sent nothing, or if this is a copy.

    Raises:
        RunFolderError: the file is damaged. Sending everything again could show the run twice.
    """
    path = folder.tracked(name)
    here, inode = str(folder.path.absolute()), os.stat(folder.path).st_ino
    if os.path.lexists(path):
        try:
            tracked: Tracked = _FILE.validate_json(read_bytes(path))
        except ValidationError as error:
            fault = error.errors()[0]
            raise RunFolderError(
                f"{path}: {'.'.join(map(str, fault['loc'])) or 'value'}: {fault['msg']}; remove the file, and {name} gets the "
                "whole run again, as another run"
            ) from error
        # a folder that was moved or mounted elsewhere keeps its inode, one that was restored its place
        if here == tracked.path or inode == tracked.inode:
            return tracked
    return Tracked(secrets.token_hex(8), here, inode)


def write_tracked(folder: RunFolder, tracked: Tracked, *, name: str) -> Path:
    """Keep what a tracker has been sent; returns the file. One process at a time may write there."""
    path = folder.tracked(name)
    write_file(path, json.dumps(asdict(tracked), ensure_ascii=False) + "\n")
    return path
