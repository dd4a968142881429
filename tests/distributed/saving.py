"""A complete save, and loading it; the tests of this folder import it by name."""

from pathlib import Path
from typing import Any

from dstrain.cluster.process_group import Ranks


def save_now(root: Path, *, engine: Any, step: int, ranks: Ranks, **state: Any) -> Path:
    """Save an engine's state as step `step` and wait for the checkpoint."""
    from dstrain.checkpoint.saver import RunIdentity, Saver
    from dstrain.checkpoint.state import RunState

    saver = Saver(
        root,
        engine=engine,
        identity=RunIdentity(recipe_hash="", recipe={}, versions={}),
        ranks=ranks,
        check_lease=lambda: None,
        sync_records=lambda: None,
        prune=lambda: None,
        on_stage=lambda phase: None,
    )
    values: dict[str, Any] = {"epoch": 0, "step_in_epoch": step, "cut": {}, "data": {}} | state
    saver.save(RunState(step=step, **values), scores=None)
    (outcome,) = saver.finish()
    assert outcome.directory is not None, outcome.problem
    return outcome.directory


def resume_weights(directory: Path, *, module: Any) -> None:
    """The part of a resume before the engine is built."""
    from dstrain.checkpoint.state import load_weights

    load_weights(directory, module=module)


def resume_optimizer(directory: Path, *, engine: Any) -> None:
    """The part of a resume after the engine is built."""
    from dstrain.checkpoint.state import load_optimizer, load_state

    load_optimizer(directory, engine=engine, state=load_state(directory))


def saved_dir(root: Path, *, step: int) -> Path:
    """The committed directory of a step."""
    from dstrain.checkpoint.store import CheckpointName

    return root / str(CheckpointName(step, 0))
