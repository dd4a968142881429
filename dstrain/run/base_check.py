"""Whether the run that `model.from_run` names has the weights, before anything is loaded. No torch."""

import os

from dstrain.checkpoint.store import find_checkpoint
from dstrain.config.arguments import shell_command
from dstrain.config.schema import RunConfig
from dstrain.errors import UserError
from dstrain.run_folder.base import check_own, has_base, parse_from_run


def check_base(config: RunConfig) -> None:
    """Raises UserError if the weights are neither in the run folder already nor in the run that the recipe names."""
    text = config.model.from_run
    if text is None or has_base(config):
        return
    wanted = parse_from_run(text)
    check_own(config, wanted=wanted)
    run = wanted.folder
    if not os.path.lexists(run.config):
        raise UserError(
            f"model.from_run `{text}`: {run.path} is not a run folder, it holds no {run.config.name}; write RUN, RUN@best or "
            "RUN@STEP"
        )
    if wanted.step is not None:
        find_checkpoint(run.path, step=wanted.step)
    elif wanted.find_model() is None:
        names = " nor ".join(f"{name}/" for name in wanted.names)
        command = shell_command(["dstrain", "verify", run.path])
        raise UserError(
            f"model.from_run `{text}`: {run.path} holds no {names}: take a checkpoint, RUN@STEP ({command} lists them)"
        )
