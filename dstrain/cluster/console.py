"""Sets up what a rank prints: its own log messages, without the noise of libraries. Called before these are imported."""

import logging
import os
import sys
import warnings
from pathlib import Path

from dstrain.cluster.environment import ProcessInfo

log = logging.getLogger("dstrain")


def quiet_libraries(process: ProcessInfo) -> None:
    """Set up logging and the environment variables that libraries read when they are imported."""
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s" if process.rank == 0 else f"rank {process.rank}: %(message)s",
        stream=sys.stderr,
    )
    log.setLevel(logging.INFO if process.rank == 0 else logging.WARNING)
    # DeepSpeed warns on every rank about a missing GPU, and torch warns about deprecated functions that DeepSpeed calls
    logging.getLogger("DeepSpeed").addFilter(lambda entry: entry.levelno >= logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed.*")
    # so that DeepSpeed finds the ninja beside this interpreter even if the environment is not activated
    tools = str(Path(sys.executable).parent)
    os.environ["PATH"] = f"{tools}{os.pathsep}{os.environ.get('PATH', '')}"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def hide_gpus() -> None:
    """Make torch and DeepSpeed, which are imported later, use the CPU."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ["DS_ACCELERATOR"] = "cpu"
