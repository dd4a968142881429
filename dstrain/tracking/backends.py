"""The trackers by name: those of dstrain, and those that installed packages bring."""

from collections.abc import Mapping
from importlib import metadata
from importlib.util import find_spec

from dstrain.config.machine import Tracker as TrackerSettings
from dstrain.config.schema import RunConfig
from dstrain.errors import UserError
from dstrain.run_folder.layout import RunFolder
from dstrain.tracking.mlflow import MLflow
from dstrain.tracking.tensorboard import TensorBoard
from dstrain.tracking.tracker import Place, Tracker
from dstrain.tracking.wandb import WandB

TENSORBOARD = "tensorboard"
BUILT_IN: Mapping[str, type[Tracker]] = {TENSORBOARD: TensorBoard, "wandb": WandB, "mlflow": MLflow}
GROUP = "dstrain.trackers"
"""The group of entry points by which a package brings a tracker of its own."""


def tracker_names() -> list[str]:
    """The names of all trackers, those of installed packages after dstrain's; none is imported."""
    return list(dict.fromkeys([*BUILT_IN, *(found.name for found in metadata.entry_points(group=GROUP))]))


def wanted_trackers(config: RunConfig) -> tuple[str, ...]:
    """The names of the trackers that show a run by its recipe."""
    wanted = config.logging.tensorboard
    has_tensorboard = _is_installed(TensorBoard.package) if wanted is None else wanted
    return (*([TENSORBOARD] if has_tensorboard else []), *config.logging.trackers)


def check_trackers(config: RunConfig) -> None:
    """Raises UserError where a tracker that the recipe names is unknown, or its package is not installed."""
    keys = {f"logging.trackers.{name}": name for name in config.logging.trackers}
    if config.logging.tensorboard:
        keys["logging.tensorboard"] = TENSORBOARD
    for key, name in keys.items():
        try:
            find_tracker(name)
        except UserError as error:
            raise UserError(f"{key}: {error}, or remove the key and use `dstrain track` later") from error


def find_tracker(name: str) -> type[Tracker]:
    """The tracker of this name; raises UserError if there is none, or if its package is not installed."""
    tracker = BUILT_IN.get(name) or _load(name)
    if tracker.package and not _is_installed(tracker.package):
        command = f"pip install 'dstrain[{name}]'" if name in BUILT_IN else f"pip install {tracker.package}"
        raise UserError(f"the package `{tracker.package}` is not installed: {command}")
    return tracker


def make_tracker(name: str, *, folder: RunFolder, settings: TrackerSettings) -> Tracker:
    """The tracker of this name for the run in a folder; raises UserError as `find_tracker`."""
    own = folder.tensorboard if name == TENSORBOARD else folder.trackers / name
    return find_tracker(name)(Place(own, settings.project, settings.uri))


def _load(name: str) -> type[Tracker]:
    found = next(iter(metadata.entry_points(group=GROUP, name=name)), None)
    if found is None:
        raise UserError(
            f"there is no tracker `{name}`: take one of {', '.join(BUILT_IN)}, or install a package that has an entry point of "
            f"this name in the group {GROUP}"
        )
    try:
        loaded = found.load()
    except (Exception, SystemExit) as error:  # whatever a stranger's module does when it is imported
        raise UserError(
            f"the tracker `{name}` ({found.value}) cannot be imported ({type(error).__name__}: {error}): install its "
            "package again"
        ) from error
    if not (isinstance(loaded, type) and issubclass(loaded, Tracker)):
        raise UserError(
            f"`{found.value}` is no tracker: it must be a class derived from dstrain.tracking.tracker.Tracker"
        )
    return loaded


def _is_installed(package: str) -> bool:
    spec = find_spec(package)
    return spec is not None and spec.origin is not None  # a folder of that name, as W&B leaves, has no origin
