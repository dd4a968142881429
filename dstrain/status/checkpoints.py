"""The checkpoints of a run as a table, for `dstrain verify`."""

from dstrain.checkpoint.manifest import shown
from dstrain.checkpoint.store import parse_checkpoint_name
from dstrain.checkpoint.verify import CheckpointStatus
from dstrain.reporting.terminal import aligned

MAX_SCORES = 4
"""Scores shown per checkpoint."""


def checkpoints_table(statuses: list[CheckpointStatus]) -> str:
    """One aligned line per checkpoint, with a header."""
    return aligned([("step", "lease", "content", "size", "scores", "state"), *map(_row, statuses)])


def _row(status: CheckpointStatus) -> tuple[str, str, str, str, str, str]:
    manifest = status.manifest
    name = (
        parse_checkpoint_name(status.directory) or parse_checkpoint_name(status.directory.with_suffix("")) or manifest
    )
    scores = list((manifest.scores or {}).items() if manifest else ())
    listed = " ".join(f"{shown(metric)} {value:.4f}" for metric, value in scores[:MAX_SCORES])
    return (
        str(name.step) if name else "?",
        str(name.lease) if name else "?",
        manifest.content if manifest else "-",
        f"{status.num_bytes / 1e6:,.1f} MB",
        f"{listed} …" if len(scores) > MAX_SCORES else listed or "-",
        _state(status),
    )


def _state(status: CheckpointStatus) -> str:
    if status.is_leftover:
        return f"unfinished: {status.directory.name}, removed by the next save"
    parts = ["valid" if status.problem is None else f"broken: {status.problem}"]
    if status.is_superseded:
        parts.append("superseded: a later attempt resumed from an earlier step")
    if status.is_next:
        parts.append("the next attempt resumes from here")
    return "; ".join(parts)
