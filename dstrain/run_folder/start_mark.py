"""The mark of a start that does not hold the run folder yet: it checks the recipe and imports libraries, which takes seconds.

It only lets `dstrain status` say that a run is about to begin, or that its start was killed before it acquired the lease. The
lease alone decides who may write.
"""

from contextlib import suppress
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from dstrain.cluster.processes import Holder, this_process
from dstrain.run_folder.atomic import write_file
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.reading import RunFolderError, read_bytes

_HOLDER = TypeAdapter(Holder)


def mark_start(folder: RunFolder) -> None:
    """Say that this process is starting the run. A mark that cannot be written is left out: the lease reports what is wrong."""
    with suppress(OSError):
        write_file(folder.start_mark, _HOLDER.dump_json(this_process()))


def read_start_mark(run_dir: Path) -> Holder | None:
    """The process that started the run last, which may have ended since; None if there is no readable mark."""
    try:
        return _HOLDER.validate_json(read_bytes(RunFolder(run_dir).start_mark), strict=True)
    except (OSError, RunFolderError, ValidationError):
        return None
