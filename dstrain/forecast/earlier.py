"""The rates that earlier runs have reached on such hardware, from their metrics.jsonl. Reads run folders, and no torch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from dstrain.config.schema import RunConfig
from dstrain.errors import UserError
from dstrain.forecast.architecture import Architecture
from dstrain.forecast.durations import forward_operations
from dstrain.forecast.gpus import Gpu, recognise
from dstrain.forecast.model_source import find_model
from dstrain.forecast.pace import Rates
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.record import RunRecord, load_record
from dstrain.run_folder.rows import TrainRow

SIZE_FACTOR = 3.0
"""A run counts as of the same size if its parameters are at most so many times more or fewer."""
MOST_RUNS = 100
"""Folders beside the run folder that are looked at, the newest first."""
SKIPPED_ROWS = 1
"""Rows at the beginning of an attempt that hold its warm-up."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which runs are alike."""

    precision: str
    kind: str
    num_parameters: int
    device: str
    gpu: Gpu | None


def rates_of(run: Path) -> Rates:
    """What a run has reached that the user names.

    Raises:
        UserError: it is no run folder, or has trained too little to say.
    """
    record = load_record(run)
    found = _rates(record, run=run)
    if found is None:
        raise UserError(
            f"--like {run}: it has no two training rows with a time, or its model is not of a family whose operations are "
            "known: name a run that has trained for longer, or leave --like out"
        )
    return found


def find_rates(config: RunConfig, *, wanted: Wanted) -> list[Rates]:
    """What the runs beside the recipe's run folder have reached, as far as they are alike; damaged ones are left out."""
    folder = Path(config.run_dir).absolute().parent
    if not folder.is_dir():
        return []
    runs = [path for path in folder.iterdir() if RunFolder(path).metrics.is_file()]
    found = []
    for run in sorted(runs, key=lambda path: -RunFolder(path).metrics.stat().st_mtime)[:MOST_RUNS]:
        try:
            record = load_record(run)
        except (UserError, OSError, RecursionError):
            continue
        if is_alike(record, wanted=wanted) and (rates := _rates(record, run=run)) is not None:
            found.append(rates)
    return found


def is_alike(record: RunRecord, *, wanted: Wanted) -> bool:
    """Whether a run says something of the one that is wanted: device, precision, architecture and size."""
    size = record.info.model.num_parameters
    if record.config.precision != wanted.precision or not size or record.info.device is None:
        return False
    if not 1 / SIZE_FACTOR <= size / wanted.num_parameters <= SIZE_FACTOR:
        return False
    if record.info.device == "cpu" or wanted.device == "cpu":
        same_device = record.info.device == wanted.device
    else:
        same_device = wanted.gpu is not None and recognise(record.info.device) == wanted.gpu
    architecture = _architecture(record)
    return same_device and architecture is not None and architecture.kind == wanted.kind


def _architecture(record: RunRecord) -> Architecture | None:
    try:
        facts = find_model(record.config.model, num_kept=record.info.model.trained_ids)
    except (UserError, OSError):
        return None
    architecture, num = facts.architecture, record.info.model.num_parameters
    if architecture is None or num is None:
        return None
    # the rows that the run's tokenizer needed, by the number of its parameters
    more = num - sum(weight.numel for weight in facts.weights)
    per_row = architecture.hidden * (2 if architecture.has_own_head else 1)
    return replace(architecture, vocabulary=max(1, architecture.vocabulary + round(more / per_row)))


def _rates(record: RunRecord, *, run: Path) -> Rates | None:
    architecture, world_size = _architecture(record), record.info.world_size or 1
    if architecture is None:
        return None
    operations = seconds = 0.0
    for before, row in _intervals(record.train_rows):
        assert row.elapsed_seconds is not None
        assert before.elapsed_seconds is not None
        seconds += row.elapsed_seconds - before.elapsed_seconds
        operations += 3.0 * forward_operations(
            architecture,
            source=row.padded_source_tokens,
            target=row.padded_target_tokens,
            labels=row.target_tokens,
        )
    if seconds <= 0 or operations <= 0:
        return None
    return Rates(
        run.name, operations / seconds / world_size, _evaluation_rate(record, architecture, world_size=world_size)
    )


def _intervals(rows: Sequence[TrainRow]) -> list[tuple[TrainRow, TrainRow]]:
    """Pairs of rows that follow each other in one attempt, without those of its warm-up."""
    timed = [row for row in rows if row.elapsed_seconds is not None]
    pairs = list(pairwise(timed))
    return [(one, two) for one, two in pairs[SKIPPED_ROWS - 1 :] if one.lease == two.lease]


def _evaluation_rate(record: RunRecord, architecture: Architecture, *, world_size: int) -> float | None:
    report = record.info.data.get("eval")
    took = [row.seconds for row in record.eval_rows if row.seconds]
    if report is None or not took or not report.source_tokens or not report.target_tokens:
        return None
    beams = record.config.evaluation.num_beams
    written = report.target_tokens * beams
    operations = forward_operations(
        architecture, source=report.source_tokens, target=report.target_tokens, labels=report.target_tokens
    ) + forward_operations(architecture, source=0, target=written, labels=written)
    # the last ones, because an untrained model writes longer hypotheses
    recent = took[-5:]
    return operations * len(recent) / sum(recent) / world_size
