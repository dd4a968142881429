"""Files that are written whole or not at all, whatever is killed meanwhile."""

import os
from pathlib import Path


def sync_path(path: Path) -> None:
    """Make a file's content, or the names in a directory, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
