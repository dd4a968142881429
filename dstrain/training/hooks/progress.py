"""Records in the rank's record that the next step has begun; the last of the hooks."""

from collections.abc import Callable

from dstrain.training.state import Control, Hook, Progress, StepInfo


class ProgressHook(Hook):
    """Ends the phase that another hook has entered, because the next step begins after the last hook."""

    name = "progress"

    def __init__(self, *, enter: Callable[..., None]) -> None:
        self._enter = enter

    def on_start(self, progress: Progress, control: Control) -> None:
        self._enter("step", step=progress.step)

    def on_step(self, info: StepInfo, control: Control) -> None:
        self._enter("step", step=info.step)

    def on_stop(self, progress: Progress, control: Control) -> None:
        self._enter("finish", step=progress.step)
