"""Bytes on disk over a whole run: checkpoints by the retention rule, exported models, hypotheses. Pure."""

from dataclasses import dataclass

from dstrain.checkpoint.disk_space import FP32_BYTES, MODELS
from dstrain.config.schema import RunConfig
from dstrain.forecast.workload import Workload

BYTES_PER_TOKEN = 5
"""Of the texts that an evaluation writes: hypotheses, references and sources."""


@dataclass(frozen=True, slots=True)
class Disk:
    """Bytes in the run folder, at most and at the end."""

    checkpoint: int
    """One full checkpoint."""
    checkpoints: int
    """All that are kept at a time, and the one that is being written."""
    kept_weights: int
    """Older checkpoints without optimizer state, at the end (`checkpoint.keep_weights_every_steps`)."""
    models: int
    """The exported models, and one while it is replaced."""
    texts: int
    """Hypotheses, references and sources of all evaluations; about."""

    @property
    def total(self) -> int:
        return self.checkpoints + self.kept_weights + self.models + self.texts


def find_disk(
    config: RunConfig, *, num_trained: int, num_exported: int, num_moments: int, width: int, workload: Workload | None
) -> Disk:
    """What a run writes. `width` is the number of bytes of an exported element; without a workload no evaluation is counted."""
    weights = num_trained * FP32_BYTES
    checkpoint = weights * (1 + num_moments)
    settings = config.checkpoint
    kept = texts = 0
    if workload is not None:
        every = settings.keep_weights_every_steps
        saves = workload.num_saves
        # the newest are kept in full, and of the others the best as weights
        full = min(settings.keep_last, saves)
        if every is not None:
            interval = max(every, -(-workload.total_steps // max(1, saves)))
            kept = weights * max(0, workload.total_steps // interval - full)
        searches = workload.searches
        tokens = sum(2 * batch.labels + batch.num_rows * batch.source for batch in searches.batches)
        texts = BYTES_PER_TOKEN * tokens * workload.num_evaluations
    num_models = MODELS + 1 + (1 if config.evaluation.average_last else 0)
    return Disk(
        checkpoint=checkpoint,
        checkpoints=checkpoint * (settings.keep_last + 1) + weights,
        kept_weights=kept,
        models=num_exported * width * num_models,
        texts=texts,
    )
