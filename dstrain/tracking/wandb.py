"""Weights & Biases: online, or with WANDB_MODE=offline into files of the run folder."""

import os
import sys
from collections.abc import Sequence
from typing import Any

from dstrain.run_folder.record import Status
from dstrain.tracking.tracker import Place, Point, TrackedRun, Tracker

_OFFLINE = ("offline", "dryrun")
_INIT_SECONDS = 60.0
"""Seconds for the server to answer when the run is opened."""


class WandB(Tracker):
    """A run of W&B, which another attempt continues under its id.

    W&B refuses a step that is not newer than the last one, and evaluations of other jobs come late. So its own step is the number
    of a point, which also makes it drop what it has already, and the training step is the x-axis of every chart.
    """

    package = "wandb"
    is_sure_when_sent = False  # its own process sends to the server, later

    def __init__(self, place: Place) -> None:
        self._place = place
        self._run: Any = None

    @property
    def destination(self) -> str:
        if os.environ.get("WANDB_MODE") in _OFFLINE:
            return "offline"
        uri = self._place.uri or os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"
        names = (os.environ.get("WANDB_ENTITY"), self._place.project or os.environ.get("WANDB_PROJECT"))
        return " ".join([uri, *(name for name in names if name)])

    @property
    def address(self) -> str | None:
        return None if self._run is None or self._run.offline else self._run.url

    def open(self, run: TrackedRun) -> int | None:
        if "wandb" not in sys.modules:
            # the service of a program that has started this one, and may end before it
            os.environ.pop("WANDB_SERVICE", None)
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb  # optional, and takes a second

        self._place.folder.mkdir(parents=True, exist_ok=True)
        given = {} if self._place.uri is None else {"base_url": self._place.uri}
        self._run = wandb.init(
            id=run.id,
            name=run.name,
            project=self._place.project,
            config=dict(run.config),
            resume="allow",
            allow_val_change=True,
            dir=os.environ.get("WANDB_DIR") or str(self._place.folder),
            # this process only sends: its output, packages, code and load say nothing about the run
            settings=wandb.Settings(
                silent=True,
                symlink=False,  # a start refuses a run folder with links in it
                console="off",
                x_disable_stats=True,
                x_disable_meta=True,
                x_disable_machine_info=True,
                x_save_requirements=False,
                disable_git=True,
                save_code=False,
                init_timeout=_INIT_SECONDS,
                **given,
            ),
        )
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")
        return None if self._run.offline else int(self._run.starting_step)

    def send(self, points: Sequence[Point]) -> None:
        for point in points:
            self._run.log({"step": point.step, **point.values}, step=point.number, commit=True)

    def close(self, status: Status) -> None:
        self._run.finish()
