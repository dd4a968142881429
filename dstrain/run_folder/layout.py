"""Every name in a run folder."""

from pathlib import Path

from dstrain.config.schema import RunConfig
from dstrain.errors import UserError


def make_run_dir(config: RunConfig) -> Path:
    """The run folder, made if need be; raises UserError where it cannot be."""
    run_dir = Path(config.run_dir)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"output_dir: the run folder {run_dir} cannot be made ({error.strerror}); override output_dir=…"
        ) from error
    return run_dir
