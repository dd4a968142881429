"""What a rank prints: its own words, and none of what libraries say of themselves. Called before they are imported."""

import logging
import os
import sys
import warnings
from pathlib import Path

from dstrain.cluster.environment import ProcessInfo

log = logging.getLogger("dstrain")


def quiet_libraries(process: ProcessInfo) -> None:
    """Set up logging, and the environment that libraries read when they are imported."""
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s" if process.rank == 0 else f"rank {process.rank}: %(message)s",
        stream=sys.stderr,
    )
    log.setLevel(logging.INFO if process.rank == 0 else logging.WARNING)
    # set before the import: DeepSpeed warns on every rank that a CPU is a CPU, torch of names that DeepSpeed calls
    logging.getLogger("DeepSpeed").addFilter(lambda entry: entry.levelno >= logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed.*")
    # without an activated environment DeepSpeed would not find ninja beside this interpreter
    tools = str(Path(sys.executable).parent)
    os.environ["PATH"] = f"{tools}{os.pathsep}{os.environ.get('PATH', '')}"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
